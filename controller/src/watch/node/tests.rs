//! Node objects and what is seen of them.

use rstest::rstest;
use serde_json::{Value, json};

use super::super::object::Object;
use super::*;

fn view(json: Value) -> View {
    let object: Object<Form> = serde_json::from_value(json).unwrap();
    Nodes.view(&object.meta, object.content.unwrap()).unwrap().unwrap()
}

#[test]
fn labels_of_ours_are_told_from_all_others() {
    let seen = view(json!({ "metadata": { "name": "n", "uid": "u1", "labels": {
        "kubernetes.io/os": "linux",
        "image.warm-images.dev/aaaaaaaaaaaaaaaaaaaaaaaaaa": "0123",
        "shop.set.warm-images.dev/base": "warm",
    } } }));
    assert_eq!(seen.uid, "u1");
    assert_eq!(seen.labels.keys().collect::<Vec<_>>(), ["kubernetes.io/os"]);
    assert_eq!(seen.our_labels.len(), 2);
    assert!(!seen.deleting && seen.taints.is_empty() && seen.pressure.is_empty());
}

#[test]
fn taints_are_kept_with_words_this_version_does_not_know() {
    let seen = view(json!({ "metadata": { "name": "n" }, "spec": { "taints": [
        { "key": "gpu", "value": "a100", "effect": "NoSchedule" },
        { "key": "old", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z" },
        { "key": "new", "effect": "Brandnew" },
    ] } }));
    let taint = |key: &str, value: &str, effect| Taint { key: key.into(), value: value.into(), effect };
    assert_eq!(
        seen.taints,
        [
            taint("gpu", "a100", TaintEffect::NoSchedule),
            taint("old", "", TaintEffect::NoExecute),
            taint("new", "", TaintEffect::Unknown),
        ]
        .into()
    );
}

#[rstest]
#[case("DiskPressure", "True", &[Pressure::Disk])]
#[case("PIDPressure", "True", &[Pressure::Pid])]
#[case("MemoryPressure", "True", &[])]
#[case("DiskPressure", "False", &[])]
#[case("DiskPressure", "Unknown", &[])]
fn only_pressure_that_is_there_counts(#[case] kind: &str, #[case] status: &str, #[case] expected: &[Pressure]) {
    let seen = view(json!({ "metadata": { "name": "n" },
        "status": { "conditions": [{ "type": kind, "status": status }] } }));
    assert_eq!(seen.pressure, expected.iter().copied().collect());
}

#[test]
fn a_node_on_its_way_out_says_so() {
    assert!(view(json!({ "metadata": { "name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z" } })).deleting);
}
