//! The states an image can be in on a node.
//!
//! Owns the words that inventories, events, metrics and status share.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an agent says of one image on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageState {
    /// Known, not started.
    Pending,
    /// Its wave has not opened for this node, or a permit is awaited.
    Waiting,
    /// The runtime pulls it.
    Pulling,
    /// Present, verified by the runtime, digest as resolved.
    Warm,
    /// Held back by the node: disk or pid pressure, runtime away.
    Deferred,
    /// An attempt failed; `next` says when another follows.
    Failed,
    /// Policy, platform or identity forbids it: retried rarely.
    Refused,
    /// Was warm and is gone; `pending` follows.
    Evicted,
}

impl ImageState {
    /// Every state, in the order of an image's life.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Waiting,
        Self::Pulling,
        Self::Warm,
        Self::Deferred,
        Self::Failed,
        Self::Refused,
        Self::Evicted,
    ];

    /// The word, as it stands in messages, subjects, metrics and docs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Waiting => "waiting",
            Self::Pulling => "pulling",
            Self::Warm => "warm",
            Self::Deferred => "deferred",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Evicted => "evicted",
        }
    }

    /// The state of a word; `None` for any other word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }
}

impl fmt::Display for ImageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
