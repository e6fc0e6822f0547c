//! Starting and ending processes, and their turns.
//!
//! Owns incarnations, settings at test timings, and the one place where a machine takes its turn.

use std::time::Duration;

use cluster_plan::{EventSettings, LabelSettings, SnapshotSettings, World};
use jiff::SignedDuration;
use node_plan::gc::{GcMode, GcSettings};
use node_plan::persisted::VERSION;
use node_plan::{Identity, NodeState, Persisted};

use super::check::EVENTS;
use super::dice::About;
use super::node::Names;
use super::process::{Clock, Process, Turn, Who};
use super::queue::{MS, Us};
use super::sabotage::Sabotage;
use super::schedule::{Disk, Peer};
use super::sets::WINDOW;
use super::universe::Universe;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// An interrupted process starts again after this time.
const AGAIN: Us = 50 * MS;

/// Test timings: jitter below a second, no label window.
fn agent_timing() -> node_plan::Timing {
    node_plan::Timing {
        heartbeat: ms(2_000),
        verify_min: ms(1_000),
        verify_max: ms(2_000),
        inventory_delay: ms(200),
        inventory_gap: ms(500),
        inventory_every: ms(120_000),
        inventory_backoff_max: ms(1_000),
        beat_lost: ms(6_000),
        poll: ms(2_000),
        start_spread: ms(200),
        read_retry: ms(100),
        persist: ms(300),
        pull_deadline: ms(3_000),
        pull_backoff: ms(200),
        pull_backoff_max: ms(2_000),
        pull_final: ms(4_000),
        pressure_hold: ms(500),
        gc_retry: ms(1_000),
    }
}

fn controller_timing() -> cluster_plan::Timing {
    cluster_plan::Timing {
        beat: ms(1_500),
        // Ten times what so few nodes are told.
        spread: ms(2_000),
        heartbeat: ms(2_000),
        judge: ms(1_000),
        label_window: ms(0),
        set_status: ms(WINDOW / MS),
        write_backoff: ms(100),
        write_backoff_max: ms(1_000),
        marker_ttl: ms(15_000),
    }
}

impl From<Peer> for Who {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Controller(replica) => Self::Controller(replica),
            Peer::Agent(node) => Self::Agent(node),
        }
    }
}

impl Universe {
    /// Everything that is there from the beginning.
    pub(super) fn begin(&mut self) {
        for replica in 0..self.setup.controllers {
            self.start_controller(replica);
            self.elect(replica);
        }
    }

    /// The number of the process that runs now, if one does.
    pub(super) fn incarnation(&self, who: Who) -> Option<u64> {
        match who {
            Who::Controller(replica) => self.replicas.get(replica)?.process.as_ref().map(|p| p.incarnation),
            Who::Agent(node) => self.hosts.get(node)?.agent.as_ref().map(|p| p.incarnation),
        }
    }

    fn clock(&mut self, who: Who, skew: i64) -> Clock {
        let base = self.dice.about(About::Machine(who)).u64(0..10_000_000);
        Clock::new(self.now, base, SignedDuration::from_secs(skew))
    }

    pub(super) fn start_controller(&mut self, number: usize) {
        let who = Who::Controller(number);
        if self.incarnation(who).is_some() {
            return;
        }
        let seed = self.dice.about(About::Machine(who)).u64(..);
        let skew = self.replicas.get(number).map_or(0, |replica| replica.skew);
        let clock = self.clock(who, skew);
        let more = usize::from(self.sabotage == Some(Sabotage::OneLabelMore));
        let settings = cluster_plan::Settings {
            kinds: std::collections::BTreeSet::new(),
            linger: Duration::ZERO,
            timing: controller_timing(),
            labels: LabelSettings {
                max_per_node: self.setup.labels + more,
                per_second: self.setup.patches,
                ..LabelSettings::default()
            },
            // Few, so that some have to wait, and soon again.
            events: EventSettings { per_minute: EVENTS, repeat: Duration::from_mins(2), ..EventSettings::default() },
            sets: true,
            // Universes are small.
            snapshots: SnapshotSettings { least: 2 },
            instance: format!("pod-{number}"),
            version: "1".to_owned(),
            ..cluster_plan::Settings::default()
        };
        let now = clock.now(self.now);
        let Some(replica) = self.replicas.get_mut(number) else { return };
        replica.incarnations += 1;
        let epoch = format!("epoch-{number}-{}", replica.incarnations);
        let world = World::new(settings, epoch, seed, now);
        replica.process = Some(Process::new(world, replica.incarnations, clock, ms(50)));
        self.checks.controller_begins(number, self.now);
        self.say(|| format!("controller-{number} begins"));
        self.begin_controller(number);
        self.connect(who);
        self.queue_turn(who);
    }

    pub(super) fn end_controller(&mut self, number: usize) {
        if let Some(replica) = self.replicas.get_mut(number) {
            replica.end();
            self.forget(Who::Controller(number));
        }
    }

    pub(super) fn start_agent(&mut self, node: usize) {
        let who = Who::Agent(node);
        if self.incarnation(who).is_some() || !self.hosts.get(node).is_some_and(|host| host.is_joined) {
            return;
        }
        let seed = self.dice.about(About::Machine(who)).u64(..);
        let skew = self.hosts.get(node).map_or(0, |host| host.skew);
        let clock = self.clock(who, skew);
        let more = usize::from(self.sabotage == Some(Sabotage::OnePullMore));
        let settings = node_plan::Settings {
            timing: agent_timing(),
            max_in_flight: self.setup.pulls + more,
            gc: GcSettings { mode: GcMode::On, high: 20, low: 5, min_age: ms(1_000) },
            ..node_plan::Settings::default()
        };
        let now = clock.now(self.now);
        let Some(host) = self.hosts.get_mut(node) else { return };
        host.incarnations += 1;
        let identity = Identity {
            node: host.node.clone(),
            inst: format!("inst-{node}-{}", host.incarnations),
            boot: format!("boot-{node}-{}", host.boots),
            agent_version: "1".to_owned(),
        };
        let mut persisted = host.file.as_deref().cloned();
        if !host.begun.is_empty() {
            let of_notes = Persisted { v: VERSION, ..Persisted::default() };
            persisted.get_or_insert(of_notes).begin(host.begun.keys().cloned());
        }
        let machine = NodeState::new(identity, settings, persisted, seed, now);
        host.agent = Some(Process::new(machine, host.incarnations, clock, Duration::ZERO));
        self.checks.agent_begins(node);
        self.say(|| format!("agent-{node} begins"));
        self.connect(who);
        self.queue_turn(who);
    }

    /// An agent ends and starts again after `down`.
    pub(super) fn crash_agent(&mut self, node: usize, disk: Disk, down: Us) {
        self.end_agent(node, disk);
        self.after(down, move |u| u.start_agent(node));
    }

    /// A controller ends and starts again after `down`.
    pub(super) fn crash_controller(&mut self, number: usize, down: Us) {
        self.end_controller(number);
        self.after(down, move |u| u.start_controller(number));
    }

    pub(super) fn end_agent(&mut self, node: usize, disk: Disk) {
        let Some(host) = self.hosts.get_mut(node) else { return };
        host.agent = None;
        host.pulls.clear();
        host.standing.clear();
        match disk {
            Disk::Kept => {}
            Disk::Lost => (host.file, host.older) = (None, None),
            Disk::Older => host.file = host.older.take(),
        }
        if disk != Disk::Kept {
            // Without the notes, what was cut off cannot be told from what somebody has loaded by hand.
            host.begun.clear();
            host.images.values_mut().for_each(|held| held.names = Names::All);
        }
        self.forget(Who::Agent(node));
    }

    /// A connection is made.
    pub(super) fn connected(&mut self, who: Who) {
        match who {
            Who::Controller(number) => self.controller_connected(number),
            Who::Agent(node) => self.agent_connected(node),
        }
    }

    /// A connection is lost.
    pub(super) fn disconnected(&mut self, who: Who) {
        match who {
            Who::Controller(number) => self.controller_disconnected(number),
            Who::Agent(node) => self.agent_disconnected(node),
        }
    }

    /// A message on core NATS arrives.
    pub(super) fn receive(&mut self, who: Who, wire: &super::connection::Wire) {
        match who {
            Who::Controller(number) => self.controller_receives(number, wire),
            Who::Agent(node) => self.agent_receives(node, wire),
        }
    }

    /// Queues the next turn of a process, unless an earlier one is queued.
    pub(super) fn queue_turn(&mut self, who: Who) {
        let now = self.now;
        // A process is not always scheduled at once: what comes meanwhile is one batch.
        let rng = self.dice.about(About::Turn(who));
        let late: Us = if rng.u8(..) < 26 { rng.u64(0..5 * MS) } else { 20 };
        let turn = match who {
            Who::Controller(number) => {
                self.replicas.get_mut(number).and_then(|r| r.process.as_mut()).and_then(|p| plan_turn(p, now, late))
            }
            Who::Agent(node) => {
                self.hosts.get_mut(node).and_then(|h| h.agent.as_mut()).and_then(|p| plan_turn(p, now, late))
            }
        };
        if let Some((at, incarnation)) = turn {
            self.at(at, move |u| u.take_turn(who, incarnation, at));
        }
    }

    fn take_turn(&mut self, who: Who, incarnation: u64, at: Us) {
        if self.incarnation(who) != Some(incarnation) || self.is_paused(who) {
            return;
        }
        match who {
            Who::Controller(number) => self.turn_controller(number, at),
            Who::Agent(node) => self.turn_agent(node, at),
        }
        self.queue_turn(who);
    }

    pub(super) fn is_paused(&self, who: Who) -> bool {
        self.clients.get(&who).is_some_and(|client| client.is_paused)
    }

    fn turn_agent(&mut self, node: usize, at: Us) {
        let now = self.now;
        let process = self.hosts.get_mut(node).and_then(|host| host.agent.as_mut());
        let turn = process.and_then(|process| process.take_turn(at, now));
        let Some(Turn { incarnation, facts, effects }) = turn else { return };
        self.facts += facts.len() as u64;
        for fact in &facts {
            self.say(|| format!("agent-{node:<6} <- {}", Self::agent_fact(fact)));
        }
        self.check_agent_facts(node, &facts);
        for effect in effects {
            self.effects += 1;
            self.say(|| format!("agent-{node:<6} -> {}", Self::agent_effect(&effect)));
            self.check_agent_effect(node, &effect);
            self.act_for_agent(node, incarnation, effect);
            if let Some(interruption) = self.interrupts() {
                let disk = if interruption.loses_file { Disk::Lost } else { Disk::Kept };
                return self.crash_agent(node, disk, AGAIN);
            }
        }
        self.check_agent(node);
        self.whisper(node, incarnation);
    }

    fn turn_controller(&mut self, number: usize, at: Us) {
        let now = self.now;
        let process = self.replicas.get_mut(number).and_then(|replica| replica.process.as_mut());
        let turn = process.and_then(|process| process.take_turn(at, now));
        let Some(Turn { incarnation, facts, effects }) = turn else { return };
        self.facts += facts.len() as u64;
        for fact in &facts {
            self.say(|| format!("controller-{number} <- {}", Self::controller_fact(fact)));
        }
        self.check_controller_facts(number, &facts);
        self.note_refutations(number, &facts);
        for effect in effects {
            self.effects += 1;
            let effect = self.tamper(effect);
            self.say(|| format!("controller-{number} -> {}", Self::controller_effect(&effect)));
            self.check_controller_effect(number, &effect);
            self.act_for_controller(number, incarnation, effect);
            if self.interrupts().is_some() {
                return self.crash_controller(number, AGAIN);
            }
        }
    }
}

fn plan_turn<M: shared::machine::Machine>(process: &mut Process<M>, now: Us, late: Us) -> Option<(Us, u64)> {
    let at = process.next_turn(now)? + late;
    if process.turn.is_some_and(|queued| queued <= at && queued >= now) {
        return None;
    }
    process.turn = Some(at);
    Some((at, process.incarnation))
}
