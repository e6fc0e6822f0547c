//! When the state file is written.
//!
//! Owns "what was saved" against "what is": two revisions. Never writes.

use std::time::Duration;

use shared::machine::Moment;

/// Revisions of what is persisted: of the view of NATS, of the ledger, of what went wrong.
pub(crate) type Revisions = (u64, u64, u64);

/// The saver.
#[derive(Debug, Clone, Default)]
pub(crate) struct Saver {
    saved: Revisions,
    in_flight: Option<Revisions>,
    last: Option<Moment>,
}

impl Saver {
    /// Whether to write now; if so it counts as under way.
    pub(crate) fn start(&mut self, current: Revisions, gap: Duration, now: Moment) -> bool {
        let starts = self.due(current, gap).is_some_and(|due| due <= now);
        if starts {
            (self.in_flight, self.last) = (Some(current), Some(now));
        }
        starts
    }

    /// A write ended. One that failed is repeated at the next interval.
    pub(crate) fn ended(&mut self, is_saved: bool) {
        if let Some(revisions) = self.in_flight.take().filter(|_| is_saved) {
            self.saved = revisions;
        }
    }

    /// When the next write is due.
    pub(crate) fn due(&self, current: Revisions, gap: Duration) -> Option<Moment> {
        if self.in_flight.is_some() || self.saved == current {
            return None;
        }
        Some(self.last.map_or(Moment::default(), |last| last + gap))
    }
}
