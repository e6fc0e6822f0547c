//! A machine of the controller's facts that decides nothing and keeps what it is told.
//!
//! Owns what a contract test of the controller's sources looks at. Never asks for an effect.

use std::sync::{Arc, Mutex, PoisonError};

use cluster_plan::{Effect, Fact};
use daemon::clock::Clock;
use daemon::driver::{self, DriverSettings, Inbox};
use daemon::supervise::{Shutdown, Tasks};
use shared::machine::{Changed, Machine, Moment, Now};

/// Facts that may wait to be heard.
const WAITING: usize = 1_024;

/// What was said, in order.
#[derive(Debug, Clone, Default)]
pub struct Listener(Arc<Mutex<Vec<Fact>>>);

impl Listener {
    /// Listens in the loop of the processes until `shutdown`; gives where to talk to it as well.
    pub fn start(tasks: &Tasks, shutdown: Shutdown) -> (Self, Inbox<Fact>) {
        let (inbox, facts) = driver::channel(WAITING);
        let listener = Self::default();
        let machine = listener.clone();
        tasks.spawn("loop", async move {
            driver::run(machine, facts, Nothing, DriverSettings::default(), Clock::new(), |_, _| {}, shutdown).await;
        });
        (listener, inbox)
    }

    /// Everything so far.
    pub fn facts(&self) -> Vec<Fact> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Machine for Listener {
    type Fact = Fact;
    type Effect = Effect;

    fn apply(&mut self, fact: Fact, _now: Now) -> Changed {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fact);
        Changed::No
    }

    fn step(&mut self, _now: Now) -> Vec<Effect> {
        Vec::new()
    }

    fn next_due(&self) -> Option<Moment> {
        None
    }
}

struct Nothing;

impl driver::Dispatch<Effect> for Nothing {
    fn dispatch(&mut self, _effect: Effect) {}
}
