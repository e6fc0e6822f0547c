//! Agent and controller one version apart, in both orders.
//!
//! A newer peer adds fields, at any depth; an older one lacks what was added after `v1`. Shows, over every golden message in
//! the direction it goes: fields of a newer peer change nothing of what is understood; the fields without which a message
//! is refused are those of `v1` and never more, since an older peer would not send another; and what an older peer sends is
//! understood by its fields of `v1` alone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of a test fails the test")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use shared::message::{Assignment, Beat, Control, Delta, Event, Heartbeat, Intent, Inventory, Message, Meta};
use shared::name::PoolId;

/// A golden message, and the top-level fields that whoever reads it needs. The lists may get shorter, never longer.
struct Case {
    file: &'static str,
    required: &'static [&'static str],
    decode: fn(&Value) -> Result<String, String>,
}

fn case<M: Message + Debug>(file: &'static str, required: &'static [&'static str]) -> Case {
    let decode = |value: &Value| {
        M::decode(value.to_string().as_bytes()).map(|message| format!("{message:?}")).map_err(|error| error.to_string())
    };
    Case { file, required, decode }
}

/// From a controller to an agent of another version.
fn to_agents() -> Vec<Case> {
    vec![
        case::<Intent>("intent.json", &["id", "image", "v"]),
        case::<Intent>("intent.full.json", &["id", "image", "v"]),
        case::<Intent>("intent.refresh.json", &["id", "image", "v"]),
        case::<Meta>("meta.json", &["by", "cluster", "epoch", "streamCreated", "term", "v"]),
        case::<Control>("control.json", &["by", "paused", "since", "v"]),
        case::<Beat>("beat.json", &["count", "digest", "epoch", "head", "pool", "term", "ts", "v"]),
        case::<Assignment>("assignment.json", &["node", "pools", "rev", "uid", "v"]),
    ]
}

/// From an agent to a controller of another version.
fn to_controllers() -> Vec<Case> {
    vec![
        case::<Event>("event.json", &["id", "image", "inst", "n", "node", "st", "ts", "uid", "v"]),
        case::<Event>("event.warm.json", &["id", "image", "inst", "n", "node", "st", "ts", "uid", "v"]),
        case::<Heartbeat>("heartbeat.json", &["boot", "inst", "invDigest", "n", "node", "ts", "v"]),
        case::<Inventory>(
            "inventory.except.json",
            &["agent", "boot", "complete", "epoch", "except", "inst", "n", "node", "pools", "ts", "uid", "v"],
        ),
        case::<Inventory>(
            "inventory.cut.json",
            &["agent", "boot", "complete", "epoch", "inst", "n", "node", "pools", "ts", "uid", "v", "warmIds"],
        ),
        case::<Inventory>(
            "inventory.warm-ids.json",
            &["agent", "boot", "complete", "epoch", "inst", "n", "node", "pools", "ts", "uid", "v", "warmIds"],
        ),
    ]
}

fn golden(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn fields(file: &str) -> Map<String, Value> {
    serde_json::from_str(&golden(file)).unwrap()
}

/// With a field that this version does not know in every object that has fields of its own. Maps from names chosen by
/// others (`pools`, `digests`) stay: there a key is content.
fn by_a_newer_peer(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let grown = object.iter().map(|(key, value)| {
                let is_map = ["pools", "digests"].contains(&key.as_str());
                let value = match value {
                    Value::Object(entries) if is_map => {
                        entries.iter().map(|(key, value)| (key.clone(), by_a_newer_peer(value))).collect()
                    }
                    _ => by_a_newer_peer(value),
                };
                (key.clone(), value)
            });
            let mut grown: Map<String, Value> = grown.collect();
            grown.insert("aFieldOfTheNextVersion".to_owned(), json!({ "deep": [1, "x", null] }));
            Value::Object(grown)
        }
        Value::Array(items) => items.iter().map(by_a_newer_peer).collect(),
        _ => value.clone(),
    }
}

#[test]
fn fields_of_a_newer_peer_change_nothing_that_is_understood() {
    for Case { file, decode, .. } in to_agents().into_iter().chain(to_controllers()) {
        let plain = Value::Object(fields(file));
        let newer = by_a_newer_peer(&plain);
        assert_ne!(newer, plain);
        assert_eq!(decode(&newer), decode(&plain), "{file}");
    }
}

#[test]
fn what_v1_did_not_require_is_never_required() {
    for Case { file, required, decode } in to_agents().into_iter().chain(to_controllers()) {
        let whole = fields(file);
        let needed: BTreeSet<&str> = whole
            .keys()
            .filter(|field| {
                let mut without = whole.clone();
                without.remove(*field);
                decode(&Value::Object(without)).is_err()
            })
            .map(String::as_str)
            .collect();
        assert_eq!(needed, required.iter().copied().collect(), "{file}");
        // An older peer sends no more than these.
        let old: Map<String, Value> = whole
            .iter()
            .filter(|(field, _)| needed.contains(field.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        assert!(decode(&Value::Object(old)).is_ok(), "{file}: its required fields alone are refused");
    }
}

#[test]
fn a_delta_of_another_version_is_understood_line_by_line() {
    let text = golden("delta.txt");
    let (head, body) = text.split_once("\n\n").unwrap();
    let headers: Vec<(&str, &str)> = head.lines().map(|line| line.split_once(": ").unwrap()).collect();
    let header = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
    let newer: Vec<String> =
        body.lines().map(|line| by_a_newer_peer(&serde_json::from_str(line).unwrap()).to_string()).collect();
    let plain = Delta::decode(&PoolId::all(), header, body.as_bytes()).unwrap();
    let understood = Delta::decode(&PoolId::all(), header, newer.join("\n").as_bytes()).unwrap();
    assert_eq!(understood, plain);
}
