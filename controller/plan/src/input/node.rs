//! A node, as far as landing, warming and labelling are concerned.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use shared::message::assignment::Pressure;

use super::Capacity;

/// What matters of a Node object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// The object's UID.
    pub uid: String,
    /// Every label except those that are ours.
    pub labels: BTreeMap<String, String>,
    /// Labels that are ours (`shared::label::is_ours`), as the object shows them.
    pub our_labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: BTreeSet<Taint>,
    /// Has a deletion timestamp.
    pub deleting: bool,
    /// What the kubelet reports as short.
    pub pressure: BTreeSet<Pressure>,
    /// Cordoned, by field or by taint.
    pub unschedulable: bool,
    /// `status.allocatable`, as far as it can matter.
    pub capacity: Capacity,
}

/// `core/v1 Taint`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value, maybe empty.
    pub value: String,
    /// Effect.
    pub effect: TaintEffect,
}

/// `core/v1 TaintEffect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words of core/v1 TaintEffect")]
pub enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
    /// One this version does not know: ignored, as the scheduler does.
    Unknown,
}
