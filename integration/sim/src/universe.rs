//! Everything there is, and how one run goes.
//!
//! Owns the parts, the order of a run (begin, schedule, settle, rest), the trace. Each part is in the file that is named
//! after it.

use std::collections::{BTreeMap, VecDeque};

use shared::name::ClusterId;

use super::api::Api;
use super::bus::Store;
use super::check::{Checks, Invariant, Violation};
use super::connection::Client;
use super::controller::Replica;
use super::dice::Dice;
use super::node::{Host, Registry};
use super::process::Who;
use super::queue::{MS, Queue, Us};
use super::sabotage::Sabotage;
use super::schedule::{Schedule, Setup};

/// How many lines of a trace are kept.
const TRACE: usize = 400;

/// How core NATS treats messages, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weather {
    pub(super) lost: u8,
    pub(super) doubled: u8,
    pub(super) late: u8,
}

/// Everything there is.
pub(super) struct Universe {
    pub(super) now: Us,
    pub(super) setup: Setup,
    pub(super) cluster: ClusterId,
    queue: Queue,
    pub(super) dice: Dice,
    pub(super) store: Store,
    pub(super) saved: Option<Store>,
    pub(super) nats_up: bool,
    pub(super) clients: BTreeMap<Who, Client>,
    pub(super) replicas: Vec<Replica>,
    pub(super) hosts: Vec<Host>,
    pub(super) api: Api,
    pub(super) registry: Registry,
    pub(super) weather: Weather,
    /// The last order of a person.
    pub(super) paused: bool,
    pub(super) checks: Checks,
    pub(super) sabotage: Option<Sabotage>,
    /// Over when everything is as it should be.
    pub(super) interruption: Option<Interruption>,
    pub(super) facts: u64,
    pub(super) effects: u64,
    /// Effects that change something outside, for the rest at the end.
    pub(super) deeds: u64,
    violation: Option<Violation>,
    trace: Option<VecDeque<String>>,
    whole_trace: bool,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The invariant that was broken first, if any.
    pub violation: Option<Violation>,
    /// The last steps, if they were to be told.
    pub trace: Vec<String>,
    /// Facts that machines have learned.
    pub facts: u64,
    /// Effects that they have decided.
    pub effects: u64,
    /// Simulated milliseconds from the end of the faults until everything was as it should be.
    pub settled: Option<u64>,
    /// What buckets and Nodes hold then: live intents, pools of nodes, labels.
    pub end: String,
}

/// A process ends right after one of its effects, and starts again.
#[derive(Debug, Clone, Copy)]
pub struct Interruption {
    /// After how many effects of all processes together.
    pub after: u64,
    /// Whether an agent loses its state file with it.
    pub loses_file: bool,
}

/// How much of a run is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Nothing.
    Nothing,
    /// The last steps.
    Last,
    /// Every step.
    All,
}

/// Runs a schedule to its end, or to the first broken invariant.
pub fn run(schedule: &Schedule, sabotage: Option<Sabotage>, telling: Telling) -> Outcome {
    play(schedule, Universe::new(&schedule.setup, sabotage, telling))
}

/// Runs a schedule during which one process is interrupted.
pub fn run_interrupted(schedule: &Schedule, interruption: Interruption, telling: Telling) -> Outcome {
    let universe = Universe::new(&schedule.setup, None, telling);
    play(schedule, Universe { interruption: Some(interruption), ..universe })
}

fn play(schedule: &Schedule, mut universe: Universe) -> Outcome {
    universe.begin();
    for entry in &schedule.entries {
        universe.run_until(entry.at * MS);
        if universe.violation.is_some() {
            break;
        }
        universe.say(|| format!("***          {}", serde_json::to_string(&entry.op).unwrap_or_default()));
        universe.happen(&entry.op);
    }
    let settled = if universe.violation.is_none() { universe.settle() } else { None };
    if universe.violation.is_some() {
        universe.say_what_is_known();
    }
    Outcome {
        end: universe.end(),
        violation: universe.violation,
        trace: universe.trace.map(Vec::from).unwrap_or_default(),
        facts: universe.facts,
        effects: universe.effects,
        settled: settled.map(|us| us / MS),
    }
}

impl Universe {
    fn new(setup: &Setup, sabotage: Option<Sabotage>, telling: Telling) -> Self {
        Self {
            now: 0,
            setup: setup.clone(),
            cluster: ClusterId::default(),
            queue: Queue::new(setup.seed),
            dice: Dice::new(setup.seed),
            store: Store::default(),
            saved: None,
            nats_up: true,
            clients: BTreeMap::new(),
            replicas: (0..setup.controllers).map(|_| Replica::default()).collect(),
            hosts: (0..setup.nodes).filter_map(Host::new).collect(),
            api: Api::default(),
            registry: Registry::default(),
            weather: Weather::default(),
            paused: false,
            checks: Checks::default(),
            sabotage,
            interruption: None,
            facts: 0,
            effects: 0,
            deeds: 0,
            violation: None,
            trace: (telling != Telling::Nothing).then(VecDeque::new),
            whole_trace: telling == Telling::All,
        }
    }

    /// Lets something happen at a time.
    pub(super) fn at(&mut self, at: Us, deed: impl FnOnce(&mut Self) + 'static) {
        self.queue.put(at.max(self.now), Box::new(deed));
    }

    /// Lets something happen after a while.
    pub(super) fn after(&mut self, wait: Us, deed: impl FnOnce(&mut Self) + 'static) {
        self.queue.put(self.now + wait, Box::new(deed));
    }

    /// Lets everything happen up to a time, or up to the first broken invariant.
    pub(super) fn run_until(&mut self, until: Us) {
        while self.violation.is_none() {
            let Some((at, deed)) = self.queue.take(until) else {
                self.now = self.now.max(until);
                return;
            };
            self.now = at;
            deed(self);
            if !self.checks.refuted.is_empty() {
                self.check_refuted();
            }
        }
    }

    /// An invariant does not hold.
    pub(super) fn violated(&mut self, invariant: Invariant, what: impl Into<String>) {
        if self.violation.is_some() {
            return;
        }
        let violation = Violation { invariant, at: self.now / MS, what: what.into() };
        self.say(|| format!("!!!          {violation}"));
        self.violation = Some(violation);
    }

    pub(super) fn is_violated(&self) -> bool {
        self.violation.is_some()
    }

    /// What every process that runs holds for true, as its `/state` would say.
    fn say_what_is_known(&mut self) {
        let now = self.now;
        let controllers = self.replicas.iter().enumerate().filter_map(|(number, replica)| {
            let process = replica.process.as_ref()?;
            Some(format!("controller-{number} {}", process.machine.summary(process.clock.now(now))))
        });
        let agents = self.hosts.iter().enumerate().filter_map(|(node, host)| {
            let process = host.agent.as_ref()?;
            Some(format!("agent-{node:<6} {}", process.machine.summary(process.clock.now(now))))
        });
        for line in controllers.chain(agents).collect::<Vec<_>>() {
            self.say(|| line);
        }
    }

    /// Whether the process whose effect was just carried out is to end; `None` if not.
    pub(super) fn interrupts(&mut self) -> Option<Interruption> {
        let effects = self.effects;
        self.interruption.take_if(|interruption| interruption.after == effects)
    }

    /// A line of the trace.
    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        let (now, whole) = (self.now, self.whole_trace);
        if let Some(trace) = &mut self.trace {
            if !whole && trace.len() == TRACE {
                trace.pop_front();
            }
            trace.push_back(format!("{:>9}.{:03} ms  {}", now / MS, now % MS, line()));
        }
    }
}
