//! What happens when.
//!
//! Owns the order of events: by time, then by a tie-break from the seed, then as they were put in.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::universe::Universe;

/// Microseconds since the beginning of the simulation.
pub(super) type Us = u64;

/// One millisecond.
pub(super) const MS: Us = 1_000;
/// One second.
pub(super) const SEC: Us = 1_000_000;

/// Something that happens.
pub(super) type Deed = Box<dyn FnOnce(&mut Universe)>;

/// The queue.
pub(super) struct Queue {
    deeds: BTreeMap<(Us, u32, u64), Deed>,
    count: u64,
    ties: Rng,
}

impl Queue {
    pub(super) fn new(seed: u64) -> Self {
        Self { deeds: BTreeMap::new(), count: 0, ties: Rng::with_seed(seed) }
    }

    /// Puts something in.
    pub(super) fn put(&mut self, at: Us, deed: Deed) {
        self.count += 1;
        self.deeds.insert((at, self.ties.u32(..), self.count), deed);
    }

    /// Takes out what is next, if it happens at `until` or before.
    pub(super) fn take(&mut self, until: Us) -> Option<(Us, Deed)> {
        let first = self.deeds.first_entry().filter(|entry| entry.key().0 <= until)?;
        let at = first.key().0;
        Some((at, first.remove()))
    }
}
