//! Labels that the newest word of an agent contradicts.
//!
//! Owns the invariant that such a label goes within one label window, as long as whoever is to remove it leads, is
//! connected and reaches the API server all the while.

use std::collections::BTreeMap;

use cluster_plan::Fact;
use cluster_plan::fact::{Stored, StoredValue};
use shared::label;
use shared::message::{Content, Event, Inventory};
use shared::name::ImageKey;
use shared::state::ImageState;

use super::api::node_number;
use super::check::Invariant;
use super::process::Who;
use super::queue::{MS, SEC, Us};
use super::universe::Universe;

/// For so long: the label window of the simulation is nothing, a failed patch waits for up to a second, and there are a
/// few nodes at two patches a second.
const BOUND: Us = 6 * SEC;
/// How often it is looked at whether the replica leads.
const LOOK: Us = 250 * MS;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Refuted {
    /// The highest counter that any replica has heard of each Node.
    newest: BTreeMap<String, u64>,
    labels: BTreeMap<(usize, ImageKey), Refutation>,
}

#[derive(Debug, Clone, Copy)]
struct Refutation {
    since: Us,
    replica: usize,
    incarnation: u64,
    look: Us,
}

impl Refuted {
    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

impl Universe {
    /// A replica learns something of what is there.
    pub(super) fn note_refutations(&mut self, replica: usize, facts: &[Fact]) {
        for fact in facts {
            match fact {
                Fact::Event(event) => self.note_event(replica, event),
                Fact::InventoryChanged(Stored { value: StoredValue::Value(inventory), .. }) => {
                    self.note_report(inventory);
                }
                _ => {}
            }
        }
    }

    /// The Node that somebody speaks for, if it is there and this is the newest word.
    fn is_newest(&mut self, node: usize, uid: &str, n: u64) -> bool {
        let is_there = self.api.nodes.get(&node).is_some_and(|object| object.uid == uid);
        let newest = self.checks.refuted.newest.entry(uid.to_owned()).or_default();
        let is_newest = n > *newest;
        *newest = n.max(*newest);
        is_there && is_newest
    }

    fn note_event(&mut self, replica: usize, event: &Event) {
        let Some(node) = node_number(&event.node) else { return };
        if !self.is_newest(node, &event.uid, event.n) {
            return;
        }
        let key = (node, event.id.clone());
        if event.st == ImageState::Warm {
            self.checks.refuted.labels.remove(&key);
        } else if let Some(incarnation) = self.incarnation(Who::Controller(replica)) {
            let refutation = Refutation { since: self.now, replica, incarnation, look: self.now };
            self.checks.refuted.labels.entry(key).or_insert(refutation);
        }
    }

    /// A report that calls it warm, or does not say that it is not, contradicts nothing.
    fn note_report(&mut self, inventory: &Inventory) {
        let Some(node) = node_number(&inventory.node) else { return };
        self.is_newest(node, &inventory.uid, inventory.n);
        let is_named = |id: &ImageKey| inventory.not_warm.iter().any(|e| e.id == *id);
        let is_not_warm = |id: &ImageKey| {
            is_named(id)
                || match &inventory.content {
                    Content::Except(list) => list.iter().any(|e| e.id == *id),
                    Content::WarmIds(ids) => inventory.complete && !ids.contains(id),
                }
        };
        self.checks.refuted.labels.retain(|(of, id), _| *of != node || is_not_warm(id));
    }

    /// Whether nothing keeps a replica from labelling.
    fn may_label(&self, refutation: &Refutation, is_look: bool) -> bool {
        let who = Who::Controller(refutation.replica);
        let Some(replica) = self.replicas.get(refutation.replica) else { return false };
        let leads = |process: &super::process::Process<cluster_plan::World>| {
            process.machine.gauges().iter().any(|(metric, _, value)| *metric == shared::metric::LEADING && *value > 0.0)
        };
        let process = replica.process.as_ref().filter(|process| process.incarnation == refutation.incarnation);
        replica.lease
            && !self.paused
            && !self.api.is_down()
            && !self.is_paused(who)
            && replica.told
            && process.is_some_and(|process| !is_look || leads(process))
    }

    /// No label may stand for long against the newest word.
    pub(super) fn check_refuted(&mut self) {
        let now = self.now;
        let labels = std::mem::take(&mut self.checks.refuted.labels);
        for ((node, id), mut refutation) in labels {
            let is_shown =
                self.api.nodes.get(&node).is_some_and(|object| object.ours.contains_key(&label::image_label(&id)));
            let is_look = refutation.look <= now;
            if !is_shown || !self.may_label(&refutation, is_look) {
                continue;
            }
            if refutation.since + BOUND < now {
                let text = format!(
                    "node-{node} is labelled with {id}, which its agent has contradicted since {} ms",
                    refutation.since / MS
                );
                return self.violated(Invariant::LabelRefuted, text);
            }
            if is_look {
                refutation.look = now + LOOK;
            }
            self.checks.refuted.labels.insert((node, id), refutation);
        }
    }
}
