//! The heartbeat: the pulse of an agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Message;
use crate::name::{NodeName, PoolId};
use crate::pool_set::{PoolSummary, SetDigest};

/// `node.<n>.hb`, every 30 s ± 20 %.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The node.
    pub node: NodeName,
    /// The run of the agent.
    pub inst: String,
    /// The boot of the machine.
    pub boot: String,
    /// The agent's counter.
    pub n: u64,
    /// Digest of what the agent now says of its images: [`super::Inventory::evidence_digest`].
    pub inv_digest: SetDigest,
    /// Pools whose set moved since the last inventory put.
    #[serde(default)]
    pub pools: BTreeMap<PoolId, PoolSummary>,
    /// Majors this agent speaks.
    #[serde(default)]
    pub schema: Vec<u32>,
    /// Messages it refused since it started: newer major or undecodable.
    #[serde(default)]
    pub refused: u64,
    /// For people.
    pub ts: jiff::Timestamp,
}

impl Message for Heartbeat {
    const KIND: &'static str = "heartbeat";
}
