//! References against the peer: every row of `reference_vectors.tsv`, which `github.com/distribution/reference` printed.
//!
//! Owns the comparison. Never runs the peer itself, so it needs no Go; the table's head says which calls made it.

use shared::image::Reference;

const TABLE: &str = include_str!("reference_vectors.tsv");

/// The row as the peer would have printed it.
fn row(input: &str) -> String {
    let Ok(reference) = Reference::parse(input) else {
        return format!("{input}\terror");
    };
    let digest = reference.digest().map(ToString::to_string).unwrap_or_default();
    [
        input,
        reference.domain(),
        reference.path(),
        reference.tag().unwrap_or_default(),
        &digest,
        &reference.canonical(),
        if Reference::is_unqualified(input) { "short" } else { "full" },
    ]
    .join("\t")
}

fn rows() -> impl Iterator<Item = &'static str> {
    TABLE.lines().filter(|line| !line.starts_with('#'))
}

fn input(row: &str) -> &str {
    row.split('\t').next().unwrap_or_default()
}

#[test]
fn every_reference_is_read_as_the_peer_reads_it() {
    let different: Vec<String> = rows()
        .map(|peer| (peer, row(input(peer))))
        .filter(|(peer, ours)| peer != ours)
        .map(|(peer, ours)| format!("peer {peer}\nours {ours}"))
        .collect();
    assert!(different.is_empty(), "{} rows differ:\n{}", different.len(), different.join("\n"));
}

#[test]
fn the_table_holds_hundreds_of_accepted_and_of_refused_texts() {
    let refused = rows().filter(|row| row.ends_with("\terror")).count();
    let accepted = rows().count() - refused;
    assert!(accepted > 250 && refused > 250, "{accepted} accepted, {refused} refused");
}

#[test]
fn printing_and_reading_again_changes_nothing() {
    for text in rows().map(input) {
        if let Ok(reference) = Reference::parse(text) {
            assert_eq!(Reference::parse(&reference.to_string()).as_ref(), Ok(&reference), "{text}");
            let canonical = reference.canonical();
            assert_eq!(Reference::parse(&canonical).map(|r| r.canonical()), Ok(canonical), "{text}");
        }
    }
}
