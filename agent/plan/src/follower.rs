//! An agent as NATS sees it: it follows the buckets and says what it has.
//!
//! Owns what is learned from NATS and what is said there. Knows neither images nor the runtime: what is true of them is
//! given to it as [`Evidence`]. [`NodeState`](crate::state::NodeState) is built on it; so is a fleet of agents without
//! nodes, which shows what the protocol costs.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use shared::machine::{Moment, Now};
use shared::message::{Assignment, Disk, Event, Heartbeat, Inventory, Runtime, SCHEMA};
use shared::name::{ImageKey, PoolId};
use shared::pool_set::PoolSummary;
use shared::reason::Reason;
use shared::subject::RequestVerb;

use crate::effect::Effect;
use crate::fact::Fact;
use crate::inventory::{Claim, Evidence, Reporter, reported};
use crate::persisted::Persisted;
use crate::pool::Pool;
use crate::state::Identity;
use crate::sync::Sync;
use crate::timing::Timing;

/// The counter starts this far beyond the persisted one: more than a run says between two writes of the state file, and
/// so little that the clock, in milliseconds, soon has passed it: an agent that lost the file then still begins beyond.
const COUNTER_MARGIN: u64 = 1 << 13;

/// What became of a fact.
#[derive(Debug, Clone, PartialEq)]
pub enum Learned {
    /// It was of NATS; whether a step could act on it.
    Taken(bool),
    /// It is not of NATS.
    Other(Box<Fact>),
}

/// What an inventory says beside its evidence.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The image file system.
    pub disk: Disk,
    /// The runtime.
    pub runtime: &'a Runtime,
}

/// The follower.
#[derive(Debug, Clone)]
pub struct Follower {
    pub(crate) identity: Identity,
    pub(crate) sync: Sync,
    pub(crate) counters: BTreeMap<&'static str, u64>,
    timing: Timing,
    reporter: Reporter,
    /// Orders events and inventories of this node over restarts.
    n: u64,
}

impl Follower {
    /// One that knows what was persisted of NATS, which it takes out of `persisted`.
    pub fn new(identity: Identity, timing: Timing, persisted: &mut Persisted, rng: &mut Rng, now: Now) -> Self {
        let sync = Sync::new(identity.node.clone(), timing.clone(), persisted, rng.u64(..), now.mono);
        let clock = u64::try_from(now.wall.as_millisecond()).unwrap_or(0);
        Self {
            identity,
            sync,
            counters: BTreeMap::new(),
            timing,
            reporter: Reporter::default(),
            n: persisted.n.saturating_add(COUNTER_MARGIN).max(clock),
        }
    }

    /// Connected once, assignment read (be it absent), every pool read or restored.
    pub fn is_synced(&self) -> bool {
        self.sync.is_synced()
    }

    /// Whether this process knows the exact set of every pool of the node in this epoch: what can be proven.
    pub fn is_current(&self) -> bool {
        self.sync.pools().values().all(Pool::is_current)
    }

    /// Whether the connection stands.
    pub fn is_connected(&self) -> bool {
        self.sync.is_connected()
    }

    /// Whether one of its pools holds this intent.
    pub fn knows(&self, id: &ImageKey) -> bool {
        self.sync.pools().values().any(|pool| pool.content.sequence(id).is_some())
    }

    /// Its pools, each with the set it knows.
    pub fn pools(&self) -> impl Iterator<Item = (&PoolId, PoolSummary)> {
        self.sync.pools().iter().map(|(id, pool)| (id, pool.summary()))
    }

    /// The Node's UID as the assignment says it.
    pub(crate) fn uid(&self) -> String {
        self.sync.assignment().map(|a: &Assignment| a.uid.clone()).unwrap_or_default()
    }

    pub(crate) fn n(&self) -> u64 {
        self.n
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counters.entry(what).or_insert(0) += 1;
    }

    /// Learns a fact, if it is one of NATS.
    pub fn learn(&mut self, fact: Fact, now: Now, rng: &mut Rng) -> Learned {
        let mono = now.mono;
        let is_due = match fact {
            Fact::Delta(delta) => self.sync.delta(delta, mono),
            Fact::Beat(beat) => self.sync.beat(&beat, mono),
            Fact::PoolRead { pool, read, result } => self.sync.pool_read(&pool, read, result, mono),
            Fact::Refused { reason, .. } => {
                self.count(if reason == Reason::Forged { "forged" } else { "refused" });
                false
            }
            fact => return self.learn_more(fact, now, rng),
        };
        Learned::Taken(is_due)
    }

    /// What always makes a step due.
    fn learn_more(&mut self, fact: Fact, now: Now, rng: &mut Rng) -> Learned {
        let mono = now.mono;
        match fact {
            Fact::Connected => self.connected(now),
            Fact::Disconnected => self.sync.disconnected(),
            Fact::Gap => {
                self.sync.gap(mono);
                self.count("gap");
            }
            Fact::Meta(result) => self.sync.meta_read(result, mono),
            Fact::AssignmentRead(result) => self.sync.assignment_read(result, mono),
            Fact::AssignmentCopy { epoch, assignment } => self.sync.assignment_copied(&epoch, assignment, mono),
            Fact::Subscribed(pools) => self.sync.subscribed(pools, mono),
            Fact::InventoryPut(result) => {
                self.count(if result.is_ok() { "inventory-put" } else { "inventory-put-failed" });
                self.reporter.put_ended(result.is_ok(), mono, &self.timing, rng);
            }
            other => return Learned::Other(Box::new(other)),
        }
        Learned::Taken(true)
    }

    fn connected(&mut self, now: Now) {
        let is_first = !self.counters.contains_key("connected");
        self.count("connected");
        self.sync.connected(now.mono);
        let delay = if is_first { Duration::ZERO } else { self.sync.spread() };
        self.reporter.connected(now.mono, delay.min(self.timing.heartbeat));
    }

    /// Somebody asks; gives the answer to what is of NATS.
    pub fn requested(&mut self, verb: RequestVerb, now: Moment) -> Option<Value> {
        match verb {
            RequestVerb::Inventory => {
                self.reporter.force(now);
                // Whoever asks misses something: it may be that this agent missed its assignment.
                self.sync.read_assignment(now);
            }
            RequestVerb::Resync => self.sync.resync(now),
            RequestVerb::Explain => return None,
        }
        Some(json!({ "ok": true }))
    }

    /// What NATS is asked for now.
    pub fn step(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        self.sync.step(now, effects);
    }

    /// Gives the events their place in the order of what this node says; none while nobody can hear them: the inventory
    /// says it again.
    pub(crate) fn publish(&mut self, events: Vec<Event>, effects: &mut Vec<Effect>) {
        if !self.sync.is_connected() {
            return;
        }
        for event in events {
            self.n += 1;
            effects.push(Effect::PublishEvent(Event { n: self.n, ..event }));
        }
    }

    /// Says what is true now, if that is due.
    pub fn report(
        &mut self,
        evidence: Evidence,
        around: Surroundings<'_>,
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
        if self.sync.is_synced() {
            self.reporter.synced(now.mono);
        }
        let claim = Claim {
            epoch: self.sync.epoch().unwrap_or_default().to_owned(),
            uid: self.uid(),
            pools: self.sync.pools().keys().cloned().collect(),
            digest: evidence.digest(),
        };
        self.reporter.observe(&claim, now.mono);
        if !self.sync.is_connected() {
            return;
        }
        let inv_digest = claim.digest;
        let pools = reported(self.sync.pools());
        if self.sync.epoch().is_some()
            && self.reporter.start_put(claim.clone(), pools.clone(), now.mono, &self.timing, rng)
        {
            self.n += 1;
            if evidence.left_out > 0 {
                self.count("inventory-cut");
            }
            effects.push(Effect::PutInventory(Box::new(Inventory {
                node: self.identity.node.clone(),
                uid: claim.uid,
                boot: self.identity.boot.clone(),
                agent: self.identity.agent_version.clone(),
                inst: self.identity.inst.clone(),
                n: self.n,
                epoch: claim.epoch,
                pools: pools.clone(),
                content: evidence.content,
                not_warm: evidence.not_warm,
                left_out: u64::try_from(evidence.left_out).unwrap_or(u64::MAX),
                complete: evidence.complete,
                digests: evidence.digests,
                disk: around.disk,
                runtime: around.runtime.clone(),
                ts: now.wall,
            })));
        }
        if self.reporter.start_heartbeat(now.mono, &self.timing, rng) {
            effects.push(Effect::PublishHeartbeat(Heartbeat {
                node: self.identity.node.clone(),
                inst: self.identity.inst.clone(),
                boot: self.identity.boot.clone(),
                n: self.n,
                inv_digest,
                pools: self.reporter.moved(pools),
                schema: vec![SCHEMA],
                refused: self.counters.get("refused").copied().unwrap_or(0),
                ts: now.wall,
            }));
        }
    }

    /// When something is due.
    pub fn timers(&self) -> impl Iterator<Item = Moment> {
        let reports = [self.reporter.put_due(&self.timing), self.reporter.heartbeat_due()];
        let is_connected = self.sync.is_connected();
        reports.into_iter().filter(move |_| is_connected).flatten().chain(self.sync.timers())
    }
}
