//! What the agent can learn.
//!
//! Owns the facts. Whoever builds one has already checked its form; the machine judges its meaning.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::image::Digest;
use shared::machine::Kind;
use shared::message::{Assignment, Beat, Delta, Intent, KindWord, Meta, Runtime};
use shared::name::{ImageKey, PoolId};
use shared::reason::Reason;
use shared::subject::RequestVerb;

/// One fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fact {
    /// The connection to NATS is up and a round trip has succeeded. Messages may have been lost before it.
    Connected,
    /// It is gone.
    Disconnected,
    /// The client dropped messages, or a subscription was refused: there may be a gap.
    Gap,
    /// `_meta` as read. `None` if the key is absent.
    Meta(Result<Option<Meta>, Reason>),
    /// The assignment as read from the bucket. `None` if the key is absent or purged.
    AssignmentRead(Result<Option<Assignment>, Reason>),
    /// A copy of the assignment that arrived on `assign.<n>`.
    AssignmentCopy {
        /// Epoch in the headers.
        epoch: String,
        /// The body; its node is this node.
        assignment: Assignment,
    },
    /// Delta and beat of these pools are subscribed to: from here on nothing is lost silently.
    Subscribed(Vec<PoolId>),
    /// A delta arrived.
    Delta(Delta),
    /// A beat arrived.
    Beat(Beat),
    /// A read of a pool ended. Pages are put together by the executor.
    PoolRead {
        /// The pool.
        pool: PoolId,
        /// As in the effect.
        read: u64,
        /// What was found, or why not.
        result: Result<PoolContent, Reason>,
    },
    /// The runtime's images.
    Images(Result<Vec<RuntimeImage>, Reason>),
    /// A pull ended.
    Pulled {
        /// The image's key.
        id: ImageKey,
        /// What the runtime has now: the answer of `ImageStatus` after `PullImage`.
        result: Result<PulledImage, PullFailure>,
    },
    /// What the node's file system and runtime say of themselves.
    Observed(Result<Observation, Reason>),
    /// Names of the images that containers use, in any state, and their image volumes: ids, tags and digests as the
    /// runtime gives them.
    InUse(Result<BTreeSet<String>, Reason>),
    /// A removal ended.
    Removed {
        /// The reference, as in the effect.
        image: String,
        /// What came of it.
        result: Result<Removal, Reason>,
    },
    /// An inventory put ended.
    InventoryPut(Result<(), Reason>),
    /// A write of the state file ended.
    Persisted(Result<(), Reason>),
    /// Somebody asks; answered by `Effect::Reply` where `reply` is set.
    Request {
        /// What is asked.
        verb: RequestVerb,
        /// The body.
        body: String,
        /// Number of the reply subject, kept by the executor.
        reply: Option<u64>,
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

impl Kind for Fact {
    fn kind(&self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Gap => "gap",
            Self::Meta(_) => "meta",
            Self::AssignmentRead(_) => "assignment-read",
            Self::AssignmentCopy { .. } => "assignment-copy",
            Self::Subscribed(_) => "subscribed",
            Self::Delta(_) => "delta",
            Self::Beat(_) => "beat",
            Self::PoolRead { .. } => "pool-read",
            Self::Images(_) => "images",
            Self::Pulled { .. } => "pulled",
            Self::Observed(_) => "observed",
            Self::InUse(_) => "in-use",
            Self::Removed { .. } => "removed",
            Self::InventoryPut(_) => "inventory-put",
            Self::Persisted(_) => "persisted",
            Self::Request { .. } => "request",
            Self::Refused { .. } => "refused",
        }
    }
}

/// What a read of a pool found, in the order of sequences.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolContent {
    /// Every stored message from the sequence asked for, purge markers included.
    pub entries: Vec<StoredIntent>,
    /// The epoch of the snapshot that stands for the first of them; `None` if all were read one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// One stored key of a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredIntent {
    /// The key's id.
    pub id: ImageKey,
    /// Its sequence in the stream.
    pub seq: u64,
    /// `None` for a purge or delete marker.
    pub value: Option<Stored>,
}

/// A stored value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stored {
    /// Decoded.
    Intent(#[serde(with = "shared::message::intent::counted")] Arc<Intent>),
    /// It is there but cannot be decoded: never replaces the last good one, yet counts in the digest.
    Undecodable,
}

/// An image as the runtime lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeImage {
    /// The runtime's id of it.
    pub runtime_id: String,
    /// `docker.io/library/nginx:latest`.
    pub repo_tags: Vec<String>,
    /// `docker.io/library/nginx@sha256:…`.
    pub repo_digests: Vec<String>,
    /// As the runtime counts.
    pub bytes: u64,
    /// The runtime says it is pinned.
    pub pinned: bool,
}

/// What the runtime holds under a reference right after a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PulledImage {
    /// The image.
    pub image: RuntimeImage,
    /// The runtime's id of what it held under the reference right before; `None` if that was nothing.
    pub before: Option<String>,
    /// How long the pull took.
    #[serde(with = "shared::duration")]
    pub took: Duration,
}

/// Why a pull failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullFailure {
    /// The bounded reason.
    pub reason: Reason,
    /// If the registry says how long to wait.
    #[serde(default, with = "shared::duration::optional")]
    pub retry_after: Option<Duration>,
    /// How long the attempt took.
    #[serde(with = "shared::duration")]
    pub took: Duration,
}

/// What a look at disk and runtime found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// The image file system; `None` if it cannot be measured.
    pub space: Option<Space>,
    /// The runtime's name and version.
    pub runtime: Runtime,
}

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Space {
    /// What an ordinary process cannot write to any more: used, and what is reserved for root.
    pub used: u64,
    /// What it still can.
    pub free: u64,
}

/// How a removal ended that nothing kept from ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Removal {
    /// The image is gone, or was already.
    Removed,
    /// A dry run: nothing spoke against it.
    Planned,
    /// A container uses it by now.
    Used,
    /// It is pinned, another image, or has another name by now.
    Changed,
}

impl Removal {
    /// The word in logs, metrics and `/state`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Planned => "planned",
            Self::Used => "used",
            Self::Changed => "changed",
        }
    }
}

/// A digest that the runtime lists for a repository.
pub fn digest_in(repo_digest: &str) -> Option<Digest> {
    repo_digest.split_once('@').and_then(|(_, d)| Digest::parse(d).ok())
}
