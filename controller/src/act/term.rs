//! Taking the term: one compare-and-set of `_meta`.

use bytes::Bytes;
use cluster_plan::Fact;
use daemon::bus::BusError;
use shared::message::{Message as _, Meta};
use shared::subject::{Bucket, IntentsKey};

use super::Peers;
use super::outcome::done;
use super::reread::reread;
use crate::bus::Intents;

/// Writes `meta` if `_meta` has the sequence `expected`. After a conflict, what is there is told first.
pub(super) async fn take(peers: Peers, kind: &'static str, meta: Meta, expected: u64) {
    let Peers { bus, cluster, inbox, .. } = &peers;
    let key = IntentsKey::Meta.to_string();
    let subject = Bucket::Intents.subject(cluster, &key);
    let written = bus.put(subject, &[], Bytes::from(meta.encode()), Some(expected)).await.await;
    if matches!(written, Err(BusError::Conflict { .. }))
        && let Some(there) = reread::<Intents>(bus, cluster, IntentsKey::Meta, &key).await
    {
        inbox.send(Fact::IntentChanged(there)).await;
    }
    inbox.send(Fact::TermTaken(done(kind, written))).await;
}
