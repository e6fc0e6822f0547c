//! The assignment: the pools of one node, and all it knows of its Node object.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::Message;
use crate::name::{NodeName, PoolId};

/// How many pools a node can be in; rarer constraints go to its private pool.
pub const MAX_POOLS: usize = 128;

/// The limit on pulls in flight: 0 while the controllers are paused.
pub const PULLS_IN_FLIGHT: &str = "pullsInFlight";

/// One key `<n>` of the assign bucket, copied to `assign.<n>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The node.
    pub node: NodeName,
    /// UID of the Node object. Another one makes the agent drop its persisted pools.
    pub uid: String,
    /// At most [`MAX_POOLS`], sorted.
    pub pools: Vec<PoolId>,
    /// One more with each write of this node's assignment within an epoch.
    pub rev: u64,
    /// What the Node's conditions say is short.
    #[serde(default)]
    pub pressure: Vec<Pressure>,
    /// Limits by name; an agent obeys the lower of this and its own, and ignores names it does not know.
    #[serde(default, deserialize_with = "numbers")]
    pub limits: BTreeMap<String, u64>,
    /// The term that wrote this.
    #[serde(default)]
    pub term: u64,
}

/// A resource the kubelet reports as short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pressure {
    /// `DiskPressure`.
    Disk,
    /// `PIDPressure`.
    Pid,
    /// One this version does not know.
    #[serde(other)]
    Other,
}

impl Message for Assignment {
    const KIND: &'static str = "assignment";
}

/// A limit of a newer peer may be of another shape; that is one that this build does not know.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, u64>, D::Error> {
    let limits = BTreeMap::<String, Value>::deserialize(deserializer)?;
    Ok(limits.into_iter().filter_map(|(name, limit)| Some((name, limit.as_u64()?))).collect())
}

impl Assignment {
    /// How many pulls may be in flight at once, if that is limited here.
    pub fn pulls_in_flight(&self) -> Option<usize> {
        self.limits.get(PULLS_IN_FLIGHT).map(|limit| usize::try_from(*limit).unwrap_or(usize::MAX))
    }

    /// Whether both say the same, whoever wrote them when.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.node == other.node
            && self.uid == other.uid
            && self.pools == other.pools
            && self.pressure == other.pressure
            && self.limits == other.limits
    }
}
