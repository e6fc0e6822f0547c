//! Which pools' deltas and beats are subscribed to.
//!
//! Owns the wish and its outcome. A pool is read only when it is subscribed, so that nothing is lost between the two.

use std::collections::BTreeSet;

use shared::machine::Moment;
use shared::name::PoolId;

/// The subscription.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subscription {
    /// What the executor said it has.
    active: BTreeSet<PoolId>,
    /// What it was asked for last; `None` after the connection was lost.
    asked: Option<Vec<PoolId>>,
    in_flight: bool,
    /// Not before.
    due: Option<Moment>,
}

impl Subscription {
    /// Messages may have been lost: subscribe anew at `at`, and count nothing as subscribed until then.
    pub(crate) fn renew(&mut self, at: Moment) {
        self.active.clear();
        self.asked = None;
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// The outcome. What was left out is asked for again at `again`.
    pub(crate) fn answered(&mut self, pools: Vec<PoolId>, again: Moment) {
        self.in_flight = false;
        let Some(asked) = &self.asked else {
            return; // of an older connection
        };
        self.active = pools.into_iter().collect();
        if asked.iter().any(|pool| !self.active.contains(pool)) {
            self.asked = None;
            self.due = Some(again);
        }
    }

    /// What is to be subscribed to now, if it is not already.
    pub(crate) fn start(&mut self, wanted: Vec<PoolId>, now: Moment) -> Option<Vec<PoolId>> {
        let is_late = self.due.is_some_and(|due| due > now);
        let is_asked = match &self.asked {
            Some(asked) => *asked == wanted,
            None => wanted.is_empty() && self.active.is_empty(),
        };
        if self.in_flight || is_late || is_asked {
            return None;
        }
        (self.asked, self.in_flight, self.due) = (Some(wanted.clone()), true, None);
        Some(wanted)
    }

    /// Whether nothing of this pool is lost silently.
    pub(crate) fn has(&self, pool: &PoolId) -> bool {
        self.active.contains(pool)
    }

    /// When to try again.
    pub(crate) fn due(&self) -> Option<Moment> {
        if self.in_flight { None } else { self.due }
    }
}
