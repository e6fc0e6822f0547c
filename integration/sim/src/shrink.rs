//! Makes a failing schedule smaller while it still fails.
//!
//! Owns the search: chunks first, then single entries, then a smaller world. Chance is apart for each thing it decides
//! about, so that what is left behaves as before.

use super::check::Invariant;
use super::sabotage::Sabotage;
use super::schedule::Schedule;
use super::universe::{Telling, run};

/// Most runs that are tried.
const TRIES: usize = 3_000;

/// The smallest schedule found that breaks the same invariant.
pub fn shrink(schedule: &Schedule, sabotage: Option<Sabotage>, invariant: Invariant) -> Schedule {
    let mut tries = TRIES;
    let mut fails = |candidate: &Schedule| {
        tries = tries.saturating_sub(1);
        tries > 0 && run(candidate, sabotage, Telling::Nothing).violation.is_some_and(|v| v.invariant == invariant)
    };
    let mut best = schedule.clone();
    let mut size = best.entries.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        let mut has_shrunk = false;
        while from < best.entries.len() {
            let mut candidate = best.clone();
            candidate.entries.drain(from..(from + size).min(best.entries.len()));
            if fails(&candidate) {
                best = candidate;
                has_shrunk = true;
            } else {
                from += size;
            }
        }
        size = if size == 1 && has_shrunk { 1 } else { size / 2 };
    }
    let mut alone = best.clone();
    alone.setup.controllers = 1;
    if fails(&alone) { alone } else { best }
}
