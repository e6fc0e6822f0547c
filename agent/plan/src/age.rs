//! How long ago something was, over restarts of the agent.
//!
//! Owns the sum: what earlier runs had counted, and this run on its monotonic clock.

use std::time::Duration;

use shared::machine::Moment;

/// An age that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age {
    before: Duration,
    since: Moment,
}

impl Age {
    /// Of something that is now.
    pub(crate) fn new(now: Moment) -> Self {
        Self { before: Duration::ZERO, since: now }
    }

    /// As it was persisted.
    pub(crate) fn restore(millis: u64, now: Moment) -> Self {
        Self { before: Duration::from_millis(millis), since: now }
    }

    /// How long ago it was.
    pub(crate) fn at(self, now: Moment) -> Duration {
        self.before.saturating_add(now.since(self.since))
    }

    /// The same in milliseconds, to be persisted.
    pub(crate) fn millis(self, now: Moment) -> u64 {
        millis(self.at(now))
    }
}

/// A span as it is persisted.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
