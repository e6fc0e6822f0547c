//! A workload: an object with a pod template, or a bare Pod.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WorkloadKind {
    /// apps/v1 Deployment.
    Deployment,
    /// apps/v1 `StatefulSet`.
    StatefulSet,
    /// apps/v1 `DaemonSet`.
    DaemonSet,
    /// A Pod without a controller.
    Pod,
}

impl WorkloadKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Deployment, Self::StatefulSet, Self::DaemonSet, Self::Pod];

    /// As Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Pod => "Pod",
        }
    }
}

/// Which object. Printed as `Kind/namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkloadKey {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

/// What matters of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
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
    /// Taint value for `Equal`.
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
    /// One this version does not know: tolerates nothing.
    Unknown,
}
