//! What the agent of one node has said.
//!
//! Owns the order of its words: instance and counter, the newest report, events after it, and its silence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shared::machine::Moment;
use shared::message::{Event, Heartbeat, Inventory};
use shared::name::{ImageKey, PoolId};
use shared::pool_set::{PoolSummary, SetDigest};

use crate::judge::{self, ImageEvidence, Images, Testimony};

/// After how many heartbeats that contradict the stored inventory it is asked for.
const CONTRADICTIONS: u8 = 2;

/// What is known of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Agent {
    /// It never sent a heartbeat or an inventory.
    #[default]
    Missing,
    /// It has been silent for too long.
    Unknown,
    /// It is heard.
    Ready,
}

/// The newest report, as far as heartbeats have confirmed it.
#[derive(Debug, Clone)]
struct Report {
    inventory: Inventory,
    digest: SetDigest,
    /// The counter up to which it holds.
    n: u64,
    /// Pools that moved since without a change of what is warm.
    moved: BTreeMap<PoolId, PoolSummary>,
}

/// What one agent has said.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeEvidence {
    uid: String,
    inst: String,
    n: u64,
    heard: Option<Moment>,
    agent: Agent,
    report: Option<Report>,
    images: Images,
    /// The newest event among the evidence.
    event_n: u64,
    /// Pools of the report whose set was not found yet.
    unmatched: BTreeSet<PoolId>,
    /// The pools it was last judged for.
    pools: BTreeSet<PoolId>,
    contradictions: u8,
    request: bool,
}

impl NodeEvidence {
    /// What is proven.
    pub(crate) fn images(&self) -> &Images {
        &self.images
    }

    /// What is known of the agent.
    pub(crate) fn agent(&self) -> Agent {
        self.agent
    }

    /// When it was last heard.
    pub(crate) fn heard(&self) -> Option<Moment> {
        self.heard
    }

    /// The stored inventory.
    pub(crate) fn inventory(&self) -> Option<&Inventory> {
        self.report.as_ref().map(|r| &r.inventory)
    }

    /// Pools of the newest report that name no known set.
    pub(crate) fn unmatched(&self) -> &BTreeSet<PoolId> {
        &self.unmatched
    }

    pub(super) fn is_of(&self, uid: &str) -> bool {
        self.uid == uid
    }

    /// The Node is another object now. What was said of it before its UID was known stays.
    pub(super) fn renew(&mut self, uid: &str) {
        if !self.uid.is_empty() {
            self.images.clear();
            self.event_n = 0;
        }
        uid.clone_into(&mut self.uid);
    }

    /// Whether a message is not from an instance that another has followed. A node that has been silent for long is
    /// believed whatever its counter: its agent may have lost it.
    pub(super) fn admits(&mut self, inst: &str, n: u64, now: Moment, patience: Duration) -> bool {
        if self.inst == inst {
            self.n = self.n.max(n);
            return true;
        }
        let is_first = self.inst.is_empty();
        let is_silent = self.heard.is_none_or(|heard| now.since(heard) > patience);
        if !(is_first || n > self.n || is_silent) {
            return false;
        }
        if n <= self.n {
            self.images.values_mut().for_each(|e| e.n = 0);
            self.event_n = 0;
            if let Some(report) = &mut self.report {
                report.n = 0;
                report.inventory.n = 0;
            }
        }
        inst.clone_into(&mut self.inst);
        self.n = n;
        self.contradictions = 0;
        true
    }

    /// Takes a pulse; says whether the report is to be judged again.
    pub(super) fn heartbeat(&mut self, heartbeat: &Heartbeat, now: Moment) -> bool {
        self.heard = Some(now);
        let Some(report) = &mut self.report else {
            self.contradicted();
            return self.request;
        };
        if heartbeat.n < report.n {
            return false;
        }
        let is_same = report.inventory.inst == heartbeat.inst && report.digest == heartbeat.inv_digest;
        if !is_same || (report.inventory.uid != self.uid && !self.uid.is_empty()) {
            self.contradicted();
            return self.request;
        }
        self.contradictions = 0;
        let settles_events = self.event_n > report.n && self.event_n <= heartbeat.n;
        let has_moved = report.moved != heartbeat.pools;
        report.n = heartbeat.n;
        if has_moved {
            report.moved.clone_from(&heartbeat.pools);
        }
        settles_events || has_moved
    }

    fn contradicted(&mut self) {
        self.contradictions = self.contradictions.saturating_add(1);
        if self.contradictions >= CONTRADICTIONS {
            self.contradictions = 0;
            self.request = true;
        }
    }

    pub(super) fn take_request(&mut self) -> bool {
        std::mem::take(&mut self.request)
    }

    /// Takes a transition; says whether evidence differs.
    pub(super) fn event(&mut self, event: &Event, now: Moment) -> bool {
        self.heard = Some(now);
        let before = self.images.get(&event.id);
        if before.is_some_and(|b| b.n >= event.n) {
            return false;
        }
        let bytes = event.bytes.or_else(|| before.and_then(|b| b.bytes));
        let (why, digest) = (event.why, event.digest.clone());
        let evidence = ImageEvidence { state: event.st, why, digest, bytes, n: event.n };
        self.event_n = self.event_n.max(event.n);
        self.images.insert(event.id.clone(), evidence);
        true
    }

    /// Takes a report; says whether it is the newest.
    pub(super) fn take_inventory(&mut self, inventory: Inventory, heard: Option<Moment>) -> bool {
        self.heard = heard.or(self.heard);
        if self.agent == Agent::Missing {
            self.agent = Agent::Unknown;
        }
        let is_stale = |r: &Report| r.inventory.inst == inventory.inst && r.inventory.n > inventory.n;
        if self.report.as_ref().is_some_and(is_stale) {
            return false;
        }
        (self.contradictions, self.request) = (0, false);
        let (digest, n) = (inventory.evidence_digest(), inventory.n);
        self.report = Some(Report { inventory, digest, n, moved: BTreeMap::new() });
        true
    }

    /// The stored inventory has expired: what it proved stays, but no heartbeat can confirm it any more.
    pub(super) fn forget_report(&mut self) {
        self.report = None;
        self.unmatched.clear();
    }

    /// Whether its report waits for one of these pools to become what it speaks of.
    pub(super) fn waits_for_any(&self, pools: &BTreeSet<PoolId>) -> bool {
        self.unmatched.iter().any(|pool| pools.contains(pool))
    }

    /// Notes the pools it answers for; says whether they are others than before.
    pub(super) fn enters(&mut self, pools: &BTreeSet<&PoolId>) -> bool {
        if self.pools.len() == pools.len() && self.pools.iter().all(|pool| pools.contains(pool)) {
            return false;
        }
        self.pools = pools.iter().map(|pool| (*pool).clone()).collect();
        true
    }

    pub(super) fn drop_image(&mut self, id: &ImageKey) -> bool {
        self.images.remove(id).is_some()
    }

    pub(super) fn keep_images(&mut self, keep: impl Fn(&ImageKey) -> bool) -> bool {
        let before = self.images.len();
        self.images.retain(|id, _| keep(id));
        self.images.len() != before
    }

    /// Judges the report, pool by pool; says whether evidence differs.
    pub(super) fn judge(
        &mut self,
        pools: &BTreeSet<&PoolId>,
        mut proven: impl FnMut(&PoolId, &PoolSummary) -> Option<Arc<[ImageKey]>>,
    ) -> bool {
        self.unmatched.clear();
        let Some(report) = self.report.as_ref().filter(|r| !self.uid.is_empty() && r.inventory.uid == self.uid) else {
            return false;
        };
        let testimony = Testimony::new(&report.inventory, report.n);
        let mut changed = false;
        for (pool, set) in judge::pools(&report.inventory, &report.moved) {
            if !pools.contains(pool) {
                continue;
            }
            match proven(pool, set) {
                Some(ids) => changed |= testimony.enter(&ids, &mut self.images),
                None => {
                    self.unmatched.insert(pool.clone());
                }
            }
        }
        changed
    }

    /// Judges its silence; says whether the agent is another.
    pub(super) fn look_if_late(&mut self, now: Moment, patience: Duration) -> bool {
        let agent = match self.heard {
            Some(heard) if now.since(heard) <= patience => Agent::Ready,
            Some(_) => Agent::Unknown,
            None => self.agent,
        };
        std::mem::replace(&mut self.agent, agent) != agent
    }
}
