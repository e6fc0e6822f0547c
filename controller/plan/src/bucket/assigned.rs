//! What the assign bucket holds.

use std::collections::{BTreeMap, BTreeSet};

use shared::message::Assignment;
use shared::message::assignment::Pressure;
use shared::name::{NodeName, PoolId};

use super::{Held, Key};
use crate::fact::{Stored, StoredValue};
use crate::lists::{Lists, PoolList};

/// A stored assignment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    /// Names the node whose key it stands under.
    pub(crate) is_of_its_key: bool,
    /// UID of the Node.
    pub(crate) uid: String,
    /// Its pools.
    pub(crate) pools: PoolList,
    /// Counts the writes.
    pub(crate) rev: u64,
    /// What is short.
    pub(crate) pressure: Vec<Pressure>,
    /// Limits by name.
    pub(crate) limits: BTreeMap<String, u64>,
    /// Who wrote it.
    pub(crate) term: u64,
}

/// The assign bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct AssignBucket {
    keys: BTreeMap<NodeName, Key<Told>>,
    /// The highest revision of each node that was ever seen: agents hold a lower one for an older one, even when the key
    /// was lost meanwhile.
    revs: BTreeMap<NodeName, u64>,
    /// Nodes whose last write ended nobody knows how, and the pools that their agents had been told before: the write may
    /// be there, but its copy was not sent.
    untold: BTreeMap<NodeName, PoolList>,
    lists: Lists,
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
    pub(crate) fn overtaken(&mut self) {
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
        let value = self.value(&stored.key, stored.value);
        self.note(&stored.key, &value);
        self.keys.entry(stored.key).or_default().take(stored.seq, value)
    }

    fn value(&mut self, node: &NodeName, value: StoredValue<Assignment>) -> StoredValue<Told> {
        match value {
            StoredValue::Value(assignment) => StoredValue::Value(self.told_by(node, assignment)),
            StoredValue::Newer(newer) => StoredValue::Newer(newer),
            StoredValue::Undecodable => StoredValue::Undecodable,
            StoredValue::Marker => StoredValue::Marker,
        }
    }

    fn told_by(&mut self, node: &NodeName, assignment: Assignment) -> Told {
        Told {
            is_of_its_key: assignment.node == *node,
            uid: assignment.uid,
            pools: self.lists.one(&assignment.pools),
            rev: assignment.rev,
            pressure: assignment.pressure,
            limits: assignment.limits,
            term: assignment.term,
        }
    }

    /// A write of ours may have ended either way; `told` is what its agent had been told before.
    pub(crate) fn in_doubt(&mut self, node: NodeName, told: Option<PoolList>) {
        let told = told.unwrap_or_else(|| self.lists.one(&[]));
        self.untold.entry(node).or_insert(told);
    }

    /// Whether a node must be written again, whatever the key holds.
    pub(crate) fn is_in_doubt(&self, node: &NodeName) -> bool {
        self.untold.contains_key(node)
    }

    /// Takes the acknowledgement of a write of ours, unless the watch has said something newer.
    pub(crate) fn acknowledged(&mut self, node: &NodeName, seq: u64, assignment: Option<&Assignment>) {
        self.untold.remove(node);
        let value = assignment.map_or(StoredValue::Marker, |a| StoredValue::Value(self.told_by(node, a.clone())));
        self.note(node, &value);
        let key = self.keys.entry(node.clone()).or_default();
        if seq > key.seq {
            key.take(seq, value);
        }
    }

    fn note(&mut self, node: &NodeName, value: &StoredValue<Told>) {
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
    pub(crate) fn get(&self, node: &NodeName) -> Option<&Key<Told>> {
        self.keys.get(node)
    }

    /// How many keys hold what a newer version has written.
    pub(crate) fn newer(&self) -> usize {
        self.keys.values().filter(|key| !key.is_ours()).count()
    }

    /// Every key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&NodeName, &Key<Told>)> {
        self.keys.iter()
    }

    /// The pools that the agent of a node has last been told, as far as is known.
    pub(crate) fn pools_of(&self, node: &NodeName) -> &[PoolId] {
        self.told(node).map_or(&[], |told| told)
    }

    /// As [`AssignBucket::pools_of`], if it has been told anything.
    pub(crate) fn told(&self, node: &NodeName) -> Option<&PoolList> {
        let held = || self.keys.get(node).and_then(|k| k.good.as_ref()).map(|a| &a.pools);
        self.untold.get(node).or_else(held)
    }
}
