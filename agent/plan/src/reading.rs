//! One small document that is read from NATS: when it is due, whether a read is under way.
//!
//! Owns due time, retry and staleness of reads of `_meta` and of the assignment. Never reads.

use std::time::Duration;

use fastrand::Rng;
use shared::backoff::Backoff;
use shared::machine::Moment;

use crate::timing::Timing;

/// No failed read waits longer than this before the next attempt.
const RETRY_CEILING: Duration = Duration::from_secs(30);

/// The backoff of failed reads. A poll interval below the ceiling lowers it.
pub(crate) fn retry(timing: &Timing) -> Backoff {
    Backoff { base: timing.read_retry, ceiling: RETRY_CEILING.min(timing.poll.max(timing.read_retry)) }
}

/// When a document is read again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    due: Option<Moment>,
    in_flight: bool,
    stale: bool,
    failures: u32,
}

impl Reading {
    /// Asks for a read at `at` or earlier. A read under way does not answer it: what it finds may be older.
    pub(crate) fn request(&mut self, at: Moment) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
        self.stale |= self.in_flight;
    }

    /// Whether the read is to start now; if so it counts as under way.
    pub(crate) fn start(&mut self, now: Moment) -> bool {
        let starts = !self.in_flight && self.due.is_some_and(|due| due <= now);
        if starts {
            (self.due, self.in_flight, self.stale) = (None, true, false);
        }
        starts
    }

    /// The read ended well. Gives whether nothing asked for another while it was under way.
    pub(crate) fn succeeded(&mut self) -> bool {
        (self.in_flight, self.failures) = (false, 0);
        !std::mem::take(&mut self.stale)
    }

    /// The read failed, or found nothing to work with: again after a backoff.
    pub(crate) fn failed(&mut self, now: Moment, timing: &Timing, rng: &mut Rng) {
        (self.in_flight, self.stale) = (false, false);
        self.failures = self.failures.saturating_add(1);
        self.request(now + retry(timing).full_jitter(self.failures, rng));
    }

    /// When the next read is due.
    pub(crate) fn due(&self) -> Option<Moment> {
        if self.in_flight { None } else { self.due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_during_a_read_makes_it_stale_and_is_answered_by_another() {
        let mut reading = Reading::default();
        reading.request(Moment(5));
        assert!(!reading.start(Moment(4)));
        assert!(reading.start(Moment(5)));
        reading.request(Moment(6));
        assert!(!reading.start(Moment(7)), "one at a time");
        assert!(!reading.succeeded(), "what it found may be older than the request");
        assert!(reading.start(Moment(7)));
        assert!(reading.succeeded());
        assert_eq!(reading.due(), None);
    }

    #[test]
    fn failures_back_off_to_thirty_seconds_and_no_further() {
        let (timing, mut rng) = (Timing::default(), Rng::with_seed(1));
        let mut reading = Reading::default();
        for _ in 0..100 {
            reading.request(Moment(0));
            assert!(reading.start(Moment(0)));
            reading.failed(Moment(0), &timing, &mut rng);
            assert!(reading.due().unwrap() <= Moment(30_000));
        }
    }
}
