//! Writing a pool down as a whole, and taking that away; nobody waits for it, and the watch tells what came of it.
//!
//! Owns the order. The head goes last, and away first: who finds it finds the chunks.

use std::time::Duration;

/// What is written; for who stores it elsewhere than in NATS.
pub use daemon::snapshot::pack;
use shared::message::Snapshot;
use shared::name::PoolId;
use shared::subject::{Bucket, IntentsKey, snapshot_chunk};

use super::Peers;
use super::outcome::{NotDone, done};
use super::puts::{Content, send};
use crate::leader::tenure::Tenure;

/// Writes `snapshot` over one of `before` chunks.
pub(super) async fn write(
    peers: Peers,
    tenure: Tenure,
    kind: &'static str,
    snapshot: Box<Snapshot>,
    (before, marker_ttl): (u64, Duration),
) {
    let pool = snapshot.pool.clone();
    // Some 5 ms for a thousand intents, at most twice a minute.
    let packed = pack(&snapshot);
    let chunks = packed.len().saturating_sub(1) as u64;
    let values = packed.into_iter().map(|(key, value)| (key, Content::Value(value)));
    let rest = (chunks..before).map(|number| (snapshot_chunk(&pool, number), Content::Purge(marker_ttl)));
    let _ = done(kind, all(&peers, &tenure, values.chain(rest)).await);
}

/// Takes away the snapshot of `pool`, which has so many chunks.
pub(super) async fn purge(
    peers: Peers,
    tenure: Tenure,
    kind: &'static str,
    pool: PoolId,
    (chunks, marker_ttl): (u64, Duration),
) {
    let head = IntentsKey::Snapshot(pool.clone()).to_string();
    let keys = std::iter::once(head).chain((0..chunks).map(|number| snapshot_chunk(&pool, number)));
    let _ = done(kind, all(&peers, &tenure, keys.map(|key| (key, Content::Purge(marker_ttl)))).await);
}

async fn all(peers: &Peers, tenure: &Tenure, puts: impl Iterator<Item = (String, Content)>) -> Result<(), NotDone> {
    for (key, content) in puts {
        let subject = Bucket::Intents.subject(&peers.cluster, &key);
        tenure.guard(send(&peers.bus, subject, None, content)).await?.await?;
    }
    Ok(())
}
