//! Who is to hold what, as far as it shows in what is written.

use std::collections::BTreeSet;

use cluster_plan::effect::IntentChange;
use cluster_plan::fact::Change;
use cluster_plan::input::{Constraint, Requests, RuntimeClass, Workload};
use cluster_plan::{Cordoned, Effect, Fact, Settings, TargetSettings};
use shared::subject::ControlVerb;

use super::stage::{Stage, node, settings, tainted, tolerating, workload};

/// Which assignments and how many intents were written.
fn written(effects: &[Effect]) -> (BTreeSet<String>, usize) {
    let mut nodes = BTreeSet::new();
    let mut intents = 0;
    for effect in effects {
        match effect {
            Effect::WriteAssignments { writes, .. } => nodes.extend(writes.iter().map(|w| w.node.to_string())),
            Effect::WriteIntents(batch) => {
                intents += batch.writes.iter().filter(|w| !matches!(w.write, IntentChange::PutDefinition(_))).count();
            }
            _ => {}
        }
    }
    (nodes, intents)
}

fn selecting(value: &str) -> Constraint {
    Constraint { node_selector: [("disk".to_owned(), value.to_owned())].into(), ..Constraint::default() }
}

fn only(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// The nodes that have a pool of their own beside others: those chosen for the one limited workload.
fn chosen(stage: &Stage) -> BTreeSet<String> {
    let live = stage.assign.live();
    live.iter().filter(|(_, a)| !a.pools.is_empty()).map(|(node, _)| node.to_string()).collect()
}

#[test]
fn a_node_that_joins_leaves_or_changes_costs_its_own_assignment_and_nothing_else() {
    let mut stage = Stage::new();
    stage.start();
    for n in 0..8 {
        stage.join(&format!("n{n}"), node(&format!("u{n}")));
    }
    stage.want("web", workload(&["nginx"]));
    stage.want("fast", Workload { constraint: selecting("ssd"), ..workload(&["redis:7"]) });
    stage.want("gpu", Workload { constraint: tolerating("gpu"), ..workload(&["quay.io/c/d"]) });
    let mut fresh = node("u8");
    assert_eq!(written(&stage.join("n8", fresh.clone())), (only(&["n8"]), 0));
    fresh.labels.insert("disk".to_owned(), "ssd".to_owned());
    assert_eq!(written(&stage.join("n8", fresh)), (only(&["n8"]), 0));
    assert_eq!(written(&stage.join("n9", tainted("u9", "gpu"))), (only(&["n9"]), 0));
    assert_eq!(written(&stage.leave("n8")), (only(&["n8"]), 0));
}

#[test]
fn a_limited_workload_has_both_images_on_the_same_few_nodes_and_hardly_moves() {
    let mut stage = Stage::new();
    stage.start();
    for n in 0..9 {
        stage.join(&format!("n{n}"), node(&format!("u{n}")));
    }
    let limited = Workload { max_nodes: Some("3".to_owned()), ..workload(&["nginx", "redis:7"]) };
    let (told, intents) = written(&stage.want("web", limited));
    assert_eq!((told.len(), intents), (3, 2), "{told:?}");
    assert_eq!(chosen(&stage), told);
    for n in 9..30 {
        let before = chosen(&stage);
        let (told, intents) = written(&stage.join(&format!("n{n}"), node(&format!("u{n}"))));
        assert!(told.len() <= 2 && intents == 0, "its own, and that of the one it replaces: {told:?}");
        assert_eq!(chosen(&stage).len(), 3);
        assert!(chosen(&stage).difference(&before).count() <= 1);
    }
    let gone = chosen(&stage).pop_first().unwrap();
    let (told, _) = written(&stage.leave(&gone));
    assert_eq!(told.len(), 2, "{told:?}");
    let other = (0..30).map(|n| format!("n{n}")).find(|n| *n != gone && !chosen(&stage).contains(n)).unwrap();
    let answer = stage.ask(ControlVerb::Explain, &format!(r#"{{"image":"nginx","node":"{other}"}}"#));
    assert!(answer.to_string().contains("limits it to 3 nodes, and others were chosen"), "{answer}");
}

#[test]
fn a_workload_waits_for_its_runtime_class_and_says_so() {
    let mut stage = Stage::new();
    stage.start();
    stage.join("plain", node("u1"));
    let mut sandbox = node("u2");
    sandbox.labels.insert("runtime".to_owned(), "kata".to_owned());
    stage.join("sandbox", sandbox);
    stage.learn(Fact::RuntimeClasses(std::collections::BTreeMap::new()));
    stage.want("web", Workload { runtime_class: Some("kata".to_owned()), ..workload(&["nginx"]) });
    assert_eq!(chosen(&stage), only(&[]));
    let status = stage.ask(ControlVerb::Status, "");
    assert!(status["invalid"].to_string().contains("there is no such RuntimeClass"), "{status}");
    let node_selector = [("runtime".to_owned(), "kata".to_owned())].into();
    let class = RuntimeClass { node_selector, ..RuntimeClass::default() };
    stage.learn(Fact::RuntimeClass(Change::Upsert("kata".to_owned(), Ok(class))));
    assert_eq!(chosen(&stage), only(&["sandbox"]));
    assert_eq!(stage.ask(ControlVerb::Status, "")["invalidTotal"], 0);
    stage.learn(Fact::RuntimeClass(Change::Remove("kata".to_owned())));
    assert_eq!(chosen(&stage), only(&[]));
}

#[test]
fn nothing_is_decided_before_the_classes_are_known_that_a_workload_names() {
    let mut stage = Stage::new();
    let named = Workload { runtime_class: Some("kata".to_owned()), ..workload(&["nginx"]) };
    stage.workloads.insert(super::stage::deployment("web"), named);
    stage.start();
    assert!(stage.world.readiness().unwrap_err().contains("runtimeclasses"));
    stage.learn(Fact::RuntimeClasses(std::collections::BTreeMap::new()));
    stage.world.readiness().unwrap();
}

#[test]
fn cordoned_nodes_are_skipped_only_where_that_is_configured() {
    for (cordoned, expected) in [(Cordoned::Warm, &["n1"][..]), (Cordoned::Skip, &[])] {
        let mut stage = Stage::with(Settings { target: TargetSettings { cordoned }, ..settings() });
        stage.start();
        stage.want("web", workload(&["nginx"]));
        let mut there = node("u1");
        there.unschedulable = true;
        stage.join("n1", there);
        assert_eq!(chosen(&stage), only(expected), "{cordoned:?}");
    }
}

#[test]
fn a_node_that_could_never_fit_a_pod_is_left_out_and_it_is_said() {
    let mut stage = Stage::new();
    stage.start();
    stage.join("small", node("u1"));
    let requests = Requests { extended: [("nvidia.com/gpu".to_owned(), 1)].into(), ..Requests::default() };
    let constraint = Constraint { requests, ..Constraint::default() };
    stage.want("train", Workload { constraint, ..workload(&["nginx"]) });
    assert_eq!(chosen(&stage), only(&[]));
    let answer = stage.ask(ControlVerb::Explain, r#"{"image":"nginx","node":"small"}"#);
    let says = "a pod asks for 1 of nvidia.com/gpu, which the node has none of";
    assert!(answer.to_string().contains(says), "{answer}");
}
