//! What the two buckets that the controller writes hold, as read, watched and acknowledged.
//!
//! Owns, per pool, the set that names itself by (count, digest), the sets it was before, and since when each intent has
//! lived without a break. Never decides what should be there.

mod assigned;
mod control;
mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use shared::message::{Control, Intent, Meta, SnapshotHead};
use shared::name::{ImageKey, PoolId};
use shared::subject::IntentsKey;

pub(crate) use self::assigned::AssignBucket;
pub(crate) use self::control::ControlKey;
pub(crate) use self::pool::PoolBucket;
use crate::effect::IntentChange;
use crate::fact::{IntentsDoc, Newer, Stored, StoredValue};

/// What a key holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Held {
    /// Nothing, or the marker of what was there.
    #[default]
    Nothing,
    /// Something that cannot be decoded.
    Undecodable,
    /// Something of a newer major: it is left alone.
    Newer,
    /// A value: the good one.
    Value,
}

/// One key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key<T> {
    /// Sequence that the next write expects; 0 if there is nothing, not even a marker.
    pub(crate) seq: u64,
    /// What is there.
    pub(crate) held: Held,
    /// The last value that could be decoded, since the key last held nothing.
    pub(crate) good: Option<T>,
    /// Who wrote what this version does not know, while that is there.
    newer: Option<Newer>,
}

impl<T> Default for Key<T> {
    fn default() -> Self {
        Self { seq: 0, held: Held::Nothing, good: None, newer: None }
    }
}

impl<T: PartialEq> Key<T> {
    /// Takes what the stream says; says whether anything differs.
    fn take(&mut self, seq: u64, value: StoredValue<T>) -> bool {
        let before = (self.seq, self.held);
        self.seq = seq;
        self.newer = None;
        let mut changed = false;
        match value {
            StoredValue::Value(value) => {
                changed = self.good.as_ref() != Some(&value);
                (self.held, self.good) = (Held::Value, Some(value));
            }
            StoredValue::Undecodable => self.held = Held::Undecodable,
            StoredValue::Newer(newer) => (self.held, self.newer) = (Held::Newer, Some(newer)),
            StoredValue::Marker => (self.held, self.good) = (Held::Nothing, None),
        }
        changed || before != (self.seq, self.held)
    }

    /// The value, if it is what is there.
    pub(crate) fn value(&self) -> Option<&T> {
        self.good.as_ref().filter(|_| self.held == Held::Value)
    }

    /// Who wrote what is there, if that is of a newer major.
    pub(crate) fn newer(&self) -> Option<&Newer> {
        self.newer.as_ref()
    }

    /// Whether it may be written: what a newer version has written is not overwritten.
    pub(crate) fn is_ours(&self) -> bool {
        self.held != Held::Newer
    }
}

/// An intent that ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// Its pool.
    pub(crate) pool: PoolId,
    /// Its image.
    pub(crate) id: ImageKey,
    /// Since when it had lived without a break.
    pub(crate) born: u64,
    /// The sequence at which it ended.
    pub(crate) seq: u64,
}

/// What became of the sets since somebody asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moves {
    /// Pools whose set is another.
    pub(crate) pools: BTreeSet<PoolId>,
    /// Intents that ended: whoever vouched for them vouches no more.
    pub(crate) ended: Vec<Ended>,
    /// Whether the stream is another: nothing is known of what was before.
    pub(crate) renewed: bool,
}

/// The intents bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct IntentsBucket {
    created: String,
    head: u64,
    acked: u64,
    fresh: bool,
    /// How often it was read in full.
    reads: u64,
    meta: Key<Meta>,
    /// The highest term that was ever seen.
    highest: u64,
    control: ControlKey,
    pools: BTreeMap<PoolId, PoolBucket>,
    moves: Moves,
}

impl IntentsBucket {
    /// When the server says the stream was created.
    pub(crate) fn created(&self) -> &str {
        &self.created
    }

    /// How often it was read in full. What was acknowledged before a read may be lost by then (a restored copy has the
    /// same age), so an outcome counts only if nothing was read since its write was issued: the read, or the watch after
    /// it, tells of the write as well.
    pub(crate) fn reads(&self) -> u64 {
        self.reads
    }

    /// Last sequence that was read or watched.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Last sequence that was read, watched or acknowledged.
    pub(crate) fn latest(&self) -> u64 {
        self.head.max(self.acked)
    }

    /// Whether it was read since it was last overtaken.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// What is known has been, or may have been, overtaken: nothing follows of it until the bucket is read again.
    pub(crate) fn overtaken(&mut self) {
        self.fresh = false;
    }

    /// Whether the watch has caught up with every acknowledged write: only then does (head, count, digest) hold.
    pub(crate) fn is_settled(&self) -> bool {
        self.head >= self.acked
    }

    /// The epoch document.
    pub(crate) fn meta(&self) -> &Key<Meta> {
        &self.meta
    }

    /// The highest term that was ever seen, also in what a restored copy has lost.
    pub(crate) fn highest_term(&self) -> u64 {
        self.highest
    }

    /// The pause switch.
    pub(crate) fn control(&self) -> &ControlKey {
        &self.control
    }

    /// How many keys, `_meta` apart, hold what a newer version has written.
    pub(crate) fn newer(&self) -> usize {
        let of_pool = |pool: &PoolBucket| {
            usize::from(!pool.definition().is_ours()) + pool.intents().filter(|(_, key)| !key.is_ours()).count()
        };
        self.pools.values().map(of_pool).sum::<usize>() + usize::from(self.control.is_newer())
    }

    /// Every pool that has or had a key.
    pub(crate) fn pools(&self) -> impl Iterator<Item = (&PoolId, &PoolBucket)> {
        self.pools.iter()
    }

    /// One pool.
    pub(crate) fn pool(&self, pool: &PoolId) -> Option<&PoolBucket> {
        self.pools.get(pool)
    }

    /// Since when an intent has lived without a break.
    pub(crate) fn born(&self, pool: &PoolId, id: &ImageKey) -> Option<u64> {
        self.pools.get(pool)?.born(id)
    }

    /// Sequence of a key.
    pub(crate) fn seq(&self, key: &IntentsKey) -> u64 {
        let seq = match key {
            IntentsKey::Meta => Some(self.meta.seq),
            IntentsKey::Control => Some(self.control.seq()),
            IntentsKey::Definition(pool) => self.pools.get(pool).map(|p| p.definition().seq),
            IntentsKey::Intent(pool, id) => self.pools.get(pool).and_then(|p| p.intent(id)).map(|k| k.seq),
            IntentsKey::Snapshot(pool) => self.pools.get(pool).map(|p| p.snapshot().seq),
        };
        seq.unwrap_or_default()
    }

    /// What happened to the sets since the last call.
    pub(crate) fn take_moves(&mut self) -> Moves {
        std::mem::take(&mut self.moves)
    }

    /// Takes a full read: what is not in it is gone. Sets of another stream say nothing about this one.
    pub(crate) fn read(&mut self, created: String, head: u64, entries: Vec<Stored<IntentsKey, IntentsDoc>>) {
        if created != self.created {
            self.head = 0;
            self.moves.renewed = true;
            self.pools.clear();
            self.meta = Key::default();
            self.control.lose();
        }
        let is_older_copy = head < self.head;
        (self.created, self.head, self.acked, self.fresh) = (created, head, 0, true);
        self.reads += 1;
        let listed: BTreeSet<IntentsKey> = entries.iter().map(|e| e.key.clone()).collect();
        for key in self.keys() {
            if !listed.contains(&key) {
                self.take(&key, 0, StoredValue::Marker);
            }
        }
        for Stored { key, seq, value } in entries {
            match key {
                IntentsKey::Control => self.control.read(seq, only(value, as_control)),
                _ => drop(self.take(&key, seq, value)),
            }
        }
        if is_older_copy {
            // Sequences are given again from there: those of before mean something else now.
            self.moves.renewed = true;
            self.pools.values_mut().for_each(PoolBucket::forget_past);
        }
    }

    fn keys(&self) -> Vec<IntentsKey> {
        let of_pools = self.pools.iter().flat_map(|(id, pool)| {
            let intents = pool.intents().map(|(i, _)| IntentsKey::Intent(id.clone(), i.clone()));
            intents.chain([IntentsKey::Definition(id.clone()), IntentsKey::Snapshot(id.clone())])
        });
        of_pools.chain([IntentsKey::Meta, IntentsKey::Control]).collect()
    }

    /// Takes a change that the watch delivers; says whether anything is to be decided. What is older than what is known
    /// is not taken: see [`IntentsBucket::reread`].
    pub(crate) fn changed(&mut self, stored: Stored<IntentsKey, IntentsDoc>) -> bool {
        let was_settled = self.is_settled();
        self.head = self.head.max(stored.seq);
        let changed = stored.seq > self.seq(&stored.key) && self.take(&stored.key, stored.seq, stored.value);
        changed || self.is_settled() != was_settled
    }

    /// Takes what a re-read after a conflict found, though it is older than what was known, or nothing at all (sequence
    /// 0): what was known was wrong.
    pub(crate) fn reread(&mut self, stored: Stored<IntentsKey, IntentsDoc>) {
        self.take(&stored.key, stored.seq, stored.value);
    }

    /// Takes the acknowledgement of a write of ours, unless the watch has said something newer.
    pub(crate) fn acknowledged(&mut self, key: &IntentsKey, seq: u64, change: &IntentChange) {
        self.acked = self.acked.max(seq);
        if seq > self.seq(key) {
            let value = match change {
                IntentChange::PutDefinition(value) => StoredValue::Value(IntentsDoc::Definition(value.clone())),
                IntentChange::Put(intent) => StoredValue::Value(IntentsDoc::Intent(intent.clone())),
                IntentChange::PurgeDefinition | IntentChange::Purge(_) => StoredValue::Marker,
            };
            self.take(key, seq, value);
        }
    }

    /// Takes the acknowledgement of `_meta`.
    pub(crate) fn meta_acknowledged(&mut self, seq: u64, meta: &Meta) {
        self.acked = self.acked.max(seq);
        if seq > self.meta.seq {
            self.meta.take(seq, StoredValue::Value(meta.clone()));
        }
    }

    /// Takes the acknowledgement of `_ctl`.
    pub(crate) fn control_acknowledged(&mut self, seq: u64, control: &Control) {
        self.acked = self.acked.max(seq);
        if seq > self.control.seq() {
            self.control.take(seq, StoredValue::Value(control.clone()));
        }
    }

    fn take(&mut self, key: &IntentsKey, seq: u64, value: StoredValue<IntentsDoc>) -> bool {
        match key {
            IntentsKey::Control => self.control.take(seq, only(value, as_control)),
            IntentsKey::Meta => {
                let changed = self.meta.take(seq, only(value, as_meta));
                self.highest = self.highest.max(self.meta.good.as_ref().map_or(0, |meta| meta.term));
                changed
            }
            IntentsKey::Definition(pool) => self.of(pool).take_definition(seq, only(value, as_definition)),
            IntentsKey::Snapshot(pool) => self.of(pool).take_snapshot(seq, only(value, as_snapshot)),
            IntentsKey::Intent(pool, id) => {
                let head = self.head;
                let bucket = self.of(pool);
                let before = bucket.version();
                let was_born = bucket.born(id);
                let changed = bucket.take_intent(id, seq, only(value, as_intent));
                let is_another = bucket.version() != before;
                let ended = was_born.filter(|_| bucket.born(id).is_none());
                if is_another {
                    self.moves.pools.insert(pool.clone());
                }
                if let Some(born) = ended {
                    let seq = if seq == 0 { head } else { seq };
                    self.moves.ended.push(Ended { pool: pool.clone(), id: id.clone(), born, seq });
                }
                changed
            }
        }
    }

    fn of(&mut self, pool: &PoolId) -> &mut PoolBucket {
        self.pools.entry(pool.clone()).or_insert_with(|| PoolBucket::new(pool.clone()))
    }
}

/// A document of another kind than its key is as good as undecodable.
fn only<T>(value: StoredValue<IntentsDoc>, get: impl Fn(IntentsDoc) -> Option<T>) -> StoredValue<T> {
    match value {
        StoredValue::Value(doc) => get(doc).map_or(StoredValue::Undecodable, StoredValue::Value),
        StoredValue::Undecodable => StoredValue::Undecodable,
        StoredValue::Newer(newer) => StoredValue::Newer(newer),
        StoredValue::Marker => StoredValue::Marker,
    }
}

fn as_meta(doc: IntentsDoc) -> Option<Meta> {
    if let IntentsDoc::Meta(meta) = doc { Some(meta) } else { None }
}

fn as_control(doc: IntentsDoc) -> Option<Control> {
    if let IntentsDoc::Control(control) = doc { Some(control) } else { None }
}

fn as_definition(doc: IntentsDoc) -> Option<Value> {
    if let IntentsDoc::Definition(value) = doc { Some(value) } else { None }
}

fn as_snapshot(doc: IntentsDoc) -> Option<SnapshotHead> {
    if let IntentsDoc::Snapshot(head) = doc { Some(head) } else { None }
}

fn as_intent(doc: IntentsDoc) -> Option<Arc<Intent>> {
    if let IntentsDoc::Intent(intent) = doc { Some(Arc::from(intent)) } else { None }
}
