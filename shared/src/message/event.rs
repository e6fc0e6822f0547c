//! The event: one transition of one image on one node.

use serde::{Deserialize, Serialize};

use super::Message;
use crate::image::Digest;
use crate::name::{ImageKey, NodeName};
use crate::reason::Reason;
use crate::state::ImageState;

/// `node.<n>.ev.<state>`, at once, at most once: the inventory that follows says it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The node.
    pub node: NodeName,
    /// The run of the agent.
    pub inst: String,
    /// The agent's counter: orders events and inventories of one node.
    pub n: u64,
    /// UID of the Node object the agent works for, as its assignment says.
    pub uid: String,
    /// The image's key.
    pub id: ImageKey,
    /// Its canonical pull reference.
    pub image: String,
    /// What it became.
    pub st: ImageState,
    /// Why, where there is a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Reason>,
    /// How long the pull took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    /// Size as the runtime reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// What the runtime says the reference resolves to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Which attempt this was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#try: Option<u32>,
    /// When the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<jiff::Timestamp>,
    /// For people.
    pub ts: jiff::Timestamp,
}

impl Message for Event {
    const KIND: &'static str = "event";
}
