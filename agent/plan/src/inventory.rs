//! The inventory and the heartbeat: what this agent says of its images, and when.
//!
//! Owns their composition and rhythm. Heads and sequences that move cost no put: a heartbeat says them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use shared::backoff::{Backoff, vary};
use shared::image::Digest;
use shared::machine::Moment;
use shared::message::inventory::evidence_digest;
use shared::message::{Content, Exception};
use shared::name::{ImageKey, PoolId};
use shared::pool_set::{PoolSummary, SetDigest};
use shared::reason::Reason;
use shared::state::ImageState;

use crate::cut::{self, Lists, Warm};
use crate::image::Image;
use crate::pool::Pool;
use crate::timing::Timing;

/// What is said of the images: the part of an inventory that proves something.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// What is warm, or what is not.
    pub content: Content,
    /// What is not warm, beside the list of what is, where there was no room for everything.
    pub not_warm: Vec<Exception>,
    /// Every intent of the pools is covered.
    pub complete: bool,
    /// Digests that are not the intents' own.
    pub digests: BTreeMap<ImageKey, Digest>,
    /// How many images there was no room for.
    pub left_out: usize,
}

impl Evidence {
    /// Composes it from the current state. `start` dates what was never decoded.
    pub(crate) fn compose(
        images: &BTreeMap<ImageKey, Image>,
        pools: &BTreeMap<PoolId, Pool>,
        is_listed: bool,
        start: Timestamp,
    ) -> Self {
        let complete = is_listed && pools.values().all(Pool::is_current);
        let mut lists = Lists::default();
        // Before the runtime has been seen nothing is known of any image, so nothing is said of it.
        for (id, image) in images.iter().filter(|(_, image)| is_listed && !image.want.is_retained) {
            if image.st == ImageState::Warm {
                let digest = image.digest().filter(|d| image.want.digest.as_ref() != Some(d)).cloned();
                lists.warm.push(Warm { id: id.clone(), priority: image.want.priority, digest });
            } else {
                lists.except.push(exception(id, image));
            }
        }
        // In no state at all, yet part of a set that `except` would otherwise call warm.
        let unknown: BTreeSet<&ImageKey> = pools.values().flat_map(|pool| pool.content.unknown()).collect();
        for id in unknown.into_iter().filter(|id| images.get(*id).is_none_or(|image| image.want.is_retained)) {
            lists.except.push(undecodable(id, start));
        }
        lists.fit(complete, cut::room(pools.keys()))
    }

    pub(crate) fn digest(&self) -> SetDigest {
        evidence_digest(&self.content, &self.not_warm, self.complete, &self.digests)
    }
}

fn exception(id: &ImageKey, image: &Image) -> Exception {
    Exception {
        id: id.clone(),
        st: image.st,
        why: image.why,
        since: image.since,
        digest: image.digest().cloned(),
        bytes: image.present.as_ref().map(|p| p.bytes).or(image.want.bytes),
        tries: (image.tries > 0).then_some(image.tries),
        next: image.next().map(|due| due.wall),
    }
}

fn undecodable(id: &ImageKey, since: Timestamp) -> Exception {
    Exception {
        id: id.clone(),
        st: ImageState::Refused,
        why: Some(Reason::Invalid),
        since,
        digest: None,
        bytes: None,
        tries: None,
        next: None,
    }
}

/// The pools whose exact set this process knows in this epoch.
pub(crate) fn reported(pools: &BTreeMap<PoolId, Pool>) -> BTreeMap<PoolId, PoolSummary> {
    pools.iter().filter(|(_, p)| p.is_current()).map(|(id, p)| (id.clone(), p.summary())).collect()
}

/// What makes a put necessary when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) epoch: String,
    pub(crate) uid: String,
    /// The pools this node is in: by those that are not named the controller sees that an assignment was missed.
    pub(crate) pools: Vec<PoolId>,
    pub(crate) digest: SetDigest,
}

/// One put: what it claimed, of which sets.
#[derive(Debug, Clone)]
struct Put {
    claim: Claim,
    pools: BTreeMap<PoolId, PoolSummary>,
}

/// When inventories and heartbeats go out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reporter {
    stored: Option<Put>,
    in_flight: Option<Put>,
    last: Option<Moment>,
    changed: Option<Moment>,
    forced: Option<Moment>,
    periodic: Option<Moment>,
    not_before: Option<Moment>,
    failures: u32,
    heartbeat: Option<Moment>,
    has_synced: bool,
}

impl Reporter {
    /// The connection is up: say so, after `delay`; what became due meanwhile waits as long.
    pub(crate) fn connected(&mut self, now: Moment, delay: Duration) {
        self.heartbeat = Some(now + delay);
        self.not_before = Some(self.not_before.unwrap_or_default().max(now + delay));
    }

    /// Everything was read for the first time.
    pub(crate) fn synced(&mut self, now: Moment) {
        if !std::mem::replace(&mut self.has_synced, true) {
            self.heartbeat = Some(now);
        }
    }

    /// Somebody asks for the inventory.
    pub(crate) fn force(&mut self, now: Moment) {
        (self.forced, self.not_before) = (Some(now), None);
    }

    /// Compares what would be said now with what was said last.
    pub(crate) fn observe(&mut self, claim: &Claim, now: Moment) {
        let said = self.in_flight.as_ref().or(self.stored.as_ref());
        if !self.has_synced || said.is_some_and(|put| put.claim == *claim) {
            self.changed = None;
        } else {
            self.changed.get_or_insert(now);
        }
    }

    /// When a put is due.
    pub(crate) fn put_due(&self, timing: &Timing) -> Option<Moment> {
        if self.in_flight.is_some() || !self.has_synced {
            return None;
        }
        let gap = self.last.map_or(Moment::default(), |last| last + timing.inventory_gap);
        let changed = self.changed.map(|at| (at + timing.inventory_delay).max(gap));
        let due = [changed, self.periodic, self.forced].into_iter().flatten().min()?;
        Some(due.max(self.not_before.unwrap_or_default()))
    }

    /// Whether a put starts now; if so it counts as under way.
    pub(crate) fn start_put(
        &mut self,
        claim: Claim,
        pools: BTreeMap<PoolId, PoolSummary>,
        now: Moment,
        timing: &Timing,
        rng: &mut Rng,
    ) -> bool {
        if self.put_due(timing).is_none_or(|due| due > now) {
            return false;
        }
        (self.changed, self.forced, self.last) = (None, None, Some(now));
        self.periodic = Some(now + vary(timing.inventory_every, 20, rng));
        self.in_flight = Some(Put { claim, pools });
        true
    }

    /// A put ended.
    pub(crate) fn put_ended(&mut self, is_stored: bool, now: Moment, timing: &Timing, rng: &mut Rng) {
        let Some(put) = self.in_flight.take() else { return };
        if is_stored {
            (self.stored, self.failures, self.not_before) = (Some(put), 0, None);
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let backoff = Backoff { base: timing.read_retry, ceiling: timing.inventory_backoff_max };
        self.forced = Some(now);
        self.not_before = Some(now + backoff.full_jitter(self.failures, rng));
    }

    /// Whether a heartbeat starts now.
    pub(crate) fn start_heartbeat(&mut self, now: Moment, timing: &Timing, rng: &mut Rng) -> bool {
        let starts = self.heartbeat.is_some_and(|due| due <= now);
        if starts {
            let wait = vary(timing.heartbeat, 20, rng).max(Duration::from_millis(1));
            self.heartbeat = Some(now + wait);
        }
        starts
    }

    /// Those of `pools` whose set is another than in the stored inventory.
    pub(crate) fn moved(&self, pools: BTreeMap<PoolId, PoolSummary>) -> BTreeMap<PoolId, PoolSummary> {
        let is_moved = |id: &PoolId, now: &PoolSummary| {
            let stored = self.stored.as_ref().and_then(|put| put.pools.get(id));
            stored.is_none_or(|stored| !stored.is_same_set(now))
        };
        pools.into_iter().filter(|(id, summary)| is_moved(id, summary)).collect()
    }

    /// When the next heartbeat is due.
    pub(crate) fn heartbeat_due(&self) -> Option<Moment> {
        self.heartbeat
    }
}
