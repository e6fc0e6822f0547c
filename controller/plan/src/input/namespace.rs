//! A namespace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What matters of a Namespace object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespace {
    /// UID; that of `kube-system` names the cluster.
    pub uid: String,
    /// Annotation `warm-images.dev/warm`.
    pub warm: Option<String>,
    /// Its labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}
