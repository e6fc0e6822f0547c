//! The beat: the pulse of a pool, by which an agent notices a lost delta.

use serde::{Deserialize, Serialize};

use super::Message;
use crate::name::PoolId;
use crate::pool_set::{PoolSummary, SetDigest};

/// `beat.<pool>`, every 15 s with jitter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beat {
    /// The epoch.
    pub epoch: String,
    /// The sending controller's term.
    pub term: u64,
    /// The pool.
    pub pool: PoolId,
    /// Last sequence of the intents stream the controller has taken in.
    pub head: u64,
    /// Live intents of the pool.
    pub count: u64,
    /// Digest over them.
    pub digest: SetDigest,
    /// Over how many milliseconds a read that this causes is to be spread.
    #[serde(default)]
    pub spread_ms: u64,
    /// For people.
    pub ts: jiff::Timestamp,
}

impl Message for Beat {
    const KIND: &'static str = "beat";
}

impl Beat {
    /// Head, count and digest.
    pub fn summary(&self) -> PoolSummary {
        PoolSummary { head: self.head, count: self.count, digest: self.digest }
    }
}
