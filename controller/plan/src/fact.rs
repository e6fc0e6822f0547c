//! What the controller can learn.
//!
//! Owns the facts. Whoever builds one has already checked its form; the machine judges its meaning.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::machine::Kind;
use shared::message::{Assignment, Control, Event, Heartbeat, Intent, Inventory, KindWord, Meta, SnapshotHead};
use shared::name::{ImageKey, NodeName, PoolId};
use shared::reason::Reason;
use shared::subject::ControlVerb;

use crate::input::{
    Controller, ImageSet, Namespace, Node, Replica, RuntimeClass, Selection, SetKey, Workload, WorkloadKey,
    WorkloadKind,
};

/// Where facts come from that must have delivered their first full content before anything is decided.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Workloads of one kind.
    Workloads(WorkloadKind),
    /// Namespaces.
    Namespaces,
    /// Nodes.
    Nodes,
    /// `RuntimeClass` objects: awaited only while a workload names one.
    RuntimeClasses,
    /// Sets of images.
    Sets,
    /// The intents bucket.
    Intents,
    /// The assign bucket.
    Assignments,
    /// The nodes bucket.
    Inventories,
}

impl Source {
    /// Every source that there is without being configured: the kinds that are come to them.
    pub const FIXED: [Self; 14] = [
        Self::Workloads(WorkloadKind::Deployment),
        Self::Workloads(WorkloadKind::StatefulSet),
        Self::Workloads(WorkloadKind::DaemonSet),
        Self::Workloads(WorkloadKind::ReplicaSet),
        Self::Workloads(WorkloadKind::ReplicationController),
        Self::Workloads(WorkloadKind::Job),
        Self::Workloads(WorkloadKind::CronJob),
        Self::Workloads(WorkloadKind::Pod),
        Self::Namespaces,
        Self::Nodes,
        Self::RuntimeClasses,
        Self::Intents,
        Self::Assignments,
        Self::Inventories,
    ];

    /// The word in metrics and logs.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Workloads(WorkloadKind::Deployment) => "deployments",
            Self::Workloads(WorkloadKind::StatefulSet) => "statefulsets",
            Self::Workloads(WorkloadKind::DaemonSet) => "daemonsets",
            Self::Workloads(WorkloadKind::ReplicaSet) => "replicasets",
            Self::Workloads(WorkloadKind::ReplicationController) => "replicationcontrollers",
            Self::Workloads(WorkloadKind::Job) => "jobs",
            Self::Workloads(WorkloadKind::CronJob) => "cronjobs",
            Self::Workloads(WorkloadKind::Pod) => "pods",
            Self::Workloads(WorkloadKind::Other(kind)) => kind,
            Self::Workloads(WorkloadKind::ImageSet) | Self::Sets => "imagesets",
            Self::Namespaces => "namespaces",
            Self::Nodes => "nodes",
            Self::RuntimeClasses => "runtimeclasses",
            Self::Intents => "intents",
            Self::Assignments => "assignments",
            Self::Inventories => "inventories",
        }
    }
}

/// One change of a watched Kubernetes object. Identity before content: `Remove` needs only the key, and content that
/// cannot be used keeps the last good one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change<K, T> {
    /// There is such an object; `Err` is the text of what is wrong with it.
    Upsert(K, Result<T, String>),
    /// There is none any more.
    Remove(K),
}

impl<K, T> Change<K, T> {
    /// Which object.
    pub fn key(&self) -> &K {
        match self {
            Self::Upsert(key, _) | Self::Remove(key) => key,
        }
    }
}

/// One stored key of a bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored<K, T> {
    /// The key.
    pub key: K,
    /// Its sequence in the stream; compare-and-set expects it.
    pub seq: u64,
    /// What is there.
    pub value: StoredValue<T>,
}

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StoredValue<T> {
    /// A value.
    Value(T),
    /// A value of a newer major: never overwritten, and never replaces the last good one.
    Newer(Newer),
    /// A value that cannot be decoded: never replaces the last good one, and is put right by the next step.
    Undecodable,
    /// A delete or purge marker, or the marker that expiry leaves (`Nats-Marker-Reason`).
    Marker,
}

/// What a newer version has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newer {
    /// Its major.
    pub schema: u32,
    /// Who wrote it, if it says so.
    pub by: Option<String>,
}

/// A document of the intents bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IntentsDoc {
    /// `_meta`.
    Meta(Meta),
    /// `_ctl`.
    Control(Control),
    /// `<pool>.def`, as JSON.
    Definition(serde_json::Value),
    /// `<pool>.i.<id>`.
    Intent(Box<Intent>),
    /// `<pool>.snap.head`.
    Snapshot(SnapshotHead),
}

/// One fact.
#[allow(clippy::large_enum_variant, reason = "nearly all facts are of the large kinds, and each is moved once")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fact {
    /// A workload changed.
    Workload(Change<WorkloadKey, Workload>),
    /// A full list of one kind of workload: what is not in it is gone.
    Workloads(WorkloadKind, #[serde(with = "shared::pairs")] BTreeMap<WorkloadKey, Result<Workload, String>>),
    /// What the Pods of one controller show changed. Those come before the list of Pods, of which they are part.
    Replicas(Change<Controller, Vec<Replica>>),
    /// What the Pods of all controllers show: those not in it have none any more.
    AllReplicas(#[serde(with = "shared::pairs")] BTreeMap<Controller, Vec<Replica>>),
    /// A namespace changed.
    Namespace(Change<String, Namespace>),
    /// A full list of namespaces.
    Namespaces(BTreeMap<String, Result<Namespace, String>>),
    /// A set of images changed.
    Set(Change<SetKey, ImageSet>),
    /// A full list of sets: what is not in it is gone.
    Sets(#[serde(with = "shared::pairs")] BTreeMap<SetKey, Result<ImageSet, String>>),
    /// A node changed.
    Node(Change<NodeName, Node>),
    /// A full list of nodes.
    Nodes(BTreeMap<NodeName, Result<Node, String>>),
    /// A `RuntimeClass` changed.
    RuntimeClass(Change<String, RuntimeClass>),
    /// A full list of `RuntimeClass` objects.
    RuntimeClasses(BTreeMap<String, Result<RuntimeClass, String>>),
    /// The configuration of what is wanted, at start and after each reload.
    Selection(Selection),
    /// A full read of the intents bucket: what is not in it is gone.
    Intents {
        /// When the server says the stream was created.
        stream_created: String,
        /// Last sequence taken in.
        head: u64,
        /// Every key.
        entries: Vec<Stored<shared::subject::IntentsKey, IntentsDoc>>,
    },
    /// A key of the intents bucket changed, in the order of the stream. `head` moves to its sequence.
    IntentChanged(Stored<shared::subject::IntentsKey, IntentsDoc>),
    /// A full read of the assign bucket.
    Assignments(Vec<Stored<NodeName, Assignment>>),
    /// A key of the assign bucket changed.
    AssignmentChanged(Stored<NodeName, Assignment>),
    /// A full read of the nodes bucket.
    Inventories(Vec<Stored<NodeName, Box<Inventory>>>),
    /// A key of the nodes bucket changed. The node is the key's, never the body's.
    InventoryChanged(Stored<NodeName, Box<Inventory>>),
    /// An agent's pulse.
    Heartbeat(Heartbeat),
    /// A transition.
    Event(Box<Event>),
    /// The connection to NATS is up and the buckets are as they must be.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// Whether this replica holds the Lease, from now on.
    Lease(bool),
    /// `_meta` was written by compare-and-set (its new sequence), or was not.
    TermTaken(Result<u64, Reason>),
    /// `_ctl` was written by compare-and-set (its new sequence), or was not.
    ControlWritten(Result<u64, Reason>),
    /// Somebody asks; answered once by `Effect::Reply`.
    Asked {
        /// What is asked.
        verb: ControlVerb,
        /// The body.
        body: String,
        /// Number of the request, kept by the executor.
        reply: u64,
    },
    /// A batch of writes to the intents bucket ended, in the order sent, and the deltas for it went out.
    IntentsWritten {
        /// The new sequence of each key, or why it failed.
        results: Vec<(shared::subject::IntentsKey, Result<u64, Reason>)>,
        /// `to` of the delta published for each pool, if one was.
        deltas: BTreeMap<PoolId, u64>,
    },
    /// A batch of writes to the assign bucket ended.
    AssignmentsWritten(Vec<(NodeName, Result<u64, Reason>)>),
    /// A label patch ended. What the Node then shows comes as `Fact::Node`.
    NodeLabelled {
        /// The node.
        node: NodeName,
        /// Its outcome.
        result: Result<(), Reason>,
        /// For how long the API server wants to be left alone, if it said so.
        #[serde(default, with = "shared::duration::optional")]
        retry_after: Option<Duration>,
    },
    /// The status of a set was written, or was not. What it then shows comes as `Fact::Set`.
    SetStatusWritten {
        /// The set.
        set: SetKey,
        /// Its outcome.
        result: Result<(), Reason>,
        /// For how long the API server wants to be left alone, if it said so.
        #[serde(default, with = "shared::duration::optional")]
        retry_after: Option<Duration>,
    },
    /// A Kubernetes Event was posted, or was not.
    EventPosted {
        /// The workload it is about.
        workload: WorkloadKey,
        /// The image.
        id: ImageKey,
        /// Its outcome.
        result: Result<(), Reason>,
    },
    /// A message was dropped before it became a fact.
    Refused {
        /// Kind of the message.
        #[serde(deserialize_with = "shared::message::kind_word")]
        kind: KindWord,
        /// Forged, newer or invalid.
        reason: Reason,
    },
}

impl Fact {
    /// The source it comes from, if it is one that must have delivered its first full content.
    pub fn source(&self) -> Option<Source> {
        match self {
            Self::Workload(Change::Upsert(key, _) | Change::Remove(key)) => Some(Source::Workloads(key.kind.clone())),
            Self::Workloads(kind, _) => Some(Source::Workloads(kind.clone())),
            Self::Replicas(_) | Self::AllReplicas(_) => Some(Source::Workloads(WorkloadKind::Pod)),
            Self::Namespace(_) | Self::Namespaces(_) => Some(Source::Namespaces),
            Self::Set(_) | Self::Sets(_) => Some(Source::Sets),
            Self::Node(_) | Self::Nodes(_) => Some(Source::Nodes),
            Self::Intents { .. } | Self::IntentChanged(_) => Some(Source::Intents),
            Self::Assignments(_) | Self::AssignmentChanged(_) => Some(Source::Assignments),
            Self::Inventories(_) | Self::InventoryChanged(_) => Some(Source::Inventories),
            _ => None,
        }
    }
}

impl Fact {
    /// Whether it says only how something of ours ended.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::TermTaken(_)
                | Self::ControlWritten(_)
                | Self::Asked { .. }
                | Self::IntentsWritten { .. }
                | Self::AssignmentsWritten(_)
                | Self::NodeLabelled { .. }
                | Self::SetStatusWritten { .. }
                | Self::EventPosted { .. }
        )
    }
}

impl Kind for Fact {
    fn kind(&self) -> &'static str {
        match self {
            Self::Workload(_) => "workload",
            Self::Workloads(..) => "workloads",
            Self::Replicas(_) => "replicas",
            Self::AllReplicas(_) => "all-replicas",
            Self::Namespace(_) => "namespace",
            Self::Namespaces(_) => "namespaces",
            Self::Set(_) => "set",
            Self::Sets(_) => "sets",
            Self::Node(_) => "node",
            Self::Nodes(_) => "nodes",
            Self::RuntimeClass(_) => "runtime-class",
            Self::RuntimeClasses(_) => "runtime-classes",
            Self::Selection(_) => "selection",
            Self::Intents { .. } => "intents",
            Self::IntentChanged(_) => "intent-changed",
            Self::Assignments(_) => "assignments",
            Self::AssignmentChanged(_) => "assignment-changed",
            Self::Inventories(_) => "inventories",
            Self::InventoryChanged(_) => "inventory-changed",
            Self::Heartbeat(_) => "heartbeat",
            Self::Event(_) => "event",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Lease(_) => "lease",
            Self::TermTaken(_) => "term-taken",
            Self::ControlWritten(_) => "control-written",
            Self::Asked { .. } => "asked",
            Self::IntentsWritten { .. } => "intents-written",
            Self::AssignmentsWritten(_) => "assignments-written",
            Self::NodeLabelled { .. } => "node-labelled",
            Self::SetStatusWritten { .. } => "set-status-written",
            Self::EventPosted { .. } => "event-posted",
            Self::Refused { .. } => "refused",
        }
    }
}

/// The id of an intent, for readability of signatures.
pub type IntentId = ImageKey;
