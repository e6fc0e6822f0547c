//! The one shape both processes have: facts go in, effects come out.
//!
//! Owns the traits that `daemon::driver` drives. Never knows what the facts and effects are.

use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A point on this process's monotonic clock, in milliseconds since an arbitrary start. Never crosses a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
pub struct Moment(pub u64);

impl Moment {
    /// Time since `earlier`; zero if `earlier` lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The time of one turn of the loop, read once by the driver and given to the machine as an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For every interval and deadline.
    pub mono: Moment,
    /// For people only: `ts` and `since` fields. Never compared with another machine's.
    pub wall: Timestamp,
}

/// Whether a fact changed anything that a step could act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// A step is due.
    Yes,
    /// Nothing to decide: bookkeeping at most.
    No,
}

impl From<bool> for Changed {
    fn from(changed: bool) -> Self {
        if changed { Self::Yes } else { Self::No }
    }
}

/// A name from a bounded set: metric label and log field of a fact or an effect.
pub trait Kind {
    /// Kebab-case, one of a fixed few.
    fn kind(&self) -> &'static str;
}

/// A pure state machine: a value that learns facts and decides effects.
///
/// The same facts at the same times give the same effects. Randomness comes from a seed given at construction. So a
/// machine can be replayed from a file, which is why facts and effects have a serde form.
pub trait Machine {
    /// What can be learned, outcomes of effects included.
    type Fact: Kind + Clone + Serialize + DeserializeOwned + Send + 'static;
    /// What can be done.
    type Effect: Kind + Clone + Serialize + Send + 'static;

    /// Learns a fact. Cheap: deciding is `step`'s.
    fn apply(&mut self, fact: Self::Fact, now: Now) -> Changed;

    /// Decides what is to be done now. Calling it again without a new fact or a due time gives nothing.
    fn step(&mut self, now: Now) -> Vec<Self::Effect>;

    /// When the next step is due though nothing is learned; `None` is "only when something is learned".
    fn next_due(&self) -> Option<Moment>;
}

/// Everything a machine is given when it is made, time apart: the head of a recording.
pub trait Begin: Serialize + DeserializeOwned {
    /// What is made.
    type Machine: Machine;
    /// The process whose machine this is: `controller`, `agent`.
    const PROCESS: &'static str;
    /// Fields of its facts whose values people write freely, so that a recording keeps none but those with a meaning.
    const FREE_TEXT: &'static [&'static str];

    /// Makes the machine.
    fn begin(self, now: Now) -> Self::Machine;
}
