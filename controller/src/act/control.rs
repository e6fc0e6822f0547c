//! Turning the pause switch: one compare-and-set of `_ctl`.

use cluster_plan::Fact;
use shared::message::{Control, Message as _};
use shared::subject::IntentsKey;

use super::Peers;
use super::document::write;

/// Writes `control`, which any replica may, if `_ctl` has the sequence `expected`. After a conflict, what is there is told first.
pub(super) async fn turn(peers: Peers, kind: &'static str, control: Control, expected: u64) {
    let written = write(&peers, None, kind, IntentsKey::Control, control.encode(), expected).await;
    peers.inbox.send(Fact::ControlWritten(written)).await;
}
