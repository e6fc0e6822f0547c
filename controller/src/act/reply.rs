//! Answering a question, once.

use bytes::Bytes;
use serde_json::Value;
use tracing::debug;

use super::Peers;
use super::outcome::done;

/// Sends `body` to whoever asked under `number`.
pub(super) async fn send(peers: Peers, kind: &'static str, number: u64, body: Value) {
    let Some(request) = peers.questions.take(number) else {
        debug!(number, "a question has been forgotten: too many were asked since");
        return;
    };
    let error = body.get("error").and_then(Value::as_str);
    let _ = done(kind, peers.bus.answer(request, Bytes::from(body.to_string()), error).await);
}
