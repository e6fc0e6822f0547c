//! The epoch document, key `_meta` of the intents bucket.

use serde::{Deserialize, Serialize};

use super::Message;

/// Which incarnation of the buckets this is, and who leads. Taking leadership is a compare-and-set of this key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// Changes when the stream was created anew: sequences start again.
    pub epoch: String,
    /// Fencing token, one more with each leader.
    pub term: u64,
    /// UID of the namespace kube-system: whose buckets these are.
    pub cluster: String,
    /// When the server says the intents stream was created.
    pub stream_created: String,
    /// The pod that took this term.
    pub by: String,
}

impl Message for Meta {
    const KIND: &'static str = "meta";
}
