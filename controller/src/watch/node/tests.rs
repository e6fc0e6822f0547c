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

#[test]
fn deletion_comes_by_the_taint_of_an_autoscaler_too() {
    let seen = view(json!({ "metadata": { "name": "n" }, "spec": { "taints": [
        { "key": "karpenter.sh/disrupted", "effect": "NoSchedule" },
    ] } }));
    assert!(!seen.deleting, "the object is not deleted yet: the taint alone says it");
    assert_eq!(seen.taints.first().map(|taint| taint.key.as_str()), Some("karpenter.sh/disrupted"));
}

#[rstest]
#[case::plain(json!({}), false)]
#[case::by_field(json!({ "unschedulable": true }), true)]
#[case::not_by_field(json!({ "unschedulable": false }), false)]
#[case::null(json!({ "unschedulable": null, "taints": null }), false)]
#[case::by_taint(json!({ "taints": [{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }] }), true)]
#[case::by_both(json!({
    "unschedulable": true, "taints": [{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }]
}), true)]
#[case::another_taint(json!({ "taints": [{ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }] }), false)]
fn a_cordon_is_a_field_or_a_taint(#[case] spec: Value, #[case] cordoned: bool) {
    assert_eq!(view(json!({ "metadata": { "name": "n" }, "spec": spec })).unschedulable, cordoned);
}

#[test]
fn what_makes_a_node_virtual_is_kept() {
    let seen = view(json!({
        "metadata": { "name": "n", "labels": { "type": "virtual-kubelet" } },
        "spec": { "taints": [{ "key": "virtual-kubelet.io/provider", "value": "azure", "effect": "NoSchedule" }] },
    }));
    assert_eq!(seen.labels.get("type").map(String::as_str), Some("virtual-kubelet"));
    assert_eq!(seen.taints.first().map(|taint| taint.key.as_str()), Some("virtual-kubelet.io/provider"));
}

#[rstest]
#[case::untold(json!({}), None, None, &[])]
#[case::null(json!({ "allocatable": null }), None, None, &[])]
#[case::empty(json!({ "allocatable": {} }), None, None, &[])]
#[case::less_than_capacity(
    json!({ "capacity": { "cpu": "16", "memory": "64Gi" }, "allocatable": { "cpu": "7910m", "memory": "31000Mi" } }),
    Some(4), Some(16), &[]
)]
#[case::numbers(json!({ "allocatable": { "cpu": 8, "memory": 34_359_738_368_u64 } }), Some(8), Some(32), &[])]
#[case::kilobytes(json!({ "allocatable": { "cpu": "500m", "memory": "16777216Ki" } }), Some(0), Some(16), &[])]
#[case::unreadable(json!({ "allocatable": { "cpu": "many", "memory": "32Gi" } }), None, Some(32), &[])]
#[case::devices(
    json!({ "allocatable": { "nvidia.com/gpu": "8", "amd.com/gpu": "0", "hugepages-2Mi": "0", "pods": "110" } }),
    None, None, &[("amd.com/gpu", 0), ("nvidia.com/gpu", 8)]
)]
fn what_a_node_gives_is_what_it_allocates(
    #[case] status: Value,
    #[case] cores: Option<u64>,
    #[case] gib: Option<u64>,
    #[case] extended: &[(&str, u64)],
) {
    let extended = extended.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
    let seen = view(json!({ "metadata": { "name": "n" }, "status": status })).capacity;
    assert_eq!(seen, Capacity { cores, gib, extended });
}

#[test]
fn a_heartbeat_and_a_little_less_memory_are_no_news() {
    let of = |memory: &str, at: &str| {
        view(json!({ "metadata": { "name": "n", "resourceVersion": at }, "status": {
            "allocatable": { "cpu": "4", "memory": memory },
            "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": at }],
            "images": [{ "names": ["a"], "sizeBytes": 1 }],
        } }))
    };
    assert_eq!(of("31Gi", "2026-01-01T00:00:00Z"), of("30Gi", "2026-01-01T00:05:00Z"));
}
