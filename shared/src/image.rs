//! Images as both sides name them.
//!
//! Owns three words read from outside: the reference of an image, the digest of its content and the platform it is for.
//! Never asks a registry or a runtime: everything here is text in, value out.

pub mod digest;
mod grammar;
pub mod platform;
pub mod reference;

pub use self::digest::{Digest, DigestError};
pub use self::platform::{Platform, PlatformError};
pub use self::reference::{Reference, ReferenceError};

/// The most characters of an offending text that an error repeats.
const CLIP: usize = 120;

/// The offending text as an error shows it: at most [`CLIP`] characters on one line, so that text from outside can
/// neither flood a log nor forge lines in it.
fn clip(text: &str) -> String {
    let mut shown = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == CLIP {
            shown.push('…');
            break;
        }
        if c == '"' || c == '\'' || c == '\\' {
            shown.push(c);
        } else {
            shown.extend(c.escape_debug());
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offending_text_is_shown_short_and_on_one_line() {
        assert_eq!(clip("nginx:1.27"), "nginx:1.27");
        assert_eq!(clip("a\nlevel=\"fatal\"\u{1b}"), "a\\nlevel=\"fatal\"\\u{1b}");
        assert_eq!(clip(&"é".repeat(120)), "é".repeat(120));
        assert_eq!(clip(&"é".repeat(121)), format!("{}…", "é".repeat(120)));
    }
}
