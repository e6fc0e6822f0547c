//! What serde says, said for people: what stands there, what should, and the nearest key that exists.
//!
//! Owns the words. Never knows where the value came from.

use figment::error::{Actual, Error, Kind};

use super::problem::Key;

/// The key that is wrong and what is wrong with it.
pub(super) fn explain(error: &Error) -> (Key, String) {
    let mut tokens: Vec<String> = error.path.iter().map(|token| token_of(token)).collect();
    let text = match &error.kind {
        Kind::UnknownField(field, known) => {
            if tokens.last() != Some(field) {
                tokens.push(field.clone());
            }
            unknown_key(field, known)
        }
        Kind::MissingField(field) => format!("the key `{field}` is missing; add it"),
        Kind::DuplicateField(field) => format!("the key `{field}` stands there twice; remove one"),
        Kind::UnknownVariant(found, known) => format!("`{found}` is none of {}", list(known)),
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => wrong_type(found, wanted),
        Kind::InvalidLength(length, wanted) => format!("{length} elements stand there, {wanted} is expected"),
        Kind::ISizeOutOfRange(value) => format!("{value} is out of range"),
        Kind::USizeOutOfRange(value) => format!("{value} is out of range"),
        Kind::Unsupported(found) => format!("{} cannot stand here", actual(found)),
        Kind::UnsupportedKey(found, wanted) => format!("{} cannot be a key, {wanted} is expected", actual(found)),
        Kind::Message(text) => text.clone(),
    };
    (Key::from_tokens(tokens), text)
}

/// figment writes the place of a list element as a bare number.
fn token_of(token: &str) -> String {
    if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("[{token}]")
    } else {
        token.to_owned()
    }
}

fn unknown_key(field: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|candidate| (distance(&field.to_lowercase(), &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(field.len()) / 3)
        .min();
    match nearest {
        Some((_, candidate)) => format!("there is no such key; did you mean `{candidate}`?"),
        None if known.is_empty() => "there is no such key; nothing can be set here".to_owned(),
        None => format!("there is no such key; there are {}", list(known)),
    }
}

fn wrong_type(found: &Actual, wanted: &str) -> String {
    let is_number = matches!(found, Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) | Actual::Bool(_));
    let hint = if is_number && wants_text(wanted) { "; put it in quotes" } else { "" };
    format!("{} stands there, {} is expected{hint}", actual(found), expected(wanted))
}

fn wants_text(wanted: &str) -> bool {
    wanted.contains("string") || wanted.contains("path")
}

fn actual(found: &Actual) -> String {
    match found {
        Actual::Bool(value) => format!("`{value}`"),
        Actual::Unsigned(value) => format!("`{value}`"),
        Actual::Signed(value) => format!("`{value}`"),
        Actual::Float(value) => format!("`{value}`"),
        Actual::Str(value) => format!("\"{value}\""),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a section of keys".to_owned(),
        Actual::Unit | Actual::Option => "nothing".to_owned(),
        other => other.to_string(),
    }
}

fn expected(wanted: &str) -> String {
    let word = match wanted {
        "a string" | "str" | "string" | "path string" => "text",
        "a boolean" | "bool" => "`true` or `false`",
        "a sequence" | "sequence" => "a list",
        "a map" | "map" => "a section of keys",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" | "nonzero u32" | "nonzero u64" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        other if other.starts_with("struct ") => "a section of keys",
        other => other,
    };
    word.to_owned()
}

fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

/// Levenshtein.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (j, y) in b.iter().enumerate() {
            let up = row.get(j + 1).copied().unwrap_or_default();
            left = (diagonal + usize::from(x != *y)).min(up + 1).min(left + 1);
            diagonal = up;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
