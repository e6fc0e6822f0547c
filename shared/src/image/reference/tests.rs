//! What a reference is, case by case and by property. The comparison with the peer is `tests/reference_vectors.rs`.

use proptest::prelude::*;
use rstest::rstest;

use super::*;

const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn parse(text: &str) -> Reference {
    Reference::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

fn refused(text: &str) -> String {
    Reference::parse(text).unwrap_err().to_string()
}

// The table of `kubernetes.md` 3.2.
#[rstest]
#[case("nginx", "docker.io/library/nginx:latest")]
#[case("nginx:1.27", "docker.io/library/nginx:1.27")]
#[case("foo/bar", "docker.io/foo/bar:latest")]
#[case("localhost/x", "localhost/x:latest")]
#[case("localhost:5000/x", "localhost:5000/x:latest")]
#[case("reg:5000/a/b", "reg:5000/a/b:latest")]
#[case("reg/a/b", "docker.io/reg/a/b:latest")]
#[case("index.docker.io/library/x", "docker.io/library/x:latest")]
#[case("docker.io/x", "docker.io/library/x:latest")]
#[case("REG/x", "REG/x:latest")]
#[case("X/y", "X/y:latest")]
#[case("[::1]:5000/x", "[::1]:5000/x:latest")]
#[case("x:tag.with-dots_and-", "docker.io/library/x:tag.with-dots_and-")]
fn a_reference_is_normalised_as_the_runtime_does(#[case] text: &str, #[case] canonical: &str) {
    let reference = parse(text);
    assert_eq!(reference.canonical(), canonical);
    assert_eq!(reference.to_string(), canonical);
    assert_eq!(reference.key(), ImageKey::of(canonical));
    assert_eq!(reference.digest(), None);
}

#[rstest]
#[case("nginx", "docker.io", "library/nginx", "latest")]
#[case("localhost/x", "localhost", "x", "latest")]
#[case("localhost:5000/x", "localhost:5000", "x", "latest")]
#[case("reg:5000/a/b", "reg:5000", "a/b", "latest")]
#[case("index.docker.io/library/x", "docker.io", "library/x", "latest")]
#[case("index.docker.io/x", "docker.io", "library/x", "latest")]
#[case("REG/x", "REG", "x", "latest")]
#[case("X/y", "X", "y", "latest")]
#[case("[::1]:5000/x:1", "[::1]:5000", "x", "1")]
#[case("localhost:5000", "docker.io", "library/localhost", "5000")]
#[case("a.b/c/d.e:f.g", "a.b", "c/d.e", "f.g")]
fn a_reference_has_domain_path_and_tag(
    #[case] text: &str,
    #[case] domain: &str,
    #[case] path: &str,
    #[case] tag: &str,
) {
    let reference = parse(text);
    assert_eq!((reference.domain(), reference.path(), reference.tag()), (domain, path, Some(tag)));
    assert_eq!(reference.repository(), format!("{domain}/{path}"));
}

#[test]
fn a_reference_by_digest_has_no_tag() {
    let reference = parse(&format!("a.b/c@sha256:{HEX}"));
    assert_eq!((reference.domain(), reference.path(), reference.tag()), ("a.b", "c", None));
    assert_eq!(reference.digest().unwrap().hex(), HEX);
    assert_eq!(reference.canonical(), format!("a.b/c@sha256:{HEX}"));
}

#[test]
fn a_tag_next_to_a_digest_is_kept_for_people_and_dropped_from_the_pull_key() {
    let text = format!("a.b/c:1@sha256:{HEX}");
    let reference = parse(&text);
    assert_eq!((reference.tag(), reference.digest().unwrap().hex()), (Some("1"), HEX));
    assert_eq!(reference.to_string(), text);
    assert_eq!(reference.canonical(), format!("a.b/c@sha256:{HEX}"));
    assert_eq!(reference.key(), parse(&format!("a.b/c@sha256:{HEX}")).key());
    assert_ne!(reference.key(), parse("a.b/c:1").key());
}

#[test]
fn an_id_of_an_image_is_no_name() {
    for id in [HEX.to_owned(), format!("sha256:{HEX}"), format!("sha512:{HEX}{HEX}")] {
        assert_eq!(Reference::parse(&id), Err(ReferenceError::ImageId { text: clip(&id) }));
        assert!(refused(&id).contains("ID of an image"));
    }
    // With a repository around it, the same hex is a name like any other.
    assert_eq!(parse(&format!("docker.io/{HEX}")).path(), format!("library/{HEX}"));
    assert_eq!(parse(&format!("sha1:{HEX}")).canonical(), format!("docker.io/library/sha1:{HEX}"));
}

#[test]
fn a_host_with_an_underscore_stays_in_the_path_as_for_the_peer() {
    let reference = parse("my_registry.corp/app");
    assert_eq!((reference.domain(), reference.path()), ("", "my_registry.corp/app"));
    assert_eq!(reference.canonical(), "my_registry.corp/app:latest");
    assert_eq!(reference.repository(), "my_registry.corp/app");
    assert_eq!(parse(&reference.to_string()), reference);
}

#[test]
fn the_limits_are_255_for_the_path_and_128_for_the_tag() {
    let path = "p".repeat(255);
    assert_eq!(parse(&format!("a-long-registry-name.example:5000/{path}")).path(), path);
    assert!(refused(&format!("a.b/{path}p")).contains("has 256 characters"));
    // The prefix that normalising adds counts.
    assert!(Reference::parse(&"p".repeat(247)).is_ok());
    assert!(refused(&"p".repeat(248)).contains("has 256 characters"));
    assert!(Reference::parse(&format!("x:{}", "t".repeat(128))).is_ok());
    assert!(refused(&format!("x:{}", "t".repeat(129))).contains("1 to 128"));
}

#[rstest]
#[case("", "is empty")]
#[case("a//b", "`` is not part of a repository name")]
#[case("/", "`` is not part of a repository name")]
#[case("a/", "`` is not part of a repository name")]
#[case("/a", "`` is not part of a repository name")]
#[case("a.b//c", "`` is not part of a repository name")]
#[case("Nginx", "must be lower-case")]
#[case("a.b/C", "must be lower-case")]
#[case("https://a.b/c", "`https:` is not a registry host")]
#[case("user@a.b/c", "is not a digest")]
#[case("a.b:x/c", "`a.b:x` is not a registry host")]
#[case("-a.b/c", "`-a.b` is not a registry host")]
#[case("[fe80::1%eth0]/c", "`[fe80::1%eth0]` is not a registry host")]
#[case("a:b:c", "`b:c` is not a tag")]
#[case("a:", "`` is not a tag")]
#[case("a:.b", "`.b` is not a tag")]
#[case(" nginx", "` nginx` is not part")]
#[case("nginx ", "`nginx ` is not part")]
#[case("nginx\n", "`nginx\\n` is not part")]
#[case("nginx\t:1", "`nginx\\t` is not part")]
#[case("nginx:1\n", "`1\\n` is not a tag")]
#[case("nginx:1\0", "`1\\0` is not a tag")]
#[case("é", "is not part")]
#[case("É/x", "is not part")]
#[case("a@", "<algorithm>:<hex>")]
#[case("a@sha256:abc", "exactly 64")]
#[case("a@sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", "sha256, sha384 or sha512")]
fn what_is_no_reference_is_refused_with_the_part_at_fault_and_the_rule(#[case] text: &str, #[case] rule: &str) {
    let error = refused(text);
    assert!(error.contains(rule), "{error}");
    assert!(error.contains(&format!("`{}`", clip(text))) || text.is_empty(), "{error}");
}

#[test]
fn an_error_is_short_and_on_one_line_whatever_was_given() {
    for text in ["x\n".repeat(5_000), format!("x@{}", "é".repeat(5_000)), format!("{}\u{202e}/x", ".".repeat(5_000))] {
        let error = refused(&text);
        assert!(error.chars().count() < 800 && !error.contains('\n'), "{error}");
    }
}

#[rstest]
#[case("nginx", true)]
#[case("nginx:1.27", true)]
#[case("foo/bar", true)]
#[case("reg/a/b", true)]
#[case("REG/x", true)]
#[case("localhost", true)]
#[case("localhost:5000", true)]
#[case("example.com", true)]
#[case("my_registry.corp/app", true)]
#[case("docker.io/x", false)]
#[case("index.docker.io/x", false)]
#[case("localhost/x", false)]
#[case("reg:5000/x", false)]
#[case("a.b/c", false)]
#[case("[::1]/x", false)]
#[case("", false)]
#[case("a//b", false)]
fn a_short_name_is_one_that_names_no_registry_host(#[case] text: &str, #[case] unqualified: bool) {
    assert_eq!(Reference::is_unqualified(text), unqualified);
}

/// Texts that are often, but not always, references.
fn likely() -> impl Strategy<Value = String> {
    let domain = prop_oneof![
        Just(String::new()),
        "(docker.io|index.docker.io|localhost|localhost:5000|REG|a_b.c|\\[::1\\]:5)/",
        "[a-zA-Z0-9.:_-]{1,8}/",
    ];
    let path = "[a-z0-9]{1,4}([._/]|__|-{1,2})?[a-z0-9]{1,4}(/[a-z0-9]{1,4})?";
    let tag = prop_oneof![Just(String::new()), ":[a-zA-Z0-9_.-]{1,6}"];
    let digest = prop_oneof![Just(String::new()), "@sha256:[0-9a-f]{64}"];
    (domain, path, tag, digest).prop_map(|(d, p, t, g)| format!("{d}{p}{t}{g}"))
}

proptest! {
    #[test]
    fn parsing_is_the_inverse_of_printing_and_normalising_is_idempotent(text in likely()) {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(&Reference::parse(&reference.to_string()), &Ok(reference.clone()));
            let canonical = reference.canonical();
            let again = Reference::parse(&canonical);
            prop_assert_eq!(again.as_ref().map(Reference::canonical), Ok(canonical));
            prop_assert_eq!(again.map(|r| r.key()), Ok(reference.key()));
            prop_assert_eq!(reference.tag().is_none() && reference.digest().is_none(), false);
        }
    }

    #[test]
    fn most_likely_references_are_accepted(path in "[a-z0-9]{1,9}(/[a-z0-9]{1,9}){0,3}", tag in "[a-z0-9]{1,9}") {
        let text = format!("registry.example/{path}:{tag}");
        prop_assert_eq!(Reference::parse(&text).map(|r| r.to_string()), Ok(text));
    }

    #[test]
    fn no_text_panics(text in "(?s).{0,300}|[a-zA-Z0-9:/@.\\[\\]_-]{0,60}|\\PC{0,300}") {
        let _ = Reference::is_unqualified(&text);
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference));
        }
    }
}
