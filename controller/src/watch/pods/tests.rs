//! Which Pods are told one by one, and what is told of the Pods of one controller.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn object(json: Value) -> Object<Form> {
    serde_json::from_value(json).unwrap()
}

#[allow(clippy::needless_pass_by_value, reason = "shorter calls")]
fn owned(name: &str, owner: Value, images: &[&str]) -> Value {
    let containers: Vec<Value> = images.iter().map(|image| json!({ "name": "c", "image": image })).collect();
    json!({
        "metadata": { "namespace": "shop", "name": name, "uid": name, "ownerReferences": [owner] },
        "spec": { "nodeName": "n1", "containers": containers },
    })
}

fn replica_set(uid: &str) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": uid, "controller": true })
}

fn synced(objects: Vec<Value>) -> Pods {
    let mut pods = Pods::new(Kinds::default(), true);
    list(&mut pods, objects);
    pods
}

fn list(pods: &mut Pods, objects: Vec<Value>) -> Vec<Fact> {
    assert!(pods.take(Event::Init).is_empty());
    for json in objects {
        assert!(pods.take(Event::InitApply(object(json))).is_empty());
    }
    pods.take(Event::InitDone)
}

/// Names of the Pods that are named, each with its images.
fn told(fact: &Fact) -> Vec<(&str, Vec<&str>)> {
    let Fact::Replicas(Change::Upsert(_, Ok(replicas))) = fact else { panic!("{fact:?}") };
    let images = |r: &Replica| -> Vec<String> { r.view.images.iter().map(|i| i.image.clone()).collect() };
    let mut all: Vec<_> = replicas.iter().map(|r| (r.pod.as_str(), images(r))).collect();
    all.sort();
    all.into_iter()
        .map(|(pod, _)| {
            let replica = replicas.iter().find(|r| r.pod == pod).unwrap();
            (pod, replica.view.images.iter().map(|i| i.image.as_str()).collect())
        })
        .collect()
}

#[rstest]
#[case::bare(json!({}), true)]
#[case::controlled(json!({ "ownerReferences": [replica_set("u")] }), false)]
#[case::of_a_kind_nobody_watches(json!({ "ownerReferences": [
    { "apiVersion": "kafka.strimzi.io/v1", "kind": "StrimziPodSet", "name": "r", "uid": "u", "controller": true }] }), true)]
#[case::owned_but_not_controlled(json!({ "ownerReferences": [
    { "apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "u" }] }), true)]
#[case::mirror(json!({ "annotations": { "kubernetes.io/config.mirror": "hash" } }), false)]
fn a_pod_is_told_by_itself_unless_something_watched_controls_it(#[case] meta: Value, #[case] alone: bool) {
    let mut meta = meta;
    (meta["namespace"], meta["name"]) = (json!("shop"), json!("p"));
    let mut pods = synced(vec![]);
    let facts = pods.take(Event::Apply(object(json!({ "metadata": meta, "spec": { "containers": [] } }))));
    assert_eq!(facts.iter().any(|fact| matches!(fact, Fact::Workload(Change::Upsert(..)))), alone, "{facts:?}");
}

#[test]
fn the_pods_of_one_controller_are_told_once_and_go_with_the_last() {
    let mut pods = synced(vec![]);
    let apply = |pods: &mut Pods, name: &str, images: &[&str]| {
        pods.take(Event::Apply(object(owned(name, replica_set("u"), images))))
    };
    let facts = apply(&mut pods, "web-b", &["app", "istio"]);
    assert_eq!(told(&facts[0]), [("web-b", vec!["app", "istio"])]);
    assert_eq!(apply(&mut pods, "web-a", &["app", "istio"]), [], "one more that shows the same");
    assert_eq!(apply(&mut pods, "web-a", &["app", "istio"]), []);
    let facts = apply(&mut pods, "web-c", &["app", "debug"]);
    assert_eq!(told(&facts[0]), [("web-b", vec!["app", "istio"]), ("web-c", vec!["app", "debug"])]);

    let delete = |pods: &mut Pods, name: &str| {
        let bare = json!({ "metadata": { "namespace": "shop", "name": name } });
        pods.take(Event::Delete(object(bare)))
    };
    let facts = delete(&mut pods, "web-b");
    assert_eq!(told(&facts[0])[0], ("web-a", vec!["app", "istio"]), "another is named");
    let mut deleting = owned("web-c", replica_set("u"), &["app", "debug"]);
    deleting["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let facts = pods.take(Event::Apply(object(deleting)));
    assert_eq!(told(&facts[0]), [("web-a", vec!["app", "istio"])], "one that is being deleted needs nothing");
    assert_eq!(delete(&mut pods, "web-c"), []);
    let facts = delete(&mut pods, "web-a");
    assert!(matches!(&facts[..], [Fact::Replicas(Change::Remove(of))] if of.uid == "u"), "{facts:?}");
    assert!(pods.crowd.is_some_and(|crowd| crowd.pods.is_empty() && crowd.controllers.is_empty()));
}

#[test]
fn a_list_says_what_all_pods_show_before_it_says_that_all_are_known() {
    let mut pods = Pods::new(Kinds::default(), true);
    let all = || vec![owned("web-a", replica_set("u"), &["app"]), owned("web-b", replica_set("v"), &["app"])];
    let facts = list(&mut pods, all());
    let [Fact::AllReplicas(replicas), Fact::Workloads(WorkloadKind::Pod, alone)] = &facts[..] else {
        panic!("{facts:?}")
    };
    assert_eq!((replicas.len(), alone.len()), (2, 0));
    assert_eq!(list(&mut pods, all()), [], "a list that shows the same is no fact");
    let facts = list(&mut pods, vec![]);
    assert!(matches!(&facts[..], [Fact::AllReplicas(none)] if none.is_empty()), "{facts:?}");
}

#[test]
fn the_pods_of_a_daemon_set_show_the_same_though_each_is_bound_to_its_node() {
    let owner = json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": true });
    let bound = |name: &str| {
        let mut pod = owned(name, owner.clone(), &["agent"]);
        let field = json!({ "key": "metadata.name", "operator": "In", "values": [name] });
        pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!({ "nodeSelectorTerms": [{ "matchFields": [field] }] });
        pod
    };
    let mut pods = synced(vec![bound("a")]);
    assert_eq!(pods.take(Event::Apply(object(bound("b")))), []);
}

#[test]
fn when_only_unowned_pods_are_asked_for_the_others_are_not_kept() {
    let mut pods = Pods::new(Kinds::default(), false);
    let facts = list(&mut pods, vec![owned("web-a", replica_set("u"), &["app"])]);
    assert!(matches!(&facts[..], [Fact::Workloads(WorkloadKind::Pod, alone)] if alone.is_empty()), "{facts:?}");
    assert_eq!(pods.take(Event::Apply(object(owned("web-b", replica_set("u"), &["x"])))), []);
    assert!(pods.crowd.is_none());
}

#[test]
fn ended_pods_are_left_to_the_api_server_to_hide() {
    let pods = Pods::new(Kinds::default(), true);
    assert_eq!(pods.config().field_selector.as_deref(), Some("status.phase!=Succeeded,status.phase!=Failed"));
}
