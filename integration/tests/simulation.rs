//! Both machines in a simulated universe: thousands of schedules, every schedule that ever found something, and the planted
//! faults that must be noticed. Shows what `docs/simulation.md` lists.

use integration::simulate::{explain, sweep};
use simulation::{Interruption, Invariant, Sabotage, Schedule, Telling, run, run_interrupted};

/// How many schedules the test command runs; `cargo xtask simulate` runs more.
const SEEDS: u64 = 10_000;

/// Two cores.
const THREADS: usize = 2;

#[test]
fn no_schedule_of_ten_thousand_seeds_breaks_an_invariant() {
    let report = sweep(0..SEEDS, THREADS, None, 1, |_| {});
    println!("{} schedules, {:.0} a second, {} facts", report.runs, report.rate(), report.facts);
    if let Some((seed, violation)) = report.failures.first() {
        panic!("seed {seed}: {}", explain(&Schedule::generate(*seed), None, violation));
    }
    assert_eq!(report.runs, SEEDS);
}

#[test]
fn what_was_found_once_is_not_found_again() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schedules");
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(!names.is_empty());
    for path in names {
        let schedule = Schedule::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let outcome = run(&schedule, None, Telling::Last);
        assert_eq!(outcome.violation, None, "{}\n{}", path.display(), outcome.trace.join("\n"));
    }
}

/// Within so many seeds a planted fault must be noticed.
const WITHIN: u64 = 300;

fn assert_noticed(sabotage: Sabotage, by: Invariant) {
    let seed = (0..WITHIN).find(|seed| {
        let outcome = run(&Schedule::generate(*seed), Some(sabotage), Telling::Nothing);
        outcome.violation.is_some_and(|violation| violation.invariant == by)
    });
    let without = seed.map(|seed| run(&Schedule::generate(seed), None, Telling::Nothing).violation);
    assert_eq!(without, Some(None), "{sabotage:?} by {by:?}: seed {seed:?} of {WITHIN}, and the same seed without it");
}

#[test]
fn one_pull_in_flight_too_many_is_noticed() {
    assert_noticed(Sabotage::OnePullMore, Invariant::PullsInFlight);
}

#[test]
fn the_removal_of_an_image_in_use_is_noticed() {
    assert_noticed(Sabotage::RemoveUsed, Invariant::Removal);
}

#[test]
fn a_label_before_its_evidence_is_noticed() {
    assert_noticed(Sabotage::LabelBeforeEvidence, Invariant::LabelEvidence);
}

#[test]
fn a_label_that_stands_against_the_newest_word_is_noticed() {
    assert_noticed(Sabotage::KeepLabels, Invariant::LabelRefuted);
}

#[test]
fn a_label_beyond_the_budget_is_noticed() {
    assert_noticed(Sabotage::OneLabelMore, Invariant::LabelBudget);
}

#[test]
fn a_sweep_without_a_digest_match_is_noticed() {
    assert_noticed(Sabotage::SweepWithoutMatch, Invariant::Release);
}

/// A controller comes back with nothing but buckets and API server, an agent with its state file and without.
#[test]
fn a_process_that_ends_after_any_of_its_effects_comes_to_the_same_end() {
    let script = Schedule::parse(include_str!("script.txt")).unwrap();
    assert_eq!(script.len(), 40);
    let whole = run(&script, None, Telling::Last);
    assert_eq!(whole.violation, None, "{}", whole.trace.join("\n"));
    let (script, whole) = (&script, &whole);
    let interrupt_everywhere = |loses_file| {
        for after in 1..=whole.effects {
            let interrupted = run_interrupted(script, Interruption { after, loses_file }, Telling::Last);
            let told = || format!("after {after}, loses its file: {loses_file}\n{}", interrupted.trace.join("\n"));
            assert_eq!(interrupted.violation, None, "{}", told());
            assert_eq!(interrupted.end, whole.end, "{}", told());
        }
    };
    std::thread::scope(|scope| {
        for loses_file in [false, true] {
            scope.spawn(move || interrupt_everywhere(loses_file));
        }
    });
    println!("{} effects", whole.effects);
}

#[test]
fn the_same_seed_gives_the_same_run_and_its_text_the_same_schedule() {
    for seed in 0..20 {
        let schedule = Schedule::generate(seed);
        assert_eq!(Schedule::parse(&schedule.print()).unwrap(), schedule);
        let [a, b] = [0, 1].map(|_| run(&schedule, None, Telling::All));
        assert_eq!(a.trace, b.trace);
    }
}
