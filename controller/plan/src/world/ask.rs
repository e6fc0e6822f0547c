//! Being asked: what people want to know, and what they order.
//!
//! Owns the form of questions and what is said of a wrong one. What is answered is in `status.rs` and `explain.rs`.

use serde::Deserialize;
use serde_json::{Value, json};
use shared::machine::Now;
use shared::subject::{ControlVerb, IntentsKey};

use super::World;
use crate::effect::Effect;
use crate::leadership::Standing;
use crate::switch::Order;

/// Longest text of an order.
const MAX_TEXT: usize = 1_000;

/// A question that waits for the step.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) verb: ControlVerb,
    pub(super) body: String,
    pub(super) reply: u64,
}

/// The body of `ctl.pause` and `ctl.resume`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderBody {
    #[serde(default)]
    reason: String,
    by: String,
}

impl World {
    /// Takes the orders among the questions.
    pub(super) fn take_orders(&mut self, effects: &mut Vec<Effect>) {
        let (orders, questions): (Vec<_>, Vec<_>) = std::mem::take(&mut self.questions)
            .into_iter()
            .partition(|q| matches!(q.verb, ControlVerb::Pause | ControlVerb::Resume));
        self.questions = questions;
        for Question { verb, body, reply } in orders {
            let refused = match order(verb, &body) {
                Ok(order) => self.switch.order(order, reply),
                Err(body) => Some(Effect::Reply { reply, body }),
            };
            effects.extend(refused);
        }
    }

    /// Turns the switch as ordered, and puts right what is stored.
    pub(super) fn turn(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if let Err(why) = self.may_turn() {
            effects.extend(self.switch.refuse_all(&why));
            return;
        }
        effects.extend(self.switch.next(&self.intents, now));
        let leads = self.leadership.leads().is_some();
        let may = self.ledger.intent_retries.may(&IntentsKey::Control, now.mono);
        if leads && may && self.intents.control().is_wrong() && !self.switch.is_writing() {
            effects.push(self.switch.put_right(&self.intents, &self.settings.instance, now));
        }
    }

    /// An order that cannot be stored now is refused, not kept: whoever gave it would not know that it is carried out.
    fn may_turn(&self) -> Result<(), String> {
        let is_not_ours = matches!(self.leadership.standing(), Standing::Foreign(_) | Standing::Newer { .. });
        if self.intents.control().is_newer() {
            return Err("`_ctl` was written by a newer version; ask that one, or upgrade this".to_owned());
        }
        if is_not_ours || self.cluster().is_none() || !self.is_synced() || !self.sees_buckets() {
            return self.readiness().map(drop);
        }
        Ok(())
    }

    /// Whether a person has paused everything.
    pub(super) fn is_paused(&self) -> bool {
        self.intents.control().obeyed().is_some_and(|control| control.paused)
    }

    /// Answers every question.
    pub(super) fn answer(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for Question { verb, body, reply } in std::mem::take(&mut self.questions) {
            let answer = match verb {
                ControlVerb::Status => self.status(now),
                ControlVerb::Explain => self.explain(&body, now),
                // Taken by `take_orders`.
                ControlVerb::Pause | ControlVerb::Resume => continue,
            };
            effects.push(Effect::Reply { reply, body: answer });
        }
    }
}

/// The order of a body, or what is wrong with it.
fn order(verb: ControlVerb, body: &str) -> Result<Order, Value> {
    let example = match verb {
        ControlVerb::Pause => json!({ "reason": "registry maintenance until 14:00", "by": "ops@example.com" }),
        _ => json!({ "by": "ops@example.com" }),
    };
    let wrong = |what: String| json!({ "error": what, "example": example });
    let OrderBody { reason, by } =
        serde_json::from_str(body).map_err(|error| wrong(format!("the body cannot be used: {error}")))?;
    let paused = verb == ControlVerb::Pause;
    if by.trim().is_empty() {
        return Err(wrong("`by` is empty: say who you are".to_owned()));
    }
    if paused && reason.trim().is_empty() {
        return Err(wrong("`reason` is missing or empty: say why, for whoever finds it paused".to_owned()));
    }
    if reason.len() > MAX_TEXT || by.len() > MAX_TEXT {
        return Err(wrong(format!("`reason` and `by` have at most {MAX_TEXT} bytes each")));
    }
    Ok(Order { paused, reason, by })
}
