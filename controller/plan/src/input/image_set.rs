//! A set of images that somebody names by hand.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Workload, WorkloadKey, WorkloadKind};
use crate::set::SetStatus;

/// Which set. Printed as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SetKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name: a DNS label, since it becomes part of one of ours.
    pub name: String,
}

impl SetKey {
    /// The set as an owner of images.
    pub fn workload(&self) -> WorkloadKey {
        let Self { namespace, name } = self.clone();
        WorkloadKey { kind: WorkloadKind::ImageSet, namespace, name }
    }
}

impl fmt::Display for SetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What matters of an `ImageSet`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageSet {
    /// What it wants, as a workload would. The position of an image is its field path.
    pub wants: Workload,
    /// `metadata.generation`: which version of the wishes this is.
    pub generation: i64,
    /// Its status as the API server has it; `None` if there is none yet.
    pub status: Option<SetStatus>,
}
