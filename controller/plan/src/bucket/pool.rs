//! One pool in the intents bucket.
//!
//! Owns its live set, the last sets it was, and what a report about one of them still proves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use shared::message::{Intent, SnapshotHead, SnapshotIntent};
use shared::name::{ImageKey, PoolId};
use shared::pool_set::{PoolSet, PoolSummary};

use super::{Held, Key};
use crate::fact::StoredValue;

/// How many earlier sets are remembered.
const HISTORY: usize = 256;

/// One pool.
#[derive(Debug, Clone)]
pub(crate) struct PoolBucket {
    definition: Key<Value>,
    snapshot: Key<SnapshotHead>,
    intents: BTreeMap<ImageKey, Key<Arc<Intent>>>,
    /// Live intents, undecodable ones included: agents count them too.
    set: PoolSet,
    /// Since which sequence each has been live without a break.
    born: BTreeMap<ImageKey, u64>,
    /// Earlier sets, newest last, as steps back.
    past: VecDeque<Past>,
    /// Counts the sets.
    version: u64,
}

/// The set before a change, and how to get there from the set after it.
#[derive(Debug, Clone)]
struct Past {
    summary: PoolSummary,
    id: ImageKey,
    seq: Option<u64>,
}

impl PoolBucket {
    pub(super) fn new(pool: PoolId) -> Self {
        Self {
            definition: Key::default(),
            snapshot: Key::default(),
            intents: BTreeMap::new(),
            set: PoolSet::new(pool),
            born: BTreeMap::new(),
            past: VecDeque::new(),
            version: 0,
        }
    }

    /// The document for people.
    pub(crate) fn definition(&self) -> &Key<Value> {
        &self.definition
    }

    /// What its snapshot is of.
    pub(crate) fn snapshot(&self) -> &Key<SnapshotHead> {
        &self.snapshot
    }

    /// One key.
    pub(crate) fn intent(&self, id: &ImageKey) -> Option<&Key<Arc<Intent>>> {
        self.intents.get(id)
    }

    /// Every key, markers included.
    pub(crate) fn intents(&self) -> impl Iterator<Item = (&ImageKey, &Key<Arc<Intent>>)> {
        self.intents.iter()
    }

    /// Every key that holds something.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&ImageKey, &Key<Arc<Intent>>)> {
        self.intents.iter().filter(|(_, key)| key.held != Held::Nothing)
    }

    /// Every intent with its sequence, as they are stored; `None` if one of them is not known.
    pub(crate) fn written(&self) -> Option<Vec<SnapshotIntent>> {
        self.live()
            .map(|(_, key)| match (key.held, &key.good) {
                (Held::Value, Some(intent)) => Some(SnapshotIntent { seq: key.seq, val: Arc::clone(intent) }),
                _ => None,
            })
            .collect()
    }

    /// How many keys hold something.
    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }

    pub(super) fn born(&self, id: &ImageKey) -> Option<u64> {
        self.born.get(id).copied()
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Head, count and digest of the live set.
    pub(crate) fn summary(&self, head: u64) -> PoolSummary {
        self.set.summary(head)
    }

    pub(super) fn take_definition(&mut self, seq: u64, value: StoredValue<Value>) -> bool {
        self.definition.take(seq, value)
    }

    pub(super) fn take_snapshot(&mut self, seq: u64, value: StoredValue<SnapshotHead>) -> bool {
        self.snapshot.take(seq, value)
    }

    pub(super) fn take_intent(&mut self, id: &ImageKey, seq: u64, value: StoredValue<Arc<Intent>>) -> bool {
        let key = self.intents.entry(id.clone()).or_default();
        let changed = key.take(seq, value);
        let live = (key.held != Held::Nothing).then_some(seq);
        if seq == 0 {
            self.intents.remove(id);
        }
        if live == self.set.get(id) {
            return changed;
        }
        let past = Past { summary: self.set.summary(0), id: id.clone(), seq: self.set.get(id) };
        if let Some(seq) = live {
            self.set.insert(id.clone(), seq);
            let born = self.born.entry(id.clone()).or_insert(seq);
            *born = (*born).min(seq);
        } else {
            self.set.remove(id);
            self.born.remove(id);
        }
        self.version += 1;
        self.past.push_back(past);
        if self.past.len() > HISTORY {
            self.past.pop_front();
        }
        changed
    }

    /// The stream is an older copy: what its sequences meant is another thing now.
    pub(super) fn forget_past(&mut self) {
        self.past.clear();
    }

    /// The set of that name with the sequences of then. `None` if this was not the set within memory.
    pub(crate) fn set_of(&self, summary: &PoolSummary) -> Option<Vec<(ImageKey, u64)>> {
        let mut then: BTreeMap<&ImageKey, u64> = self.set.iter().collect();
        if !self.set.summary(0).is_same_set(summary) {
            let steps = self.past.iter().rev().position(|past| past.summary.is_same_set(summary))?;
            for past in self.past.iter().rev().take(steps + 1) {
                match past.seq {
                    Some(seq) => then.insert(&past.id, seq),
                    None => then.remove(&past.id),
                };
            }
        }
        Some(then.into_iter().map(|(id, seq)| (id.clone(), seq)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> ImageKey {
        ImageKey::of(&format!("image-{n}"))
    }

    fn put(pool: &mut PoolBucket, n: u64, seq: u64) {
        pool.take_intent(&id(n), seq, StoredValue::Undecodable);
    }

    #[test]
    fn an_earlier_set_is_found_by_its_name() {
        let mut pool = PoolBucket::new(PoolId::all());
        for n in 1..=3 {
            put(&mut pool, n, n);
        }
        let then = pool.summary(3);
        put(&mut pool, 1, 4);
        pool.take_intent(&id(2), 5, StoredValue::Marker);
        put(&mut pool, 2, 6);
        put(&mut pool, 4, 7);
        let mut expected = vec![(id(1), 1), (id(2), 2), (id(3), 3)];
        expected.sort();
        assert_eq!(pool.set_of(&then), Some(expected));
        assert_eq!(pool.set_of(&pool.summary(0)).map(|ids| ids.len()), Some(4));
        assert_eq!([1, 2, 3].map(|n| pool.born(&id(n))), [Some(1), Some(6), Some(3)], "a renewed one has a new life");
    }

    #[test]
    fn the_256th_set_back_is_remembered_and_the_257th_is_not() {
        let mut pool = PoolBucket::new(PoolId::all());
        put(&mut pool, 0, 1);
        let first = pool.summary(0);
        for seq in 2..=257 {
            put(&mut pool, 0, seq);
        }
        assert_eq!(pool.set_of(&first), Some(vec![(id(0), 1)]));
        put(&mut pool, 0, 258);
        assert_eq!(pool.set_of(&first), None);
    }
}
