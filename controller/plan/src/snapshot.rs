//! When a pool is written down as a whole, for agents that have nothing.
//!
//! Owns the rhythm. A snapshot is derived: one that is old or lost costs its reader a longer read, never a wrong set.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::machine::Moment;
use shared::message::SnapshotHead;
use shared::name::PoolId;
use shared::pool_set::PoolSummary;

/// Not sooner after the last try of a pool: workloads that come and go must not rewrite it each time.
const GAP: Duration = Duration::from_secs(30);
/// Not later after the set has become another.
const STALE: Duration = Duration::from_mins(15);
/// It is renewed when this part of its intents was written since: what is read after it stays short.
const PART: u64 = 8;
/// Looked after in one step.
const AT_ONCE: usize = 4;

/// What is to be done with the snapshot of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Write it, over one of so many chunks.
    Write(u64),
    /// Take one of so many chunks away.
    Purge(u64),
}

/// A pool of which there is, or ought to be, one.
#[derive(Debug, Clone, Copy)]
struct Course {
    /// When it was last written or purged.
    tried: Option<Moment>,
    /// Since when it is of another set.
    differs: Option<Moment>,
}

/// The rhythm of all pools.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshots {
    courses: BTreeMap<PoolId, Course>,
}

impl Snapshots {
    /// What is due now of `pools`, each as it is and with the snapshot that is stored, in `epoch`. It then counts as tried.
    /// A pool of fewer intents than `least` gets none, and loses the one it has when it is down to half of that.
    pub(crate) fn due<'a>(
        &mut self,
        pools: impl Iterator<Item = (&'a PoolId, PoolSummary, Option<&'a SnapshotHead>)>,
        (least, epoch): (u64, &str),
        now: Moment,
    ) -> Vec<(PoolId, Due)> {
        let mut due = Vec::new();
        for (id, is, stored) in pools {
            let is_large = is.count >= least.max(1);
            if due.len() == AT_ONCE || (stored.is_none() && !is_large) {
                continue;
            }
            let course = self.courses.entry(id.clone()).or_insert(Course { tried: None, differs: None });
            if stored.is_some_and(|stored| stored.summary().is_same_set(&is)) {
                course.differs = None;
            } else {
                course.differs.get_or_insert(now);
            }
            if course.tried.is_some_and(|at| now.since(at) < GAP) {
                continue;
            }
            let what = match stored {
                None => Some(Due::Write(0)),
                Some(stored) if is.count < least.max(1).div_ceil(2) => Some(Due::Purge(stored.chunks)),
                Some(stored) => {
                    let moved = is.head.saturating_sub(stored.head) >= (is.count / PART).max(1);
                    let is_renewed = course.differs.is_some_and(|since| moved || now.since(since) >= STALE);
                    (stored.epoch != epoch || is_renewed).then_some(Due::Write(stored.chunks))
                }
            };
            if let Some(what) = what {
                course.tried = Some(now);
                due.push((id.clone(), what));
            }
        }
        due
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

    fn stored(of: PoolSummary) -> SnapshotHead {
        let PoolSummary { head, count, digest } = of;
        SnapshotHead { epoch: "e".into(), term: 1, pool: PoolId::all(), head, count, digest, chunks: 3 }
    }

    /// What is due of one pool at a second.
    fn due(snapshots: &mut Snapshots, is: PoolSummary, of: Option<&SnapshotHead>, at: u64) -> Option<Due> {
        let pool = PoolId::all();
        let due = snapshots.due([(&pool, is, of)].into_iter(), (LEAST, "e"), Moment(at * 1_000));
        due.first().map(|(_, due)| *due)
    }

    #[test]
    fn a_pool_is_written_when_it_is_large_and_again_when_enough_of_it_has_changed() {
        let mut snapshots = Snapshots::default();
        let mut due = |is, of: Option<&SnapshotHead>, at| due(&mut snapshots, is, of, at);
        assert_eq!(due(is(10, LEAST - 1), None, 0), None, "small");
        assert_eq!(due(is(1_000, 1_000), None, 0), Some(Due::Write(0)));
        assert_eq!(due(is(1_000, 1_000), None, 29), None, "it is on its way");
        let first = stored(is(1_000, 1_000));
        assert_eq!(due(is(1_001, 1_000), Some(&first), 31), None, "too few changes");
        assert_eq!(due(is(1_125, 1_000), Some(&first), 32), Some(Due::Write(3)));
        assert_eq!(due(is(1_300, 1_000), Some(&first), 40), None, "too soon");
        let second = stored(is(1_300, 1_000));
        assert_eq!(due(is(1_300, 1_000), Some(&second), 100), None, "the same set");
        assert_eq!(due(is(1_301, 1_000), Some(&second), 200), None, "too few changes");
        assert_eq!(due(is(1_301, 1_000), Some(&second), 200 + 900), Some(Due::Write(3)), "for long");
    }

    #[test]
    fn one_of_another_epoch_is_replaced() {
        let mut snapshots = Snapshots::default();
        let old = SnapshotHead { epoch: "before".into(), ..stored(is(1_000, 1_000)) };
        assert_eq!(due(&mut snapshots, is(1_000, 1_000), Some(&old), 0), Some(Due::Write(3)));
    }

    #[test]
    fn a_pool_that_has_become_small_loses_its_own_and_does_not_flap() {
        let mut snapshots = Snapshots::default();
        let there = stored(is(1_000, 130));
        assert_eq!(due(&mut snapshots, is(1_100, LEAST / 2), Some(&there), 0), Some(Due::Write(3)));
        assert_eq!(due(&mut snapshots, is(1_101, LEAST / 2 - 1), Some(&there), 60), Some(Due::Purge(3)));
        assert_eq!(due(&mut snapshots, is(1_101, LEAST / 2 - 1), None, 120), None);
        assert_eq!(due(&mut snapshots, is(0, 0), Some(&there), 180), Some(Due::Purge(3)), "nothing is left of it");
    }

    #[test]
    fn a_few_pools_at_a_time() {
        let pools: Vec<PoolId> = (0..6).map(|n| PoolId::parse(&format!("auto-{n}")).unwrap()).collect();
        let mut snapshots = Snapshots::default();
        let mut round = || {
            let pools = pools.iter().map(|pool| (pool, is(1, LEAST), None));
            snapshots.due(pools, (LEAST, "e"), Moment(0)).len()
        };
        assert_eq!([round(), round(), round()], [4, 2, 0]);
    }
}
