//! The evidence rule: what a report proves (`protocol.md` section 3).
//!
//! Owns the reading of an inventory against the sets that a pool has been. Pure; never forgets anything itself.

use std::collections::{BTreeMap, BTreeSet};

use shared::image::Digest;
use shared::message::{Content, Exception, Inventory};
use shared::name::{ImageKey, PoolId};
use shared::pool_set::PoolSummary;
use shared::reason::Reason;
use shared::state::ImageState;

/// What an agent last proved about an image on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageEvidence {
    /// Its state.
    pub(crate) state: ImageState,
    /// Why, where there is a reason.
    pub(crate) why: Option<Reason>,
    /// What is there, if it is not what the intent names.
    pub(crate) digest: Option<Digest>,
    /// Size, if ever told.
    pub(crate) bytes: Option<u64>,
    /// The agent's counter when it said so.
    pub(crate) n: u64,
}

/// Everything proven about the images of a node.
pub(crate) type Images = BTreeMap<ImageKey, ImageEvidence>;

/// One report, ready to be asked about single images.
pub(crate) struct Testimony<'r> {
    inventory: &'r Inventory,
    n: u64,
    exceptions: BTreeMap<&'r ImageKey, &'r Exception>,
    warm: BTreeSet<&'r ImageKey>,
}

impl<'r> Testimony<'r> {
    /// `n` is the counter up to which the report holds: a heartbeat may have confirmed it since.
    pub(crate) fn new(inventory: &'r Inventory, n: u64) -> Self {
        let (mut exceptions, mut warm) = (BTreeMap::new(), BTreeSet::new());
        match &inventory.content {
            Content::Except(list) => exceptions.extend(list.iter().map(|e| (&e.id, e))),
            Content::WarmIds(list) => warm.extend(list),
        }
        Self { inventory, n, exceptions, warm }
    }

    /// What the report says of an image of a set it is about; `None` if it leaves it open. `before` is what was known.
    fn of(&self, id: &ImageKey, before: Option<&ImageEvidence>) -> Option<ImageEvidence> {
        let bytes = before.and_then(|b| b.bytes);
        if let Some(e) = self.exceptions.get(id) {
            let digest = e.digest.clone();
            return Some(ImageEvidence { state: e.st, why: e.why, digest, bytes: e.bytes.or(bytes), n: self.n });
        }
        let is_listed_warm = self.warm.contains(id);
        let is_warm = match self.inventory.content {
            Content::Except(_) if self.inventory.complete => true,
            Content::WarmIds(_) if is_listed_warm || self.inventory.complete => is_listed_warm,
            Content::Except(_) | Content::WarmIds(_) => return None,
        };
        if is_warm {
            let digest = self.inventory.digests.get(id).cloned();
            return Some(ImageEvidence { state: ImageState::Warm, why: None, digest, bytes, n: self.n });
        }
        // Not warm, and the report does not say what instead: what was said before stands, if that was not warm.
        let told = before.filter(|b| b.state != ImageState::Warm);
        let (state, why) = told.map_or((ImageState::Pending, None), |b| (b.state, b.why));
        Some(ImageEvidence { state, why, digest: None, bytes, n: self.n })
    }

    /// Enters into `images` what the report proves of a set of images; what was proven later stays. Says whether
    /// anything but counters differs.
    pub(crate) fn enter(&self, ids: &[ImageKey], images: &mut Images) -> bool {
        let mut changed = false;
        for id in ids {
            let before = images.get(id);
            if before.is_some_and(|b| b.n > self.n) {
                continue;
            }
            let Some(evidence) = self.of(id, before) else { continue };
            let is_same = before.is_some_and(|b| {
                b.state == evidence.state && b.why == evidence.why && b.digest == evidence.digest
            });
            changed |= !is_same;
            images.insert(id.clone(), evidence);
        }
        changed
    }
}

/// Pools of a report: those of the inventory, moved as a heartbeat has said since.
pub(crate) fn pools<'r>(
    inventory: &'r Inventory,
    moved: &'r BTreeMap<PoolId, PoolSummary>,
) -> BTreeMap<&'r PoolId, &'r PoolSummary> {
    inventory.pools.iter().chain(moved).collect()
}
