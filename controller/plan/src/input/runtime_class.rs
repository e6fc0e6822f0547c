//! A `RuntimeClass`: what the API server adds to the Pods that name it. Templates do not have it yet.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Requests, Toleration};

/// What matters of a `RuntimeClass` object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeClass {
    /// `scheduling.nodeSelector`: a Pod that wants another value is refused.
    pub node_selector: BTreeMap<String, String>,
    /// `scheduling.tolerations`, added to the Pod's.
    pub tolerations: BTreeSet<Toleration>,
    /// `overhead.podFixed`.
    pub overhead: Requests,
}
