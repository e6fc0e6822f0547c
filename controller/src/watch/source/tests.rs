//! What the reduction of a watch says and what it keeps to itself.

use cluster_plan::input::{Workload, WorkloadKey, WorkloadKind};
use serde_json::{Value, json};

use super::super::node::Nodes;
use super::super::workload::{TEMPLATED, Templated};
use super::*;

fn object<F: Form>(json: Value) -> Object<F> {
    serde_json::from_value(json).unwrap()
}

fn deployments() -> Reducer<Templated> {
    let [deployments, ..] = TEMPLATED;
    Reducer::new(deployments)
}

/// The one fact, if there is any.
fn one(facts: Vec<Fact>) -> Option<Fact> {
    assert!(facts.len() < 2, "{facts:?}");
    facts.into_iter().next()
}

fn deployment(name: &str, image: &str) -> Value {
    json!({
        "metadata": { "namespace": "shop", "name": name },
        "spec": { "selector": {}, "template": { "spec": { "containers": [{ "name": "app", "image": image }] } } },
    })
}

fn key(name: &str) -> WorkloadKey {
    WorkloadKey { kind: WorkloadKind::Deployment, namespace: "shop".into(), name: name.into() }
}

fn images(content: &Result<Workload, String>) -> Vec<&str> {
    content.as_ref().unwrap().images.iter().map(|i| i.image.as_str()).collect()
}

/// A reducer that has delivered a list of these.
fn synced<K: Watched>(kind: K, objects: Vec<Value>) -> Reducer<K> {
    let mut reducer = Reducer::new(kind);
    list(&mut reducer, objects).unwrap();
    reducer
}

fn list<K: Watched>(reducer: &mut Reducer<K>, objects: Vec<Value>) -> Option<Fact> {
    assert!(reducer.take(Event::Init).is_empty());
    for json in objects {
        assert!(reducer.take(Event::InitApply(object(json))).is_empty());
    }
    one(reducer.take(Event::InitDone))
}

#[test]
fn the_first_list_is_one_fact_even_if_it_is_empty() {
    let mut reducer = deployments();
    assert!(!reducer.is_synced());
    assert_eq!(list(&mut reducer, vec![]), Some(Fact::Workloads(WorkloadKind::Deployment, BTreeMap::new())));
    assert!(reducer.is_synced());
}

#[test]
fn a_list_that_broke_off_leaves_nothing_in_the_next() {
    let mut reducer = deployments();
    reducer.take(Event::Init);
    reducer.take(Event::InitApply(object(deployment("half", "a"))));
    let Some(Fact::Workloads(_, listed)) = list(&mut reducer, vec![deployment("whole", "b")]) else { panic!() };
    assert_eq!(listed.keys().collect::<Vec<_>>(), [&key("whole")]);
}

#[test]
fn a_relist_that_shows_the_same_is_no_fact_and_one_that_differs_is() {
    let mut reducer = synced(deployments().kind, vec![deployment("a", "x")]);
    assert_eq!(list(&mut reducer, vec![deployment("a", "x")]), None);
    assert!(list(&mut reducer, vec![]).is_some());
}

#[test]
fn a_change_is_said_once_and_a_removal_needs_only_the_name() {
    let mut reducer = synced(deployments().kind, vec![]);
    let Some(Fact::Workload(Change::Upsert(of, content))) =
        one(reducer.take(Event::Apply(object(deployment("a", "x")))))
    else {
        panic!()
    };
    assert_eq!((of, images(&content)), (key("a"), vec!["x"]));
    assert_eq!(one(reducer.take(Event::Apply(object(deployment("a", "x"))))), None);
    let bare = json!({ "metadata": { "namespace": "shop", "name": "a" } });
    assert_eq!(one(reducer.take(Event::Delete(object(bare.clone())))), Some(Fact::Workload(Change::Remove(key("a")))));
    assert_eq!(one(reducer.take(Event::Delete(object(bare)))), None);
}

#[test]
fn an_object_that_cannot_be_decoded_keeps_its_identity_and_can_be_removed() {
    let mut reducer = synced(deployments().kind, vec![deployment("a", "x")]);
    let mut broken = deployment("a", "x");
    broken["spec"]["template"]["spec"]["containers"] = json!("not a list");
    let Some(Fact::Workload(Change::Upsert(of, Err(text)))) = one(reducer.take(Event::Apply(object(broken.clone()))))
    else {
        panic!()
    };
    assert_eq!(of, key("a"));
    assert!(text.contains("not a list"), "{text}");
    assert_eq!(one(reducer.take(Event::Delete(object(broken)))), Some(Fact::Workload(Change::Remove(key("a")))));
}

#[test]
fn one_broken_object_does_not_spoil_a_list() {
    let mut broken = deployment("b", "x");
    broken["spec"] = json!(7);
    let mut reducer = deployments();
    let Some(Fact::Workloads(_, listed)) = list(&mut reducer, vec![deployment("a", "x"), broken]) else { panic!() };
    assert!(listed[&key("a")].is_ok() && listed[&key("b")].is_err());
}

#[test]
fn a_node_heartbeat_is_no_fact_and_pressure_is_one() {
    let node = |time: &str, pressure: &str| {
        json!({
            "metadata": { "name": "n", "uid": "u", "resourceVersion": time },
            "status": { "conditions": [{ "type": "DiskPressure", "status": pressure, "lastHeartbeatTime": null }],
                "images": [{ "names": [time], "sizeBytes": 1 }] },
        })
    };
    let mut reducer = synced(Nodes, vec![node("1", "False")]);
    assert_eq!(one(reducer.take(Event::Apply(object(node("2", "False"))))), None);
    assert!(one(reducer.take(Event::Apply(object(node("3", "True"))))).is_some());
}

#[test]
fn a_watch_that_the_server_cannot_resume_begins_anew() {
    let refused = |code| {
        let status = kube::core::Status { code, ..Default::default() };
        watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(status)))
    };
    assert!(must_list_again(&refused(410)) && must_list_again(&refused(504)));
    assert!(!must_list_again(&refused(403)) && !must_list_again(&refused(429)) && !must_list_again(&refused(500)));
}

#[test]
fn a_refusal_is_explained_with_what_to_do() {
    let status = kube::core::Status { code: 403, message: "pods is forbidden".into(), ..Default::default() };
    let error = watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)));
    assert_eq!(explain(&error), "list: pods is forbidden (403); the controller's role lacks this right");
}
