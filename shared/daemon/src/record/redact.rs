//! What never reaches a recording: free text and credentials.
//!
//! Owns the rule, which looks at the form of each text and knows no field by name but those that people write freely.
//! Names stay: hashing them would change keys, pools, slots and labels, which are derived from them, so that nothing could
//! be played again.

use std::hash::{BuildHasher as _, RandomState};

use serde::Serialize;
use serde_json::{Map, Value};
use shared::image::Digest;

/// Longer texts are no names: an image reference has at most 255 bytes of path, a host and a digest.
const LONGEST: usize = 640;
/// What stands for user and password.
const USER: &str = "***";
/// What stands for any other text.
const REMOVED: &str = "<removed>";

/// The rule for facts, with a key of its own: equal texts stay equal, and nobody can guess them by trying.
pub(super) struct Redaction {
    pub(super) free_text: &'static [&'static str],
    key: RandomState,
}

impl Redaction {
    /// `free_text` names the fields that people write freely.
    pub(super) fn new(free_text: &'static [&'static str]) -> Self {
        Self { free_text, key: RandomState::new() }
    }

    /// A fact, or what a machine begins with, as it may be written.
    pub(super) fn fact(&self, fact: &impl Serialize) -> Value {
        let stand_in = |text: &str| format!("<removed {:016x}>", self.key.hash_one(text));
        Rule { free_text: self.free_text, stand_in: &stand_in }.value(None, json(fact))
    }
}

/// An effect as it may be written. Machines make sentences out of what they learned, so all texts look the same here.
pub(super) fn effect(effect: &impl Serialize, free_text: &[&str]) -> Value {
    Rule { free_text, stand_in: &|_| REMOVED.to_owned() }.value(None, json(effect))
}

/// `Machine` asks for types that can be written; null is refused by every reader.
fn json(what: &impl Serialize) -> Value {
    serde_json::to_value(what).unwrap_or_default()
}

struct Rule<'a> {
    free_text: &'a [&'a str],
    stand_in: &'a dyn Fn(&str) -> String,
}

impl Rule<'_> {
    /// Keys come out sorted, so that equal values give equal text.
    fn value(&self, field: Option<&str>, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(field, text)),
            Value::Array(all) => all.into_iter().map(|one| self.value(field, one)).collect(),
            Value::Object(all) => {
                let mut fields: Vec<(String, Value)> = all
                    .into_iter()
                    .map(|(key, value)| {
                        let value = self.value(Some(&key), value);
                        (self.text(None, key), value)
                    })
                    .collect();
                fields.sort_by(|(a, _), (b, _)| a.cmp(b));
                Value::Object(Map::from_iter(fields))
            }
            other => other,
        }
    }

    fn text(&self, field: Option<&str>, text: String) -> String {
        if field.is_some_and(|field| self.free_text.contains(&field)) {
            return if is_plain(&text) { text } else { (self.stand_in)(&text) };
        }
        if humantime::parse_duration(&text).is_ok() {
            return text;
        }
        // The body of a question: what it asks has to stay a question.
        if let Ok(document @ Value::Object(_)) = serde_json::from_str(&text) {
            return self.value(None, document).to_string();
        }
        if text.len() > LONGEST || !text.bytes().all(is_of_a_name) {
            return (self.stand_in)(&text);
        }
        without_credentials(text)
    }
}

/// What has a meaning to a machine in a field that people write freely: a truth, a small number.
fn is_plain(text: &str) -> bool {
    matches!(text, "true" | "false") || (text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit()))
}

/// Image references, names of objects, labels, identifiers, times, patterns. No blank, quote or brace: what has one is a
/// sentence or a document.
fn is_of_a_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"._-:/@+*?=,[]".contains(&b)
}

/// `user:password@registry/app` and `https://user:password@host` lose what stands before the last `@` unless a digest
/// follows it; what stands after `?` goes where it is a query.
fn without_credentials(text: String) -> String {
    let text = match text.rsplit_once('@') {
        Some((_, rest)) if Digest::parse(rest).is_err() => format!("{USER}@{rest}"),
        _ => text,
    };
    match text.split_once('?') {
        Some((rest, query)) if query.contains('=') => format!("{rest}?{USER}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn fact(value: &Value) -> Value {
        Redaction::new(&["warm", "priority"]).fact(value)
    }

    #[test]
    fn names_references_times_and_patterns_stay() {
        for text in [
            "docker.io/library/nginx:1.27",
            &format!("reg.corp:5000/team/app@{DIGEST}"),
            "Deployment/shop/web",
            "2026-01-01T00:00:00.123Z",
            "1m 30s 5ms",
            "kube-*",
            "team-?",
            "topology.kubernetes.io/zone",
            "[::1]:5000/app",
            "",
        ] {
            let value = json!({ "images": [text], text: 1 });
            assert_eq!(fact(&value), value, "{text}");
            assert_eq!(effect(&value, &[]), value, "{text}");
        }
    }

    #[test]
    fn credentials_and_free_text_go_from_facts_and_effects_from_keys_and_values() {
        for text in [
            "user:hunter2@reg.corp/app:1",
            "https://user:hunter2@reg.corp/v2/",
            "hunter2@reg.corp/app:1",
            "https://reg.corp/v2/?token=hunter2",
            &format!("hunter2@{DIGEST}@reg.corp/x"),
            "pull of x failed: Authorization: Bearer hunter2",
            "{\"auth\":\"Bearer hunter2\"}",
            "[\"hunter2\"]",
            "-----BEGIN\nhunter2",
            &"hunter2".repeat(100),
        ] {
            for shown in [fact(&json!({ "at": [text], text: 1 })), effect(&json!({ "at": [text], text: 1 }), &[])] {
                assert!(!shown.to_string().contains("hunter2"), "{text} became {shown}");
            }
        }
    }

    #[test]
    fn a_field_that_people_write_freely_keeps_only_what_has_a_meaning() {
        let shown = fact(&json!({ "warm": "hunter2", "priority": "90", "name": "hunter2" }));
        assert!(shown["warm"].as_str().unwrap().starts_with("<removed "), "{shown}");
        assert_eq!((&shown["priority"], &shown["name"]), (&json!("90"), &json!("hunter2")));
        assert_eq!(fact(&json!({ "warm": "false" })), json!({ "warm": "false" }));
    }

    #[test]
    fn equal_texts_of_one_recording_stay_equal_and_tell_nothing_in_another() {
        let (one, other) = (Redaction::new(&[]), Redaction::new(&[]));
        let shown = one.fact(&json!(["a b", "a b", "a c"]));
        assert_eq!(shown[0], shown[1]);
        assert_ne!(shown[0], shown[2]);
        assert_ne!(shown[0], other.fact(&json!("a b")));
    }

    #[test]
    fn a_text_that_was_removed_from_a_fact_looks_in_an_effect_like_the_text_itself() {
        for text in ["a b", "user:pass@reg/app", "https://x?a=b", "plain"] {
            let learned = fact(&json!(text));
            assert_eq!(effect(&learned, &[]), effect(&json!(text), &[]));
        }
    }

    #[test]
    fn a_text_that_is_json_stays_json() {
        let asked = json!(r#"{ "image": "u:hunter2@reg.test/app", "reason": "as hunter2 said", "node": "a" }"#);
        assert_eq!(effect(&asked, &[]), json!(r#"{"image":"***@reg.test/app","node":"a","reason":"<removed>"}"#));
        assert_eq!(effect(&fact(&asked), &[]), effect(&asked, &[]));
    }

    #[test]
    fn keys_come_out_sorted() {
        let map: Map<String, Value> = [("b".to_owned(), json!(1)), ("a".to_owned(), json!(2))].into_iter().collect();
        assert_eq!(effect(&map, &[]).to_string(), r#"{"a":2,"b":1}"#);
    }
}
