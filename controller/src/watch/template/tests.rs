//! What pod specs ask of a node, as people and the API server write them.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;

const GIB: u64 = 1 << 30;

fn of(spec: Value) -> Constraint {
    constraint(serde_json::from_value(spec).unwrap())
}

#[allow(clippy::needless_pass_by_value, reason = "shorter calls")]
fn asking(requests: Value) -> Value {
    json!({ "resources": { "requests": requests } })
}

#[rstest]
#[case::nothing(json!({ "containers": [{ "name": "a" }] }), 0, 0)]
#[case::containers_together(
    json!({ "containers": [asking(json!({ "cpu": "1500m", "memory": "1Gi" })), asking(json!({ "cpu": 2 }))] }), 3_500, 1
)]
#[case::an_init_container_that_asks_for_more(
    json!({ "initContainers": [asking(json!({ "cpu": "9" })), asking(json!({ "cpu": "8", "memory": "3Gi" }))],
            "containers": [asking(json!({ "cpu": "4", "memory": "1Gi" }))] }), 9_000, 3
)]
#[case::a_sidecar_beside_the_containers(
    json!({ "initContainers": [{ "restartPolicy": "Always", "resources": { "requests": { "cpu": "1", "memory": "1Gi" } } }],
            "containers": [asking(json!({ "cpu": "4", "memory": "2Gi" }))] }), 5_000, 3
)]
#[case::an_init_container_beside_the_sidecars_before_it_alone(
    json!({ "initContainers": [
        { "restartPolicy": "Always", "resources": { "requests": { "cpu": "1" } } },
        asking(json!({ "cpu": "6" })),
        { "restartPolicy": "Always", "resources": { "requests": { "cpu": "2" } } },
    ], "containers": [asking(json!({ "cpu": "1" }))] }), 7_000, 0
)]
#[case::limits_count_where_nothing_is_requested(
    json!({ "containers": [{ "resources": { "limits": { "cpu": "8", "memory": "4Gi" }, "requests": { "cpu": "2" } } }] }),
    2_000, 4
)]
#[case::what_the_pod_as_a_whole_asks_for_counts_instead(
    json!({ "resources": { "requests": { "cpu": "6" } },
            "containers": [asking(json!({ "cpu": "1", "memory": "2Gi" }))] }), 6_000, 2
)]
#[case::of_the_whole_too_limits_count_where_nothing_is_requested(
    json!({ "resources": { "limits": { "memory": "5Gi" } }, "containers": [asking(json!({ "memory": "2Gi" }))] }), 0, 5
)]
#[case::overhead_comes_on_top(
    json!({ "overhead": { "cpu": "250m", "memory": "1Gi" }, "resources": { "requests": { "cpu": "6" } },
            "containers": [asking(json!({ "memory": "2Gi" }))] }), 6_250, 3
)]
#[case::ephemeral_containers_ask_for_nothing(
    json!({ "ephemeralContainers": [asking(json!({ "cpu": "9" }))], "containers": [] }), 0, 0
)]
#[case::what_cannot_be_read_is_not_asked_for(
    json!({ "containers": [asking(json!({ "cpu": "many", "memory": "1Gi" }))] }), 0, 1
)]
#[case::nulls_are_absent(json!({ "containers": [{ "resources": { "requests": null, "limits": null } }], "overhead": null }), 0, 0)]
fn requests_are_what_the_scheduler_reserves(#[case] spec: Value, #[case] cpu_milli: u64, #[case] gib: u64) {
    let seen = of(spec).requests;
    assert_eq!((seen.cpu_milli, seen.memory), (cpu_milli, gib * GIB));
}

#[test]
fn extended_resources_are_asked_for_by_limits_and_are_counted_as_the_others_are() {
    let gpus = |n: &str| json!({ "resources": { "limits": { "nvidia.com/gpu": n, "hugepages-2Mi": "4Mi" } } });
    let seen = of(json!({ "initContainers": [gpus("4")], "containers": [gpus("1"), gpus("2")] })).requests;
    assert_eq!(seen.extended, [("nvidia.com/gpu".to_owned(), 4)].into());
    let seen = of(json!({ "initContainers": [gpus("2")], "containers": [gpus("1"), gpus("2")] })).requests;
    assert_eq!(seen.extended, [("nvidia.com/gpu".to_owned(), 3)].into());
}

#[rstest]
#[case::asked_for(json!({ "os": { "name": "windows" } }), Some("windows"), None)]
#[case::said_twice(
    json!({ "os": { "name": "linux" }, "nodeSelector": { "kubernetes.io/os": "linux" } }), Some("linux"), None
)]
#[case::contradicted(
    json!({ "os": { "name": "windows" }, "nodeSelector": { "kubernetes.io/os": "linux" } }), Some("linux"), Some(0)
)]
#[case::contradicted_beside_an_affinity(
    json!({ "os": { "name": "windows" }, "nodeSelector": { "kubernetes.io/os": "linux" },
            "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                { "matchExpressions": [{ "key": "disk", "operator": "Exists" }] }] } } } }), Some("linux"), Some(0)
)]
#[case::an_affinity_stays(
    json!({ "os": { "name": "linux" },
            "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                { "matchExpressions": [{ "key": "disk", "operator": "Exists" }] }] } } } }), Some("linux"), Some(1)
)]
#[case::empty(json!({ "os": { "name": "" } }), None, None)]
#[case::null(json!({ "os": null }), None, None)]
fn a_pod_of_one_system_wants_nodes_of_it(
    #[case] spec: Value,
    #[case] selected: Option<&str>,
    #[case] terms: Option<usize>,
) {
    let seen = of(spec);
    assert_eq!(seen.node_selector.get("kubernetes.io/os").map(String::as_str), selected);
    assert_eq!(seen.affinity.map(|terms| terms.len()), terms, "no term is no node");
}

#[test]
fn where_a_controller_has_had_a_pod_put_says_nothing_of_the_next() {
    let of = |owners: Value| {
        let meta =
            serde_json::from_value(json!({ "namespace": "shop", "name": "p", "ownerReferences": owners })).unwrap();
        of_pod(&meta, serde_json::from_value(json!({ "nodeName": "n1" })).unwrap()).constraint.node_name
    };
    let owner = |controller: bool| json!([{ "apiVersion": "v1", "kind": "Thing", "name": "t", "uid": "1", "controller": controller }]);
    assert_eq!(of(owner(true)), None);
    assert_eq!(of(owner(false)).as_deref(), Some("n1"));
    assert_eq!(of(json!([])).as_deref(), Some("n1"));
}
