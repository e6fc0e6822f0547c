//! What the Pods of one controller show: kept by controller, because the Pods of one differ little.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Workload, WorkloadKey};

/// The object that controls some Pods: their `ownerReference` with `controller: true`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    /// Which object.
    pub key: WorkloadKey,
    /// And which of those that have had this name.
    pub uid: String,
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.key, self.uid)
    }
}

/// Pods of one controller that show the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// The name of one of them, for messages to people.
    pub pod: String,
    /// What they show. It names neither a node nor a Pod.
    pub view: Workload,
}
