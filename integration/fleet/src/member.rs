//! One agent without a node.
//!
//! Owns its machine, which is the agent's follower with "whatever I know is warm" in place of a runtime.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent::act::OverNats;
use agent::bus::Link;
use daemon::bus::BusError;
use daemon::clock::Clock;
use daemon::driver::{self, Dispatch, DriverSettings};
use daemon::supervise::Tasks;
use fastrand::Rng;
use node_plan::follower::{Learned, Surroundings};
use node_plan::{Effect, Evidence, Fact, Follower, Identity, Persisted};
use shared::machine::{Changed, Kind as _, Machine, Moment, Now};
use shared::message::{Content, Disk, Runtime};
use shared::name::NodeName;

use crate::Config;
use crate::board::{Board, Row};
use crate::shelf::Shelf;

/// Facts that may wait for one member.
const INBOX: usize = 4_096;
/// Nobody asks these loops whether they live.
const TURN: Duration = Duration::from_mins(10);

/// Where a member stands.
pub struct Place<'a> {
    /// Its row.
    pub number: usize,
    /// Its Node.
    pub node: NodeName,
    /// What all have in common.
    pub config: &'a Config,
    /// Where it is seen.
    pub board: Arc<Board>,
    /// The intents of all.
    pub shelf: Arc<Shelf>,
    /// The process's clock.
    pub clock: Clock,
}

/// Starts a member, as the agent starts.
///
/// # Errors
/// Settings that no attempt to connect could use.
pub async fn start(place: Place<'_>, tasks: &Tasks) -> Result<(), BusError> {
    let Place { number, node, config, board, shelf, clock } = place;
    let link = Link::connect(&config.nats, config.cluster.clone(), node.clone(), tasks).await?;
    let (inbox, facts) = driver::channel(INBOX);
    let nats = OverNats::new(link.clone(), inbox.clone(), tasks.clone());
    let mut rng = Rng::new();
    let identity = Identity {
        inst: format!("{node}-{:016x}", rng.u64(..)),
        node,
        boot: "fleet".to_owned(),
        agent_version: "fleet".to_owned(),
    };
    let now = clock.now();
    let follower = Follower::new(identity, config.timing.clone(), &mut Persisted::default(), &mut rng, now);
    let member = Member {
        number,
        follower,
        rng,
        runtime: Runtime::default(),
        row: Row::default(),
        round: 0,
        board: Arc::clone(&board),
        shelf,
        is_dirty: true,
        wake: Some(now.mono),
        outbox: Vec::new(),
    };
    link.start(&inbox, tasks).await?;
    let shutdown = tasks.shutdown();
    let settings = DriverSettings { turn: TURN, ..DriverSettings::default() };
    tasks.spawn("member", async move {
        driver::run(member, facts, Carrier { nats, board }, settings, clock, |_, _| {}, shutdown).await;
    });
    Ok(())
}

/// Carries effects out as the agent does.
struct Carrier {
    nats: OverNats,
    board: Arc<Board>,
}

impl Dispatch<Effect> for Carrier {
    fn dispatch(&mut self, effect: Effect) {
        self.board.does(effect.kind());
        // Whatever is not of NATS needs a node, and no member asks for it.
        let _ = self.nats.take(effect);
    }
}

/// The machine.
struct Member {
    number: usize,
    follower: Follower,
    rng: Rng,
    runtime: Runtime,
    /// As on the board.
    row: Row,
    /// The last wait that has ended here.
    round: u64,
    board: Arc<Board>,
    shelf: Arc<Shelf>,
    is_dirty: bool,
    wake: Option<Moment>,
    outbox: Vec<Effect>,
}

impl Member {
    fn learn(&mut self, fact: Fact, now: Now) -> bool {
        match self.follower.learn(self.shelf.share(fact), now, &mut self.rng) {
            Learned::Taken(is_due) => is_due,
            Learned::Other(fact) => {
                if let Fact::Request { verb, reply: Some(reply), .. } = *fact
                    && let Some(body) = self.follower.requested(verb, now.mono)
                {
                    self.outbox.push(Effect::Reply { reply, body });
                }
                true
            }
        }
    }

    fn show(&mut self, now: Now) {
        let row = Row::of(&self.follower);
        if row != self.row {
            self.row = row;
            self.board.write(self.number, row, now.wall);
        }
        let round = self.board.number();
        if self.round != round && self.board.arrives(&self.follower, now.wall) {
            self.round = round;
        }
    }
}

impl Machine for Member {
    type Fact = Fact;
    type Effect = Effect;

    fn apply(&mut self, fact: Fact, now: Now) -> Changed {
        let changed = self.learn(fact, now);
        self.is_dirty |= changed;
        self.show(now);
        changed.into()
    }

    fn step(&mut self, now: Now) -> Vec<Effect> {
        if !self.is_dirty && self.wake.is_none_or(|wake| wake > now.mono) {
            return Vec::new();
        }
        self.is_dirty = false;
        let mut effects = std::mem::take(&mut self.outbox);
        self.follower.step(now.mono, &mut effects);
        let evidence = Evidence {
            content: Content::Except(Vec::new()),
            not_warm: Vec::new(),
            complete: self.follower.is_current(),
            digests: BTreeMap::new(),
            left_out: 0,
        };
        let around = Surroundings { disk: Disk::default(), runtime: &self.runtime };
        self.follower.report(evidence, around, now, &mut self.rng, &mut effects);
        self.wake = self.follower.timers().filter(|at| *at > now.mono).min();
        effects
    }

    fn next_due(&self) -> Option<Moment> {
        self.wake
    }
}
