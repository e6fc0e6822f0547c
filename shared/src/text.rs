//! Text from outside, as errors and logs show it.
//!
//! Owns how much of it is shown and in what form. Never decides whether it is right.

/// The most characters of an offending text that an error repeats.
pub const CLIP: usize = 120;

/// What follows the `@` of a reference.
const DIGESTS: [&str; 3] = ["sha256:", "sha384:", "sha512:"];

/// At most `most` characters on one line, so that text from outside can neither flood a log nor forge lines in it. A cut
/// ends in `…`. User and password in an address are left out.
pub fn shown(text: &str, most: usize) -> String {
    let mut shown = String::new();
    let mut length = 0;
    // Before the cut: what is cut at its `@` is no address any more.
    for c in without_credentials(text).chars() {
        let piece = if matches!(c, '"' | '\'' | '\\') { c.to_string() } else { c.escape_debug().to_string() };
        length += piece.chars().count();
        if length > most {
            shown.push('…');
            break;
        }
        shown.push_str(&piece);
    }
    shown
}

/// The text without what stands before the host in addresses such as `nats://user:password@host`. Without `://` before it,
/// only what has a colon counts, so that `user@host` stays; and no `@` before a digest is one of an address.
fn without_credentials(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('@') {
        let (scheme, found) = match before.rfind("://") {
            Some(at) => (at + "://".len(), true),
            None => {
                (before.rfind(|c: char| c.is_whitespace() || "\"'`,[]{}".contains(c)).map_or(0, |at| at + 1), false)
            }
        };
        let (kept, user) = before.split_at_checked(scheme).unwrap_or((before, ""));
        clean.push_str(kept);
        let is_digest = DIGESTS.iter().any(|algorithm| after.starts_with(algorithm));
        let is_secret = !user.is_empty() && !is_digest && (found || user.contains(':'));
        clean.push_str(if is_secret { "…" } else { user });
        clean.push('@');
        rest = after;
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_offending_text_is_shown_short_and_on_one_line() {
        assert_eq!(shown("nginx:1.27", CLIP), "nginx:1.27");
        assert_eq!(shown("a\nlevel=\"fatal\"\u{1b}", CLIP), "a\\nlevel=\"fatal\"\\u{1b}");
        assert_eq!(shown(&"é".repeat(120), CLIP), "é".repeat(120));
        assert_eq!(shown(&"é".repeat(121), CLIP), format!("{}…", "é".repeat(120)));
        assert_eq!(shown("\u{1b}\u{1b}", 9), "\\u{1b}…");
    }

    #[test]
    fn a_password_does_not_show_because_the_cut_falls_behind_it() {
        let text = "nats://user:S3CR3T@host";
        for most in 0..text.len() {
            assert!(!shown(text, most).contains('S'), "{}", shown(text, most));
        }
    }

    #[test]
    fn user_and_password_of_an_address_are_left_out() {
        for (given, clean) in [
            ("nats://user:pass@host:4222", "nats://…@host:4222"),
            ("\"nats://token@host\" stands there", "\"nats://…@host\" stands there"),
            ("nats://user:pa ss@host, tls://u:p@h", "nats://…@host, tls://…@h"),
            ("urls: [user:pass@host]", "urls: […@host]"),
            ("a/b:1@sha256:0123", "a/b:1@sha256:0123"),
            ("somebody@host", "somebody@host"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(without_credentials(given), clean);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_longer_than_allowed_or_breaks_the_line(text in "(?s).{0,200}", most in 0_usize..60) {
            let shown = shown(&text, most);
            prop_assert!(shown.chars().count() <= most + 1 && !shown.contains(char::is_control), "{shown:?}");
        }

        #[test]
        fn a_password_before_a_host_never_shows(user in "[a-z]{0,5}", secret in "S3CR3T[ -?A-~]{0,9}", before in "[ -~]{0,20}") {
            let clean = without_credentials(&format!("{before}nats://{user}:{secret}@host"));
            prop_assert!(!clean.contains("S3CR3T"), "{clean}");
        }
    }
}
