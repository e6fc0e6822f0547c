//! The agent's machine: everything it knows, and the order in which it decides.
//!
//! Owns the composition of facts and of a step. Each decision is in the module that is named after it.

mod learn;
mod report;
mod restored;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::machine::{Changed, Machine, Moment, Now};
use shared::message::{Assignment, Disk};
use shared::name::{ImageKey, NodeName, PoolId};
use shared::pool_set::PoolSummary;
use shared::state::ImageState;

use self::restored::Restored;
use crate::ack;
use crate::begun::Begun;
use crate::disk::DiskSettings;
use crate::effect::Effect;
use crate::explain;
use crate::fact::Fact;
use crate::follower::Follower;
use crate::gc::{self, Collector, GcSettings};
use crate::image::{Climate, Image, Look};
use crate::ledger::Ledger;
use crate::persisted::{Persisted, VERSION};
use crate::pull::{self, Flight, Flights};
use crate::refresh;
use crate::runtime::Runtime;
use crate::save::{Revisions, Saver};
use crate::timing::Timing;
use crate::want::wanted;

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// Every interval.
    pub timing: Timing,
    /// How many pulls at once.
    pub max_in_flight: usize,
    /// After this many failures in a row an image is final `failed`: retried every `timing.pull_final` only.
    pub final_after: u32,
    /// How full the image file system may be.
    pub disk: DiskSettings,
    /// Removal of images that nobody wants any more.
    pub gc: GcSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timing: Timing::default(),
            max_in_flight: 1,
            final_after: 5,
            disk: DiskSettings::default(),
            gc: GcSettings::default(),
        }
    }
}

/// The machine.
#[derive(Debug, Clone)]
pub struct NodeState {
    pub(crate) follower: Follower,
    pub(crate) settings: Settings,
    rng: Rng,
    started: Timestamp,
    pub(crate) images: BTreeMap<ImageKey, Image>,
    pub(crate) flights: Flights,
    pub(crate) runtime: Runtime,
    pub(crate) ledger: Ledger,
    pub(crate) collector: Collector,
    saver: Saver,
    /// Revision of the view of NATS that `images` is of.
    wanted_revision: u64,
    /// A list of the runtime's images came.
    is_look_due: bool,
    is_dirty: bool,
    wake: Option<Moment>,
    /// Moves with each attempt that failed, each eviction, and each refresh that is planned.
    setbacks: u64,
    /// What an earlier run knew of the images it wanted, until they are looked up.
    restored: Restored,
    begun: Begun,
    /// Decided while learning: answers, events of evictions.
    outbox: Vec<Effect>,
}

impl NodeState {
    /// A machine that knows what was persisted, if that is of this form.
    pub fn new(identity: Identity, settings: Settings, persisted: Option<Persisted>, seed: u64, now: Now) -> Self {
        let mut persisted = persisted.filter(|p| p.v == VERSION).unwrap_or_default();
        let mut rng = Rng::with_seed(seed);
        let follower = Follower::new(identity, settings.timing.clone(), &mut persisted, &mut rng, now);
        let passed =
            persisted.ts.and_then(|ts| Duration::try_from(now.wall.duration_since(ts)).ok()).unwrap_or_default();
        let restored = Restored::of(&mut persisted, passed);
        Self {
            follower,
            rng,
            started: now.wall,
            images: BTreeMap::new(),
            flights: Flights::new(),
            runtime: Runtime::new(settings.disk, now.mono),
            ledger: Ledger::restore(persisted.ledger, now.mono),
            collector: Collector::default(),
            saver: Saver::default(),
            wanted_revision: 0,
            is_look_due: false,
            is_dirty: true,
            wake: Some(now.mono),
            setbacks: 0,
            restored,
            begun: Begun::default(),
            outbox: Vec::new(),
            settings,
        }
    }

    /// For readiness: connected once, assignment read (be it absent), every pool read or restored.
    pub fn is_synced(&self) -> bool {
        self.follower.sync.is_synced()
    }

    /// How many wanted images are in each state.
    pub fn counts(&self) -> BTreeMap<ImageState, u64> {
        let mut counts = BTreeMap::new();
        for image in self.images.values().filter(|image| !image.want.is_retained) {
            *counts.entry(image.st).or_insert(0) += 1;
        }
        counts
    }

    /// The image file system as it was last seen; all zero if it is not known.
    pub fn disk(&self) -> Disk {
        self.runtime.disk.report()
    }

    /// What it holds on to: every image that is wanted, or not yet known to be withdrawn.
    pub fn wanted(&self) -> impl Iterator<Item = &ImageKey> {
        self.images.keys()
    }

    /// UID of the Node that its assignment is for; empty if it has none.
    pub fn uid(&self) -> String {
        self.follower.uid()
    }

    /// Its pools, each with the set it knows.
    pub fn pools(&self) -> impl Iterator<Item = (&PoolId, PoolSummary)> {
        self.follower.pools()
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
        self.follower.count(what);
    }

    pub(crate) fn climate(&self) -> Climate {
        self.runtime.climate(self.follower.sync.is_paused())
    }

    /// How many pulls may be in flight: the lower of what is configured and what the assignment says, which is 0 while
    /// everything is paused.
    pub(crate) fn limit(&self) -> usize {
        let assigned = self.follower.sync.assignment().and_then(Assignment::pulls_in_flight);
        assigned.map_or(self.settings.max_in_flight, |limit| limit.min(self.settings.max_in_flight))
    }

    fn revisions(&self) -> Revisions {
        (self.follower.sync.stored_revision(), self.ledger.revision(), self.setbacks)
    }

    /// Brings `images` in line with what is wanted.
    fn align(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.wanted_revision == self.follower.sync.revision() {
            return;
        }
        self.wanted_revision = self.follower.sync.revision();
        let wanted = wanted(&self.follower.identity.node, self.follower.sync.pools(), self.follower.sync.leaving());
        for (id, image) in self.images.extract_if(.., |id, _| !wanted.contains_key(id)) {
            if image.is_begun {
                self.begun.leave(id, image.want.image.clone(), now.mono);
            }
        }
        for (id, flight) in &mut self.flights {
            if !flight.is_cancelled && !wanted.contains_key(id) {
                flight.is_cancelled = true;
                effects.push(Effect::CancelPull(id.clone()));
            }
        }
        for (id, want) in wanted {
            if let Some(image) = self.images.get_mut(&id) {
                let is_another = image.rewant(want);
                if let Some(flight) = self.flights.get_mut(&id) {
                    flight.is_outdated |= is_another;
                }
            } else {
                let mut image = Image::new(want, now);
                self.restored.give(&id, &mut image, now);
                image.is_begun |= self.begun.take(&id);
                self.images.insert(id, image);
            }
        }
        if self.is_synced() {
            for (id, image) in self.restored.end() {
                self.begun.leave(id, image, now.mono);
            }
        }
    }

    /// Compares with what the runtime holds: after a list every image, else those that are new or changed.
    fn look(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !self.runtime.is_listed() {
            return;
        }
        let is_all = std::mem::take(&mut self.is_look_due);
        if is_all && self.begun.look(&self.runtime.listing, self.settings.timing.pull_deadline) {
            self.setbacks += 1;
        }
        let uid = self.follower.uid();
        let mut events = Vec::new();
        for (id, image) in self.images.iter_mut().filter(|(_, image)| is_all || image.is_unseen) {
            let is_refreshing = self.flights.get(id).is_some_and(|flight| flight.is_refresh);
            match image.look(id, &self.runtime.listing, is_refreshing, now.mono) {
                Look::Same => {}
                Look::Moved => {
                    events.push(ack::describe(
                        id,
                        image,
                        (ImageState::Warm, None),
                        (&self.follower.identity, &uid),
                        now,
                    ));
                }
                Look::Evicted(times) => {
                    self.setbacks += 1;
                    image.hold = pull::hold_off(&self.settings.timing, times, now, &mut self.rng);
                    let to = (ImageState::Evicted, None);
                    events.extend(ack::transition(id, image, to, (&self.follower.identity, &uid), now));
                }
            }
        }
        self.follower.publish(events, effects);
    }

    /// Lets an image go that nobody wants any more, if the disk asks for it.
    fn collect(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let wanted = self.wanted_references();
        let is_proven = self.follower.sync.is_proven(now);
        let is_wanted = |image: &str| wanted.contains(image) || self.images.contains_key(&ImageKey::of(image));
        self.ledger.compare(is_wanted, is_proven, self.settings.gc.min_age, now);
        let mut collector = std::mem::take(&mut self.collector);
        collector.step(&self.view(&wanted, now), now, effects);
        self.collector = collector;
    }

    /// Canonical references of whatever any intent names, live or retained.
    pub(crate) fn wanted_references(&self) -> BTreeSet<String> {
        self.images.values().map(|image| image.want.image.clone()).collect()
    }

    /// What garbage collection decides from.
    pub(crate) fn view<'a>(&'a self, wanted: &'a BTreeSet<String>, now: Moment) -> gc::View<'a> {
        let obstacle = if !self.follower.sync.is_proven(now) {
            Some("what is wanted is not proven")
        } else if self.follower.sync.is_paused() {
            Some("paused")
        } else if self.runtime.is_away() || !self.runtime.is_listed() {
            Some("the runtime does not answer")
        } else if !self.flights.is_empty() {
            Some("a pull is in flight")
        } else {
            None
        };
        gc::View {
            settings: &self.settings.gc,
            timing: &self.settings.timing,
            disk: &self.runtime.disk,
            listing: &self.runtime.listing,
            ledger: &self.ledger,
            wanted,
            obstacle,
        }
    }

    /// Judges every image and says what changed.
    fn judge(&mut self, climate: &Climate, now: Now, effects: &mut Vec<Effect>) {
        if !climate.is_listed {
            return; // nobody knows what is there: any word but "warm" would take a label away
        }
        let uid = self.follower.uid();
        let mut events = Vec::new();
        for (id, image) in &mut self.images {
            // What is refreshed is there all the while: another word would take its label away.
            let is_there = |flight: &Flight| flight.is_refresh && image.is_present();
            let is_pulling = self.flights.get(id).is_some_and(|flight| !flight.is_cancelled && !is_there(flight));
            let to = image.judge(is_pulling, climate);
            events.extend(ack::transition(id, image, to, (&self.follower.identity, &uid), now));
        }
        self.follower.publish(events, effects);
    }

    /// The earliest of all timers that lie ahead. What is overdue waits for a fact, not for time.
    fn next_wake(&self, now: Moment) -> Option<Moment> {
        let timing = &self.settings.timing;
        let waiting = self.images.iter().filter(|(id, _)| !self.flights.contains_key(*id));
        [self.runtime.due(), self.runtime.disk.due(), self.saver.due(self.revisions(), timing.persist)]
            .into_iter()
            .flatten()
            .chain(waiting.flat_map(|(_, image)| [image.next(), image.refresh.next()]).flatten().map(|due| due.at))
            .chain(self.follower.timers())
            .filter(|at| *at > now)
            .min()
    }
}

impl Machine for NodeState {
    type Fact = Fact;
    type Effect = Effect;

    fn apply(&mut self, fact: Fact, now: Now) -> Changed {
        let changed = self.learn(fact, now);
        self.is_dirty |= changed;
        changed.into()
    }

    fn step(&mut self, now: Now) -> Vec<Effect> {
        if !self.is_dirty && self.wake.is_none_or(|wake| wake > now.mono) {
            return Vec::new();
        }
        self.is_dirty = false;
        let mut effects = std::mem::take(&mut self.outbox);
        self.follower.step(now.mono, &mut effects);
        self.align(now, &mut effects);
        self.runtime.step(now.mono, &mut effects);
        self.look(now, &mut effects);
        self.collect(now.mono, &mut effects);
        let pressure = self.follower.sync.assignment().map(|a| a.pressure.as_slice()).unwrap_or_default();
        self.runtime.disk.feel(pressure, self.settings.timing.pressure_hold, now.mono);
        let climate = self.climate();
        let limit = if self.collector.is_removing() { 0 } else { self.limit() };
        let timing = &self.settings.timing;
        let around = (&climate, timing, &self.ledger);
        if refresh::plan(&mut self.images, &self.flights, around, now, &mut self.rng) {
            self.setbacks += 1;
        }
        let pulls = pull::start(&self.images, &mut self.flights, &climate, limit, timing, now.mono);
        for pull in &pulls {
            let Effect::Pull { id, .. } = pull else { continue };
            self.setbacks += 1;
            self.images.entry(id.clone()).and_modify(|image| image.is_begun = true);
        }
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
