//! What a report has proved, and what was proven otherwise.
//!
//! Owns the two forms that evidence about a node is kept in: whole sets, shared with other nodes, and single images.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::name::{ImageKey, PoolId};
use shared::pool_set::{PoolSummary, SetDigest};

use crate::bucket::IntentsBucket;
use crate::judge::{Content, IdSet, ImageEvidence, Word};

/// The newest report, as far as heartbeats have confirmed it.
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub(super) content: Arc<Content>,
    pub(super) digest: SetDigest,
    pub(super) uid: String,
    pub(super) inst: String,
    pub(super) version: String,
    /// The counter of the inventory.
    pub(super) put: u64,
    /// The counter up to which it holds.
    pub(super) n: u64,
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
}
