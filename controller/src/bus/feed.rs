//! One bucket as facts: its full read on every connection, then each change in the order of the stream.
//!
//! Owns what all three buckets have in common: keys that follow no rule are counted and ignored, a value that cannot be
//! decoded is handed on as such, a marker as a marker. Never decides what a document means.

use cluster_plan::Fact;
use cluster_plan::fact::{Newer, Stored, StoredValue};
use shared::message::DecodeError;
use shared::reason::Reason;
use shared::subject::Bucket;
use tracing::warn;

use super::refused;

/// A bucket that is watched: one implementation a bucket.
pub trait Feed: Send + 'static {
    /// Which bucket.
    const BUCKET: Bucket;
    /// What its documents are called in metrics.
    const KIND: &'static str;
    /// A key of it.
    type Key: Send;
    /// A document of it.
    type Doc: Send;

    /// The inverse of printing a key.
    fn key(key: &str) -> Option<Self::Key>;

    /// Whether what stands under `key`, which is none of them, is derived from the others, for agents alone.
    fn is_derived(_key: &str) -> bool {
        false
    }

    /// Decodes the document under `key`.
    fn decode(key: &Self::Key, body: &[u8]) -> Result<Self::Doc, Undecodable>;

    /// The fact of a full read.
    fn read(created: String, head: u64, entries: Vec<Stored<Self::Key, Self::Doc>>) -> Fact;

    /// The fact of one change.
    fn changed(entry: Stored<Self::Key, Self::Doc>) -> Fact;
}

/// Why a stored value is no document of its key.
#[derive(Debug, thiserror::Error)]
pub enum Undecodable {
    /// It has another form.
    #[error(transparent)]
    Form(#[from] DecodeError),
    /// It speaks of another key.
    #[error("it speaks of {0}")]
    Foreign(String),
}

impl Undecodable {
    fn reason(&self) -> Reason {
        match self {
            Self::Form(DecodeError::Newer { .. }) => Reason::NewerSchema,
            Self::Form(_) => Reason::Invalid,
            Self::Foreign(_) => Reason::Forged,
        }
    }
}

/// One stored key; `body` is `None` for a marker. `None` for a key of no meaning: nothing is to be known of it.
pub fn stored<F: Feed>(key: &str, seq: u64, body: Option<&[u8]>) -> Option<Stored<F::Key, F::Doc>> {
    let Some(parsed) = F::key(key) else {
        if F::is_derived(key) {
            return None;
        }
        refused(F::KIND, Reason::Invalid);
        warn!(bucket = F::BUCKET.word(), key, "a key that follows no rule is ignored; remove it with `nats kv del`");
        return None;
    };
    let value = match body.map(|body| F::decode(&parsed, body)) {
        None => StoredValue::Marker,
        Some(Ok(document)) => StoredValue::Value(document),
        Some(Err(error)) => {
            refused(F::KIND, error.reason());
            warn!(bucket = F::BUCKET.word(), key, seq, %error, "a stored value is not taken in; the last good one stays");
            match error {
                Undecodable::Form(DecodeError::Newer { version, .. }) => {
                    StoredValue::Newer(Newer { schema: version, by: body.and_then(author) })
                }
                _ => StoredValue::Undecodable,
            }
        }
    };
    Some(Stored { key: parsed, seq, value })
}

/// Who wrote a document whose form is not known: every `_meta` so far has said it in `by`.
fn author(body: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    document.get("by")?.as_str().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests;
