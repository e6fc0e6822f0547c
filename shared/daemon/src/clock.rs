//! The clock: the only place where time is read.
//!
//! Owns the process's monotonic start. Never decides anything by time.

use std::time::Duration;

use jiff::Timestamp;
use shared::machine::{Moment, Now};
use tokio::time::Instant;

/// Counts from its creation. Clones share their start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts counting. A process has one.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// The time of a turn.
    pub fn now(&self) -> Now {
        Now { mono: self.mono(), wall: Timestamp::now() }
    }

    /// The monotonic half of [`Clock::now`].
    pub fn mono(&self) -> Moment {
        Moment(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Measures from here, finer than [`Moment`].
    pub fn stopwatch(&self) -> Stopwatch {
        Stopwatch { start: Instant::now() }
    }

    /// When tokio's timer must fire for `moment` to have come.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        // A day is for ever to a loop that turns every second, and cannot overflow the platform's clock.
        let wait = Duration::from_millis(moment.0).min(self.start.elapsed() + Duration::from_hours(24));
        self.start + wait
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Measures how long something takes.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    start: Instant,
}

impl Stopwatch {
    /// Time since [`Clock::stopwatch`].
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
