//! The intents of one pool: which are live with which sequence, and which are kept though a full read missed them.
//!
//! Owns put, withdrawal and mark-and-sweep. Never decides when to read; that is [`crate::pool`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shared::machine::Moment;
use shared::message::Intent;
use shared::name::{ImageKey, PoolId};
use shared::pool_set::{PoolSet, PoolSummary};

use crate::persisted::{PersistedIntent, PersistedPool};

/// An intent that the newest full read did not show: no statement that it was withdrawn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Retained {
    /// Its last good content.
    pub(crate) intent: Arc<Intent>,
    /// It is of an older epoch, of which the new one has said nothing yet: it still counts in full.
    pub(crate) is_pullable: bool,
    /// When it is let go: set once a beat has agreed with the set that lacks it.
    pub(crate) release: Option<Moment>,
}

/// What a stored key says: its sequence, and its content if that could be decoded.
pub(crate) type Found = (u64, Option<Arc<Intent>>);

/// One pool's intents.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pool: PoolId,
    set: PoolSet,
    intents: BTreeMap<ImageKey, Arc<Intent>>,
    retained: BTreeMap<ImageKey, Retained>,
    /// Withdrawn here since somebody asked.
    withdrawn: BTreeMap<ImageKey, Arc<Intent>>,
}

impl Content {
    pub(crate) fn new(pool: PoolId) -> Self {
        Self {
            set: PoolSet::new(pool.clone()),
            pool,
            intents: BTreeMap::new(),
            retained: BTreeMap::new(),
            withdrawn: BTreeMap::new(),
        }
    }

    pub(crate) fn restore(pool: PoolId, stored: PersistedPool) -> Self {
        let mut content = Self::new(pool);
        for (id, PersistedIntent { seq, intent }) in stored.intents {
            content.put(id, seq, intent.map(Arc::new));
        }
        for (id, intent) in stored.retained {
            // Head 0: the pool was never read in the epoch of the file, so nothing was said against it.
            let intent = Arc::new(intent);
            content.retained.insert(id, Retained { intent, is_pullable: stored.head == 0, release: None });
        }
        content
    }

    pub(crate) fn store(&self, head: u64) -> PersistedPool {
        let intents = self.set.iter().map(|(id, seq)| {
            (id.clone(), PersistedIntent { seq, intent: self.intents.get(id).map(|i| Intent::clone(i)) })
        });
        let retained = self.retained.iter().map(|(id, kept)| (id.clone(), Intent::clone(&kept.intent)));
        PersistedPool { head, intents: intents.collect(), retained: retained.collect() }
    }

    pub(crate) fn summary(&self, head: u64) -> PoolSummary {
        self.set.summary(head)
    }

    pub(crate) fn summary_up_to(&self, head: u64) -> PoolSummary {
        self.set.summary_up_to(head)
    }

    /// Whether nothing is live.
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// The sequence of a live intent.
    pub(crate) fn sequence(&self, id: &ImageKey) -> Option<u64> {
        self.set.get(id)
    }

    /// Writes an intent. Without content the last good one stays.
    pub(crate) fn put(&mut self, id: ImageKey, seq: u64, intent: Option<Arc<Intent>>) {
        let retained = self.retained.remove(&id).map(|kept| kept.intent);
        if let Some(good) = intent.or(retained) {
            self.intents.insert(id.clone(), good);
        }
        self.set.insert(id, seq);
    }

    /// Withdraws an intent: a positive statement, so it goes from this pool at once.
    pub(crate) fn withdraw(&mut self, id: &ImageKey) {
        self.set.remove(id);
        let (live, kept) = (self.intents.remove(id), self.retained.remove(id));
        if let Some(intent) = live.or(kept.map(|kept| kept.intent)) {
            self.withdrawn.insert(id.clone(), intent);
        }
    }

    /// What was withdrawn since the last call: another pool may want it.
    pub(crate) fn take_withdrawn(&mut self) -> BTreeMap<ImageKey, Arc<Intent>> {
        std::mem::take(&mut self.withdrawn)
    }

    /// Withdraws everything: the node is no longer in this pool.
    pub(crate) fn leave(mut self) -> BTreeMap<ImageKey, Arc<Intent>> {
        self.withdrawn.append(&mut self.intents);
        self.withdrawn.extend(self.retained.into_iter().map(|(id, kept)| (id, kept.intent)));
        self.withdrawn
    }

    /// Takes what a full read found in place of what was known; sequences may fall. What `touched` names was changed
    /// while the read was under way and wins if it is newer. The rest is retained.
    pub(crate) fn replace(&mut self, found: BTreeMap<ImageKey, Found>, touched: &BTreeMap<ImageKey, u64>) {
        let missed: Vec<ImageKey> = self
            .set
            .iter()
            .filter(|(id, _)| !found.contains_key(*id) && !touched.contains_key(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in missed {
            self.retain(id, false);
        }
        for kept in self.retained.values_mut() {
            kept.is_pullable = false;
        }
        for (id, (seq, intent)) in found {
            if touched.get(&id).is_none_or(|newer| *newer < seq) {
                self.put(id, seq, intent);
            }
        }
    }

    /// The epoch changed: nothing here has a sequence any more, everything still counts.
    pub(crate) fn retire(&mut self) {
        let ids: Vec<ImageKey> = self.set.iter().map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.retain(id, true);
        }
        for kept in self.retained.values_mut() {
            kept.release = None;
        }
        self.set = PoolSet::new(self.pool.clone());
        self.intents.clear();
    }

    fn retain(&mut self, id: ImageKey, is_pullable: bool) {
        self.set.remove(&id);
        if let Some(intent) = self.intents.remove(&id) {
            self.retained.insert(id, Retained { intent, is_pullable, release: None });
        }
    }

    /// A beat agreed with the live set: what is retained is not in it, and goes when its grace has passed. Gives whether
    /// anything changed.
    pub(crate) fn agreed(&mut self, now: Moment) -> bool {
        let mut changed = false;
        for kept in self.retained.values_mut().filter(|kept| kept.release.is_none()) {
            kept.release = Some(now + Duration::from_secs(kept.intent.keep.grace_sec));
            kept.is_pullable = false;
            changed = true;
        }
        changed
    }

    /// Lets go what is due; gives whether anything was.
    pub(crate) fn release(&mut self, now: Moment) -> bool {
        let due = self.retained.extract_if(.., |_, kept| kept.release.is_some_and(|due| due <= now));
        let due: Vec<(ImageKey, Arc<Intent>)> = due.map(|(id, kept)| (id, kept.intent)).collect();
        let is_any = !due.is_empty();
        self.withdrawn.extend(due);
        is_any
    }

    /// When the next retained intent is let go.
    pub(crate) fn next_release(&self) -> Option<Moment> {
        self.retained.values().filter_map(|kept| kept.release).min()
    }

    /// A live intent whose content is known.
    pub(crate) fn get(&self, id: &ImageKey) -> Option<&Arc<Intent>> {
        self.intents.get(id)
    }

    /// Live intents whose content is known.
    pub(crate) fn intents(&self) -> impl Iterator<Item = (&ImageKey, &Arc<Intent>)> {
        self.intents.iter()
    }

    /// Live intents that nobody here could ever decode.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = &ImageKey> {
        self.set.iter().map(|(id, _)| id).filter(|id| !self.intents.contains_key(*id))
    }

    /// Retained intents.
    pub(crate) fn retained(&self) -> &BTreeMap<ImageKey, Retained> {
        &self.retained
    }
}
