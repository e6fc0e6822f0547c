//! Writing a pool down as a whole; nobody waits for it, and the next one says more.
//!
//! Owns compression and chunks. The first chunk goes last: who finds it finds the others.

use bytes::Bytes;
use daemon::compress::deflate;
use shared::message::header;
use shared::message::snapshot::{CHUNK, Snapshot};
use shared::subject::{Bucket, snapshot_key};

use super::Peers;
use super::outcome::{NotDone, done};
use crate::leader::tenure::Tenure;

/// Writes `snapshot`.
pub(super) async fn write(peers: Peers, tenure: Tenure, kind: &'static str, snapshot: Box<Snapshot>) {
    let body = Bytes::from(deflate(&snapshot.encode()));
    let chunks: Vec<Bytes> =
        (0..body.len()).step_by(CHUNK).map(|at| body.slice(at..body.len().min(at + CHUNK))).collect();
    let headers = [(header::TO, snapshot.head.to_string()), (header::CHUNKS, chunks.len().to_string())];
    let mut ended: Result<(), NotDone> = Ok(());
    for (number, chunk) in chunks.into_iter().enumerate().rev() {
        let subject = Bucket::Intents.subject(&peers.cluster, &snapshot_key(&snapshot.pool, number));
        ended = put(&peers, &tenure, subject, &headers, chunk).await;
        if ended.is_err() {
            break;
        }
    }
    let _ = done(kind, ended);
}

async fn put(
    peers: &Peers,
    tenure: &Tenure,
    subject: String,
    headers: &[(&str, String)],
    chunk: Bytes,
) -> Result<(), NotDone> {
    let ack = tenure.guard(peers.bus.put(subject, headers, chunk, None)).await?;
    ack.await?;
    Ok(())
}
