//! When a pool is written down as a whole, for agents that have nothing.
//!
//! Owns the rhythm. A snapshot is derived: one that is old or lost costs its reader a longer read, never a wrong set.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::machine::Moment;
use shared::name::PoolId;
use shared::pool_set::PoolSummary;

/// Not sooner after the last one of a pool: workloads that come and go must not rewrite it each time.
const GAP: Duration = Duration::from_secs(30);
/// Not later after the set has changed.
const STALE: Duration = Duration::from_mins(15);
/// It is renewed when this part of its intents was written since: what is read after it stays short.
const PART: u64 = 8;
/// Written in one step.
const AT_ONCE: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Written {
    of: PoolSummary,
    at: Moment,
}

/// What was written in this term on this connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshots {
    written: BTreeMap<PoolId, Written>,
}

impl Snapshots {
    /// A new term, or a connection on which what was written may be lost.
    pub(crate) fn forget(&mut self) {
        self.written.clear();
    }

    /// Those of `pools` with at least `least` intents that are to be written now, which then count as written.
    pub(crate) fn due<'a>(
        &mut self,
        pools: impl Iterator<Item = (&'a PoolId, PoolSummary)>,
        least: u64,
        now: Moment,
    ) -> Vec<PoolId> {
        let mut due = Vec::new();
        for (pool, is) in pools {
            if due.len() < AT_ONCE && is.count >= least.max(1) && self.is_due(pool, &is, now) {
                self.written.insert(pool.clone(), Written { of: is, at: now });
                due.push(pool.clone());
            }
        }
        due
    }

    fn is_due(&self, pool: &PoolId, is: &PoolSummary, now: Moment) -> bool {
        let Some(written) = self.written.get(pool) else {
            return true;
        };
        let age = now.since(written.at);
        let moved = is.head.saturating_sub(written.of.head);
        !is.is_same_set(&written.of) && (age >= STALE || age >= GAP && moved >= (is.count / PART).max(1))
    }
}

#[cfg(test)]
mod tests {
    use shared::pool_set::SetDigest;

    use super::*;

    const LEAST: u64 = 128;

    fn is(head: u64, count: u64) -> PoolSummary {
        PoolSummary { head, count, digest: SetDigest(head) }
    }

    #[test]
    fn a_pool_is_written_when_it_is_large_and_again_when_enough_of_it_has_changed() {
        let (mut snapshots, pool) = (Snapshots::default(), PoolId::all());
        let mut due =
            |is: PoolSummary, at: u64| !snapshots.due([(&pool, is)].into_iter(), LEAST, Moment(at * 1_000)).is_empty();
        assert!(!due(is(10, LEAST - 1), 0), "small");
        assert!(due(is(1_000, 1_000), 0));
        assert!(!due(is(1_000, 1_000), 1), "it is there");
        assert!(!due(is(1_200, 1_000), 29), "too soon");
        assert!(!due(is(1_100, 1_000), 31), "too few changes");
        assert!(due(is(1_125, 1_000), 31));
        assert!(!due(is(1_126, 1_000), 40), "too few changes");
        assert!(due(is(1_126, 1_000), 31 + 900), "for long");
        assert!(!due(PoolSummary { head: 9_999, ..is(1_126, 1_000) }, 5_000), "the same set");
    }

    #[test]
    fn what_was_written_before_a_new_term_is_written_again_a_few_pools_at_a_time() {
        let pools: Vec<PoolId> = (0..6).map(|n| PoolId::parse(&format!("auto-{n}")).unwrap()).collect();
        let mut snapshots = Snapshots::default();
        let round =
            |snapshots: &mut Snapshots| snapshots.due(pools.iter().map(|p| (p, is(1, LEAST))), LEAST, Moment(0)).len();
        assert_eq!([round(&mut snapshots), round(&mut snapshots), round(&mut snapshots)], [4, 2, 0]);
        snapshots.forget();
        assert_eq!(round(&mut snapshots), 4);
    }
}
