//! `cargo xtask simulate`: both machines in a simulated universe, thousands of schedules, or one of them step by step.
//! Owns the command line; the runs are `crate::simulate`'s.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};

use super::say;
use crate::simulate::{explain, sweep};
use simulation::{Schedule, Telling, run as run_one, shrink};

/// What is simulated.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs at once.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Goes on until so many seeds have failed; a single one is explained.
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// Replay this seed with every step.
    #[arg(long, conflicts_with = "schedule")]
    replay: Option<u64>,
    /// Replay the schedule of a file with every step.
    #[arg(long)]
    schedule: Option<PathBuf>,
    /// With `--replay` or `--schedule`: make it smaller first, and print the schedule that is left.
    #[arg(long)]
    shrunk: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    match (&args.replay, &args.schedule) {
        (Some(seed), _) => replay(&Schedule::generate(*seed), args.shrunk),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            let schedule = Schedule::parse(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
            replay(&schedule, args.shrunk)
        }
        (None, None) => many(args),
    }
}

fn replay(schedule: &Schedule, is_shrunk: bool) -> Result<()> {
    let mut schedule = schedule.clone();
    let mut out = std::io::stdout().lock();
    if is_shrunk && let Some(violation) = run_one(&schedule, None, Telling::Nothing).violation {
        schedule = shrink(&schedule, None, violation.invariant);
    }
    let outcome = run_one(&schedule, None, Telling::All);
    for line in outcome.trace {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "\nthe schedule:\n\n{}", schedule.print())?;
    match (outcome.violation, outcome.settled) {
        (Some(violation), _) => bail!("{violation}"),
        (None, settled) => writeln!(out, "settled after {} ms", settled.unwrap_or(0))?,
    }
    Ok(())
}

fn many(args: &Args) -> Result<()> {
    let progress = |report: &crate::simulate::Report| {
        say(&format!("{} schedules, {:.0} a second, {} failed", report.runs, report.rate(), report.failures.len()));
    };
    let seeds = args.from..args.from.saturating_add(args.seeds);
    let report = sweep(seeds, args.threads, None, args.failures, progress);
    say(&format!(
        "{} schedules in {:.1} s ({:.0} a second), {} facts, {} effects; the slowest to settle took {} ms (seed {})",
        report.runs,
        report.took.as_secs_f64(),
        report.rate(),
        report.facts,
        report.effects,
        report.slowest.0,
        report.slowest.1
    ));
    for (seed, violation) in &report.failures {
        say(&format!("seed {seed}: {violation}"));
    }
    if let Some((seed, violation)) = report.failures.first() {
        if args.failures == 1 {
            say(&explain(&Schedule::generate(*seed), None, violation));
        }
        bail!("seed {seed} failed; replay it: cargo xtask simulate --replay {seed} --shrunk");
    }
    Ok(())
}
