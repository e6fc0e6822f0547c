//! The snapshot: all intents of a pool as of one head, so that who has nothing reads one message instead of a thousand.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{DecodeError, Intent, SCHEMA};
use crate::name::PoolId;
use crate::pool_set::{PoolSet, SetDigest};

/// Longest body that is taken, before compression.
pub const MAX_BYTES: u64 = 128 * 1024 * 1024;
/// Bytes of one chunk: with its headers below what the bucket takes.
pub const CHUNK: usize = 48 * 1024;

const KIND: &str = "snapshot";

/// Under `<pool>.snap.<chunk>` of the intents bucket, compressed. Its serde form is for recordings; what crosses NATS is
/// [`Snapshot::encode`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The epoch.
    pub epoch: String,
    /// The term of the controller that wrote it.
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

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct First {
    v: u32,
    epoch: String,
    term: u64,
    pool: PoolId,
    head: u64,
    count: u64,
    digest: SetDigest,
}

impl Snapshot {
    /// One JSON a line: what it is of, with count and digest, then the intents.
    pub fn encode(&self) -> Vec<u8> {
        let summary = self.set().summary(self.head);
        let first = First {
            v: SCHEMA,
            epoch: self.epoch.clone(),
            term: self.term,
            pool: self.pool.clone(),
            head: self.head,
            count: summary.count,
            digest: summary.digest,
        };
        let mut body = serde_json::to_vec(&first).unwrap_or_default();
        for intent in &self.intents {
            body.push(b'\n');
            body.extend(serde_json::to_vec(intent).unwrap_or_default());
        }
        body
    }

    /// The inverse. What does not add up to its own count and digest is refused.
    ///
    /// # Errors
    /// It is of a newer form, damaged, or forged.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let json = |source| DecodeError::Json { what: KIND, source };
        let invalid = |text: &str| json(serde::de::Error::custom(text));
        let mut lines = body.split(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        super::refuse_newer(KIND, first)?;
        let First { epoch, term, pool, head, count, digest, .. } = serde_json::from_slice(first).map_err(json)?;
        let mut intents = Vec::new();
        for line in lines {
            let intent: SnapshotIntent = serde_json::from_slice(line).map_err(json)?;
            if intent.seq > head || !intent.val.is_of_its_id() {
                return Err(invalid("an intent is newer than the head, or of another image than its id"));
            }
            intents.push(intent);
        }
        let snapshot = Self { epoch, term, pool, head, intents };
        let set = snapshot.set().summary(head);
        if (set.count, set.digest) != (count, digest) {
            return Err(invalid("it does not add up to its count and digest"));
        }
        Ok(snapshot)
    }

    fn set(&self) -> PoolSet {
        let mut set = PoolSet::new(self.pool.clone());
        for intent in &self.intents {
            set.insert(intent.val.id.clone(), intent.seq);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message as _;

    fn snapshot(images: u64) -> Snapshot {
        let intent = |n: u64| {
            let image = format!("docker.io/library/image-{n}:1");
            let id = crate::name::ImageKey::of(&image);
            let body = format!(r#"{{"v":1,"id":"{id}","image":"{image}","owners":["Deployment/a/b"]}}"#);
            SnapshotIntent { seq: n + 1, val: Arc::new(Intent::decode(body.as_bytes()).unwrap()) }
        };
        Snapshot {
            epoch: "e".into(),
            term: 3,
            pool: PoolId::all(),
            head: images + 5,
            intents: (0..images).map(intent).collect(),
        }
    }

    #[test]
    fn decoding_is_the_inverse_of_encoding() {
        for images in [0, 1, 300] {
            assert_eq!(Snapshot::decode(&snapshot(images).encode()).unwrap(), snapshot(images));
        }
    }

    #[test]
    fn one_that_lacks_an_intent_or_tells_of_another_is_refused() {
        let body = String::from_utf8(snapshot(3).encode()).unwrap();
        let (whole, _) = body.rsplit_once('\n').unwrap();
        assert!(Snapshot::decode(whole.as_bytes()).is_err(), "the last line is missing");
        for (from, to) in [("\"seq\":2", "\"seq\":4"), ("image-1:1", "image-9:1"), ("\"head\":8", "\"head\":2")] {
            let changed = body.replace(from, to);
            assert_ne!(changed, body);
            assert!(Snapshot::decode(changed.as_bytes()).is_err(), "{from} -> {to}");
        }
        assert!(Snapshot::decode(b"").is_err());
    }

    #[test]
    fn a_newer_form_is_said_to_be_newer() {
        let body = String::from_utf8(snapshot(1).encode()).unwrap().replacen("\"v\":1", "\"v\":2", 1);
        assert!(matches!(Snapshot::decode(body.as_bytes()), Err(DecodeError::Newer { version: 2, .. })));
    }
}
