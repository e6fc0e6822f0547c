//! Turning the pause switch: orders of people, and putting right what is stored.
//!
//! Owns "one write of `_ctl` in flight" and what whoever gave an order is told. What is obeyed is the bucket's.

use std::collections::VecDeque;

use serde_json::{Value, json};
use shared::machine::Now;
use shared::message::Control;
use shared::reason::Reason;
use shared::subject::IntentsKey;

use crate::bucket::{ControlKey, IntentsBucket};
use crate::effect::Effect;
use crate::fact::{IntentsDoc, Stored};

/// How often an order is written again after somebody else was first.
const ATTEMPTS: u8 = 3;

/// Orders that wait for their turn.
const MOST: usize = 64;

/// What a person wants.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// Pause or resume.
    pub(crate) paused: bool,
    /// Why.
    pub(crate) reason: String,
    /// Who.
    pub(crate) by: String,
}

#[derive(Debug, Clone)]
struct Wish {
    order: Order,
    reply: u64,
    attempts: u8,
}

#[derive(Debug, Clone)]
struct Flight {
    /// How often the bucket had been read when it was issued.
    reads: u64,
    control: Control,
    /// Whose order it is; `None` if it only puts right what is stored.
    wish: Option<Wish>,
    /// Older content that arrived since.
    kept: Option<Stored<IntentsKey, IntentsDoc>>,
}

/// The orders.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switch {
    wishes: VecDeque<Wish>,
    flight: Option<Flight>,
}

impl Switch {
    /// Takes an order; an answer if there is no room for it.
    pub(crate) fn order(&mut self, order: Order, reply: u64) -> Option<Effect> {
        if self.wishes.len() >= MOST {
            return Some(refuse(reply, "too many orders are waiting; try again"));
        }
        self.wishes.push_back(Wish { order, reply, attempts: 0 });
        None
    }

    /// Tells everybody who waits that nothing can be written now.
    pub(crate) fn refuse_all(&mut self, why: &str) -> Vec<Effect> {
        self.wishes.drain(..).map(|wish| refuse(wish.reply, why)).collect()
    }

    /// Whether a write is in flight.
    pub(crate) fn is_writing(&self) -> bool {
        self.flight.is_some()
    }

    /// What to write next, and answers to those whose order asks for nothing new.
    pub(crate) fn next(&mut self, bucket: &IntentsBucket, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.flight.is_none() {
            let Some(wish) = self.wishes.pop_front() else { break };
            let key = bucket.control();
            match wanted(&wish.order, key, now) {
                Some(control) => effects.push(self.write(control, Some(wish), bucket)),
                None => effects.push(Effect::Reply { reply: wish.reply, body: answer(key.obeyed(), false) }),
            }
        }
        effects
    }

    /// Writes what is obeyed over what is stored.
    pub(crate) fn put_right(&mut self, bucket: &IntentsBucket, instance: &str, now: Now) -> Effect {
        let unreadable = || Control {
            paused: false,
            reason: "what stood here could not be read".to_owned(),
            by: instance.to_owned(),
            since: now.wall,
        };
        let control = bucket.control().obeyed().cloned().unwrap_or_else(unreadable);
        self.write(control, None, bucket)
    }

    fn write(&mut self, control: Control, wish: Option<Wish>, bucket: &IntentsBucket) -> Effect {
        let reads = bucket.reads();
        self.flight = Some(Flight { reads, control: control.clone(), wish, kept: None });
        Effect::WriteControl { control, expected: bucket.control().seq() }
    }

    /// Keeps what a re-read found until the outcome of the write tells whether it is to be believed.
    pub(crate) fn keep(&mut self, stored: Stored<IntentsKey, IntentsDoc>) {
        if let Some(flight) = &mut self.flight {
            flight.kept = Some(stored);
        }
    }

    /// Learns how the write ended. Gives the answer to whoever waits for it, and why the write is to be tried again
    /// after a while.
    pub(crate) fn written(
        &mut self,
        result: Result<u64, Reason>,
        bucket: &mut IntentsBucket,
    ) -> (Option<Effect>, Option<Reason>) {
        let Some(Flight { reads, control, wish, kept }) = self.flight.take() else {
            return (None, None);
        };
        let is_current = reads == bucket.reads();
        if let Some(stored) = kept.filter(|_| is_current && result == Err(Reason::Conflict)) {
            bucket.reread(stored);
        }
        match (result, wish) {
            (Ok(seq), wish) if is_current => {
                bucket.control_acknowledged(seq, &control);
                let told = |wish: Wish| Effect::Reply { reply: wish.reply, body: answer(Some(&control), true) };
                (wish.map(told), None)
            }
            // Another was first, or the stream is another: the order is weighed again against what is there.
            (Ok(_) | Err(Reason::Conflict), Some(wish)) if wish.attempts < ATTEMPTS => {
                self.wishes.push_front(Wish { attempts: wish.attempts + 1, ..wish });
                (None, None)
            }
            (Ok(_), wish) => (wish.map(|w| refuse(w.reply, "NATS lost its data meanwhile; try again")), None),
            (Err(reason), Some(wish)) => {
                (Some(refuse(wish.reply, &format!("it could not be written ({reason}); try again"))), None)
            }
            (Err(reason), None) => (None, Some(reason)),
        }
    }
}

/// What an order would have stored; nothing if that is what is stored.
fn wanted(order: &Order, key: &ControlKey, now: Now) -> Option<Control> {
    let there = key.obeyed().filter(|there| there.paused == order.paused);
    let is_said = match there {
        Some(there) => !order.paused || (there.reason == order.reason && there.by == order.by),
        None => !order.paused && key.obeyed().is_none(),
    };
    (!is_said || key.is_wrong()).then(|| Control {
        paused: order.paused,
        reason: order.reason.clone(),
        by: order.by.clone(),
        since: there.map_or(now.wall, |there| there.since),
    })
}

fn answer(control: Option<&Control>, changed: bool) -> Value {
    let paused = control.is_some_and(|control| control.paused);
    let text = match (paused, changed) {
        (true, true) => "paused: no intent changes and no pull starts any more; pulls in flight end by themselves",
        (true, false) => "it was paused already",
        (false, true) => "resumed: everything catches up",
        (false, false) => "it was not paused",
    };
    json!({
        "paused": paused,
        "changed": changed,
        "reason": control.map(|c| &c.reason),
        "by": control.map(|c| &c.by),
        "since": control.map(|c| c.since),
        "text": text,
    })
}

/// An answer that says why not.
fn refuse(reply: u64, why: &str) -> Effect {
    Effect::Reply { reply, body: json!({ "error": why }) }
}
