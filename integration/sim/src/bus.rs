//! The NATS server: three buckets as streams.
//!
//! Owns sequences, compare-and-set, markers and their end, the age of a stream, what a page of a read shows. Knows
//! nothing of who is connected.

use std::collections::BTreeMap;
use std::rc::Rc;

use shared::reason::Reason;
use shared::subject::Bucket;

use super::queue::Us;

/// A body as it is stored or sent.
pub(super) type Body = Rc<[u8]>;

/// The last message of a key.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) seq: u64,
    /// `None` for a purge marker.
    pub(super) body: Option<Body>,
    expires: Option<Us>,
}

/// One bucket.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub(super) created: String,
    pub(super) seq: u64,
    pub(super) keys: BTreeMap<String, Message>,
}

/// The largest message of each bucket, as the controller makes them.
fn max_bytes(bucket: Bucket) -> usize {
    match bucket {
        Bucket::Intents => 64 * 1024,
        Bucket::Assign => 8 * 1024,
        Bucket::Nodes => 256 * 1024,
    }
}

/// A write.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) key: String,
    /// Compare-and-set, if given.
    pub(super) expected: Option<u64>,
    /// `None` purges.
    pub(super) body: Option<Body>,
    pub(super) ttl: Option<Us>,
}

/// The server's store.
#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    streams: BTreeMap<Bucket, Stream>,
    made: u64,
}

impl Store {
    /// The bucket, made if it is absent.
    pub(super) fn ensure(&mut self, bucket: Bucket) -> &Stream {
        let made = &mut self.made;
        self.streams.entry(bucket).or_insert_with(|| {
            *made += 1;
            Stream { created: format!("2026-01-01T00:00:00.{made:09}Z"), seq: 0, keys: BTreeMap::new() }
        })
    }

    /// The bucket, if there is one.
    pub(super) fn get(&self, bucket: Bucket) -> Option<&Stream> {
        self.streams.get(&bucket)
    }

    /// Everything is gone; what is made next is younger.
    pub(super) fn wipe(&mut self) {
        self.streams.clear();
    }

    /// Only one bucket is gone.
    pub(super) fn wipe_one(&mut self, bucket: Bucket) {
        self.streams.remove(&bucket);
    }

    /// Becomes an older copy of itself; what is made next is still younger than all that ever was.
    pub(super) fn roll_back(&mut self, older: &Self) {
        self.streams.clone_from(&older.streams);
    }

    /// Whether a withdrawn intent has left its marker.
    pub(super) fn has_markers(&self) -> bool {
        let intents = self.streams.get(&Bucket::Intents);
        intents.is_some_and(|stream| stream.keys.values().any(|message| message.body.is_none()))
    }

    /// Drops what has expired: without a trace, as no bucket has delete markers.
    pub(super) fn expire(&mut self, now: Us) {
        for stream in self.streams.values_mut() {
            stream.keys.retain(|_, message| message.expires.is_none_or(|at| at > now));
        }
    }

    /// Writes; gives the new sequence.
    pub(super) fn write(&mut self, bucket: Bucket, write: Write, now: Us) -> Result<u64, Reason> {
        let stream = self.streams.get_mut(&bucket).ok_or(Reason::Unknown)?;
        if write.body.as_ref().is_some_and(|body| body.len() > max_bytes(bucket)) {
            return Err(Reason::Invalid);
        }
        let there = stream.keys.get(&write.key).map_or(0, |message| message.seq);
        if write.expected.is_some_and(|expected| expected != there) {
            return Err(Reason::Conflict);
        }
        stream.seq += 1;
        let expires = write.ttl.map(|ttl| now + ttl);
        stream.keys.insert(write.key, Message { seq: stream.seq, body: write.body, expires });
        Ok(stream.seq)
    }

    /// The messages of keys that begin with `prefix`, from a sequence on: at most `page` of them, and how many are left.
    pub(super) fn page(
        &self,
        bucket: Bucket,
        prefix: &str,
        from: u64,
        page: usize,
    ) -> Option<(Vec<(String, Message)>, usize)> {
        let stream = self.streams.get(&bucket)?;
        let mut found: Vec<(String, Message)> = stream
            .keys
            .iter()
            .filter(|(key, message)| key.starts_with(prefix) && message.seq >= from)
            .map(|(key, message)| (key.clone(), message.clone()))
            .collect();
        found.sort_by_key(|(_, message)| message.seq);
        let left = found.len().saturating_sub(page);
        found.truncate(page);
        Some((found, left))
    }
}
