//! The pulse of a pool; not acknowledged, and the next one says the same.

use bytes::Bytes;
use shared::message::{Beat, Message as _, SCHEMA, header};
use shared::subject::Subject;

use super::Peers;
use super::outcome::{done, flat};
use crate::leader::tenure::Tenure;

/// Publishes `beat`.
pub(super) async fn publish(peers: &Peers, tenure: &Tenure, kind: &'static str, beat: Beat) {
    let headers = [
        (header::SCHEMA, SCHEMA.to_string()),
        (header::EPOCH, beat.epoch.clone()),
        (header::TERM, beat.term.to_string()),
    ];
    let subject = Subject::Beat(beat.pool.clone()).print(&peers.cluster);
    let sent = tenure.guard(peers.bus.publish(subject, &headers, Bytes::from(beat.encode()))).await;
    let _ = done(kind, flat(sent));
}
