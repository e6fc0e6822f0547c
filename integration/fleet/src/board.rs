//! What is seen of all members at a glance.
//!
//! Owns counting. Each member writes its own row when something of it changed; who asks looks at all rows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use node_plan::Follower;
use serde::{Deserialize, Serialize};
use shared::name::ImageKey;

/// What one member is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// The connection stands.
    pub connected: bool,
    /// It knows the exact set of each of its pools, and has any.
    pub current: bool,
    /// Intents over all its pools.
    pub count: u64,
    /// Digests of all its pools.
    pub digest: u64,
}

impl Row {
    /// The row of a member.
    pub fn of(follower: &Follower) -> Self {
        let (mut count, mut digest, mut pools) = (0, 0, 0_usize);
        for (_, summary) in follower.pools() {
            pools += 1;
            count += summary.count;
            digest ^= summary.digest.0;
        }
        let current = pools > 0 && follower.is_current();
        Self { connected: follower.is_connected(), current, count, digest }
    }
}

/// All members together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Glance {
    /// How many there are.
    pub members: usize,
    /// How many have a connection.
    pub connected: usize,
    /// How many know exactly what they are to hold.
    pub current: usize,
    /// Fewest intents that one of them knows.
    pub least: u64,
    /// Most intents that one of them knows.
    pub most: u64,
    /// All know the same set.
    pub same: bool,
    /// When a row last changed, microseconds of the wall clock.
    pub changed: i64,
    /// What they did, by the name of the effect.
    pub effects: BTreeMap<String, u64>,
}

/// An intent on its way to all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arrivals {
    /// Members that know it.
    pub arrived: usize,
    /// When half of them knew it, microseconds of the wall clock.
    pub p50: i64,
    /// 99 in 100.
    pub p99: i64,
    /// The last of them.
    pub last: i64,
}

#[derive(Debug, Default)]
struct Round {
    awaited: Option<ImageKey>,
    at: Vec<i64>,
}

/// The board.
#[derive(Debug, Default)]
pub struct Board {
    rows: Mutex<Vec<Row>>,
    changed: Mutex<i64>,
    effects: Mutex<BTreeMap<&'static str, u64>>,
    number: AtomicU64,
    round: Mutex<Round>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// One more row.
    pub fn enter(&self) {
        lock(&self.rows).push(Row::default());
    }

    /// A member's row is another one.
    pub fn write(&self, number: usize, row: Row, now: Timestamp) {
        if let Some(place) = lock(&self.rows).get_mut(number) {
            *place = row;
        }
        *lock(&self.changed) = now.as_microsecond();
    }

    /// A member does something.
    pub fn does(&self, effect: &'static str) {
        *lock(&self.effects).entry(effect).or_default() += 1;
    }

    /// Begins to wait for an intent at all members.
    pub fn await_all(&self, key: ImageKey) {
        *lock(&self.round) = Round { awaited: Some(key), at: Vec::new() };
        self.number.fetch_add(1, Ordering::Release);
    }

    /// Which wait this is; 0 before the first.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Whether a member knows what is awaited, which is noted.
    pub fn arrives(&self, follower: &Follower, now: Timestamp) -> bool {
        let mut round = lock(&self.round);
        let is_there = round.awaited.as_ref().is_some_and(|key| follower.knows(key));
        if is_there {
            round.at.push(now.as_microsecond());
        }
        is_there
    }

    /// How far what is awaited has come.
    pub fn arrivals(&self) -> Arrivals {
        let mut at = lock(&self.round).at.clone();
        at.sort_unstable();
        let after = |percent: usize| {
            let place = (at.len() * percent).div_ceil(100).saturating_sub(1);
            at.get(place).copied().unwrap_or_default()
        };
        Arrivals { arrived: at.len(), p50: after(50), p99: after(99), last: after(100) }
    }

    /// All rows.
    pub fn glance(&self) -> Glance {
        let rows = lock(&self.rows);
        let first = rows.first().copied().unwrap_or_default();
        Glance {
            members: rows.len(),
            connected: rows.iter().filter(|row| row.connected).count(),
            current: rows.iter().filter(|row| row.current).count(),
            least: rows.iter().map(|row| row.count).min().unwrap_or_default(),
            most: rows.iter().map(|row| row.count).max().unwrap_or_default(),
            same: rows.iter().all(|row| (row.count, row.digest) == (first.count, first.digest)),
            changed: *lock(&self.changed),
            effects: lock(&self.effects).iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_told_by_rank() {
        let board = Board::default();
        assert_eq!(board.arrivals(), Arrivals::default());
        board.await_all(ImageKey::of("a"));
        lock(&board.round).at = (1..=200).rev().collect();
        assert_eq!(board.arrivals(), Arrivals { arrived: 200, p50: 100, p99: 198, last: 200 });
    }

    #[test]
    fn members_that_know_other_sets_are_not_the_same() {
        let board = Board::default();
        let now = Timestamp::UNIX_EPOCH;
        board.enter();
        board.enter();
        let row = Row { connected: true, current: true, count: 2, digest: 7 };
        board.write(0, row, now);
        assert!(!board.glance().same);
        board.write(1, row, now);
        let glance = board.glance();
        assert!(glance.same && glance.current == 2 && glance.least == 2, "{glance:?}");
    }
}
