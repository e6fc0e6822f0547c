//! Beats: the pulse of each pool, by which agents notice what they have missed.
//!
//! Owns when each is due. Never says what a pool holds: that is the bucket's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use shared::backoff::vary;
use shared::machine::Moment;
use shared::name::PoolId;

/// How many beats with count 0 a pool without intents still gets, so that agents believe it is empty.
const FAREWELL: u8 = 10;

/// Percent that an interval varies, so that pools do not beat together.
const JITTER: u32 = 20;

#[derive(Debug, Clone)]
struct Pulse {
    due: Moment,
    farewell: u8,
}

/// Every pool's next beat.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beats {
    pulses: BTreeMap<PoolId, Pulse>,
}

impl Beats {
    /// A new term: every pool beats at once.
    pub(crate) fn restart(&mut self) {
        self.pulses.clear();
    }

    /// The pools whose beat is due, which are then due again an interval later. `alive` has intents or is assigned.
    pub(crate) fn due(
        &mut self,
        alive: &BTreeSet<&PoolId>,
        every: Duration,
        now: Moment,
        rng: &mut Rng,
    ) -> Vec<PoolId> {
        for pool in alive {
            if let Some(pulse) = self.pulses.get_mut(*pool) {
                pulse.farewell = FAREWELL;
            } else {
                self.pulses.insert((*pool).clone(), Pulse { due: now, farewell: FAREWELL });
            }
        }
        let mut beating = Vec::new();
        self.pulses.retain(|pool, pulse| {
            if pulse.due > now {
                return true;
            }
            beating.push(pool.clone());
            pulse.due = now + vary(every, JITTER, rng).max(Duration::from_millis(1));
            if !alive.contains(pool) {
                pulse.farewell = pulse.farewell.saturating_sub(1);
            }
            pulse.farewell > 0
        });
        beating
    }

    /// When the next is due.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.pulses.values().map(|p| p.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_beats_at_once_then_every_interval_and_ten_times_after_its_end() {
        let (mut beats, mut rng) = (Beats::default(), Rng::with_seed(1));
        let (pool, every) = (PoolId::all(), Duration::from_secs(15));
        let alive = BTreeSet::from([&pool]);
        assert_eq!(beats.due(&alive, every, Moment(0), &mut rng).len(), 1);
        assert_eq!(beats.due(&alive, every, Moment(0), &mut rng).len(), 0);
        let next = beats.next().unwrap();
        assert!((12_000..=18_000).contains(&next.0), "{next:?}");
        let mut farewells = 0;
        while let Some(now) = beats.next() {
            farewells += beats.due(&BTreeSet::new(), every, now, &mut rng).len();
        }
        assert_eq!(farewells, 10);
    }
}
