//! Taking the term: one compare-and-set of `_meta`.

use cluster_plan::Fact;
use shared::message::{Message as _, Meta};
use shared::subject::IntentsKey;

use super::Peers;
use super::document::write;
use crate::leader::tenure::Tenure;

/// Writes `meta` if `_meta` has the sequence `expected`. After a conflict, what is there is told first.
pub(super) async fn take(peers: Peers, tenure: Tenure, kind: &'static str, meta: Meta, expected: u64) {
    let taken = write(&peers, Some(&tenure), kind, IntentsKey::Meta, meta.encode(), expected).await;
    peers.inbox.send(Fact::TermTaken(taken)).await;
}
