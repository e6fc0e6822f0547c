//! Writing a pool down as a whole, and taking that away; nobody waits for it, and the watch tells what came of it.
//!
//! Owns the order. The head goes last, and away first: who finds it finds the chunks.

use std::time::Duration;

use bytes::Bytes;
use daemon::snapshot::pack;
use shared::message::Snapshot;
use shared::name::PoolId;
use shared::subject::{Bucket, IntentsKey, snapshot_chunk};

use super::Peers;
use super::outcome::{NotDone, done};
use super::puts::{Content, send};
use crate::leader::tenure::Tenure;

/// A key with what is to stand under it; `None` purges it.
pub type Change = (String, Option<Bytes>);

/// What writes `snapshot` over one of `before` chunks, in this order.
pub fn writes(snapshot: &Snapshot, before: u64) -> Vec<Change> {
    let packed = pack(snapshot);
    let chunks = packed.len().saturating_sub(1) as u64;
    let rest = (chunks..before).map(|number| (snapshot_chunk(&snapshot.pool, number), None));
    packed.into_iter().map(|(key, value)| (key, Some(value))).chain(rest).collect()
}

/// What takes a snapshot of so many chunks away, in this order.
pub fn purges(pool: &PoolId, chunks: u64) -> Vec<Change> {
    let head = IntentsKey::Snapshot(pool.clone()).to_string();
    let chunks = (0..chunks).map(|number| snapshot_chunk(pool, number));
    std::iter::once(head).chain(chunks).map(|key| (key, None)).collect()
}

/// Carries the changes out, one after the other.
pub(super) async fn carry_out(
    peers: Peers,
    tenure: Tenure,
    kind: &'static str,
    changes: Vec<Change>,
    marker_ttl: Duration,
) {
    let _ = done(kind, all(&peers, &tenure, changes, marker_ttl).await);
}

async fn all(peers: &Peers, tenure: &Tenure, changes: Vec<Change>, marker_ttl: Duration) -> Result<(), NotDone> {
    for (key, value) in changes {
        let subject = Bucket::Intents.subject(&peers.cluster, &key);
        let content = value.map_or(Content::Purge(marker_ttl), Content::Value);
        tenure.guard(send(&peers.bus, subject, None, content)).await?.await?;
    }
    Ok(())
}
