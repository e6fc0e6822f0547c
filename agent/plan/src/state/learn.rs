//! What each fact changes.
//!
//! Owns learning: cheap, and without effects but answers to people. Deciding is the step's.

use shared::machine::Now;
use shared::name::ImageKey;
use shared::reason::Reason;
use shared::subject::RequestVerb;

use super::{NodeState, Settings};
use crate::effect::Effect;
use crate::explain;
use crate::fact::{Fact, PullFailure, PulledImage, Removal, RuntimeImage};
use crate::follower::Learned;
use crate::image::Attempt;
use crate::pull;

impl NodeState {
    /// Learns a fact. Gives whether a step could act on it.
    pub(super) fn learn(&mut self, fact: Fact, now: Now) -> bool {
        let mono = now.mono;
        let fact = match self.follower.learn(fact, now, &mut self.rng) {
            Learned::Taken(is_due) => return is_due,
            Learned::Other(fact) => *fact,
        };
        match fact {
            Fact::Images(result) => {
                self.listed(result, now);
                true
            }
            Fact::Pulled { id, result } => {
                self.pulled(&id, result, now);
                true
            }
            Fact::Observed(result) => self.runtime.observed(result, mono),
            Fact::InUse(result) => {
                self.collector.in_use(result, &self.settings.timing, mono);
                true
            }
            Fact::Removed { image, result } => {
                self.removed(&image, result, now);
                true
            }
            Fact::Persisted(result) => {
                self.saver.ended(result.is_ok());
                true
            }
            Fact::Request { verb, body, reply } => {
                self.requested(verb, &body, reply, now);
                true
            }
            // Of NATS: taken already.
            Fact::Connected
            | Fact::Disconnected
            | Fact::Gap
            | Fact::Meta(_)
            | Fact::AssignmentRead(_)
            | Fact::AssignmentCopy { .. }
            | Fact::Subscribed(_)
            | Fact::Delta(_)
            | Fact::Beat(_)
            | Fact::PoolRead { .. }
            | Fact::InventoryPut(_)
            | Fact::Refused { .. } => false,
        }
    }

    fn listed(&mut self, result: Result<Vec<RuntimeImage>, Reason>, now: Now) {
        let is_list = result.is_ok();
        self.runtime.listed(result, now.mono, &self.settings.timing, &mut self.rng);
        if is_list {
            let listing = &self.runtime.listing;
            self.ledger.keep(|image| listing.has(&ImageKey::of(image), image));
            self.is_look_due = true;
        }
    }

    fn pulled(&mut self, id: &ImageKey, result: Result<PulledImage, PullFailure>, now: Now) {
        let flight = self.flights.remove(id);
        match result {
            Ok(PulledImage { image: held, before, took }) => {
                if let Some(flight) = &flight {
                    self.note_pull(&flight.image, &held, before.as_ref(), now);
                }
                self.runtime.pulled(id.clone(), held, now.mono);
                self.count("pulled");
                let Some(image) = self.images.get_mut(id) else { return };
                image.attempt = Some(Attempt { took, number: image.tries.saturating_add(1) });
                image.look(id, &self.runtime.listing, now.mono);
                let is_answer = flight.is_some_and(|flight| !flight.is_outdated);
                if is_answer && !image.is_present() {
                    let failure = PullFailure { reason: Reason::Corrupt, retry_after: None, took };
                    let Settings { timing, final_after, .. } = &self.settings;
                    pull::fail(image, &failure, timing, *final_after, now, &mut self.rng);
                    self.setbacks += 1;
                }
            }
            Err(failure) => {
                self.count("pull-failed");
                if failure.reason == Reason::RuntimeUnavailable {
                    self.runtime.did_not_answer(now.mono, &self.settings.timing, &mut self.rng);
                }
                let is_answer = flight.is_some_and(|flight| !flight.is_outdated && !flight.is_cancelled);
                if let Some(image) = self.images.get_mut(id).filter(|_| is_answer) {
                    let Settings { timing, final_after, .. } = &self.settings;
                    pull::fail(image, &failure, timing, *final_after, now, &mut self.rng);
                    self.setbacks += 1;
                }
            }
        }
    }

    /// What somebody else had put there before, under whatever name, is not ours to remove.
    fn note_pull(&mut self, image: &str, held: &RuntimeImage, before: Option<&String>, now: Now) {
        let is_ours = |name: &str| self.ledger.covers(name, &held.runtime_id);
        let was_there = before == Some(&held.runtime_id) && !is_ours(image);
        if was_there || self.runtime.listing.is_of_others(&held.runtime_id, is_ours) {
            self.ledger.forget(image);
        } else {
            self.ledger.pulled(image.to_owned(), held, now.wall);
        }
    }

    fn removed(&mut self, image: &str, result: Result<Removal, Reason>, now: Now) {
        self.count(match result {
            Ok(Removal::Removed) => "removed",
            Ok(Removal::Planned) => "removal-planned",
            Ok(Removal::Used | Removal::Changed) => "removal-refrained",
            Err(_) => "removal-failed",
        });
        let bytes = self.runtime.listing.listed(image).map_or(0, |held| held.bytes);
        if self.collector.removed(image, result, bytes, &self.settings.timing, now) {
            self.ledger.forget(image);
            self.runtime.removed(now.mono);
        }
    }

    fn requested(&mut self, verb: RequestVerb, body: &str, reply: Option<u64>, now: Now) {
        let answer = self.follower.requested(verb, now.mono).unwrap_or_else(|| explain::answer(self, body, now));
        if let Some(reply) = reply {
            self.outbox.push(Effect::Reply { reply, body: answer });
        }
    }
}
