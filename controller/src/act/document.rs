//! One document of the intents bucket that is no intent: `_meta` or `_ctl`.
//!
//! Owns its compare-and-set. What a conflict found is told before the outcome.

use bytes::Bytes;
use daemon::bus::BusError;
use shared::reason::Reason;
use shared::subject::{Bucket, IntentsKey};

use super::Peers;
use super::outcome::done;
use super::reread::reread;
use crate::bus::Intents;
use cluster_plan::Fact;

/// Writes `body` if `key` has the sequence `expected`; its new sequence.
pub(super) async fn write(
    peers: &Peers,
    kind: &'static str,
    key: IntentsKey,
    body: Vec<u8>,
    expected: u64,
) -> Result<u64, Reason> {
    let Peers { bus, cluster, inbox, .. } = peers;
    let printed = key.to_string();
    let subject = Bucket::Intents.subject(cluster, &printed);
    let written = bus.put(subject, &[], Bytes::from(body), Some(expected)).await.await;
    if matches!(written, Err(BusError::Conflict { .. }))
        && let Some(there) = reread::<Intents>(bus, cluster, key, &printed).await
    {
        inbox.send(Fact::IntentChanged(there)).await;
    }
    done(kind, written)
}
