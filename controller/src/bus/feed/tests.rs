//! Keys and values of the three buckets, good and bad.

use cluster_plan::fact::{IntentsDoc, Newer};
use rstest::rstest;
use shared::name::{ImageKey, NodeName, PoolId};
use shared::subject::IntentsKey;

use super::*;
use crate::bus::{Assignments, Intents, Inventories};

const META: &str = r#"{"v":1,"epoch":"e","term":3,"cluster":"u","streamCreated":"t","by":"pod"}"#;
const ASSIGNMENT: &str = r#"{"v":1,"node":"a.b","uid":"u","pools":["all"],"rev":1}"#;

fn intent(image: &str) -> String {
    format!(r#"{{"v":1,"id":"{}","image":"{image}"}}"#, ImageKey::of(image))
}

fn intents(key: &str, body: Option<&str>) -> Option<StoredValue<IntentsDoc>> {
    stored::<Intents>(key, 7, body.map(str::as_bytes)).map(|stored| stored.value)
}

#[test]
fn every_document_of_the_intents_bucket_is_read_under_its_key() {
    let Some(StoredValue::Value(IntentsDoc::Meta(meta))) = intents("_meta", Some(META)) else { panic!() };
    assert_eq!((meta.epoch.as_str(), meta.term), ("e", 3));
    assert_eq!(
        intents("all.def", Some("{\"x\":1}")),
        Some(StoredValue::Value(IntentsDoc::Definition(serde_json::json!({ "x": 1 }))))
    );
    let id = ImageKey::of("nginx");
    let read = stored::<Intents>(&format!("all.i.{id}"), 9, Some(intent("nginx").as_bytes())).unwrap();
    assert_eq!((read.key, read.seq), (IntentsKey::Intent(PoolId::all(), id), 9));
    let StoredValue::Value(IntentsDoc::Intent(intent)) = read.value else { panic!() };
    assert_eq!(intent.image, "nginx");
}

#[test]
fn a_value_that_is_no_document_of_its_key_is_undecodable() {
    let key = format!("all.i.{}", ImageKey::of("nginx"));
    let foreign = intent("redis");
    let lie = intent("nginx").replace(r#""image":"nginx""#, r#""image":"redis""#);
    for body in ["", "not json", "{}", foreign.as_str(), lie.as_str()] {
        assert_eq!(intents(&key, Some(body)), Some(StoredValue::Undecodable), "{body}");
    }
    assert_eq!(intents("_meta", Some("{\"v\":1}")), Some(StoredValue::Undecodable));
    assert_eq!(intents("all.def", Some("{")), Some(StoredValue::Undecodable));
}

#[test]
fn a_value_of_a_newer_major_is_told_as_such_with_its_author() {
    let newer = |by: Option<&str>| Some(StoredValue::Newer(Newer { schema: 2, by: by.map(str::to_owned) }));
    assert_eq!(intents("_meta", Some("{\"v\":2,\"by\":\"pod-z\",\"shape\":[]}")), newer(Some("pod-z")));
    assert_eq!(intents("_ctl", Some("{\"v\":2}")), newer(None));
    assert_eq!(intents("all.def", Some("{\"v\":2}")), newer(None));
    let intent = intent("nginx").replace("\"v\":1", "\"v\":2");
    assert_eq!(intents(&format!("all.i.{}", ImageKey::of("nginx")), Some(&intent)), newer(None));
    let assignment = stored::<Assignments>("n1", 1, Some(b"{\"v\":2}")).unwrap();
    assert_eq!(assignment.value, StoredValue::Newer(Newer { schema: 2, by: None }));
}

#[test]
fn a_marker_is_one_whatever_it_carries() {
    assert_eq!(intents(&format!("all.i.{}", ImageKey::of("nginx")), None), Some(StoredValue::Marker));
    assert!(matches!(stored::<Inventories>("a_b.inv", 1, None), Some(Stored { value: StoredValue::Marker, .. })));
}

#[rstest]
#[case("")]
#[case("all")]
#[case("all.i.short")]
#[case("ALL.def")]
#[case("a.b.c.d")]
fn a_key_that_follows_no_rule_is_ignored(#[case] key: &str) {
    assert_eq!(intents(key, Some("{}")), None);
}

#[test]
fn an_assignment_is_of_the_node_of_its_key_or_undecodable() {
    let read = stored::<Assignments>("a_b", 2, Some(ASSIGNMENT.as_bytes())).unwrap();
    assert_eq!(read.key, NodeName::parse("a.b").unwrap());
    assert!(matches!(read.value, StoredValue::Value(_)));
    let read = stored::<Assignments>("other", 2, Some(ASSIGNMENT.as_bytes())).unwrap();
    assert_eq!(read.value, StoredValue::Undecodable);
}

#[test]
fn an_inventory_never_speaks_for_another_node() {
    let body = r#"{"v":1,"node":"b","uid":"","boot":"","agent":"","inst":"","n":1,"epoch":"","pools":{},"except":[],
        "complete":true,"ts":"2026-01-01T00:00:00Z"}"#;
    let value = |key: &str| stored::<Inventories>(key, 1, Some(body.as_bytes())).unwrap().value;
    assert!(matches!(value("b.inv"), StoredValue::Value(_)));
    assert_eq!(value("c.inv"), StoredValue::Undecodable);
    assert!(stored::<Inventories>("b", 1, Some(body.as_bytes())).is_none(), "only .inv is a report");
}
