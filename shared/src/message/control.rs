//! The switch that a person holds, key `_ctl` of the intents bucket.

use serde::{Deserialize, Serialize};

use super::Message;

/// Whether the controllers rest, and who said so. Written by compare-and-set by whichever replica was asked; obeyed by
/// every replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Control {
    /// No intent changes, and no agent starts a pull.
    pub paused: bool,
    /// Why, in the person's words.
    #[serde(default)]
    pub reason: String,
    /// Who asked.
    pub by: String,
    /// When the switch was last turned. For people.
    pub since: jiff::Timestamp,
}

impl Message for Control {
    const KIND: &'static str = "control";
}
