//! What each fact changes.
//!
//! Owns learning: cheap, and without effects but answers to people. Deciding is the step's.

use shared::machine::Now;
use shared::name::ImageKey;
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::RequestVerb;

use super::{NodeState, Settings};
use crate::ack;
use crate::effect::Effect;
use crate::explain;
use crate::fact::{Fact, PullFailure, PulledImage, Removal, RuntimeImage};
use crate::follower::Learned;
use crate::image::{Attempt, Look};
use crate::pull::{self, Flight};

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
        let is_refresh = flight.as_ref().is_some_and(|flight| flight.is_refresh);
        match result {
            Ok(PulledImage { image: held, before, took }) => {
                if let Some(flight) = &flight {
                    self.note_pull(flight, &held, before.as_ref(), now);
                }
                let is_same = is_refresh && before.as_ref() == Some(&held.runtime_id);
                if is_same {
                    self.runtime.confirmed(id.clone(), held);
                } else {
                    self.runtime.pulled(id.clone(), held, now.mono);
                }
                self.count(if is_refresh { "refreshed" } else { "pulled" });
                let Some(image) = self.images.get_mut(id) else { return };
                image.refresh.pulled(now.mono);
                image.attempt = Some(Attempt { took, number: image.tries.saturating_add(1) });
                if image.look(id, &self.runtime.listing, false, now.mono) == Look::Moved {
                    let uid = self.follower.uid();
                    let who = (&self.follower.identity, uid.as_str());
                    let event = ack::describe(id, image, (ImageState::Warm, None), who, now);
                    self.follower.publish(vec![event], &mut self.outbox);
                } else if image.st == ImageState::Warm {
                    // Nothing is told of it: the next event is of something else.
                    image.attempt = None;
                }
                let is_answer = flight.is_some_and(|flight| !flight.is_outdated);
                if is_answer && !image.is_present() {
                    let failure = PullFailure { reason: Reason::Corrupt, retry_after: None, took };
                    let Settings { timing, final_after, .. } = &self.settings;
                    pull::fail(image, &failure, timing, *final_after, now, &mut self.rng);
                    self.setbacks += 1;
                }
            }
            Err(failure) => {
                self.count(if is_refresh { "refresh-failed" } else { "pull-failed" });
                if failure.reason == Reason::RuntimeUnavailable {
                    self.runtime.did_not_answer(now.mono, &self.settings.timing, &mut self.rng);
                }
                let is_answer = flight.is_some_and(|flight| !flight.is_outdated && !flight.is_cancelled);
                if let Some(image) = self.images.get_mut(id).filter(|_| is_answer) {
                    let Settings { timing, final_after, .. } = &self.settings;
                    if is_refresh && image.is_present() {
                        // It stays what it is: warm.
                        image.refresh.failed(&failure, timing, *final_after, now, &mut self.rng);
                    } else {
                        pull::fail(image, &failure, timing, *final_after, now, &mut self.rng);
                    }
                    self.setbacks += 1;
                }
            }
        }
    }

    /// What somebody else had put there before, under whatever name, is not ours to remove. Nor is what a refresh finds
    /// where a tag of theirs has moved to: the content came by us, but the name is theirs, and with it they would lose an
    /// image that they believe they have.
    fn note_pull(&mut self, flight: &Flight, held: &RuntimeImage, before: Option<&String>, now: Now) {
        let image = flight.image.as_str();
        let is_own = |before: &String| self.ledger.get(image).is_some_and(|entry| entry.runtime_id == *before);
        let is_theirs = flight.is_refresh && before.is_some_and(|before| !is_own(before));
        let is_ours = |name: &str| self.ledger.covers(name, &held.runtime_id);
        let was_there = before == Some(&held.runtime_id) && !is_ours(image);
        if is_theirs || was_there || self.runtime.listing.is_of_others(&held.runtime_id, is_ours) {
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
