//! The agent's machine: everything it knows, and the order in which it decides.
//!
//! Owns the composition of facts and of a step. Each decision is in the module that is named after it.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use shared::machine::{Changed, Machine, Moment, Now};
use shared::message::{Event, Heartbeat, Inventory, SCHEMA};
use shared::name::{ImageKey, NodeName};
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::RequestVerb;

use crate::ack;
use crate::effect::Effect;
use crate::explain;
use crate::fact::{Fact, PullFailure, PulledImage, RuntimeImage};
use crate::image::{Attempt, Climate, Image, Look};
use crate::inventory::{Claim, Evidence, Reporter, reported};
use crate::ledger::Ledger;
use crate::persisted::{Persisted, VERSION};
use crate::pull::{self, Flights};
use crate::runtime::Runtime;
use crate::save::{Revisions, Saver};
use crate::sync::Sync;
use crate::timing::Timing;
use crate::want::wanted;

/// The counter starts this far beyond the persisted one: more than a run says between two writes of the state file.
const COUNTER_MARGIN: u64 = 1 << 20;

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: NodeName,
    /// UUID of this run of the agent.
    pub inst: String,
    /// The boot of the machine.
    pub boot: String,
    /// The agent's version.
    pub agent_version: String,
}

/// What is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Every interval.
    pub timing: Timing,
    /// How many pulls at once.
    pub max_in_flight: usize,
    /// After this many failures in a row an image is final `failed`: retried every `timing.pull_final` only.
    pub final_after: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timing: Timing::default(),
            max_in_flight: 1,
            final_after: 5,
        }
    }
}

/// The machine.
#[derive(Debug, Clone)]
pub struct NodeState {
    pub(crate) identity: Identity,
    pub(crate) settings: Settings,
    rng: Rng,
    started: Timestamp,
    pub(crate) sync: Sync,
    pub(crate) images: BTreeMap<ImageKey, Image>,
    pub(crate) flights: Flights,
    pub(crate) runtime: Runtime,
    pub(crate) ledger: Ledger,
    reporter: Reporter,
    saver: Saver,
    /// Orders events and inventories of this node over restarts.
    pub(crate) n: u64,
    pub(crate) counters: BTreeMap<&'static str, u64>,
    /// Revision of the view of NATS that `images` is of.
    wanted_revision: u64,
    /// Something was learned about what the runtime holds.
    is_look_due: bool,
    is_dirty: bool,
    wake: Option<Moment>,
    /// Decided while learning: answers, events of evictions.
    outbox: Vec<Effect>,
}

impl NodeState {
    /// A machine that knows what was persisted, if that is of this form.
    pub fn new(identity: Identity, settings: Settings, persisted: Option<Persisted>, seed: u64, now: Now) -> Self {
        let mut persisted = persisted.filter(|p| p.v == VERSION).unwrap_or_default();
        let mut rng = Rng::with_seed(seed);
        let sync = Sync::new(
            identity.node.clone(),
            settings.timing.clone(),
            &mut persisted,
            rng.u64(..),
            now.mono,
        );
        let clock = u64::try_from(now.wall.as_millisecond()).unwrap_or(0);
        Self {
            n: persisted.n.saturating_add(COUNTER_MARGIN).max(clock),
            identity,
            settings,
            rng,
            started: now.wall,
            sync,
            images: BTreeMap::new(),
            flights: Flights::new(),
            runtime: Runtime::new(now.mono),
            ledger: Ledger::restore(persisted.ledger),
            reporter: Reporter::default(),
            saver: Saver::default(),
            counters: BTreeMap::new(),
            wanted_revision: 0,
            is_look_due: false,
            is_dirty: true,
            wake: Some(now.mono),
            outbox: Vec::new(),
        }
    }

    /// For readiness: connected once, assignment read (be it absent), every pool read or restored.
    pub fn is_synced(&self) -> bool {
        self.sync.is_synced()
    }

    /// How many wanted images are in each state.
    pub fn counts(&self) -> BTreeMap<ImageState, u64> {
        let mut counts = BTreeMap::new();
        for image in self.images.values().filter(|image| !image.want.is_retained) {
            *counts.entry(image.st).or_insert(0) += 1;
        }
        counts
    }

    /// What this agent knows, for people.
    pub fn summary(&self, now: Now) -> serde_json::Value {
        explain::summary(self, now)
    }

    /// What it knows of one image, by reference or key.
    pub fn explain(&self, image_or_key: &str, now: Now) -> serde_json::Value {
        explain::image(self, image_or_key, now)
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counters.entry(what).or_insert(0) += 1;
    }

    pub(crate) fn climate(&self) -> Climate {
        self.runtime.climate(
            self.sync
                .assignment()
                .map(|a| a.pressure.as_slice())
                .unwrap_or_default(),
        )
    }

    fn uid(&self) -> String {
        self.sync.assignment().map(|a| a.uid.clone()).unwrap_or_default()
    }

    fn revisions(&self) -> Revisions {
        (self.sync.stored_revision(), self.ledger.revision())
    }

    fn connected(&mut self, now: Now) {
        let is_first = !self.counters.contains_key("connected");
        self.count("connected");
        self.sync.connected(now.mono);
        let delay = if is_first { Duration::ZERO } else { self.sync.spread() };
        self.reporter
            .connected(now.mono, delay.min(self.settings.timing.heartbeat));
    }

    fn listed(&mut self, result: Result<Vec<RuntimeImage>, Reason>, now: Now) {
        let is_list = result.is_ok();
        self.runtime
            .listed(result, now.mono, &self.settings.timing, &mut self.rng);
        if is_list {
            let listing = &self.runtime.listing;
            self.ledger.keep(|image| listing.has(&ImageKey::of(image), image));
            self.is_look_due = true;
        }
    }

    fn pulled(&mut self, id: &ImageKey, result: Result<PulledImage, PullFailure>, now: Now) {
        let flight = self.flights.remove(id);
        match result {
            Ok(PulledImage { image: held, took }) => {
                if let Some(flight) = &flight {
                    self.ledger.pulled(flight.image.clone(), &held, now.wall);
                }
                self.runtime.listing.pulled(id.clone(), held, now.mono);
                self.is_look_due = true;
                self.count("pulled");
                let Some(image) = self.images.get_mut(id) else { return };
                image.attempt = Some(Attempt {
                    took,
                    number: image.tries.saturating_add(1),
                });
                image.look(id, &self.runtime.listing, now.mono);
                let is_answer = flight.is_some_and(|flight| !flight.is_outdated);
                if is_answer && !image.is_present() {
                    let failure = PullFailure {
                        reason: Reason::Corrupt,
                        retry_after: None,
                        took,
                    };
                    let Settings {
                        timing, final_after, ..
                    } = &self.settings;
                    pull::fail(image, &failure, timing, *final_after, now, &mut self.rng);
                }
            }
            Err(failure) => {
                self.count("pull-failed");
                if failure.reason == Reason::RuntimeUnavailable {
                    self.runtime
                        .did_not_answer(now.mono, &self.settings.timing, &mut self.rng);
                }
                let is_answer = flight.is_some_and(|flight| !flight.is_outdated && !flight.is_cancelled);
                if let Some(image) = self.images.get_mut(id).filter(|_| is_answer) {
                    let Settings {
                        timing, final_after, ..
                    } = &self.settings;
                    pull::fail(image, &failure, timing, *final_after, now, &mut self.rng);
                }
            }
        }
    }

    fn requested(&mut self, verb: RequestVerb, body: &str, reply: Option<u64>, now: Now) {
        let answer = match verb {
            RequestVerb::Inventory => {
                self.reporter.force(now.mono);
                serde_json::json!({ "ok": true })
            }
            RequestVerb::Resync => {
                self.sync.resync(now.mono);
                serde_json::json!({ "ok": true })
            }
            RequestVerb::Explain => explain::answer(self, body, now),
        };
        if let Some(reply) = reply {
            self.outbox.push(Effect::Reply { reply, body: answer });
        }
    }

    /// Brings `images` in line with what is wanted.
    fn refresh(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.wanted_revision == self.sync.revision() {
            return;
        }
        self.wanted_revision = self.sync.revision();
        self.is_look_due = true;
        let wanted = wanted(&self.identity.node, self.sync.pools());
        self.images.retain(|id, _| wanted.contains_key(id));
        for (id, flight) in &mut self.flights {
            if !flight.is_cancelled && !wanted.contains_key(id) {
                flight.is_cancelled = true;
                effects.push(Effect::CancelPull(id.clone()));
            }
        }
        for (id, want) in wanted {
            match self.images.get_mut(&id) {
                Some(image) => {
                    let is_another = image.rewant(want);
                    if let Some(flight) = self.flights.get_mut(&id) {
                        flight.is_outdated |= is_another;
                    }
                }
                None => {
                    self.images.insert(id, Image::new(want, now));
                }
            }
        }
    }

    /// Compares every wanted image with what the runtime holds.
    fn look(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.is_look_due) || !self.runtime.is_listed() {
            return;
        }
        let uid = self.uid();
        let mut events = Vec::new();
        for (id, image) in &mut self.images {
            match image.look(id, &self.runtime.listing, now.mono) {
                Look::Same => {}
                Look::Moved => {
                    events.push(ack::describe(
                        id,
                        image,
                        (ImageState::Warm, None),
                        (&self.identity, &uid),
                        now,
                    ));
                }
                Look::Evicted(times) => {
                    image.hold = pull::hold_off(&self.settings.timing, times, now, &mut self.rng);
                    let to = (ImageState::Evicted, None);
                    events.extend(ack::transition(id, image, to, (&self.identity, &uid), now));
                }
            }
        }
        self.publish(events, effects);
    }

    /// Judges every image and says what changed.
    fn judge(&mut self, climate: &Climate, now: Now, effects: &mut Vec<Effect>) {
        let uid = self.uid();
        let mut events = Vec::new();
        for (id, image) in &mut self.images {
            let is_pulling = self.flights.get(id).is_some_and(|flight| !flight.is_cancelled);
            let to = image.judge(is_pulling, climate);
            events.extend(ack::transition(id, image, to, (&self.identity, &uid), now));
        }
        self.publish(events, effects);
    }

    fn publish(&mut self, events: Vec<Event>, effects: &mut Vec<Effect>) {
        if !self.sync.is_connected() {
            return; // the inventory says it again
        }
        for event in events {
            self.n += 1;
            effects.push(Effect::PublishEvent(Event { n: self.n, ..event }));
        }
    }

    fn report(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.sync.is_synced() {
            self.reporter.synced(now.mono);
        }
        let is_listed = self.runtime.is_listed();
        let evidence = Evidence::compose(&self.images, self.sync.pools(), is_listed, self.started);
        let claim = Claim {
            epoch: self.sync.epoch().unwrap_or_default().to_owned(),
            uid: self.uid(),
            digest: evidence.digest(),
        };
        self.reporter.observe(&claim, now.mono);
        if !self.sync.is_connected() {
            return;
        }
        let inv_digest = claim.digest;
        let pools = reported(self.sync.pools());
        let timing = &self.settings.timing;
        if self.sync.epoch().is_some()
            && self
                .reporter
                .start_put(claim.clone(), pools.clone(), now.mono, timing, &mut self.rng)
        {
            self.n += 1;
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
                complete: evidence.complete,
                digests: evidence.digests,
                disk: self.runtime.disk,
                runtime: self.runtime.info.clone(),
                ts: now.wall,
            })));
        }
        if self.reporter.start_heartbeat(now.mono, timing, &mut self.rng) {
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

    fn save(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self
            .saver
            .start(self.revisions(), self.settings.timing.persist, now.mono)
        {
            effects.push(Effect::Persist(Box::new(self.persisted())));
        }
    }

    fn persisted(&self) -> Persisted {
        let pools = self
            .sync
            .pools()
            .iter()
            .map(|(id, pool)| (id.clone(), pool.content.store(pool.head())));
        Persisted {
            v: VERSION,
            epoch: self.sync.epoch().map(str::to_owned),
            term: self.sync.term(),
            assignment: self.sync.assignment().cloned(),
            pools: pools.collect(),
            ledger: self.ledger.entries().clone(),
            n: self.n,
        }
    }

    /// The earliest of all timers that lie ahead. What is overdue waits for a fact, not for time.
    fn next_wake(&self, now: Moment) -> Option<Moment> {
        let timing = &self.settings.timing;
        let waiting = self.images.iter().filter(|(id, _)| !self.flights.contains_key(*id));
        let reports = [self.reporter.put_due(timing), self.reporter.heartbeat_due()];
        [self.runtime.due(), self.saver.due(self.revisions(), timing.persist)]
            .into_iter()
            .chain(reports.into_iter().filter(|_| self.sync.is_connected()))
            .flatten()
            .chain(waiting.filter_map(|(_, image)| image.next().map(|due| due.at)))
            .chain(self.sync.timers())
            .filter(|at| *at > now)
            .min()
    }
}

impl Machine for NodeState {
    type Fact = Fact;
    type Effect = Effect;

    fn apply(&mut self, fact: Fact, now: Now) -> Changed {
        let mono = now.mono;
        let changed = match fact {
            Fact::Connected => {
                self.connected(now);
                true
            }
            Fact::Disconnected => {
                self.sync.disconnected();
                true
            }
            Fact::Gap => {
                self.sync.gap(mono);
                self.count("gap");
                true
            }
            Fact::Meta(result) => {
                self.sync.meta_read(result, mono);
                true
            }
            Fact::AssignmentRead(result) => {
                self.sync.assignment_read(result, mono);
                true
            }
            Fact::AssignmentCopy { epoch, assignment } => {
                self.sync.assignment_copied(&epoch, assignment, mono);
                true
            }
            Fact::Subscribed(pools) => {
                self.sync.subscribed(pools, mono);
                true
            }
            Fact::Delta(delta) => self.sync.delta(delta, mono),
            Fact::Beat(beat) => self.sync.beat(&beat, mono),
            Fact::PoolRead { pool, read, result } => self.sync.pool_read(&pool, read, result, mono),
            Fact::Images(result) => {
                self.listed(result, now);
                true
            }
            Fact::Pulled { id, result } => {
                self.pulled(&id, result, now);
                true
            }
            Fact::Observed { disk, runtime } => {
                let is_moved = (disk, &runtime) != (self.runtime.disk, &self.runtime.info);
                (self.runtime.disk, self.runtime.info) = (disk, runtime);
                is_moved
            }
            Fact::InventoryPut(result) => {
                self.count(if result.is_ok() {
                    "inventory-put"
                } else {
                    "inventory-put-failed"
                });
                self.reporter
                    .put_ended(result.is_ok(), mono, &self.settings.timing, &mut self.rng);
                true
            }
            Fact::Persisted(result) => {
                self.saver.ended(result.is_ok());
                true
            }
            Fact::Request { verb, body, reply } => {
                self.requested(verb, &body, reply, now);
                true
            }
            Fact::Refused { reason, .. } => {
                self.count(if reason == Reason::Forged { "forged" } else { "refused" });
                false
            }
        };
        self.is_dirty |= changed;
        changed.into()
    }

    fn step(&mut self, now: Now) -> Vec<Effect> {
        if !self.is_dirty && self.wake.is_none_or(|wake| wake > now.mono) {
            return Vec::new();
        }
        self.is_dirty = false;
        let mut effects = std::mem::take(&mut self.outbox);
        self.sync.step(now.mono, &mut effects);
        self.refresh(now, &mut effects);
        self.runtime.step(now.mono, &mut effects);
        self.look(now, &mut effects);
        let climate = self.climate();
        let Settings {
            timing, max_in_flight, ..
        } = &self.settings;
        let pulls = pull::start(
            &self.images,
            &mut self.flights,
            &climate,
            *max_in_flight,
            timing,
            now.mono,
        );
        self.judge(&climate, now, &mut effects);
        effects.extend(pulls);
        self.report(now, &mut effects);
        self.save(now, &mut effects);
        self.wake = self.next_wake(now.mono);
        effects
    }

    fn next_due(&self) -> Option<Moment> {
        self.wake
    }
}
