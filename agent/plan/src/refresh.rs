//! Refreshes: when an image that is there is pulled again, since its tag may have moved.
//!
//! Owns the time of the next one. Which pulls start is [`crate::pull`]'s, what the node as a whole says about pulling
//! [`crate::image`]'s.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use shared::backoff::{random_up_to, vary};
use shared::machine::{Moment, Now};
use shared::name::ImageKey;
use shared::reason::Reason;

use crate::age::{Age, millis};
use crate::fact::PullFailure;
use crate::image::{Climate, Due, Image};
use crate::ledger::Ledger;
use crate::persisted::Refreshed;
use crate::pull::{Flights, wait_after};
use crate::timing::Timing;

/// No period is longer than this, whatever is asked: times stay within what can be added.
const LONGEST: Duration = Duration::from_hours(24 * 366);
/// A period is so much longer or shorter each time, in percent: what a fleet pulled at once it does not ask for at once.
const JITTER: u32 = 10;

/// The next one, and the period that it was planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    period: Duration,
    next: Due,
}

/// The refreshes of one image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refresh {
    /// Its last pull, as far as that is known.
    last: Option<Age>,
    /// Refreshes that failed in a row,
    pub(crate) tries: u32,
    /// and why the last of them did.
    pub(crate) why: Option<Reason>,
    plan: Option<Plan>,
}

impl Refresh {
    /// A pull succeeded: from here the period counts.
    pub(crate) fn pulled(&mut self, now: Moment) {
        *self = Self { last: Some(Age::new(now)), ..Self::default() };
    }

    /// Another image, or the same with other credentials, is wanted: what failed says nothing of it.
    pub(crate) fn forget_failures(&mut self) {
        if self.tries > 0 {
            *self = Self { last: self.last, ..Self::default() };
        }
    }

    /// A refresh failed: again after the wait of any pull that fails, never sooner.
    pub(crate) fn failed(&mut self, failure: &PullFailure, timing: &Timing, final_after: u32, now: Now, rng: &mut Rng) {
        self.tries = self.tries.saturating_add(1);
        self.why = Some(failure.reason);
        // It is not the image's fault that the runtime does not answer: that is never final.
        let is_final_some_day = failure.reason != Reason::RuntimeUnavailable;
        let final_after = if is_final_some_day { final_after } else { u32::MAX };
        let next = Due::after(now, wait_after(self.tries, failure, timing, final_after, rng));
        self.plan = self.plan.map(|plan| Plan { next, ..plan });
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Due> {
        self.plan.map(|plan| plan.next)
    }

    /// Whether it is due.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        self.plan.is_some_and(|plan| plan.next.at <= now)
    }

    /// How long ago the last pull was, if that is known.
    pub(crate) fn age(&self, now: Moment) -> Option<Duration> {
        self.last.map(|last| last.at(now))
    }

    /// Plans the next one. One that fell due while nothing could be pulled is planned anew: else all that a pause or a full
    /// disk has held up, on every node, would begin in the same moment. Gives whether anything changed.
    fn plan(&mut self, period: Option<Duration>, is_open: bool, now: Now, rng: &mut Rng) -> bool {
        let before = self.plan;
        self.plan = self.plan.filter(|plan| is_open || plan.next.at > now.mono);
        self.plan = match (period, self.plan) {
            (None, _) => None,
            (Some(period), Some(plan)) if plan.period == period => Some(plan),
            (Some(_), None) if !is_open => None,
            (Some(period), plan) => {
                let next = self.first(period, now, rng);
                // Another period is no reason to ask sooner for what has failed.
                let wait = plan.map(|plan| plan.next).filter(|wait| self.tries > 0 && wait.at > next.at);
                Some(Plan { period, next: wait.unwrap_or(next) })
            }
        };
        self.plan != before
    }

    /// A period after the last pull, if that lies ahead; else at any time within one period: a fleet that is told of it at
    /// once, or whose clocks jumped, spreads.
    fn first(&self, period: Duration, now: Now, rng: &mut Rng) -> Due {
        let rest = self.age(now.mono).map(|age| vary(period, JITTER, rng).saturating_sub(age));
        let wait = rest.filter(|rest| !rest.is_zero()).unwrap_or_else(|| random_up_to(period, rng));
        Due::after(now, wait)
    }

    /// What must survive a restart, if anything.
    pub(crate) fn store(&self, now: Moment) -> Option<Refreshed> {
        let (every_ms, wait_ms) =
            self.plan.map_or((0, 0), |plan| (millis(plan.period), millis(plan.next.at.since(now))));
        let ago_ms = self.last.map(|last| last.millis(now));
        (every_ms > 0 || ago_ms.is_some()).then_some(Refreshed { every_ms, ago_ms, tries: self.tries, wait_ms })
    }

    /// What an earlier run knew. What fell due meanwhile is planned anew.
    pub(crate) fn restore(stored: &Refreshed, now: Now) -> Self {
        let period = Duration::from_millis(stored.every_ms).min(LONGEST);
        let wait = Duration::from_millis(stored.wait_ms).min(LONGEST);
        let plan = Plan { period, next: Due::after(now, wait) };
        Self {
            last: stored.ago_ms.map(|ms| Age::restore(ms, now.mono)),
            tries: stored.tries,
            why: None,
            plan: (!wait.is_zero()).then_some(plan),
        }
    }
}

/// The period of an image, if it is to be refreshed: not where the reference or the intent names a digest, for what these
/// name does not move, and not what is missing or was loaded by hand and has no digest: that is never replaced. Never shorter
/// than the wait after a failed pull.
pub(crate) fn period(image: &Image, timing: &Timing) -> Option<Duration> {
    let is_refreshed = image.may_move() && image.is_present() && image.digest().is_some();
    let seconds = image.want.refresh_sec.filter(|_| is_refreshed)?;
    Some(Duration::from_secs(seconds).clamp(timing.pull_backoff.min(LONGEST), LONGEST))
}

/// Plans the next refresh of every image that is there. What is in flight is planned when it has ended. Gives whether
/// anything changed that is to survive a restart.
pub(crate) fn plan(
    images: &mut BTreeMap<ImageKey, Image>,
    flights: &Flights,
    (climate, timing, ledger): (&Climate, &Timing, &Ledger),
    now: Now,
    rng: &mut Rng,
) -> bool {
    if !climate.is_listed {
        return false; // nobody knows what is there
    }
    let mut is_changed = false;
    for (_, image) in images.iter_mut().filter(|(id, _)| !flights.contains_key(*id)) {
        let period = period(image, timing);
        if period.is_some() && image.refresh.last.is_none() {
            image.refresh.last = ledger.get(&image.want.image).and_then(|entry| since(entry.pulled(), now));
        }
        let is_open = image.is_open(climate);
        is_changed |= image.refresh.plan(period, is_open, now, rng);
    }
    is_changed
}

/// The age of something of the wall clock; none if that clock was set back since.
fn since(at: Timestamp, now: Now) -> Option<Age> {
    let age = Duration::try_from(now.wall.duration_since(at)).ok()?;
    Some(Age::restore(millis(age), now.mono))
}
