//! One process: its machine, its clock, its inbox, and when it takes a step.
//!
//! Owns the rules of `daemon::driver`: facts in batches with one reading of the clock, at most one step in a window, a
//! step when the machine says it is due.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use shared::machine::{Changed, Machine, Moment, Now};

use super::queue::{MS, Us};

/// Who a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// A replica of the controller.
    Controller(usize),
    /// The agent of a node.
    Agent(usize),
}

/// A machine whose due time stays in the past does not keep the loop spinning.
const LEAST_GAP: Duration = Duration::from_millis(1);

/// The clocks of one process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// When the process began.
    origin: Us,
    /// Where its monotonic clock began.
    base: u64,
    /// How far its wall clock is off.
    pub(super) skew: SignedDuration,
}

impl Clock {
    pub(super) fn new(origin: Us, base: u64, skew: SignedDuration) -> Self {
        Self { origin, base, skew }
    }

    pub(super) fn now(&self, at: Us) -> Now {
        let wall = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_767_225_600);
        let wall = wall + SignedDuration::from_micros(i64::try_from(at).unwrap_or(i64::MAX)) + self.skew;
        Now { mono: Moment(self.base + at.saturating_sub(self.origin) / MS), wall }
    }

    /// When a moment of this process comes.
    fn at(&self, moment: Moment) -> Us {
        self.origin + moment.0.saturating_sub(self.base) * MS
    }
}

/// One process.
pub(super) struct Process<M: Machine> {
    pub(super) machine: M,
    pub(super) incarnation: u64,
    pub(super) clock: Clock,
    inbox: Vec<M::Fact>,
    window: Duration,
    pending: bool,
    last: Option<Moment>,
    /// When its next turn is queued for.
    pub(super) turn: Option<Us>,
}

/// What a turn came to.
pub(super) struct Turn<M: Machine> {
    pub(super) incarnation: u64,
    pub(super) facts: Vec<M::Fact>,
    pub(super) effects: Vec<M::Effect>,
}

impl<M: Machine> Process<M> {
    pub(super) fn new(machine: M, incarnation: u64, clock: Clock, window: Duration) -> Self {
        Self { machine, incarnation, clock, inbox: Vec::new(), window, pending: true, last: None, turn: None }
    }

    /// Hands a fact over.
    pub(super) fn tell(&mut self, fact: M::Fact) {
        self.inbox.push(fact);
    }

    /// When the next turn is, given that it is `at` now.
    pub(super) fn next_turn(&self, at: Us) -> Option<Us> {
        if !self.inbox.is_empty() {
            return Some(at);
        }
        self.deadline().map(|moment| self.clock.at(moment).max(at))
    }

    fn deadline(&self) -> Option<Moment> {
        let wanted = if self.pending { Some(Moment::default()) } else { self.machine.next_due() }?;
        let gap = if self.pending { self.window } else { self.window.max(LEAST_GAP) };
        Some(self.last.map_or(wanted, |last| wanted.max(last + gap)))
    }

    /// One turn of the loop, if it is the one that was queued for `queued`.
    pub(super) fn take_turn(&mut self, queued: Us, at: Us) -> Option<Turn<M>> {
        self.turn.take_if(|turn| *turn == queued)?;
        let now = self.clock.now(at);
        let facts = std::mem::take(&mut self.inbox);
        for fact in facts.iter().cloned() {
            if self.machine.apply(fact, now) == Changed::Yes {
                self.pending = true;
            }
        }
        let mut effects = Vec::new();
        if self.deadline().is_some_and(|due| due <= now.mono) {
            effects = self.machine.step(now);
            (self.pending, self.last) = (false, Some(now.mono));
        }
        Some(Turn { incarnation: self.incarnation, facts, effects })
    }
}
