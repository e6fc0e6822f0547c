//! What the assign bucket holds.

use std::collections::{BTreeMap, BTreeSet};

use shared::message::Assignment;
use shared::name::{NodeName, PoolId};

use super::{Held, Key};
use crate::fact::{Stored, StoredValue};

/// The assign bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct AssignBucket {
    keys: BTreeMap<NodeName, Key<Assignment>>,
    /// The highest revision of each node that was ever seen: agents hold a lower one for an older one, even when the key
    /// was lost meanwhile.
    revs: BTreeMap<NodeName, u64>,
    /// Nodes whose last write ended nobody knows how, and the pools that their agents had been told before: the write may
    /// be there, but its copy was not sent.
    untold: BTreeMap<NodeName, Vec<PoolId>>,
    fresh: bool,
    /// As [`super::IntentsBucket::reads`].
    reads: u64,
}

impl AssignBucket {
    /// As [`super::IntentsBucket::reads`].
    pub(crate) fn reads(&self) -> u64 {
        self.reads
    }

    /// Whether it was read since the last disconnect.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// What is known may have been overtaken.
    pub(crate) fn disconnected(&mut self) {
        self.fresh = false;
    }

    /// Takes a full read: what is not in it is gone.
    pub(crate) fn read(&mut self, entries: Vec<Stored<NodeName, Assignment>>) {
        let listed: BTreeSet<&NodeName> = entries.iter().map(|e| &e.key).collect();
        // What is gone without a marker was lost: its agent still holds what it was told.
        for (_, key) in self.keys.iter_mut().filter(|(node, _)| !listed.contains(node)) {
            (key.seq, key.held) = (0, Held::Nothing);
        }
        for Stored { key, seq, value } in entries {
            self.take(Stored { key, seq, value });
        }
        self.fresh = true;
        self.reads += 1;
    }

    /// Sequence of a key.
    pub(crate) fn seq(&self, node: &NodeName) -> u64 {
        self.keys.get(node).map_or(0, |k| k.seq)
    }

    /// As [`super::IntentsBucket::changed`].
    pub(crate) fn changed(&mut self, stored: Stored<NodeName, Assignment>) -> bool {
        stored.seq > self.seq(&stored.key) && self.take(stored)
    }

    /// As [`super::IntentsBucket::reread`].
    pub(crate) fn reread(&mut self, stored: Stored<NodeName, Assignment>) {
        self.take(stored);
    }

    fn take(&mut self, stored: Stored<NodeName, Assignment>) -> bool {
        if stored.seq == 0 {
            return self.keys.remove(&stored.key).is_some();
        }
        self.note(&stored.key, &stored.value);
        self.keys.entry(stored.key).or_default().take(stored.seq, stored.value)
    }

    /// A write of ours may have ended either way; `told` is what its agent had been told before.
    pub(crate) fn in_doubt(&mut self, node: NodeName, told: Vec<PoolId>) {
        self.untold.entry(node).or_insert(told);
    }

    /// Whether a node must be written again, whatever the key holds.
    pub(crate) fn is_in_doubt(&self, node: &NodeName) -> bool {
        self.untold.contains_key(node)
    }

    /// Takes the acknowledgement of a write of ours, unless the watch has said something newer.
    pub(crate) fn acknowledged(&mut self, node: &NodeName, seq: u64, assignment: Option<&Assignment>) {
        self.untold.remove(node);
        let value = assignment.map_or(StoredValue::Marker, |a| StoredValue::Value(a.clone()));
        self.note(node, &value);
        let key = self.keys.entry(node.clone()).or_default();
        if seq > key.seq {
            key.take(seq, value);
        }
    }

    fn note(&mut self, node: &NodeName, value: &StoredValue<Assignment>) {
        if let StoredValue::Value(assignment) = value {
            let rev = self.revs.entry(node.clone()).or_default();
            *rev = (*rev).max(assignment.rev);
        }
    }

    /// The revision of a node's next assignment.
    pub(crate) fn next_rev(&self, node: &NodeName) -> u64 {
        self.revs.get(node).map_or(1, |rev| rev.saturating_add(1))
    }

    /// One key.
    pub(crate) fn get(&self, node: &NodeName) -> Option<&Key<Assignment>> {
        self.keys.get(node)
    }

    /// How many keys hold what a newer version has written.
    pub(crate) fn newer(&self) -> usize {
        self.keys.values().filter(|key| !key.is_ours()).count()
    }

    /// Every key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&NodeName, &Key<Assignment>)> {
        self.keys.iter()
    }

    /// The pools that the agent of a node has last been told, as far as is known.
    pub(crate) fn pools_of(&self, node: &NodeName) -> &[PoolId] {
        let held = || self.keys.get(node).and_then(|k| k.good.as_ref()).map(|a| &a.pools);
        self.untold.get(node).or_else(held).map_or(&[], Vec::as_slice)
    }
}
