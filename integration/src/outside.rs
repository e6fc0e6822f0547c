//! What comes from outside, and what must hold of it whatever it says: one check for each kind of input.
//!
//! Owns the properties. The fuzz targets (`integration/fuzz`) and the ordinary tests (`tests/corpora.rs`) both call these
//! checks, so what a fuzzer found stays tested without a fuzzer. A check never fails by a returned value: it panics.
#![allow(clippy::missing_panics_doc, reason = "every check here panics when what it says does not hold")]

pub mod configuration;
pub mod cri_answer;
pub mod machine;
pub mod message;
pub mod persisted;
pub mod recording;
pub mod reference;
pub mod registry_address;
pub mod subject;

/// The check of one kind of input.
pub type Check = fn(&[u8]);

/// Every kind of input, by the name of its fuzz target.
pub const TARGETS: [(&str, Check); 9] = [
    ("reference", reference::check),
    ("subject", subject::check),
    ("message", message::check),
    ("configuration", configuration::check),
    ("cri_answer", cri_answer::check),
    ("persisted", persisted::check),
    ("registry_address", registry_address::check),
    ("machine", machine::check),
    ("recording", recording::check),
];

/// Most inputs of a corpus in the repository: it is a seed, not an archive.
pub const MOST_FILES: usize = 200;
/// Most bytes of it.
pub const MOST_BYTES: usize = 200_000;

/// The most characters that an error about one input has.
const LONGEST: usize = 1_000;

/// What every error must be: text from outside can neither flood a log nor forge lines in it.
fn is_short_line(error: &str) {
    assert!(error.chars().count() <= LONGEST, "{} characters: {error}", error.chars().count());
    assert!(!error.contains(char::is_control), "control characters: {error:?}");
}
