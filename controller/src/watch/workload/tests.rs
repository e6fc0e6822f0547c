//! Manifests as people write them, and what is seen of them.

use cluster_plan::input::{MatchExpression, Operator, TaintEffect, Toleration, TolerationOperator};
use rstest::rstest;
use serde_json::{Value, json};

use super::super::object::Object;
use super::super::pods::{self, Kinds, Unowned};
use super::*;

fn of(kind: &WorkloadKind, json: Value) -> Result<Workload, String> {
    let object: Object<Form> = serde_json::from_value(json).unwrap();
    let rows = TEMPLATED;
    let row = rows.iter().find(|row| row.kind == *kind).unwrap();
    row.view(&object.meta, object.content?).unwrap()
}

#[allow(clippy::needless_pass_by_value, reason = "shorter calls")]
fn pod(spec: Value) -> Workload {
    let object: Object<pods::Form> =
        serde_json::from_value(json!({ "metadata": { "namespace": "shop", "name": "p" }, "spec": spec })).unwrap();
    Unowned(Kinds::default()).view(&object.meta, object.content.unwrap()).unwrap().unwrap()
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
#[case(WorkloadKind::Deployment)]
#[case(WorkloadKind::StatefulSet)]
#[case(WorkloadKind::DaemonSet)]
#[case(WorkloadKind::ReplicaSet)]
#[case(WorkloadKind::ReplicationController)]
#[case(WorkloadKind::Job)]
#[case(WorkloadKind::CronJob)]
fn every_kind_with_a_template_is_seen_alike(#[case] kind: WorkloadKind) {
    let spec = match kind {
        WorkloadKind::CronJob => {
            json!({ "schedule": "@daily", "suspend": true, "jobTemplate": { "spec": template() } })
        }
        _ => template(),
    };
    let annotated = json!({ "namespace": "shop", "name": "w", "annotations": { "warm-images.dev/warm": "false" } });
    let seen = of(&kind, json!({ "metadata": annotated, "spec": spec })).unwrap();
    assert_eq!(positions(&seen), [("containers[0] \"app\"".to_owned(), "nginx".to_owned())]);
    assert_eq!((seen.warm.as_deref(), seen.template_warm.as_deref()), (Some("false"), Some("true")));
    assert_eq!(seen.priority.as_deref(), Some("10"));
    assert_eq!(seen.constraint.node_selector["disk"], "ssd");
    assert!(!seen.ended && !seen.deleting && seen.owner.is_none());

    let annotated = json!({ "namespace": "shop", "name": "w", "annotations": { "warm-images.dev/priority": "90" } });
    let seen = of(&kind, json!({ "metadata": annotated, "spec": spec })).unwrap();
    assert_eq!(seen.priority.as_deref(), Some("90"), "the object's goes before its template's");
    let bare = json!({ "metadata": { "namespace": "a", "name": "b" } });
    assert_eq!(of(&kind, bare), Err("spec.template.spec is missing".to_owned()));
}

#[rstest]
#[case::runs(json!([]), false)]
#[case::suspended(json!([{ "type": "Suspended", "status": "True" }]), false)]
#[case::not_yet(json!([{ "type": "Complete", "status": "False" }]), false)]
#[case::complete(json!([{ "type": "SuccessCriteriaMet", "status": "True" }, { "type": "Complete", "status": "True" }]), true)]
#[case::failed(json!([{ "type": "Failed", "status": "True" }]), true)]
fn a_job_has_ended_when_its_conditions_say_so(#[case] conditions: Value, #[case] ended: bool) {
    let object = |status: &Value| json!({ "metadata": { "namespace": "a", "name": "b" }, "spec": template(), "status": { "conditions": status } });
    assert_eq!(of(&WorkloadKind::Job, object(&conditions)).unwrap().ended, ended);
    assert!(!of(&WorkloadKind::Deployment, object(&conditions)).unwrap().ended, "only Jobs end");
}

#[test]
fn who_controls_an_object_is_seen_whatever_its_kind() {
    let meta = json!({ "namespace": "a", "name": "b", "deletionTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [
        { "apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "1" },
        { "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "r", "uid": "2", "controller": true },
    ] });
    let seen = of(&WorkloadKind::ReplicaSet, json!({ "metadata": meta, "spec": template() })).unwrap();
    let owner = seen.owner.unwrap();
    assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.uid.as_str()), ("Rollout.argoproj.io", "r", "2"));
    assert!(seen.deleting);
}

#[test]
fn a_bare_pod_is_its_own_template() {
    let seen = pod(json!({ "containers": [], "nodeName": "n1" }));
    assert_eq!(seen.constraint.node_name.as_deref(), Some("n1"));
    assert_eq!(pod(json!({ "nodeName": "" })).constraint.node_name, None);
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
    json!({ "key": "n", "operator": "Newer", "value": "5", "effect": "Newer" }),
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
