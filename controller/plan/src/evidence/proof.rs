//! What a report has proved, and what was proven otherwise.
//!
//! Owns the two forms that evidence about a node is kept in: whole sets, shared with other nodes, and single images.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use shared::machine::Moment;
use shared::message::{Disk, Runtime};
use shared::name::{ImageKey, PoolId};
use shared::pool_set::{PoolSummary, SetDigest};
use shared::reason::Reason;
use shared::state::ImageState;

use crate::bucket::IntentsBucket;
use crate::judge::{Content, IdSet, ImageEvidence, Word};

/// The newest report, as far as heartbeats have confirmed it.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(super) content: Arc<Content>,
    pub(super) digest: SetDigest,
    pub(super) uid: String,
    pub(super) inst: String,
    /// Its agent has said so while somebody listened: what was only read may be older than what the agent has said since.
    pub(super) is_confirmed: bool,
    pub(crate) version: String,
    /// The counter of the inventory.
    pub(crate) put: u64,
    /// The counter up to which it holds.
    pub(crate) n: u64,
    /// When it was put, by the agent's clock. For people.
    pub(crate) ts: Timestamp,
    /// The epoch its pools are of.
    pub(crate) epoch: String,
    /// The image file system.
    pub(crate) disk: Disk,
    /// The container runtime.
    pub(crate) runtime: Runtime,
    /// The sets it is about.
    pub(super) pools: BTreeMap<PoolId, PoolSummary>,
    /// Pools that moved since without a change of what is warm.
    pub(super) moved: BTreeMap<PoolId, PoolSummary>,
}

/// What a report proved about a set that a pool was.
#[derive(Debug, Clone)]
pub(super) struct Proof {
    pub(super) content: Arc<Content>,
    pub(super) ids: Arc<IdSet>,
    pub(super) n: u64,
}

impl Proof {
    /// What it says of an image that has been wanted in `pool` ever since.
    pub(super) fn of(&self, pool: &PoolId, id: &ImageKey, intents: &IntentsBucket) -> Word {
        let has_lived = |seq: u64| intents.born(pool, id).is_some_and(|born| born <= seq);
        if self.ids.seq(id).is_some_and(has_lived) { self.content.of(id) } else { Word::Open }
    }
}

/// What is proven otherwise than by a whole set: by an event, by an incomplete report, or before an image changed pools.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Single {
    pub(super) evidence: ImageEvidence,
    pub(super) n: u64,
    /// Whether an event said so. For people.
    pub(super) is_event: bool,
}

/// The circumstances of the last word about an image that is not warm. For people, never for a decision.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// The counter it came with.
    pub(crate) n: u64,
    /// When it was heard; an inventory that was only read says nothing of that.
    pub(crate) heard: Option<Moment>,
    /// Since when it is so, by the agent's clock.
    pub(crate) since: Timestamp,
    /// Attempts so far.
    pub(crate) tries: Option<u32>,
    /// When the next is due, by the agent's clock.
    pub(crate) next: Option<Timestamp>,
    /// Why the last attempt failed, while the next is waited for or under way.
    pub(crate) failed: Option<Reason>,
}

impl Told {
    /// What is still so of an earlier word when an image is in this state.
    pub(super) fn failed(before: Option<&Self>, st: ImageState, why: Option<Reason>) -> Option<Reason> {
        match st {
            ImageState::Failed => Some(why.unwrap_or(Reason::Unknown)),
            ImageState::Pulling | ImageState::Waiting | ImageState::Deferred => before?.failed,
            _ => None,
        }
    }
}

/// What the last word about an image came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin<'a> {
    /// A transition.
    Event {
        /// Its counter.
        n: u64,
    },
    /// An inventory, before the image changed pools, or an incomplete one.
    Carried {
        /// Its counter.
        n: u64,
    },
    /// An inventory about the set of a pool.
    Inventory {
        /// The pool.
        pool: &'a PoolId,
        /// The counter up to which heartbeats have confirmed it.
        n: u64,
    },
}
