//! What the assign bucket holds.

use std::collections::{BTreeMap, BTreeSet};

use shared::message::Assignment;
use shared::name::{NodeName, PoolId};

use super::Key;
use crate::fact::{Stored, StoredValue};

/// The assign bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct AssignBucket {
    keys: BTreeMap<NodeName, Key<Assignment>>,
    fresh: bool,
}

impl AssignBucket {
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
        self.keys.retain(|node, _| listed.contains(node));
        for Stored { key, seq, value } in entries {
            self.take(Stored { key, seq, value });
        }
        self.fresh = true;
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
        self.keys.entry(stored.key).or_default().take(stored.seq, stored.value)
    }

    /// Takes the acknowledgement of a write of ours, unless the watch has said something newer.
    pub(crate) fn acknowledged(&mut self, node: &NodeName, seq: u64, assignment: Option<&Assignment>) {
        let key = self.keys.entry(node.clone()).or_default();
        if seq > key.seq {
            key.take(seq, assignment.map_or(StoredValue::Marker, |a| StoredValue::Value(a.clone())));
        }
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
        self.keys.get(node).and_then(|k| k.good.as_ref()).map_or(&[], |a| &a.pools)
    }
}
