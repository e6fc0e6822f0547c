//! A workload: an object with a pod template, or a bare Pod.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Requests;

/// A kind of workload. Written as one word: `Deployment`, `Rollout.argoproj.io`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    /// apps/v1 Deployment.
    Deployment,
    /// apps/v1 `StatefulSet`.
    StatefulSet,
    /// apps/v1 `DaemonSet`.
    DaemonSet,
    /// apps/v1 `ReplicaSet`.
    ReplicaSet,
    /// v1 `ReplicationController`.
    ReplicationController,
    /// batch/v1 Job.
    Job,
    /// batch/v1 `CronJob`.
    CronJob,
    /// v1 Pod.
    Pod,
    /// A set of images that somebody names by hand.
    ImageSet,
    /// One that is configured: `Kind.group`.
    Other(Arc<str>),
}

impl WorkloadKind {
    /// Every kind that is watched without being configured.
    pub const BUILT_IN: [Self; 8] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::ReplicaSet,
        Self::ReplicationController,
        Self::Job,
        Self::CronJob,
        Self::Pod,
    ];

    /// The kind of this group and name, as an `ownerReference` has them. Any may be asked for; which are watched is
    /// another question.
    pub fn of(group: &str, kind: &str) -> Self {
        let built_in = Self::BUILT_IN.into_iter().find(|known| known.group() == group && known.name() == kind);
        built_in.unwrap_or_else(|| match group {
            "" => Self::Other(kind.into()),
            _ => Self::Other(format!("{kind}.{group}").into()),
        })
    }

    /// As people read it, and as it is written: the kind, and of those that are configured the group too.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
            Self::Pod => "Pod",
            Self::ImageSet => "ImageSet",
            Self::Other(text) => text,
        }
    }

    /// As Kubernetes spells it.
    pub fn name(&self) -> &str {
        self.as_str().split('.').next().unwrap_or_default()
    }

    /// Its API group; empty is core.
    pub fn group(&self) -> &str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet | Self::ReplicaSet => "apps",
            Self::ReplicationController | Self::Pod => "",
            Self::Job | Self::CronJob => "batch",
            Self::ImageSet => "warm-images.dev",
            Self::Other(text) => text.split_once('.').map_or("", |(_, group)| group),
        }
    }
}

impl From<&str> for WorkloadKind {
    fn from(text: &str) -> Self {
        let built_in = Self::BUILT_IN.into_iter().chain([Self::ImageSet]).find(|known| known.as_str() == text);
        built_in.unwrap_or_else(|| Self::Other(text.into()))
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for WorkloadKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for WorkloadKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        if text.is_empty() {
            return Err(serde::de::Error::custom("a kind is empty"));
        }
        Ok(Self::from(&*text))
    }
}

/// Which object. Printed as `Kind/namespace/name`. Of an object with several pod templates under several constraints all
/// but the first are named `name#template`, which no object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkloadKey {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl WorkloadKey {
    /// The name of the object.
    pub fn object_name(&self) -> &str {
        self.name.split('#').next().unwrap_or_default()
    }
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// What matters of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a statement of its own")]
pub struct Workload {
    /// UID of the object.
    pub uid: String,
    /// Image references as written, from containers, init containers, ephemeral containers and image volumes.
    pub images: Vec<ContainerImage>,
    /// Where its pods may land.
    pub constraint: Constraint,
    /// Annotation `warm-images.dev/warm` of the object.
    pub warm: Option<String>,
    /// The same annotation of the pod template.
    pub template_warm: Option<String>,
    /// Annotation `warm-images.dev/priority` of the object, else of the template.
    pub priority: Option<String>,
    /// Annotation `warm-images.dev/max-nodes` of the object, else of the template.
    pub max_nodes: Option<String>,
    /// `runtimeClassName` of a template. That of a Pod is not looked at: the Pod has what its class adds.
    pub runtime_class: Option<String>,
    /// Labels of the object, not of its template.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What CEL expressions of the configuration give over the whole object, or why they fail: by their text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub expressions: BTreeMap<String, Result<bool, String>>,
    /// Its controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// It has done what it was for, and will start no Pod any more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// Has a deletion timestamp.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// Its other pod templates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<Part>,
    /// The workload whose templates are its own too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_of: Option<WorkloadKey>,
    /// What cannot be used of it, beside its images and annotations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Secrets with registry credentials, as `namespace/name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// How often moving tags are to be looked up again, as `6h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<String>,
    /// Nothing is to be pulled for it; what is there is kept.
    #[serde(skip_serializing_if = "is_false")]
    pub is_suspended: bool,
    /// Somebody named the images by hand: no namespace and no mode leaves them out.
    #[serde(skip_serializing_if = "is_false")]
    pub is_named: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_false(is: &bool) -> bool {
    !is
}

impl Workload {
    /// Its images, from all of its templates.
    pub fn every_image(&self) -> impl Iterator<Item = &ContainerImage> {
        self.images.iter().chain(self.more.iter().flat_map(|part| &part.images))
    }

    /// The owner of the object of this key.
    pub(crate) fn owner_key(&self, key: &WorkloadKey) -> Option<WorkloadKey> {
        let Owner { kind, name, .. } = self.owner.as_ref()?;
        Some(WorkloadKey { kind: kind.clone(), namespace: key.namespace.clone(), name: name.clone() })
    }
}

/// The controller of an object: its `ownerReference` with `controller: true`, in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Its kind, watched or not.
    pub kind: WorkloadKind,
    /// Its name.
    pub name: String,
    /// Which of those that have had this name.
    pub uid: String,
}

/// One pod template of several.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Part {
    /// Which: `workerGroupSpecs[0].template`.
    pub at: String,
    /// As in [`Workload`].
    pub images: Vec<ContainerImage>,
    /// As in [`Workload`].
    pub constraint: Constraint,
    /// As in [`Workload`].
    pub template_warm: Option<String>,
    /// As in [`Workload`].
    pub runtime_class: Option<String>,
}

/// One place where an image stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerImage {
    /// `containers[0] "app"`, for messages to people.
    pub position: String,
    /// As written.
    pub image: String,
}

/// What the scheduler would ask of a node for the pods of a workload, as far as it is stable: KEP-free core of
/// `NodeAffinity` and `TaintToleration`. Not normalised yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Constraint {
    /// `nodeSelector`: all equal.
    pub node_selector: BTreeMap<String, String>,
    /// `requiredDuringSchedulingIgnoredDuringExecution`: any term. `None` is no affinity; an empty list is invalid in
    /// Kubernetes and matches nothing.
    pub affinity: Option<Vec<NodeSelectorTerm>>,
    /// Tolerations as written.
    pub tolerations: BTreeSet<Toleration>,
    /// `spec.nodeName`: a Pod that names its node goes nowhere else.
    pub node_name: Option<String>,
    /// What one pod asks for.
    pub requests: Requests,
    /// How many of the nodes are to be chosen.
    pub limit: Option<Limit>,
}

/// Not every node, but some that are chosen for one owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// How many at most.
    pub nodes: u32,
    /// For whom: all images of one owner are on the same nodes.
    pub owner: String,
}

/// One term: every expression must hold; a term without any matches nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelectorTerm {
    /// Over labels.
    pub match_expressions: BTreeSet<MatchExpression>,
    /// Over fields; only `metadata.name` exists.
    pub match_fields: BTreeSet<MatchExpression>,
}

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MatchExpression {
    /// Label key or field path.
    pub key: String,
    /// How to compare.
    pub operator: Operator,
    /// With what.
    #[serde(default)]
    pub values: BTreeSet<String>,
}

/// `core/v1 NodeSelectorOperator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words of core/v1 NodeSelectorOperator")]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
    /// One this version does not know: matches nothing, so nothing is pulled where it might not be wanted.
    Unknown,
}

/// `core/v1 Toleration`; its `tolerationSeconds` does not matter for landing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Taint key; `None` with `Exists` tolerates everything.
    pub key: Option<String>,
    /// How to compare.
    pub operator: TolerationOperator,
    /// Taint value for `Equal`; what that of the taint, a whole number, is to be above or below for `Gt` and `Lt`.
    pub value: String,
    /// Effect; `None` is every effect.
    pub effect: Option<super::TaintEffect>,
}

/// `core/v1 TolerationOperator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words of core/v1 TolerationOperator")]
pub enum TolerationOperator {
    Equal,
    Exists,
    Gt,
    Lt,
    /// One this version does not know: tolerates nothing.
    Unknown,
}
