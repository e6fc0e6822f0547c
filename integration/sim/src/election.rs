//! The Lease, and who holds it.
//!
//! Owns what the elector of each replica tells its machine: it holds the Lease, or no longer. Time is that of one server;
//! a replica that cannot renew gives up before another can take over.

use cluster_plan::Fact;

use super::dice::About;
use super::process::Who;
use super::queue::{MS, Us};
use super::universe::Universe;

/// How long a Lease lasts.
const DURATION: Us = 1_500 * MS;
/// A holder that has not renewed for this long gives up.
const DEADLINE: Us = 1_000 * MS;

/// The Lease as the API server has it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lease {
    holder: Option<usize>,
    renewed: Us,
}

impl Universe {
    /// One round of a replica's elector, and the next.
    pub(super) fn elect(&mut self, number: usize) {
        let who = Who::Controller(number);
        let wait = self.dice.about(About::Election(who)).u64(250 * MS..400 * MS);
        self.after(wait, move |u| u.elect(number));
        if self.incarnation(who).is_none() || self.is_paused(who) {
            return;
        }
        let now = self.now;
        let is_reached = !self.api.is_down();
        let lease = &mut self.api.lease;
        let is_free = lease.holder.is_none_or(|holder| holder == number || lease.renewed + DURATION <= now);
        if is_reached && is_free {
            *lease = Lease { holder: Some(number), renewed: now };
        }
        let holds_there = lease.holder == Some(number);
        let Some(replica) = self.replicas.get_mut(number) else { return };
        if is_reached && holds_there {
            replica.renewed = now;
        }
        let holds = if is_reached { holds_there } else { replica.lease && replica.renewed + DEADLINE > now };
        self.tell_lease(number, holds);
    }

    fn tell_lease(&mut self, number: usize, holds: bool) {
        let who = Who::Controller(number);
        let Some(incarnation) = self.incarnation(who) else { return };
        let Some(replica) = self.replicas.get_mut(number) else { return };
        if std::mem::replace(&mut replica.lease, holds) != holds {
            self.tell_controller(number, incarnation, Fact::Lease(holds));
        }
    }

    /// A stopped replica goes on: its elector looks at the clock first.
    pub(super) fn lease_after_wake(&mut self, number: usize) {
        let now = self.now;
        if self.replicas.get(number).is_some_and(|replica| replica.renewed + DEADLINE <= now) {
            self.tell_lease(number, false);
        }
    }

    /// A replica gives the Lease up.
    pub(super) fn release_lease(&mut self, number: usize) {
        if self.api.lease.holder == Some(number) {
            self.api.lease.holder = None;
        }
        self.tell_lease(number, false);
    }
}
