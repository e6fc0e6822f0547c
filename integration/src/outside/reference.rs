//! References of images, as anybody may write them into a pod.
//!
//! Owns the comparison with the peer's grammar, which is written down here a second time, as the regular expressions of
//! `github.com/distribution/reference` v0.6.0 (`regexp.go`, `normalize.go`): the product has scanners by hand.

use std::sync::LazyLock;

use regex::Regex;
use shared::image::{Digest, Platform, Reference};

const DOMAIN: &str = r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?";
const PATH: &str = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*)*";
const TAG: &str = r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}";
const DIGEST: &str = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
/// What go-digest v1.0.0 takes (`algorithm.go`).
const KNOWN_DIGEST: &str = "sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}";

struct Grammar {
    reference: Regex,
    name: Regex,
    digest: Regex,
    identifier: Regex,
}

static GRAMMAR: LazyLock<Option<Grammar>> = LazyLock::new(|| {
    Some(Grammar {
        reference: Regex::new(&format!("^((?:{DOMAIN}/)?{PATH})(?::({TAG}))?(?:@({DIGEST}))?$")).ok()?,
        name: Regex::new(&format!("^(?:({DOMAIN})/)?({PATH})$")).ok()?,
        digest: Regex::new(&format!("^(?:{KNOWN_DIGEST})$")).ok()?,
        identifier: Regex::new("^[a-f0-9]{64}$").ok()?,
    })
});

/// Reads as containerd reads, compares, and holds parsing to be the inverse of printing.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    round_trips(&text);
    let Ok(reference) = Reference::parse(&text) else {
        let error = Reference::parse(&text).map_or_else(|error| error.to_string(), |r| r.to_string());
        super::is_short_line(&error);
        assert_eq!(peer(&text), None, "the peer takes {text:?}, which we refuse: {error}");
        assert!(!Reference::is_unqualified(&text), "what is no reference is no short name: {text:?}");
        return;
    };
    let digest = reference.digest().map(ToString::to_string).unwrap_or_default();
    let tag = reference.tag().unwrap_or_default();
    let ours = (reference.domain().to_owned(), reference.path().to_owned(), tag.to_owned(), digest);
    assert_eq!(Some(ours), peer(&text), "{text:?} is read as the peer reads it");

    assert!(reference.tag().is_some() || reference.digest().is_some());
    assert_eq!(Reference::parse(&reference.to_string()).as_ref(), Ok(&reference), "printed and read again: {text:?}");
    let canonical = reference.canonical();
    let again = Reference::parse(&canonical);
    assert_eq!(again.as_ref().map(Reference::canonical), Ok(canonical.clone()), "normalising is idempotent: {text:?}");
    assert_eq!(again.map(|r| r.key()), Ok(reference.key()), "the key is that of the canonical form: {text:?}");
    let names_host = reference.domain() == "localhost" || reference.domain().contains(['.', ':']);
    assert_eq!(Reference::is_unqualified(&canonical), !names_host, "{canonical}");
    if let Some(digest) = reference.digest() {
        assert_eq!(canonical, format!("{}@{digest}", reference.repository()), "a tag is dropped next to a digest");
    }
}

/// Digests and platforms print as they were read.
fn round_trips(text: &str) {
    if let Ok(digest) = Digest::parse(text) {
        assert_eq!(digest.to_string(), text);
        assert!(!digest.short().is_empty() && digest.short().len() <= 63);
    }
    if let Ok(platform) = Platform::parse(text) {
        assert_eq!(platform.to_string(), text);
    }
}

/// Domain, path, tag and digest as `ParseAnyReference` and `TagNameOnly` find them, empty where there is none; `None` for
/// what is refused.
fn peer(text: &str) -> Option<(String, String, String, String)> {
    let grammar = GRAMMAR.as_ref()?;
    if grammar.identifier.is_match(text) || grammar.digest.is_match(text) {
        return None;
    }
    let (domain, rest) = split_domain(text);
    let remote = rest.split(':').next().unwrap_or_default();
    if remote.to_lowercase() != *remote {
        return None;
    }
    let whole = format!("{domain}/{rest}");
    let found = grammar.reference.captures(&whole)?;
    let part = |at: usize| found.get(at).map(|m| m.as_str()).unwrap_or_default();
    let name = grammar.name.captures(part(1))?;
    let domain = name.get(1).map(|m| m.as_str()).unwrap_or_default();
    let path = name.get(2).map(|m| m.as_str()).unwrap_or_default();
    let (tag, digest) = (part(2), part(3));
    if path.len() > 255 || !digest.is_empty() && !grammar.digest.is_match(digest) {
        return None;
    }
    let tag = if tag.is_empty() && digest.is_empty() { "latest" } else { tag };
    Some((domain.to_owned(), path.to_owned(), tag.to_owned(), digest.to_owned()))
}

/// `splitDockerDomain`.
fn split_domain(text: &str) -> (&str, String) {
    let Some((first, after)) = text.split_once('/') else {
        return ("docker.io", format!("library/{text}"));
    };
    let (domain, rest) = match first {
        "localhost" => (first, after),
        "index.docker.io" => ("docker.io", after),
        _ if first.contains(['.', ':']) || first.to_lowercase() != first => (first, after),
        _ => ("docker.io", text),
    };
    let official = domain == "docker.io" && !rest.contains('/');
    (domain, if official { format!("library/{rest}") } else { rest.to_owned() })
}
