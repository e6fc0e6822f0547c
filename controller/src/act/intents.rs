//! Writing intents: a pipelined batch, then one delta for each pool.
//!
//! Owns the order: acknowledgements, deltas, what conflicts found, the outcome.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cluster_plan::Fact;
use cluster_plan::effect::{IntentBatch, IntentWrite};
use shared::name::{ClusterId, PoolId};
use shared::reason::Reason;
use shared::subject::{Bucket, Subject};

use super::Peers;
use super::delta::deltas;
use super::outcome::{NotDone, batch_done, flat, said};
use super::puts::{Content, Put, write_all};
use super::reread::reread;
use crate::bus::Intents;
use crate::leader::tenure::Tenure;

/// Writes `batch` and tells what was acknowledged.
pub(super) async fn write(peers: &Peers, tenure: &Tenure, kind: &'static str, batch: IntentBatch) {
    let puts = batch.writes.iter().map(|write| put(&peers.cluster, write, batch.marker_ttl)).collect();
    let written = write_all(&peers.bus, tenure, puts).await;
    let results: Vec<Result<u64, Reason>> =
        written.iter().map(|result| result.as_ref().copied().map_err(|error| said(kind, error))).collect();
    let deltas = publish(peers, tenure, &batch, &results).await;
    batch_done(kind, written.iter().filter_map(|result| result.as_ref().err()));
    tell_conflicts(peers, &batch, &written).await;
    let results = batch.writes.iter().map(IntentWrite::key).zip(results).collect();
    peers.inbox.send(Fact::IntentsWritten { results, deltas }).await;
}

/// The outcome of a batch that was not even tried.
pub(super) fn untried(batch: &IntentBatch, reason: Reason) -> Fact {
    let results = batch.writes.iter().map(|write| (write.key(), Err(reason))).collect();
    Fact::IntentsWritten { results, deltas: BTreeMap::new() }
}

fn put(cluster: &ClusterId, write: &IntentWrite, marker_ttl: Duration) -> Put {
    Put {
        subject: Bucket::Intents.subject(cluster, &write.key().to_string()),
        expected: write.expected,
        content: write.body().map_or(Content::Purge(marker_ttl), |body| Content::Value(body.into())),
    }
}

/// `to` of each delta that went out.
async fn publish(
    peers: &Peers,
    tenure: &Tenure,
    batch: &IntentBatch,
    results: &[Result<u64, Reason>],
) -> BTreeMap<PoolId, u64> {
    let mut told = BTreeMap::new();
    for delta in deltas(batch, results) {
        let subject = Subject::Delta(delta.pool.clone()).print(&peers.cluster);
        let headers = delta.headers();
        match flat(tenure.guard(peers.bus.publish(subject, &headers, Bytes::from(delta.body()))).await) {
            Ok(()) => {
                told.insert(delta.pool, delta.to);
            }
            // A beat will show what is missing.
            Err(error) => {
                said("delta", &error);
            }
        }
    }
    told
}

async fn tell_conflicts(peers: &Peers, batch: &IntentBatch, written: &[Result<u64, NotDone>]) {
    for (write, result) in batch.writes.iter().zip(written) {
        if result.as_ref().is_err_and(NotDone::is_conflict) {
            let key = write.key();
            let printed = key.to_string();
            if let Some(there) = reread::<Intents>(&peers.bus, &peers.cluster, key, &printed).await {
                peers.inbox.send(Fact::IntentChanged(there)).await;
            }
        }
    }
}
