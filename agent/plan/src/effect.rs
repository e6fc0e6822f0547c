//! What the agent can do.
//!
//! Owns the effects. Each is tried once by its executor, with a timeout; its outcome is a fact.

use std::time::Duration;

use serde::Serialize;
use shared::machine::Kind;
use shared::message::{Event, Heartbeat, Inventory};
use shared::name::{ImageKey, PoolId};

use crate::fact::RuntimeImage;
use crate::persisted::Persisted;

/// One effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Effect {
    /// Read `_meta`. Outcome: `Fact::Meta`.
    ReadMeta,
    /// Read `assign.<n>` from its bucket. Outcome: `Fact::AssignmentRead`.
    ReadAssignment,
    /// Subscribe to delta and beat of exactly these pools, leaving others. Outcome: `Fact::Subscribed`.
    Subscribe(Vec<PoolId>),
    /// Read a pool's keys from a sequence on (1 is everything). Outcome: `Fact::PoolRead` with the same number.
    ReadPool {
        /// The pool.
        pool: PoolId,
        /// First sequence wanted.
        from: u64,
        /// Number of this read; an outcome with an older one is ignored.
        read: u64,
        /// Read the keys themselves, though there be a snapshot of them.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        plain: bool,
    },
    /// Pull. Outcome: `Fact::Pulled`.
    Pull {
        /// The image's key.
        id: ImageKey,
        /// Canonical pull reference.
        image: String,
        /// Drop the call after this long.
        #[serde(with = "shared::duration")]
        deadline: Duration,
        /// The image is there; its tag may have moved.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_refresh: bool,
    },
    /// Drop the call of a pull in flight; it still ends with `Fact::Pulled`.
    CancelPull(ImageKey),
    /// List the runtime's images. Outcome: `Fact::Images`.
    ListImages,
    /// Look at disk and runtime. Outcome: `Fact::Observed`.
    Observe,
    /// List what containers use. Outcome: `Fact::InUse`.
    ListContainers,
    /// Remove an image by this reference, if it still is what `held` says, with no other name, not pinned, and no
    /// container uses it: all of that is looked at immediately before. Outcome: `Fact::Removed`.
    RemoveImage {
        /// The reference it was pulled by.
        image: String,
        /// What the decision was made of.
        held: Box<RuntimeImage>,
        /// Do everything but the removal.
        is_dry_run: bool,
    },
    /// Publish a transition; not acknowledged.
    PublishEvent(Event),
    /// Publish a pulse; not acknowledged.
    PublishHeartbeat(Heartbeat),
    /// Put the inventory into its bucket. Outcome: `Fact::InventoryPut`.
    PutInventory(Box<Inventory>),
    /// Write the state file: write, fsync, rename. Outcome: `Fact::Persisted`.
    Persist(Box<Persisted>),
    /// Answer a request with JSON.
    Reply {
        /// Number of the reply subject.
        reply: u64,
        /// The answer.
        body: serde_json::Value,
    },
}

impl Kind for Effect {
    fn kind(&self) -> &'static str {
        match self {
            Self::ReadMeta => "read-meta",
            Self::ReadAssignment => "read-assignment",
            Self::Subscribe(_) => "subscribe",
            Self::ReadPool { .. } => "read-pool",
            Self::Pull { .. } => "pull",
            Self::CancelPull(_) => "cancel-pull",
            Self::ListImages => "list-images",
            Self::Observe => "observe",
            Self::ListContainers => "list-containers",
            Self::RemoveImage { .. } => "remove-image",
            Self::PublishEvent(_) => "publish-event",
            Self::PublishHeartbeat(_) => "publish-heartbeat",
            Self::PutInventory(_) => "put-inventory",
            Self::Persist(_) => "persist",
            Self::Reply { .. } => "reply",
        }
    }
}
