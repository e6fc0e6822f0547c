//! When the status of a set may be written.
//!
//! Owns the window of each set, writes in flight, and what was written but is not shown yet. Never decides what is written.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use shared::backoff::Backoff;
use shared::machine::Moment;
use shared::reason::Reason;

use super::status::SetStatus;
use crate::input::SetKey;
use crate::ledger::Retries;

/// So often in a window all sets are looked at, at most.
const LOOKS: u32 = 5;

/// The writes of status.
#[derive(Debug, Clone, Default)]
pub(crate) struct StatusPace {
    /// Something that is told may be different.
    is_stale: bool,
    looked: Option<Moment>,
    /// A set that differs has to wait until then.
    due: Option<Moment>,
    sets: BTreeMap<SetKey, Written>,
    retries: Retries<SetKey>,
}

#[derive(Debug, Clone)]
struct Written {
    sent: Moment,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    InFlight(Box<SetStatus>),
    /// Written then, and not seen on the object yet, which showed `before`.
    Applied {
        at: Moment,
        status: Box<SetStatus>,
    },
    /// Seen, failed, or forgotten: the object says what there is.
    Over,
}

impl StatusPace {
    /// Something that is told may be different.
    pub(crate) fn touch(&mut self) {
        self.is_stale = true;
    }

    /// A new term: whoever led before may just have written.
    pub(crate) fn leads<'a>(&mut self, sets: impl Iterator<Item = &'a SetKey>, now: Moment) {
        self.sets = sets.map(|key| (key.clone(), Written { sent: now, state: State::Over })).collect();
        self.touch();
    }

    /// There is no such set any more, or it is another object.
    pub(crate) fn forget(&mut self, key: &SetKey) {
        self.sets.remove(key);
        self.retries.succeeded(key);
    }

    /// The object shows another status than before.
    pub(crate) fn shows(&mut self, key: &SetKey) {
        if let Some(written) = self.sets.get_mut(key).filter(|w| matches!(w.state, State::Applied { .. })) {
            written.state = State::Over;
        }
        self.touch();
    }

    /// What a set has to be taken to show: what was written, until the object itself tells.
    pub(crate) fn shown<'a>(&'a self, key: &SetKey, shows: Option<&'a SetStatus>) -> Option<&'a SetStatus> {
        match self.sets.get(key).map(|written| &written.state) {
            Some(State::InFlight(status) | State::Applied { status, .. }) => Some(status),
            _ => shows,
        }
    }

    /// Whether all sets are to be looked at now. If so, each that differs is told of by [`StatusPace::waits`] or
    /// [`StatusPace::sent`].
    pub(crate) fn look(&mut self, window: Duration, patience: Duration, now: Moment) -> bool {
        for written in self.sets.values_mut() {
            if matches!(written.state, State::Applied { at, .. } if at + patience <= now) {
                written.state = State::Over;
                self.is_stale = true;
            }
        }
        let is_due = self.due.is_some_and(|due| due <= now);
        let is_rested = self.looked.is_none_or(|looked| looked + window / LOOKS <= now);
        if !(is_due || self.is_stale && is_rested) {
            return false;
        }
        (self.is_stale, self.due, self.looked) = (false, None, Some(now));
        true
    }

    /// Until when a set cannot be written; `None`: it can be now.
    pub(crate) fn waits_until(&self, key: &SetKey, window: Duration, now: Moment) -> Option<Moment> {
        let written = self.sets.get(key);
        if written.is_some_and(|w| matches!(w.state, State::InFlight(_))) {
            // Its end is told, and looked at.
            return Some(Moment(u64::MAX));
        }
        self.retries.due(key).max(written.map(|w| w.sent + window)).filter(|due| *due > now)
    }

    /// A set that differs waits.
    pub(crate) fn waits(&mut self, until: Moment) {
        if until != Moment(u64::MAX) {
            self.due = Some(self.due.map_or(until, |due| due.min(until)));
        }
    }

    /// A status was sent.
    pub(crate) fn sent(&mut self, key: SetKey, status: SetStatus, now: Moment) {
        self.sets.insert(key, Written { sent: now, state: State::InFlight(Box::new(status)) });
    }

    /// A write ended.
    pub(crate) fn done(
        &mut self,
        key: &SetKey,
        result: Result<(), Reason>,
        not_before: Moment,
        now: Moment,
        backoff: &Backoff,
        rng: &mut Rng,
    ) -> bool {
        let Some(written) = self.sets.get_mut(key) else { return false };
        let State::InFlight(status) = &mut written.state else { return false };
        match result {
            Ok(()) => {
                self.retries.succeeded(key);
                written.state = State::Applied { at: now, status: std::mem::take(status) };
            }
            Err(reason) => {
                written.state = State::Over;
                self.retries.failed(key.clone(), reason, now, backoff, rng);
                self.retries.not_before(key, not_before);
            }
        }
        self.is_stale = true;
        true
    }

    /// Writes that failed and wait.
    pub(crate) fn waiting(&self, now: Moment) -> impl Iterator<Item = (&SetKey, u32, Moment, Reason)> {
        self.retries.waiting(now)
    }

    /// How many writes are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.sets.values().filter(|w| matches!(w.state, State::InFlight(_))).count()
    }

    /// When the next look is due.
    pub(crate) fn next(&self, window: Duration, patience: Duration, now: Moment) -> Option<Moment> {
        let look = self.is_stale.then(|| self.looked.map_or(now, |looked| looked + window / LOOKS));
        let echoes = self.sets.values().filter_map(|w| match w.state {
            State::Applied { at, .. } => Some(at + patience),
            _ => None,
        });
        echoes.chain(look).chain(self.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(5);
    const PATIENCE: Duration = Duration::from_mins(1);
    const BACKOFF: Backoff = Backoff { base: Duration::from_secs(10), ceiling: Duration::from_mins(1) };

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000)
    }

    fn key() -> SetKey {
        SetKey { namespace: "shop".to_owned(), name: "base".to_owned() }
    }

    fn done(pace: &mut StatusPace, result: Result<(), Reason>, now: Moment) {
        assert!(pace.done(&key(), result, now, now, &BACKOFF, &mut Rng::with_seed(1)));
    }

    #[test]
    fn a_set_is_written_at_once_and_then_once_in_a_window() {
        let mut pace = StatusPace::default();
        assert!(!pace.look(WINDOW, PATIENCE, at(1)), "nothing has changed");
        pace.touch();
        assert!(pace.look(WINDOW, PATIENCE, at(1)));
        assert_eq!(pace.waits_until(&key(), WINDOW, at(1)), None);
        pace.sent(key(), SetStatus::default(), at(1));
        assert_eq!(pace.waits_until(&key(), WINDOW, at(9)), Some(Moment(u64::MAX)), "one at a time");
        done(&mut pace, Ok(()), at(2));
        assert_eq!(pace.shown(&key(), None), Some(&SetStatus::default()), "written, and not seen yet");
        assert!(pace.look(WINDOW, PATIENCE, at(2)));
        assert_eq!(pace.waits_until(&key(), WINDOW, at(2)), Some(at(6)));
        pace.waits(at(6));
        pace.shows(&key());
        assert_eq!(pace.shown(&key(), None), None);
        assert_eq!(pace.next(WINDOW, PATIENCE, at(2)), Some(at(3)));
        assert!(!pace.look(WINDOW, PATIENCE, Moment(2_999)), "a fifth of a window between two looks");
        assert!(pace.look(WINDOW, PATIENCE, at(3)));
        assert_eq!(pace.waits_until(&key(), WINDOW, at(6)), None);
    }

    #[test]
    fn what_fails_waits_longer_and_a_status_that_never_shows_is_looked_at_again() {
        let mut pace = StatusPace::default();
        pace.sent(key(), SetStatus::default(), at(1));
        done(&mut pace, Err(Reason::Forbidden), at(1));
        assert!(pace.waits_until(&key(), Duration::ZERO, at(1)).is_some_and(|due| due >= at(6)));
        pace.forget(&key());
        assert_eq!(pace.waits_until(&key(), WINDOW, at(1)), None, "another object of the same name");
        pace.sent(key(), SetStatus::default(), at(1));
        done(&mut pace, Ok(()), at(1));
        assert!(pace.look(WINDOW, PATIENCE, at(1)));
        assert_eq!(pace.next(WINDOW, PATIENCE, at(1)), Some(at(61)));
        assert!(pace.look(WINDOW, PATIENCE, at(61)));
        assert_eq!(pace.shown(&key(), None), None);
        pace.leads([&key()].into_iter(), at(70));
        assert_eq!(pace.waits_until(&key(), WINDOW, at(70)), Some(at(75)), "whoever led before may just have written");
    }
}
