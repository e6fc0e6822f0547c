//! Manifests as people write them, and what is seen of them.

use cluster_plan::input::{MatchExpression, Operator, TaintEffect, Toleration, TolerationOperator};
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn view<K: Watched<View = Workload>>(json: Value) -> Workload {
    serde_json::from_value::<K>(json).unwrap().view().unwrap()
}

fn pod(spec: Value) -> Workload {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([]);
    }
    view::<Pod>(json!({ "metadata": { "namespace": "shop", "name": "p" }, "spec": spec }))
}

fn positions(workload: &Workload) -> Vec<(String, String)> {
    workload.images.iter().map(|i| (i.position.clone(), i.image.clone())).collect()
}

#[rstest]
#[case::container(json!({ "containers": [{ "name": "app", "image": "nginx" }] }), "containers[0] \"app\"", "nginx")]
#[case::init(json!({ "initContainers": [{ "name": "i", "image": "busybox:1" }] }), "initContainers[0] \"i\"", "busybox:1")]
#[case::sidecar(
    json!({ "initContainers": [{ "name": "s", "image": "envoy", "restartPolicy": "Always" }] }),
    "initContainers[0] \"s\"", "envoy"
)]
#[case::ephemeral(
    json!({ "ephemeralContainers": [{ "name": "debug", "image": "alpine" }] }), "ephemeralContainers[0] \"debug\"", "alpine"
)]
#[case::volume(
    json!({ "volumes": [{ "name": "v", "emptyDir": {} }, { "name": "model", "image": { "reference": "ghcr.io/m:1" } }] }),
    "volumes[1] \"model\"", "ghcr.io/m:1"
)]
#[case::second(
    json!({ "containers": [{ "name": "none" }, { "name": "app", "image": "  odd text " }] }),
    "containers[1] \"app\"", "  odd text "
)]
fn every_place_an_image_can_stand_is_seen_as_written(#[case] spec: Value, #[case] position: &str, #[case] image: &str) {
    assert_eq!(positions(&pod(spec)), [(position.to_owned(), image.to_owned())]);
}

#[test]
fn all_positions_together_come_in_the_order_the_kubelet_needs_them() {
    let seen = pod(json!({
        "containers": [{ "name": "c", "image": "3" }],
        "initContainers": [{ "name": "a", "image": "1" }, { "name": "b", "image": "2" }],
        "ephemeralContainers": [{ "name": "d", "image": "4" }],
        "volumes": [{ "name": "e", "image": { "reference": "5" } }],
    }));
    assert_eq!(seen.images.iter().map(|i| i.image.as_str()).collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
}

fn template() -> Value {
    json!({ "selector": {}, "serviceName": "s", "template": {
        "metadata": { "annotations": { "warm-images.dev/warm": "true", "warm-images.dev/priority": "10" } },
        "spec": { "containers": [{ "name": "app", "image": "nginx" }], "nodeSelector": { "disk": "ssd" } },
    }})
}

#[rstest]
#[case(view::<Deployment>)]
#[case(view::<StatefulSet>)]
#[case(view::<DaemonSet>)]
fn every_kind_with_a_template_is_seen_alike(#[case] view: fn(Value) -> Workload) {
    let annotated = json!({ "namespace": "shop", "name": "w", "annotations": { "warm-images.dev/warm": "false" } });
    let seen = view(json!({ "metadata": annotated, "spec": template() }));
    assert_eq!(positions(&seen), [("containers[0] \"app\"".to_owned(), "nginx".to_owned())]);
    assert_eq!((seen.warm.as_deref(), seen.template_warm.as_deref()), (Some("false"), Some("true")));
    assert_eq!(seen.priority.as_deref(), Some("10"));
    assert_eq!(seen.constraint.node_selector["disk"], "ssd");

    let annotated = json!({ "namespace": "shop", "name": "w", "annotations": { "warm-images.dev/priority": "90" } });
    let seen = view(json!({ "metadata": annotated, "spec": template() }));
    assert_eq!(seen.priority.as_deref(), Some("90"), "the object's goes before its template's");
}

#[test]
fn a_bare_pod_is_its_own_template() {
    let seen = view::<Pod>(json!({
        "metadata": { "namespace": "shop", "name": "p", "annotations": { "warm-images.dev/warm": "false" } },
        "spec": { "containers": [], "nodeName": "n1" },
    }));
    assert_eq!((seen.warm.as_deref(), seen.template_warm), (Some("false"), None));
    assert_eq!(seen.constraint.node_name.as_deref(), Some("n1"));
    assert_eq!(pod(json!({ "nodeName": "" })).constraint.node_name, None);
}

#[rstest]
#[case::bare(json!({}), true)]
#[case::controlled(json!({ "ownerReferences": [
    { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true }] }), false)]
#[case::owned_but_not_controlled(json!({ "ownerReferences": [
    { "apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "u" }] }), true)]
#[case::mirror(json!({ "annotations": { "kubernetes.io/config.mirror": "hash" } }), false)]
fn a_pod_counts_unless_a_controller_or_a_file_stands_behind_it(#[case] meta: Value, #[case] counts: bool) {
    assert_eq!(Pod::counts(&serde_json::from_value(meta).unwrap()), counts);
}

#[test]
fn ended_pods_are_left_to_the_api_server_to_hide() {
    assert_eq!(Pod::config().field_selector.as_deref(), Some("status.phase!=Succeeded,status.phase!=Failed"));
}

#[test]
fn required_affinity_is_kept_term_by_term_and_preferred_is_not() {
    let seen = pod(json!({ "affinity": { "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["b", "a"] },
                                   { "key": "gpu", "operator": "Exists" }] },
            { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n1"] }] },
            { "matchExpressions": [{ "key": "x", "operator": "Newer" }] },
        ] },
        "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 1, "preference": {} }],
    } } }));
    let terms = seen.constraint.affinity.unwrap();
    let expression = |key: &str, operator, values: &[&str]| MatchExpression {
        key: key.into(),
        operator,
        values: values.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(terms.len(), 3);
    assert_eq!(
        terms[0].match_expressions,
        [expression("zone", Operator::In, &["a", "b"]), expression("gpu", Operator::Exists, &[])].into()
    );
    assert_eq!(terms[1].match_fields, [expression("metadata.name", Operator::In, &["n1"])].into());
    assert_eq!(terms[2].match_expressions, [expression("x", Operator::Unknown, &[])].into());
}

#[rstest]
#[case::none(json!({}), None)]
#[case::only_preferred(json!({ "nodeAffinity": {} }), None)]
#[case::empty_list(
    json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [] } } }),
    Some(vec![])
)]
fn no_affinity_and_an_empty_one_are_told_apart(
    #[case] affinity: Value,
    #[case] expected: Option<Vec<cluster_plan::input::NodeSelectorTerm>>,
) {
    assert_eq!(pod(json!({ "affinity": affinity })).constraint.affinity, expected);
}

#[rstest]
#[case::everything(json!({ "operator": "Exists" }), None, TolerationOperator::Exists, "", None)]
#[case::empty_is_absent(json!({ "key": "", "operator": "Exists", "effect": "" }), None, TolerationOperator::Exists, "", None)]
#[case::equal_by_default(
    json!({ "key": "gpu", "value": "yes", "effect": "NoSchedule" }),
    Some("gpu"), TolerationOperator::Equal, "yes", Some(TaintEffect::NoSchedule)
)]
#[case::seconds_do_not_matter(
    json!({ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }),
    Some("node.kubernetes.io/not-ready"), TolerationOperator::Exists, "", Some(TaintEffect::NoExecute)
)]
#[case::newer_words(
    json!({ "key": "n", "operator": "Gt", "value": "5", "effect": "Newer" }),
    Some("n"), TolerationOperator::Unknown, "5", Some(TaintEffect::Unknown)
)]
fn tolerations_are_kept_as_written(
    #[case] toleration: Value,
    #[case] key: Option<&str>,
    #[case] operator: TolerationOperator,
    #[case] value: &str,
    #[case] effect: Option<TaintEffect>,
) {
    let expected = Toleration { key: key.map(Into::into), operator, value: value.into(), effect };
    assert_eq!(pod(json!({ "tolerations": [toleration] })).constraint.tolerations, [expected].into());
}

#[test]
fn a_deployment_without_a_pod_spec_says_what_is_missing() {
    let bare: Deployment = serde_json::from_value(json!({ "metadata": { "namespace": "a", "name": "b" } })).unwrap();
    assert_eq!(bare.view(), Err("spec.template.spec is missing".to_owned()));
}
