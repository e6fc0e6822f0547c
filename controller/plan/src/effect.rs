//! What the controller can do.
//!
//! Owns the effects. Each is tried once by its executor, with a timeout; its outcome is a fact.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use shared::machine::Kind;
use shared::message::{Assignment, Beat, Control, Intent, Message as _, Meta, Snapshot};
use shared::name::{ImageKey, NodeName, PoolId};
use shared::reason::Reason;
use shared::subject::IntentsKey;

use crate::input::{SetKey, WorkloadKey};
use crate::set::SetStatus;

/// One effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Effect {
    /// Write `_meta` by compare-and-set: that takes the term. Outcome: `Fact::TermTaken`.
    TakeTerm {
        /// What is written.
        meta: Meta,
        /// Sequence that `_meta` must have; 0 if it must not exist.
        expected: u64,
    },
    /// Give the Lease up: another controller leads. The elector says so with `Fact::Lease`, if it holds one that can be
    /// given up.
    ReleaseLease,
    /// Write `_ctl` by compare-and-set. Outcome: `Fact::ControlWritten`. At most one such write is in flight.
    WriteControl {
        /// What is written.
        control: Control,
        /// Sequence that `_ctl` must have; 0 if it must not exist.
        expected: u64,
    },
    /// Answer a request with JSON; not acknowledged.
    Reply {
        /// Number of the request.
        reply: u64,
        /// The answer; an object with `error` if the question was wrong or cannot be answered now.
        body: serde_json::Value,
    },
    /// Write to the intents bucket: pipelined puts and purges in this order, then one delta for each pool that has
    /// intents among them. Outcome: `Fact::IntentsWritten`. At most one such batch is in flight.
    WriteIntents(IntentBatch),
    /// Write to the assign bucket, then copy each acknowledged one to `assign.<n>`. Outcome:
    /// `Fact::AssignmentsWritten`. At most one such batch is in flight.
    WriteAssignments {
        /// Epoch for the headers of the copies.
        epoch: String,
        /// Term for the headers of the copies.
        term: u64,
        /// What is written.
        writes: Vec<AssignmentWrite>,
    },
    /// Publish a pulse; not acknowledged.
    PublishBeat(Beat),
    /// Write a pool down as a whole, under keys of its own; the watch tells what came of it.
    WriteSnapshot {
        /// All of it.
        snapshot: Box<Snapshot>,
        /// How many chunks the one that is there has: those that are not needed any more go.
        before: u64,
        /// Time to live of purge markers.
        #[serde(with = "shared::duration")]
        marker_ttl: Duration,
    },
    /// Take the snapshot of a pool away; the watch tells what came of it.
    PurgeSnapshot {
        /// The pool.
        pool: PoolId,
        /// How many chunks it has.
        chunks: u64,
        /// Time to live of purge markers.
        #[serde(with = "shared::duration")]
        marker_ttl: Duration,
    },
    /// Apply our labels to a Node: exactly these, ours that are missing here are removed. Outcome:
    /// `Fact::NodeLabelled`.
    LabelNode {
        /// The node.
        node: NodeName,
        /// UID the Node must have.
        uid: String,
        /// All labels of ours it is to have.
        labels: BTreeMap<String, String>,
    },
    /// Ask an agent for its inventory; not acknowledged.
    RequestInventory(NodeName),
    /// Apply our status to a set. Outcome: `Fact::SetStatusWritten`.
    WriteSetStatus(Box<SetStatusWrite>),
    /// Tell people about a workload, as a Kubernetes Event. Outcome: `Fact::EventPosted`.
    PostEvent(Box<WorkloadEvent>),
}

/// The status of a set, to be written.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetStatusWrite {
    /// The set.
    pub set: SetKey,
    /// UID the object must have.
    pub uid: String,
    /// All of it.
    pub status: SetStatus,
}

/// A Kubernetes Event about one image of a workload. The same workload, image and notice give the same Event: one that is
/// there already happens again.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadEvent {
    /// The workload.
    pub workload: WorkloadKey,
    /// Its UID.
    pub uid: String,
    /// The image.
    pub id: ImageKey,
    /// What happened.
    pub notice: Notice,
    /// Text for people.
    pub note: String,
    /// Which failure of the image this is, counted while the machine remembers it.
    pub count: u32,
}

/// What happened to an image of a workload, or is wrong with the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Notice {
    /// It fails, mostly for this reason.
    Failed(Reason),
    /// It failed, and is warm everywhere again.
    Recovered,
    /// Part of the workload itself cannot be used.
    Unusable,
}

impl Notice {
    /// The Event's `reason`, to select by.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Failed(_) => "WarmImageFailed",
            Self::Recovered => "WarmImageRecovered",
            Self::Unusable => "WarmWorkloadInvalid",
        }
    }
}

/// A batch of writes to the intents bucket.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IntentBatch {
    /// The epoch.
    pub epoch: String,
    /// The term.
    pub term: u64,
    /// In the order to be sent.
    pub writes: Vec<IntentWrite>,
    /// `to` of each pool's last delta: `prev` of the next.
    pub prev: BTreeMap<PoolId, u64>,
    /// Told to agents in the deltas.
    #[serde(with = "shared::duration")]
    pub spread: Duration,
    /// Time to live of purge markers.
    #[serde(with = "shared::duration")]
    pub marker_ttl: Duration,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IntentWrite {
    /// The pool.
    pub pool: PoolId,
    /// Sequence that the key must have; 0 if it must not exist.
    pub expected: u64,
    /// What to write.
    pub write: IntentChange,
}

impl IntentWrite {
    /// The key that is written.
    pub fn key(&self) -> IntentsKey {
        let pool = self.pool.clone();
        match &self.write {
            IntentChange::PutDefinition(_) | IntentChange::PurgeDefinition => IntentsKey::Definition(pool),
            IntentChange::Put(intent) => IntentsKey::Intent(pool, intent.id.clone()),
            IntentChange::Purge(id) => IntentsKey::Intent(pool, id.clone()),
        }
    }

    /// What is put under it; `None` for a purge.
    pub fn body(&self) -> Option<Vec<u8>> {
        match &self.write {
            // A JSON value always serialises.
            IntentChange::PutDefinition(value) => Some(serde_json::to_vec(value).unwrap_or_default()),
            IntentChange::Put(intent) => Some(intent.encode()),
            IntentChange::PurgeDefinition | IntentChange::Purge(_) => None,
        }
    }
}

/// What to write under a key of the intents bucket.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum IntentChange {
    /// `<pool>.def`.
    PutDefinition(serde_json::Value),
    /// Purge `<pool>.def`: no intent of the pool is left.
    PurgeDefinition,
    /// `<pool>.i.<id>`.
    Put(Box<Intent>),
    /// Withdraw.
    Purge(ImageKey),
}

/// One assignment to write.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentWrite {
    /// The node.
    pub node: NodeName,
    /// Sequence that the key must have; 0 if it must not exist.
    pub expected: u64,
    /// `None` purges it: the Node is gone.
    pub assignment: Option<Assignment>,
}

impl Kind for Effect {
    fn kind(&self) -> &'static str {
        match self {
            Self::TakeTerm { .. } => "take-term",
            Self::ReleaseLease => "release-lease",
            Self::WriteControl { .. } => "write-control",
            Self::Reply { .. } => "reply",
            Self::WriteIntents(_) => "write-intents",
            Self::WriteAssignments { .. } => "write-assignments",
            Self::PublishBeat(_) => "publish-beat",
            Self::WriteSnapshot { .. } => "write-snapshot",
            Self::PurgeSnapshot { .. } => "purge-snapshot",
            Self::LabelNode { .. } => "label-node",
            Self::RequestInventory(_) => "request-inventory",
            Self::WriteSetStatus(_) => "write-set-status",
            Self::PostEvent(_) => "post-event",
        }
    }
}
