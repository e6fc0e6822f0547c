//! The table of the chart's values, made of the comments of `values.yaml`: owns how a comment finds its key.

use std::fmt::Write as _;

const VALUES: &str = include_str!("../../../helm/warm-images/values.yaml");

/// A key with its comment.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    key: String,
    default: String,
    meaning: String,
}

pub(super) fn table() -> String {
    let mut text = super::heading("Values of the chart", "helm/warm-images/values.yaml");
    text.push_str("Where a default is not shown it is a block; see the file.\n\n");
    text.push_str("| key | default | meaning |\n| --- | --- | --- |\n");
    for Row { key, default, meaning } in rows(VALUES).0 {
        let default = if default.is_empty() { default } else { format!("`{default}`") };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{key}` | {default} | {meaning} |");
    }
    text
}

/// Keys with a comment, and those with a value that neither they nor a key above them explain.
fn rows(text: &str) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut bare) = (Vec::new(), Vec::new());
    let mut comment = Vec::new();
    // Indent and name of the keys above, and whether they are explained.
    let mut above: Vec<(usize, String, bool)> = Vec::new();
    for line in text.lines() {
        let words = line.trim_start();
        let indent = line.len() - words.len();
        if let Some(words) = words.strip_prefix('#') {
            comment.push(words.trim().to_owned());
            continue;
        }
        let is_key = |(name, _): &(&str, &str)| name.chars().all(|c| c.is_ascii_alphanumeric());
        let Some((name, value)) = words.split_once(':').filter(is_key) else {
            // An empty line ends a comment that belongs to no key; elements of lists belong to theirs.
            comment.clear();
            continue;
        };
        above.retain(|(of, ..)| *of < indent);
        let is_explained = !comment.is_empty();
        above.push((indent, name.to_owned(), is_explained));
        let names: Vec<&str> = above.iter().map(|(_, name, _)| name.as_str()).collect();
        let key = names.join(".");
        let default = value.trim().to_owned();
        if is_explained {
            rows.push(Row { key, default, meaning: std::mem::take(&mut comment).join(" ") });
        } else if !default.is_empty() && !above.iter().any(|(.., is_explained)| *is_explained) {
            bare.push(key);
        }
    }
    (rows, bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_belongs_to_the_key_below_it() {
        let (rows, bare) = rows("# Of the file.\n\na:\n  # One,\n  # and two.\n  b: 1\n  c: 2\n# Block.\nd:\n  e: 3\n");
        let row = |key: &str, default: &str, meaning: &str| Row {
            key: key.into(),
            default: default.into(),
            meaning: meaning.into(),
        };
        assert_eq!(rows, [row("a.b", "1", "One, and two."), row("d", "", "Block.")]);
        assert_eq!(bare, ["a.c"]);
    }

    #[test]
    fn every_value_is_explained() {
        assert_eq!(rows(VALUES).1, Vec::<String>::new());
    }
}
