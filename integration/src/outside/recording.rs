//! Recordings: a file that somebody sends, and `cargo xtask replay` plays.
//!
//! Owns what must hold of every file: it is played to its end, to the line that is damaged or to the step that differs, or
//! refused with a reason; no file stops the player otherwise.

use crate::replay::{Telling, replay};

/// Lines beyond these find nothing that fewer do not.
const MOST_LINES: usize = 64;

/// The content of the file.
pub fn check(data: &[u8]) {
    let lines: Vec<&[u8]> = data.split_inclusive(|b| *b == b'\n').take(MOST_LINES).collect();
    let content = lines.concat();
    let telling = Telling { is_verbose: true, ..Telling::default() };
    let mut told = Vec::new();
    match replay(content.as_slice(), &telling, &mut told) {
        Ok(replayed) => {
            assert!(replayed.steps <= lines.len() && replayed.differs.is_none_or(|step| step <= replayed.steps + 1));
            assert!(replayed.damaged.is_none_or(|line| (2..=lines.len()).contains(&line)), "{replayed:?}");
            assert!(told.starts_with(b"recording of warm-"));
        }
        Err(error) => assert!(!format!("{error:#}").is_empty()),
    }
}
