//! Many simulated runs at once, and what is told of the first that fails.
//!
//! Owns threads and the clock on the wall around `sim`, which has neither.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use simulation::{Outcome, Sabotage, Schedule, Telling, Violation, run, shrink};

/// What came of some seeds.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How many schedules were run.
    pub runs: u64,
    /// Facts that machines learned in all of them.
    pub facts: u64,
    /// Effects that they decided.
    pub effects: u64,
    /// The longest time until everything was as it should be, in simulated milliseconds, and the seed that took it.
    pub slowest: (u64, u64),
    /// The seeds that broke an invariant, in order.
    pub failures: Vec<(u64, Violation)>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.runs += 1;
        self.facts += outcome.facts;
        self.effects += outcome.effects;
        self.slowest = self.slowest.max((outcome.settled.unwrap_or(0), seed));
        if let Some(violation) = outcome.violation {
            self.failures.push((seed, violation));
        }
    }

    /// Schedules a second.
    pub fn rate(&self) -> f64 {
        self.runs as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// Runs the schedules of `seeds` on `threads`, until `most` have failed. `on_progress` is called now and then with what came so
/// far.
pub fn sweep(
    seeds: std::ops::Range<u64>,
    threads: usize,
    sabotage: Option<Sabotage>,
    most: usize,
    on_progress: impl Fn(&Report) + Sync,
) -> Report {
    let start = Instant::now();
    let (next, sum) = (AtomicU64::new(seeds.start), Mutex::new(Report::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run(&Schedule::generate(seed), sabotage, Telling::Nothing);
            let Ok(mut report) = sum.lock() else { return };
            report.add(seed, outcome);
            report.took = start.elapsed();
            if report.runs % 1_000 == 0 {
                on_progress(&report);
            }
            if report.failures.len() >= most {
                next.store(seeds.end, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut report = sum.into_inner().unwrap_or_default();
    report.failures.sort_by_key(|(seed, _)| *seed);
    report.took = start.elapsed();
    report
}

/// A failure for people: the invariant, the smallest schedule that breaks it, and the last steps of that.
pub fn explain(schedule: &Schedule, sabotage: Option<Sabotage>, violation: &Violation) -> String {
    let small = shrink(schedule, sabotage, violation.invariant);
    let outcome = run(&small, sabotage, Telling::Last);
    let last = outcome.violation.as_ref().map_or_else(String::new, ToString::to_string);
    format!(
        "{violation}\n\nthe smallest schedule that breaks it ({} of {} entries):\n\n{}\nits last steps:\n\n{}\n\n{last}",
        small.len(),
        schedule.len(),
        small.print(),
        outcome.trace.join("\n"),
    )
}
