//! The machine with the time of its last turn: views are asked for between turns and want to say how long ago something was.
//!
//! Owns that time. Decides nothing: every call goes to the machine.

use node_plan::{Effect, Fact, NodeState};
use shared::machine::{Changed, Machine, Moment, Now};

/// The machine and the time.
#[derive(Debug)]
pub(super) struct Timed {
    machine: NodeState,
    now: Now,
}

impl Timed {
    pub(super) fn new(machine: NodeState, now: Now) -> Self {
        Self { machine, now }
    }

    pub(super) fn machine(&self) -> &NodeState {
        &self.machine
    }

    pub(super) fn into_inner(self) -> NodeState {
        self.machine
    }

    /// For `/state`.
    pub(super) fn summary(&self) -> serde_json::Value {
        self.machine.summary(self.now)
    }
}

impl Machine for Timed {
    type Fact = Fact;
    type Effect = Effect;

    fn apply(&mut self, fact: Fact, now: Now) -> Changed {
        self.now = now;
        self.machine.apply(fact, now)
    }

    fn step(&mut self, now: Now) -> Vec<Effect> {
        self.now = now;
        self.machine.step(now)
    }

    fn next_due(&self) -> Option<Moment> {
        self.machine.next_due()
    }
}
