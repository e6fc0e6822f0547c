//! What was issued and not yet answered, and what failed and waits.
//!
//! Owns "at most one batch a bucket in flight" and the backoff of each key. Never decides what is to be written.

use std::collections::BTreeMap;

use fastrand::Rng;
use shared::backoff::Backoff;
use shared::machine::Moment;
use shared::message::Assignment;
use shared::name::{NodeName, PoolId};
use shared::reason::Reason;
use shared::subject::IntentsKey;

use crate::bucket::{AssignBucket, IntentsBucket};
use crate::effect::{AssignmentWrite, IntentChange, IntentWrite};
use crate::fact::{IntentsDoc, Stored};
use crate::lists::PoolList;

/// Waits after failures.
#[derive(Debug, Clone)]
pub(crate) struct Retries<K> {
    waits: BTreeMap<K, Wait>,
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    failures: u32,
    due: Moment,
    why: Reason,
}

impl<K> Default for Retries<K> {
    fn default() -> Self {
        Self { waits: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Retries<K> {
    /// Notes a failure; the key is left alone for a while.
    pub(crate) fn failed(&mut self, key: K, why: Reason, now: Moment, backoff: &Backoff, rng: &mut Rng) {
        let wait = self.waits.entry(key).or_insert(Wait { failures: 0, due: now, why });
        wait.why = why;
        wait.failures = wait.failures.saturating_add(1);
        wait.due = now + backoff.equal_jitter(wait.failures, rng);
    }

    /// A key that has failed is left alone until then, if that is longer.
    pub(crate) fn not_before(&mut self, key: &K, until: Moment) {
        if let Some(wait) = self.waits.get_mut(key) {
            wait.due = wait.due.max(until);
        }
    }

    /// Forgets failures of a key.
    pub(crate) fn succeeded(&mut self, key: &K) {
        self.waits.remove(key);
    }

    /// Whether a key may be tried.
    pub(crate) fn may(&self, key: &K, now: Moment) -> bool {
        self.due(key).is_none_or(|due| due <= now)
    }

    /// Until when a key is left alone.
    pub(crate) fn due(&self, key: &K) -> Option<Moment> {
        self.waits.get(key).map(|w| w.due)
    }

    /// Every wait that has not ended: the key, how often it failed in a row, when it is tried again, why it failed.
    pub(crate) fn waiting(&self, now: Moment) -> impl Iterator<Item = (&K, u32, Moment, Reason)> {
        self.waits.iter().filter(move |(_, w)| w.due > now).map(|(key, w)| (key, w.failures, w.due, w.why))
    }

    /// Whether any wait has ended, so that what failed is to be looked at again.
    pub(crate) fn has_due(&self, now: Moment) -> bool {
        self.waits.values().any(|w| w.due <= now)
    }

    /// The next wait to end after `now`.
    pub(crate) fn next(&self, now: Moment) -> Option<Moment> {
        self.waits.values().map(|w| w.due).filter(|due| *due > now).min()
    }

    /// Forgets what has not failed again for long after its wait.
    pub(crate) fn tidy(&mut self, now: Moment, backoff: &Backoff) {
        self.waits.retain(|_, wait| wait.due + backoff.ceiling * 2 > now);
    }
}

/// Writes that were issued, and their failures.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    intents: Option<IntentsInFlight>,
    assignments: Option<AssignmentsInFlight>,
    /// Backoff of keys of the intents bucket.
    pub(crate) intent_retries: Retries<IntentsKey>,
    /// Backoff of assignments.
    pub(crate) assignment_retries: Retries<NodeName>,
    /// `to` of each pool's last delta in this term.
    pub(crate) deltas: BTreeMap<PoolId, u64>,
}

/// A batch in flight.
#[derive(Debug, Clone)]
pub(crate) struct IntentsInFlight {
    /// How often the bucket had been read when it was issued.
    pub(crate) reads: u64,
    /// The last sequence of the bucket that was known when it was issued.
    pub(crate) latest: u64,
    /// Its writes with the sequences they expect.
    pub(crate) writes: BTreeMap<IntentsKey, (u64, IntentChange)>,
    /// Older content that arrived since.
    pub(crate) reread: BTreeMap<IntentsKey, Stored<IntentsKey, IntentsDoc>>,
}

/// A batch in flight.
#[derive(Debug, Clone)]
pub(crate) struct AssignmentsInFlight {
    /// How often the bucket had been read when it was issued.
    pub(crate) reads: u64,
    /// Its writes, and the pools that the agents had been told before.
    pub(crate) writes: BTreeMap<NodeName, (AssignmentWrite, Option<PoolList>)>,
    /// Older content that arrived since.
    pub(crate) reread: BTreeMap<NodeName, Stored<NodeName, Assignment>>,
}

impl Ledger {
    /// The term is another: deltas begin anew, and whatever failed before may do better now.
    pub(crate) fn renewed(&mut self) {
        self.deltas.clear();
        (self.intent_retries, self.assignment_retries) = (Retries::default(), Retries::default());
    }

    /// Notes a batch.
    pub(crate) fn issue_intents(&mut self, bucket: &IntentsBucket, writes: &[IntentWrite]) {
        let (reads, latest) = (bucket.reads(), bucket.latest());
        let writes = writes.iter().map(|w| (w.key(), (w.expected, w.write.clone()))).collect();
        self.intents = Some(IntentsInFlight { reads, latest, writes, reread: BTreeMap::new() });
    }

    /// Notes a batch.
    pub(crate) fn issue_assignments(&mut self, bucket: &AssignBucket, writes: &[AssignmentWrite]) {
        let reads = bucket.reads();
        let told = |node| bucket.told(node).cloned();
        let writes = writes.iter().map(|w| (w.node.clone(), (w.clone(), told(&w.node)))).collect();
        self.assignments = Some(AssignmentsInFlight { reads, writes, reread: BTreeMap::new() });
    }

    /// The batch has ended.
    pub(crate) fn take_intents(&mut self) -> Option<IntentsInFlight> {
        self.intents.take()
    }

    /// The batch has ended.
    pub(crate) fn take_assignments(&mut self) -> Option<AssignmentsInFlight> {
        self.assignments.take()
    }

    /// Whether a batch is in flight.
    pub(crate) fn writes_intents(&self) -> bool {
        self.intents.is_some()
    }

    /// Whether a batch is in flight.
    pub(crate) fn writes_assignments(&self) -> bool {
        self.assignments.is_some()
    }

    /// Whether a write of this key is in flight.
    pub(crate) fn writes_intent(&self, key: &IntentsKey) -> bool {
        self.intents.as_ref().is_some_and(|b| b.writes.contains_key(key))
    }

    /// Whether a write of this node's assignment is in flight.
    pub(crate) fn writes_assignment(&self, node: &NodeName) -> bool {
        self.assignments.as_ref().is_some_and(|b| b.writes.contains_key(node))
    }

    /// How many writes are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.intents.as_ref().map_or(0, |b| b.writes.len()) + self.assignments.as_ref().map_or(0, |b| b.writes.len())
    }

    /// Keeps what a re-read found of a key in flight until its outcome tells whether it is to be believed.
    pub(crate) fn keep_intent(&mut self, stored: Stored<IntentsKey, IntentsDoc>) {
        if let Some(batch) = self.intents.as_mut().filter(|b| b.writes.contains_key(&stored.key)) {
            batch.reread.insert(stored.key.clone(), stored);
        }
    }

    /// As [`Ledger::keep_intent`].
    pub(crate) fn keep_assignment(&mut self, stored: Stored<NodeName, Assignment>) {
        if let Some(batch) = self.assignments.as_mut().filter(|b| b.writes.contains_key(&stored.key)) {
            batch.reread.insert(stored.key.clone(), stored);
        }
    }
}
