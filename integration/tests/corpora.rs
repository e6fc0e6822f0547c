//! The corpora of the fuzz targets as ordinary tests, and inputs that resemble them: what a fuzzer found once stays tested
//! without one.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a helper of a test fails the test")]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use integration::outside::{Check, MOST_BYTES, MOST_FILES, TARGETS};

/// So many inputs that resemble those of a corpus are tried, too.
const CHANGED: u64 = 1_000;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = fuzz().join("corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

/// What comes of an input by a few random changes; the same for the same seed.
fn changed(input: &[u8], others: &[(PathBuf, Vec<u8>)], dice: &mut fastrand::Rng) -> Vec<u8> {
    let mut changed = input.to_vec();
    for _ in 0..dice.usize(1..5) {
        let at = dice.usize(..=changed.len());
        let end = changed.len().min(at + dice.usize(..12));
        match dice.u8(..5) {
            0 => drop(changed.splice(at..end, [])),
            1 => drop(changed.splice(at..at, std::iter::repeat_with(|| dice.u8(..)).take(3).collect::<Vec<_>>())),
            2 => drop(changed.splice(at..end, b"18446744073709551615".iter().copied())),
            3 => drop(changed.splice(at..at, changed[at..end].to_vec())),
            _ => {
                let other = &others[dice.usize(..others.len())].1;
                let from = dice.usize(..=other.len());
                drop(changed.splice(at..end, other[from..other.len().min(from + 40)].iter().copied()));
            }
        }
    }
    changed
}

/// Runs a corpus; gives the names of the inputs that break what must hold.
fn broken(target: &str, check: Check) -> Vec<String> {
    let names = inputs(target).into_iter().filter_map(|(path, input)| {
        let held = catch_unwind(AssertUnwindSafe(|| check(&input))).is_ok();
        (!held).then(|| path.display().to_string())
    });
    names.collect()
}

fn holds(target: &str) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let inputs = inputs(target);
    let bytes: usize = inputs.iter().map(|(_, input)| input.len()).sum();
    assert!((3..=MOST_FILES).contains(&inputs.len()) && bytes <= MOST_BYTES, "{} files, {bytes} bytes", inputs.len());
    assert_eq!(broken(target, *check), Vec::<String>::new());
    for seed in 0..CHANGED {
        let mut dice = fastrand::Rng::with_seed(seed);
        let input = changed(&inputs[dice.usize(..inputs.len())].1, &inputs, &mut dice);
        let held = catch_unwind(AssertUnwindSafe(|| check(&input))).is_ok();
        assert!(held, "seed {seed}: {}", input.escape_ascii());
    }
}

#[test]
fn references_are_read_as_the_peer_reads_them() {
    holds("reference");
}

#[test]
fn subjects_and_keys_print_as_they_were_read() {
    holds("subject");
}

#[test]
fn messages_are_taken_or_refused_and_keep_their_meaning() {
    holds("message");
}

#[test]
fn a_text_is_a_configuration_or_says_where_it_is_wrong() {
    holds("configuration");
}

#[test]
fn an_answer_of_the_runtime_loses_only_what_cannot_be_read() {
    holds("cri_answer");
}

#[test]
fn a_state_file_is_loaded_or_left_aside() {
    holds("persisted");
}

#[test]
fn an_address_is_one_or_is_refused_without_its_password() {
    holds("registry_address");
}

#[test]
fn no_message_of_the_right_form_upsets_a_machine() {
    holds("machine");
}

#[test]
fn a_recording_is_played_or_refused() {
    holds("recording");
}

#[test]
fn every_target_has_a_fuzzer_and_a_test() {
    let files = std::fs::read_dir(fuzz().join("fuzz_targets")).unwrap();
    let fuzzers: BTreeSet<String> =
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let here =
        std::fs::read_to_string(file!().rsplit('/').next().map(|n| fuzz().join("../tests").join(n)).unwrap()).unwrap();
    for (name, _) in TARGETS {
        assert!(fuzzers.contains(name) && manifest.contains(&format!("name = \"{name}\"")), "no fuzz target {name}");
        assert!(here.contains(&format!("holds(\"{name}\")")), "no test runs the corpus of {name}");
    }
    assert_eq!(fuzzers.len(), TARGETS.len(), "a fuzz target without a check: {fuzzers:?}");
}

#[test]
fn a_check_that_breaks_is_seen() {
    fn breaks(data: &[u8]) {
        assert!(data.len() > usize::MAX / 2, "never");
    }
    assert_eq!(broken("reference", breaks).len(), inputs("reference").len());
}
