//! The snapshot: all intents of a pool as of one head, so that who has nothing reads one document instead of a thousand.
//!
//! Owns its two halves: the head, a message under a key of its own, and the body, one JSON a line. How the body is compressed
//! and cut into keys is `daemon::snapshot`'s.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{DecodeError, Intent, Message};
use crate::name::PoolId;
use crate::pool_set::{PoolSummary, SetDigest};

/// What a snapshot is of, under `<pool>.snap.head`. It is written after its chunks: who finds it finds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotHead {
    /// The epoch.
    pub epoch: String,
    /// The term of the controller that wrote it.
    pub term: u64,
    /// The pool.
    pub pool: PoolId,
    /// Last sequence of the intents stream that is taken in.
    pub head: u64,
    /// How many intents there are.
    pub count: u64,
    /// The digest over them.
    pub digest: SetDigest,
    /// How many keys hold the body: `<pool>.snap.0` and on.
    pub chunks: u64,
}

impl Message for SnapshotHead {
    const KIND: &'static str = "snapshot";
}

impl SnapshotHead {
    /// The set.
    pub fn summary(&self) -> PoolSummary {
        PoolSummary { head: self.head, count: self.count, digest: self.digest }
    }
}

/// All intents of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The epoch.
    pub epoch: String,
    /// The term of the controller that writes it.
    pub term: u64,
    /// The pool.
    pub pool: PoolId,
    /// Last sequence of the intents stream that is taken in.
    pub head: u64,
    /// Every live intent with its sequence.
    pub intents: Vec<SnapshotIntent>,
}

/// One intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotIntent {
    /// Its sequence.
    pub seq: u64,
    /// The intent.
    #[serde(with = "super::intent::counted")]
    pub val: Arc<Intent>,
}

impl Snapshot {
    /// The head of a body of so many chunks.
    pub fn head(&self, chunks: u64) -> SnapshotHead {
        let PoolSummary { head, count, digest } = self.summary();
        let (epoch, term, pool) = (self.epoch.clone(), self.term, self.pool.clone());
        SnapshotHead { epoch, term, pool, head, count, digest, chunks }
    }

    /// One intent a line.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for intent in &self.intents {
            // As of every message: no type of it fails to serialise.
            body.extend(serde_json::to_vec(intent).unwrap_or_default());
            body.push(b'\n');
        }
        body
    }

    fn summary(&self) -> PoolSummary {
        PoolSummary::over(&self.pool, self.head, self.intents.iter().map(|intent| (&intent.val.id, intent.seq)))
    }
}

/// A snapshot that is read line by line: the inverse of [`Snapshot::head`] and [`Snapshot::body`].
#[derive(Debug)]
pub struct PartialSnapshot {
    snapshot: Snapshot,
    is: PoolSummary,
}

impl PartialSnapshot {
    /// That of a head, without a line yet.
    pub fn of(head: SnapshotHead) -> Self {
        let is = head.summary();
        let SnapshotHead { epoch, term, pool, head, .. } = head;
        Self { snapshot: Snapshot { epoch, term, pool, head, intents: Vec::new() }, is }
    }

    /// Takes one line.
    ///
    /// # Errors
    /// It is no intent, newer than the head, or of another image than its id.
    pub fn take(&mut self, line: &[u8]) -> Result<(), DecodeError> {
        let intent: SnapshotIntent = serde_json::from_slice(line).map_err(json)?;
        if intent.seq > self.is.head || !intent.val.is_of_its_id() {
            return Err(json(invalid("an intent is newer than the head, or of another image than its id")));
        }
        self.snapshot.intents.push(intent);
        Ok(())
    }

    /// All of it.
    ///
    /// # Errors
    /// The lines do not add up to count and digest of the head.
    pub fn whole(self) -> Result<Snapshot, DecodeError> {
        if self.snapshot.summary().is_same_set(&self.is) {
            Ok(self.snapshot)
        } else {
            Err(json(invalid("it does not add up to the count and digest of its head")))
        }
    }
}

fn json(source: serde_json::Error) -> DecodeError {
    DecodeError::Json { what: SnapshotHead::KIND, source }
}

fn invalid(text: &str) -> serde_json::Error {
    serde::de::Error::custom(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(images: u64) -> Snapshot {
        let intent = |n: u64| {
            let image = format!("docker.io/library/image-{n}:1");
            let id = crate::name::ImageKey::of(&image);
            let body = format!(r#"{{"v":1,"id":"{id}","image":"{image}","owners":["Deployment/a/b"]}}"#);
            SnapshotIntent { seq: n + 1, val: Arc::new(Intent::decode(body.as_bytes()).unwrap()) }
        };
        let intents = (0..images).map(intent).collect();
        Snapshot { epoch: "e".into(), term: 3, pool: PoolId::all(), head: images + 5, intents }
    }

    fn read(head: SnapshotHead, body: &[u8]) -> Result<Snapshot, DecodeError> {
        let mut read = PartialSnapshot::of(head);
        body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).try_for_each(|line| read.take(line))?;
        read.whole()
    }

    #[test]
    fn head_and_body_are_the_snapshot() {
        for images in [0, 1, 300] {
            let snapshot = snapshot(images);
            let head = SnapshotHead::decode(&snapshot.head(1).encode()).unwrap();
            assert_eq!((head.count, head.head), (images, images + 5));
            assert_eq!(read(head, &snapshot.body()).unwrap(), snapshot);
        }
    }

    #[test]
    fn one_that_lacks_an_intent_or_tells_of_another_is_refused() {
        let (head, body) = (snapshot(3).head(1), String::from_utf8(snapshot(3).body()).unwrap());
        let refused = |head: SnapshotHead, body: &str| read(head, body.as_bytes()).is_err();
        let (first, _) = body.split_once('\n').unwrap();
        assert!(refused(head.clone(), first), "two lines are missing");
        assert!(refused(head.clone(), ""));
        assert!(refused(SnapshotHead { head: 2, ..head.clone() }, &body), "one is newer");
        assert!(refused(SnapshotHead { pool: PoolId::parse("auto-0").unwrap(), ..head.clone() }, &body));
        for (from, to) in [("\"seq\":2", "\"seq\":4"), ("image-1:1", "image-9:1"), ("{", "[")] {
            let changed = body.replacen(from, to, 1);
            assert_ne!(changed, body);
            assert!(refused(head.clone(), &changed), "{from} -> {to}");
        }
    }
}
