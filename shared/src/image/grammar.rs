//! The grammar of image names.
//!
//! Owns the scanners of the parts of a reference. They accept exactly what the regular expressions of
//! `github.com/distribution/reference` v0.6.0 (`regexp.go`) accept, which containerd, CRI-O and the kubelet use:
//!
//! ```text
//! domain           := host [":" [0-9]+]
//! host             := domain-component ("." domain-component)* | "[" [a-fA-F0-9:]+ "]"
//! domain-component := [a-zA-Z0-9] | [a-zA-Z0-9] [a-zA-Z0-9-]* [a-zA-Z0-9]
//! path             := path-component ("/" path-component)*
//! path-component   := [a-z0-9]+ (separator [a-z0-9]+)*
//! separator        := "." | "_" | "__" | "-"+
//! tag              := [a-zA-Z0-9_] [a-zA-Z0-9_.-]{0,127}
//! identifier       := [a-f0-9]{64}
//! ```
//!
//! Never decides what a part means; [`super::reference`] does.

/// The most bytes of a path (`RepositoryNameTotalLengthMax`). Since v0.6.0 the domain does not count.
pub(super) const PATH_MAX: usize = 255;

/// The most bytes of a tag.
const TAG_MAX: usize = 128;

/// Whether the text is a registry host with an optional port.
pub(super) fn is_domain(text: &str) -> bool {
    if let Some(bracketed) = text.strip_prefix('[') {
        // Any run of hex digits and colons counts as an address, as for the peer.
        return bracketed.split_once(']').is_some_and(|(address, after)| {
            !address.is_empty()
                && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
                && (after.is_empty() || after.strip_prefix(':').is_some_and(is_port))
        });
    }
    match text.split_once(':') {
        Some((host, port)) => is_domain_name(host) && is_port(port),
        None => is_domain_name(text),
    }
}

fn is_domain_name(text: &str) -> bool {
    text.split('.').all(|component| {
        !component.is_empty()
            && !component.starts_with('-')
            && !component.ends_with('-')
            && component.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether the text is one component of a path, that is, holds no `/`.
pub(super) fn is_path_component(text: &str) -> bool {
    let in_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    // Cutting at every character of a word leaves the separators, and nothing between neighbours.
    text.starts_with(in_word)
        && text.ends_with(in_word)
        && text.split(in_word).all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

/// Whether the text is a tag.
pub(super) fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= TAG_MAX
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

/// Whether the text is the hex of an image ID, which is no name.
pub(super) fn is_identifier(text: &str) -> bool {
    is_lower_hex(text, 64)
}

/// Whether the text is exactly so many lower-case hex digits.
pub(super) fn is_lower_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a", true)]
    #[case("docker.io", true)]
    #[case("A-b.C--d:0", true)]
    #[case("[::1]", true)]
    #[case("[abcDEF]:65536000", true)]
    #[case("", false)]
    #[case("a.", false)]
    #[case(".a", false)]
    #[case("a..b", false)]
    #[case("-a", false)]
    #[case("a-", false)]
    #[case("a_b", false)]
    #[case("a:", false)]
    #[case("a:b", false)]
    #[case("a:1:2", false)]
    #[case("[]", false)]
    #[case("[::1", false)]
    #[case("[::1]x", false)]
    #[case("[::1]:", false)]
    #[case("[fe80::1%eth0]", false)]
    #[case("é.com", false)]
    fn a_domain_is_a_host_with_an_optional_port(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(is_domain(text), valid);
    }

    #[rstest]
    #[case("a", true)]
    #[case("a.b_c__d-e---f", true)]
    #[case("", false)]
    #[case("A", false)]
    #[case("a..b", false)]
    #[case("a___b", false)]
    #[case("a._b", false)]
    #[case("a-.b", false)]
    #[case("-a", false)]
    #[case("a-", false)]
    #[case("a/b", false)]
    #[case("aéb", false)]
    fn a_path_component_is_words_with_single_separators(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(is_path_component(text), valid);
    }

    #[test]
    fn a_tag_has_at_most_128_characters_and_begins_with_a_word_character() {
        assert!(is_tag("_") && is_tag("1.27-Alpine_x..y--") && is_tag(&"t".repeat(128)));
        assert!(!is_tag("") && !is_tag(".a") && !is_tag("-a") && !is_tag("a b") && !is_tag(&"t".repeat(129)));
    }
}
