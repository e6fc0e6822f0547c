//! Reads of the buckets, by direct get alone: an agent may call nothing else.
//!
//! Owns the filters and the decoding of what is stored.

use std::sync::Arc;

use daemon::bus::{ByApiSubject, ByBody, Operation, Stored as Read};
/// For who has the keys of a snapshot from elsewhere than a [`Link`].
pub use daemon::snapshot::unpack;
use node_plan::fact::{PoolContent, Stored, StoredIntent};
use shared::message::{Assignment, Intent, Message, Meta, Snapshot, SnapshotIntent};
use shared::name::{ClusterId, PoolId};
use shared::subject::{Bucket, IntentsKey, assignment_key, snapshot_keys};
use tracing::warn;

use super::link::{Failure, Link};

/// Keys of one page: the server queues a whole page in memory.
const PAGE: u32 = 256;
/// Chunks of a snapshot of one page.
const SNAPSHOT_PAGE: u32 = 16;

impl Link {
    /// `_meta`; `None` if it is absent.
    pub async fn read_meta(&self) -> Result<Option<Meta>, Failure> {
        let (stream, subject) = (
            Bucket::Intents.stream(&self.cluster),
            Bucket::Intents.subject(&self.cluster, &IntentsKey::Meta.to_string()),
        );
        document(self.bus.direct_get_last(&stream, &subject, ByBody).await?)
    }

    /// This node's assignment; `None` if it is absent or purged.
    pub async fn read_assignment(&self) -> Result<Option<Assignment>, Failure> {
        let (stream, subject) =
            (Bucket::Assign.stream(&self.cluster), Bucket::Assign.subject(&self.cluster, &assignment_key(&self.node)));
        // Permissions on the API subject keep agents from reading each other's.
        document(self.bus.direct_get_last(&stream, &subject, ByApiSubject).await?)
    }

    /// Every key of a pool written at `from` or later, markers included. Unless `plain`, a snapshot of the pool may stand
    /// for all keys up to its head.
    pub async fn read_pool(&self, pool: &PoolId, from: u64, plain: bool) -> Result<PoolContent, Failure> {
        let snapshot = if from <= 1 && !plain { self.read_snapshot(pool).await? } else { None };
        let Some(Snapshot { epoch, head, intents, .. }) = snapshot else {
            return Ok(PoolContent { entries: self.read_keys(pool, from).await?, snapshot: None });
        };
        let mut entries: Vec<StoredIntent> = intents.into_iter().map(held).collect();
        entries.extend(self.read_keys(pool, head.saturating_add(1)).await?);
        Ok(PoolContent { entries, snapshot: Some(epoch) })
    }

    /// The snapshot of a pool, if there is one that is whole.
    async fn read_snapshot(&self, pool: &PoolId) -> Result<Option<Snapshot>, Failure> {
        let stream = Bucket::Intents.stream(&self.cluster);
        let filter = Bucket::Intents.subject(&self.cluster, &snapshot_keys(pool));
        let batch = self.bus.direct_get_batch(&stream, &filter, 1, SNAPSHOT_PAGE).await?;
        let keys = batch.messages.iter().filter(|stored| stored.operation() == Operation::Put).filter_map(|stored| {
            let key = Bucket::Intents.key_of(&self.cluster, &stored.subject)?;
            Some((key, stored.payload.as_ref()))
        });
        Ok(unpack(pool, keys).unwrap_or_else(|error| {
            warn!(%pool, %error, "a snapshot is of no use; the keys are read one by one");
            None
        }))
    }

    async fn read_keys(&self, pool: &PoolId, from: u64) -> Result<Vec<StoredIntent>, Failure> {
        let stream = Bucket::Intents.stream(&self.cluster);
        let filter = Bucket::Intents.subject(&self.cluster, &IntentsKey::all_of(pool));
        let batch = self.bus.direct_get_batch(&stream, &filter, from, PAGE).await?;
        let body = |stored: &Read| (stored.operation() == Operation::Put).then(|| stored.payload.clone());
        let entries = batch
            .messages
            .iter()
            .filter_map(|stored| entry(&self.cluster, pool, &stored.subject, stored.seq, body(stored).as_deref()));
        Ok(entries.collect())
    }
}

/// An intent of a snapshot, as if it had been read under its own key.
pub fn held(intent: SnapshotIntent) -> StoredIntent {
    StoredIntent { id: intent.val.id.clone(), seq: intent.seq, value: Some(Stored::Intent(intent.val)) }
}

fn document<T: Message>(stored: Option<Read>) -> Result<Option<T>, Failure> {
    match stored {
        Some(stored) if stored.operation() == Operation::Put => Ok(Some(T::decode(&stored.payload)?)),
        _ => Ok(None),
    }
}

/// One stored key of `pool`; `body` is `None` for a marker. A key that no intent can have is left out: nothing can be said
/// about it, not even its id.
pub fn entry(cluster: &ClusterId, pool: &PoolId, subject: &str, seq: u64, body: Option<&[u8]>) -> Option<StoredIntent> {
    let key = Bucket::Intents.key_of(cluster, subject).and_then(IntentsKey::parse);
    let id = match key {
        Some(IntentsKey::Intent(of, id)) if of == *pool => id,
        _ => {
            warn!(subject, "a key that is no intent's is ignored");
            return None;
        }
    };
    let value = body.map(|body| match Intent::decode(body) {
        Ok(intent) if intent.id == id && intent.is_of_its_id() => Stored::Intent(Arc::new(intent)),
        Ok(intent) => {
            warn!(subject, id = %intent.id, image = intent.image, "a stored intent speaks of another image than its key");
            Stored::Undecodable
        }
        Err(error) => {
            warn!(subject, %error, "a stored intent cannot be decoded");
            Stored::Undecodable
        }
    });
    Some(StoredIntent { id, seq, value })
}

#[cfg(test)]
mod tests {
    use shared::name::ImageKey;

    use super::*;

    #[test]
    fn one_bad_intent_or_key_of_a_pool_leaves_the_others() {
        let images = ["a", "b", "c", "d", "e"].map(|name| format!("docker.io/library/{name}:1"));
        let ids = images.each_ref().map(|image| ImageKey::of(image));
        let says = |id: &ImageKey, image: &str| format!(r#"{{"v":1,"id":"{id}","image":"{image}"}}"#);
        let body = |id: &ImageKey| says(id, &images[ids.iter().position(|other| other == id).unwrap()]);
        let stored = [
            (format!("all.i.{}", ids[0]), body(&ids[0])),
            (format!("all.i.{}", ids[1]), "{\"v\":1,".to_owned()),
            ("all.i.short".to_owned(), body(&ids[0])),
            (format!("other.i.{}", ids[0]), body(&ids[0])),
            (format!("all.i.{}", ids[2]), body(&ids[0])),
            (format!("all.i.{}", ids[3]), body(&ids[3])),
            (format!("all.i.{}", ids[4]), says(&ids[4], &images[0])),
        ];
        let cluster = ClusterId::default();
        let found: Vec<_> = (1..)
            .zip(&stored)
            .filter_map(|(seq, (key, body))| {
                entry(&cluster, &PoolId::all(), &Bucket::Intents.subject(&cluster, key), seq, Some(body.as_bytes()))
            })
            .collect();
        let kept: Vec<_> = found
            .iter()
            .map(|entry| (entry.id.clone(), entry.seq, matches!(entry.value, Some(Stored::Intent(_)))))
            .collect();
        let of_each = ids.into_iter().zip([(1, true), (2, false), (5, false), (6, true), (7, false)]);
        assert_eq!(kept, of_each.map(|(id, (seq, is_good))| (id, seq, is_good)).collect::<Vec<_>>());
    }
}
