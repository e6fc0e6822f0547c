//! The pause switch: who turns it, who obeys, what survives.

use std::time::Duration;

use cluster_plan::fact::{IntentsDoc, Stored, StoredValue};
use cluster_plan::{Effect, Fact};
use rstest::rstest;
use serde_json::json;
use shared::message::Control;
use shared::reason::Reason;
use shared::subject::{ControlVerb, IntentsKey};

use super::stage::{Bucket, Stage, changes, name, node, tolerating, workload};

const PAUSE: &str = r#"{"reason":"registry maintenance","by":"ops"}"#;
const RESUME: &str = r#"{"by":"ops"}"#;

fn led() -> Stage {
    let mut stage = Stage::new();
    for n in ["n1", "n2"] {
        stage.nodes.insert(name(n), node(n));
    }
    stage.start();
    stage.want("web", workload(&["nginx:1.27"]));
    stage
}

fn paused() -> Stage {
    let mut stage = led();
    let answer = stage.ask(ControlVerb::Pause, PAUSE);
    assert_eq!((&answer["paused"], &answer["changed"]), (&json!(true), &json!(true)), "{answer}");
    stage
}

fn stored(stage: &Stage) -> Option<Control> {
    match stage.intents.live().remove(&IntentsKey::Control) {
        Some(IntentsDoc::Control(control)) => Some(control),
        None => None,
        other => panic!("{other:?}"),
    }
}

/// `pullsInFlight` of every assignment.
fn limits(stage: &Stage) -> Vec<Option<usize>> {
    stage.assign.live().values().map(shared::message::Assignment::pulls_in_flight).collect()
}

fn assignment_writes(effects: &[Effect]) -> usize {
    let writes = effects.iter().map(|e| if let Effect::WriteAssignments { writes, .. } = e { writes.len() } else { 0 });
    writes.sum()
}

fn intent_writes(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::WriteIntents(_))).count()
}

fn someone_writes(stage: &mut Stage, value: Option<IntentsDoc>) -> Vec<Effect> {
    stage.intents.put(&IntentsKey::Control, None, value).unwrap();
    let stored = stage.intents.stored(&IntentsKey::Control);
    stage.learn(Fact::IntentChanged(stored))
}

fn reconnect(stage: &mut Stage) -> Vec<Effect> {
    stage.learn(Fact::Disconnected);
    for fact in stage.reads() {
        stage.tell(fact);
    }
    stage.learn(Fact::Connected)
}

fn wipe(stage: &mut Stage) {
    (stage.intents, stage.assign) = (Bucket::default(), Bucket::default());
    stage.inventories.clear();
    "2027-01-01T00:00:00Z".clone_into(&mut stage.created);
}

#[test]
fn paused_no_intent_changes_and_every_assignment_says_so_once_and_resumed_all_is_made_up() {
    let mut stage = led();
    let before = stage.log.len();
    stage.ask(ControlVerb::Pause, PAUSE);
    assert_eq!(assignment_writes(&stage.log[before..]), 2);
    assert_eq!(limits(&stage), [Some(0), Some(0)]);
    let before = stage.log.len();
    stage.want("new", workload(&["redis:7"]));
    stage.withdraw("web");
    stage.pass(Duration::from_secs(300));
    assert_eq!(stage.held(&shared::name::PoolId::all()).len(), 1, "as it was");
    assert_eq!(changes(&stage.log[before..]), Vec::<&Effect>::new());
    let before = stage.log.len();
    assert_eq!(stage.ask(ControlVerb::Resume, RESUME)["changed"], json!(true));
    let held = stage.held(&shared::name::PoolId::all());
    assert_eq!(held.values().map(|i| i.image.as_str()).collect::<Vec<_>>(), ["docker.io/library/redis:7"]);
    assert_eq!(assignment_writes(&stage.log[before..]), 2);
    assert_eq!(limits(&stage), [None, None]);
}

#[test]
fn while_paused_a_node_keeps_its_pools_and_a_new_one_gets_those_planned() {
    let mut stage = led();
    let tolerant = workload(&["redis:7"]);
    stage.want("tolerant", cluster_plan::input::Workload { constraint: tolerating("gpu"), ..tolerant });
    let before = stage.pools("n1");
    assert_eq!(before.len(), 2);
    stage.ask(ControlVerb::Pause, PAUSE);
    stage.withdraw("tolerant");
    assert_eq!(stage.pools("n1"), before, "leaving a pool would be a withdrawal");
    stage.join("n3", node("u3"));
    assert_eq!((stage.pools("n3").len(), stage.assign.live()[&name("n3")].pulls_in_flight()), (1, Some(0)));
    stage.join("n1", node("another"));
    assert_eq!(stage.pools("n1").len(), 1, "another Node is another machine");
    stage.ask(ControlVerb::Resume, RESUME);
    assert_eq!(stage.pools("n2").len(), 1);
}

#[test]
fn beats_and_labels_go_on() {
    let mut stage = paused();
    stage.report("n1", 1, &[]);
    assert_eq!(stage.labels("n1").len(), 1);
    let beats = stage.pass(Duration::from_secs(60));
    assert!(beats.iter().any(|e| matches!(e, Effect::PublishBeat(_))));
}

#[test]
fn a_follower_turns_the_switch_and_every_replica_obeys_it() {
    let mut leader = led();
    let mut follower = leader.clone();
    follower.learn(Fact::Lease(false));
    let answer = follower.ask(ControlVerb::Pause, PAUSE);
    assert_eq!(answer["changed"], json!(true), "{answer}");
    assert_eq!(limits(&follower), [None, None], "it does not write assignments");
    someone_writes(&mut leader, stored(&follower).map(IntentsDoc::Control));
    assert_eq!(limits(&leader), [Some(0), Some(0)]);
}

#[test]
fn it_survives_a_restart() {
    let stage = paused();
    let mut again = Stage::new();
    (again.nodes, again.workloads) = (stage.nodes.clone(), stage.workloads.clone());
    (again.intents, again.assign, again.created) = (stage.intents.clone(), stage.assign.clone(), stage.created.clone());
    again.start();
    assert_eq!(intent_writes(&again.log) + assignment_writes(&again.log), 0, "{:?}", again.log);
    again.want("new", workload(&["redis:7"]));
    assert_eq!(intent_writes(&again.log), 0);
}

#[test]
fn after_a_wipe_or_a_restored_copy_the_leader_writes_back_what_it_knew() {
    let mut stage = paused();
    wipe(&mut stage);
    reconnect(&mut stage);
    assert!(stored(&stage).is_some_and(|c| c.paused && c.by == "ops"));
    assert_eq!((intent_writes(&stage.log[stage.log.len() - 1..]), limits(&stage)), (0, vec![Some(0), Some(0)]));
    assert!(stage.held(&shared::name::PoolId::all()).is_empty(), "paused is paused");
    stage.ask(ControlVerb::Resume, RESUME);
    assert_eq!(stage.held(&shared::name::PoolId::all()).len(), 1);

    let mut stage = led();
    stage.ask(ControlVerb::Pause, PAUSE);
    stage.ask(ControlVerb::Resume, RESUME);
    let copy = stage.intents.clone();
    stage.ask(ControlVerb::Pause, PAUSE);
    stage.intents = copy;
    reconnect(&mut stage);
    assert!(stored(&stage).is_some_and(|c| c.paused));
}

#[rstest]
#[case::wiped_when_not_paused(true)]
#[case::never_paused(false)]
fn where_nothing_is_paused_nothing_is_written(#[case] was_paused: bool) {
    let mut stage = led();
    if was_paused {
        stage.ask(ControlVerb::Pause, PAUSE);
        stage.ask(ControlVerb::Resume, RESUME);
    }
    wipe(&mut stage);
    reconnect(&mut stage);
    assert_eq!(stored(&stage), None);
    assert_eq!(stage.ask(ControlVerb::Resume, RESUME)["changed"], json!(false));
}

#[test]
fn what_cannot_be_read_changes_nothing_and_is_put_right_and_a_purge_resumes() {
    let mut stage = paused();
    // A document of another kind is as good as undecodable.
    someone_writes(&mut stage, Some(IntentsDoc::Definition(json!(0))));
    assert!(stored(&stage).is_some_and(|c| c.paused && c.by == "ops"));
    assert_eq!(limits(&stage), [Some(0), Some(0)]);
    someone_writes(&mut stage, None);
    assert_eq!((stored(&stage), limits(&stage)), (None, vec![None, None]));

    let mut fresh = led();
    let seq = fresh.intents.put(&IntentsKey::Control, None, Some(IntentsDoc::Definition(json!(0)))).unwrap();
    fresh.faults.push(Reason::Timeout);
    fresh.learn(Fact::IntentChanged(Stored { key: IntentsKey::Control, seq, value: StoredValue::Undecodable }));
    fresh.pass(Duration::from_secs(10));
    assert!(stored(&fresh).is_some_and(|c| !c.paused && c.by == "pod-a"), "{:?}", stored(&fresh));
}

#[test]
fn who_is_second_is_told_what_holds_then() {
    let mut stage = led();
    let theirs =
        Control { paused: true, reason: "theirs".to_owned(), by: "b".to_owned(), since: jiff::Timestamp::UNIX_EPOCH };
    stage.intents.put(&IntentsKey::Control, None, Some(IntentsDoc::Control(theirs.clone()))).unwrap();
    let answer = stage.ask(ControlVerb::Resume, RESUME);
    assert_eq!(answer["changed"], json!(false), "this replica has not seen it: {answer}");
    let answer = stage.ask(ControlVerb::Pause, PAUSE);
    assert_eq!((&answer["changed"], &answer["by"]), (&json!(true), &json!("ops")), "{answer}");
    let again = stage.ask(ControlVerb::Pause, PAUSE);
    assert_eq!((&again["changed"], &again["paused"]), (&json!(false), &json!(true)));
}

#[test]
fn a_write_that_fails_is_said_and_nothing_is_kept_for_later() {
    let mut stage = led();
    stage.faults.push(Reason::Timeout);
    let answer = stage.ask(ControlVerb::Pause, PAUSE);
    assert!(answer["error"].as_str().is_some_and(|e| e.contains("timeout")), "{answer}");
    stage.learn(Fact::Disconnected);
    let answer = stage.ask(ControlVerb::Pause, PAUSE);
    assert!(answer["error"].as_str().is_some_and(|e| !e.is_empty()), "{answer}");
    reconnect(&mut stage);
    stage.pass(Duration::from_secs(100));
    assert_eq!(stored(&stage), None);
}

#[rstest]
#[case::nothing(ControlVerb::Pause, "", "EOF")]
#[case::no_json(ControlVerb::Resume, "now", "body")]
#[case::nobody(ControlVerb::Pause, r#"{"reason":"x"}"#, "missing field `by`")]
#[case::no_reason(ControlVerb::Pause, r#"{"by":"ops"}"#, "reason")]
#[case::empty(ControlVerb::Resume, r#"{"by":" "}"#, "by")]
#[case::an_acknowledgement_of_the_server(ControlVerb::Resume, r#"{"stream":"KV_warm","seq":5}"#, "stream")]
fn a_wrong_order_is_answered_with_what_is_wrong_and_an_example(
    #[case] verb: ControlVerb,
    #[case] body: &str,
    #[case] named: &str,
) {
    let mut stage = led();
    let answer = stage.ask(verb, body);
    assert!(answer["error"].as_str().is_some_and(|e| e.contains(named)), "{answer}");
    let example = answer["example"].to_string();
    assert!(stage.ask(verb, &example)["error"].is_null(), "{example}");
}
