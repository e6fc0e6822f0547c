//! What people are told of an image on a node.

use std::time::Duration;

use cluster_plan::Fact;
use cluster_plan::fact::Change;
use cluster_plan::input::selection::Mode;
use cluster_plan::input::{Constraint, Namespace, Selection, Workload};
use rstest::rstest;
use serde_json::{Value, json};
use shared::message::Event;
use shared::name::PoolId;
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::ControlVerb;

use super::stage::{Stage, key, name, node, tainted, workload};

const IMAGE: &str = "nginx:1.27";

fn led() -> Stage {
    let mut stage = Stage::new();
    stage.nodes.insert(name("n1"), node("u1"));
    stage.start();
    stage
}

fn wanted() -> Stage {
    let mut stage = led();
    stage.want("web", workload(&[IMAGE]));
    stage
}

fn explain(stage: &mut Stage, image: &str, node: &str) -> Value {
    stage.ask(ControlVerb::Explain, &json!({ "image": image, "node": node }).to_string())
}

fn next(stage: &mut Stage) -> String {
    explain(stage, IMAGE, "n1")["next"].as_str().unwrap().to_owned()
}

fn text(answer: &Value) -> &str {
    answer["text"].as_str().unwrap()
}

#[test]
fn a_wanted_image_names_who_wants_it_by_which_rule_and_where_it_stands() {
    let mut stage = wanted();
    stage.want("api", workload(&["docker.io/library/nginx:1.27", "redis:7"]));
    let answer = explain(&mut stage, IMAGE, "n1");
    assert_eq!(answer["wanted"], true);
    assert_eq!((&answer["image"], &answer["key"]), (&json!("docker.io/library/nginx:1.27"), &json!(key(IMAGE))));
    assert_eq!(
        answer["owners"][0],
        json!({ "kind": "Deployment", "namespace": "shop", "name": "api",
            "rule": "its namespace is included by `*` and nothing opts out", "priority": 50, "priorityFrom": "default" })
    );
    assert_eq!((&answer["ownersTotal"], &answer["notCountedTotal"]), (&json!(2), &json!(0)));
    let pool = &answer["pools"][0];
    assert_eq!((&pool["pool"], &pool["wave"]["admits"]), (&json!("all"), &json!(true)));
    assert_eq!((&pool["bucket"]["holds"], &pool["bucket"]["asWanted"]), (&json!("intent"), &json!(true)), "{pool}");
    assert_eq!(answer["assignment"]["poolsAsPlanned"], true);
    let by_key = explain(&mut stage, key(IMAGE).as_str(), "n1");
    assert_eq!(by_key["owners"], answer["owners"]);
}

#[rstest]
#[case::excluded(&["s*"], Mode::OptOut, None, None, "excluded by `s*`")]
#[case::not_included(&[], Mode::OptIn, None, None, "select.mode is optIn")]
#[case::workload(&[], Mode::OptOut, Some("false"), None, "the workload opts out")]
#[case::namespace(&[], Mode::OptOut, Some("true"), Some("false"), "its namespace opts out")]
fn an_unwanted_image_says_what_excludes_it(
    #[case] exclude: &[&str],
    #[case] mode: Mode,
    #[case] of_workload: Option<&str>,
    #[case] of_namespace: Option<&str>,
    #[case] said: &str,
) {
    let mut stage = led();
    let mut selection = Selection { mode, ..Selection::default() };
    selection.namespaces.exclude = exclude.iter().map(ToString::to_string).collect();
    stage.learn(Fact::Selection(selection));
    let shop = Namespace { uid: "s".to_owned(), warm: of_namespace.map(ToOwned::to_owned), ..Namespace::default() };
    stage.learn(Fact::Namespace(Change::Upsert("shop".to_owned(), Ok(shop))));
    stage.want("web", Workload { warm: of_workload.map(ToOwned::to_owned), ..workload(&[IMAGE]) });
    let answer = explain(&mut stage, IMAGE, "n1");
    assert_eq!((&answer["wanted"], &answer["next"]), (&json!(false), &json!("nothing")), "{answer}");
    assert!(text(&answer).starts_with("not wanted. Deployment/shop/web: ") && text(&answer).contains(said), "{answer}");
    assert_eq!(answer["notCounted"][0]["name"], "web");
}

#[test]
fn an_image_that_nobody_names_says_so() {
    let mut stage = led();
    let answer = explain(&mut stage, IMAGE, "n1");
    assert_eq!((&answer["wanted"], text(&answer)), (&json!(false), "not wanted: no workload names it"));
}

#[test]
fn a_node_that_is_out_of_reach_says_what_keeps_it_away() {
    let mut stage = wanted();
    stage.join("n2", tainted("u2", "gpu"));
    let answer = explain(&mut stage, IMAGE, "n2");
    assert!(text(&answer).contains("taint gpu=:NoSchedule is not tolerated"), "{answer}");
    let picky = Constraint { node_selector: [("disk".into(), "ssd".into())].into(), ..Constraint::default() };
    stage.want("picky", Workload { constraint: picky, ..workload(&["redis:7"]) });
    let answer = explain(&mut stage, "redis:7", "n1");
    assert!(text(&answer).contains("wants label disk=ssd, which the node lacks"), "{answer}");
    let answer = explain(&mut stage, IMAGE, "nowhere");
    assert!(text(&answer).contains("its Node object is not known"), "{answer}");
}

#[test]
fn what_happens_next_follows_the_image_through_its_life() {
    let mut stage = led();
    stage.faults = vec![Reason::Timeout; 2];
    stage.want("web", workload(&[IMAGE]));
    assert!(next(&mut stage).starts_with("its intent is written again at 1970-"), "{}", next(&mut stage));
    let writes = stage.ask(ControlVerb::Status, "")["writes"].clone();
    assert_eq!((&writes["retriesTotal"], &writes["retries"][0]["why"]), (&json!(2), &json!("timeout")), "{writes}");
    stage.pass(Duration::from_secs(3));
    assert!(next(&mut stage).contains("waits for the node's first report"), "{}", next(&mut stage));
    let event = stage.event("n1", IMAGE, 1, ImageState::Pulling);
    stage.learn(Fact::Event(Box::new(event.clone())));
    assert_eq!(next(&mut stage), "the agent is pulling it");
    let again: jiff::Timestamp = "1970-01-01T00:10:00Z".parse().unwrap();
    let why = Some(Reason::NotFound);
    let failed = Event { n: 2, st: ImageState::Failed, why, r#try: Some(3), next: Some(again), ..event };
    stage.learn(Fact::Event(Box::new(failed)));
    assert_eq!(next(&mut stage), "the agent tries again (not-found) at 1970-01-01T00:10:00Z (in 600s)");
    let evidence = explain(&mut stage, IMAGE, "n1")["evidence"].clone();
    assert_eq!((&evidence["state"], &evidence["tries"]), (&json!("failed"), &json!(3)), "{evidence}");
    assert_eq!((&evidence["from"]["kind"], &evidence["last"]), (&json!("event"), &json!("event")), "{evidence}");
    stage.ask(ControlVerb::Pause, r#"{"reason":"r","by":"b"}"#);
    assert!(next(&mut stage).contains("paused"), "{}", next(&mut stage));
    stage.ask(ControlVerb::Resume, r#"{"by":"b"}"#);
    stage.report("n1", 3, &[]);
    assert!(next(&mut stage).starts_with("nothing: warm"), "{}", next(&mut stage));
    let answer = explain(&mut stage, IMAGE, "n1");
    assert!(answer["label"]["shown"].is_string() && answer["label"]["shown"] == answer["label"]["wanted"], "{answer}");
    assert_eq!((&answer["evidence"]["from"]["kind"], &answer["evidence"]["next"]), (&json!("inventory"), &Value::Null));
    stage.pass(Duration::from_secs(600));
    assert!(next(&mut stage).starts_with("nothing: warm"), "silence takes nothing away");
    stage.want("other", workload(&["redis:7"]));
    let silent = explain(&mut stage, "redis:7", "n1");
    assert!(silent["next"].as_str().unwrap().contains("silent for 600s"), "{silent}");
}

#[test]
fn an_inventory_tells_tries_and_times_until_a_newer_word_comes() {
    let mut stage = wanted();
    let mut inventory = stage.inventory("n1", 5, &[IMAGE]);
    let again: jiff::Timestamp = "1970-01-01T00:01:00Z".parse().unwrap();
    if let shared::message::Content::Except(list) = &mut inventory.content {
        (list[0].tries, list[0].next) = (Some(2), Some(again));
    }
    stage.put(inventory);
    let evidence = explain(&mut stage, IMAGE, "n1")["evidence"].clone();
    assert_eq!((&evidence["tries"], &evidence["next"]), (&json!(2), &json!("1970-01-01T00:01:00Z")), "{evidence}");
    assert_eq!((&evidence["from"]["pool"], &evidence["inventory"]["n"]), (&json!("all"), &json!(5)), "{evidence}");
    stage.report("n1", 6, &[]);
    let evidence = explain(&mut stage, IMAGE, "n1")["evidence"].clone();
    assert_eq!((&evidence["state"], &evidence["tries"]), (&json!("warm"), &Value::Null), "{evidence}");
}

#[test]
fn a_follower_names_the_leader_who_writes() {
    let mut stage = led();
    stage.learn(Fact::Lease(false));
    stage.want("web", workload(&[IMAGE]));
    assert_eq!(next(&mut stage), "its intent is written by the leader, pod-a");
    assert_eq!(stage.ask(ControlVerb::Status, "")["leadership"]["standing"], "following");
}

#[test]
fn an_image_alone_shows_its_nodes_and_a_node_alone_its_images() {
    let mut stage = wanted();
    stage.join("n2", node("u2"));
    stage.want("other", workload(&["redis:7"]));
    stage.report("n1", 1, &["redis:7"]);
    let answer = stage.ask(ControlVerb::Explain, r#"{"image":"redis:7"}"#);
    assert_eq!(answer["nodes"]["states"], json!({ "failed": 1, "unknown": 1 }), "{answer}");
    assert_eq!(answer["nodes"]["notWarm"][0]["node"], "n1");
    assert_eq!((&answer["pools"][0]["pool"], &answer["ownersTotal"]), (&json!("all"), &json!(1)));
    let answer = stage.ask(ControlVerb::Explain, r#"{"node":"n1"}"#);
    assert_eq!(answer["images"]["states"], json!({ "warm": 1, "failed": 1 }), "{answer}");
    assert_eq!(answer["images"]["notWarm"][0]["image"], "docker.io/library/redis:7");
    assert_eq!((&answer["pools"][0]["pool"], &answer["labels"]["shown"]), (&json!("all"), &json!(1)));
    let answer = stage.ask(ControlVerb::Explain, r#"{"node":"nowhere"}"#);
    assert_eq!((&answer["exists"], &answer["images"]["wanted"]), (&json!(false), &json!(0)), "{answer}");
}

#[rstest]
#[case::nothing("", "the body cannot be used")]
#[case::neither("{}", "neither `image` nor `node`")]
#[case::another_field(r#"{"pod":"x"}"#, "unknown field `pod`")]
#[case::no_reference(r#"{"image":"UPPER"}"#, "`image`")]
#[case::no_node(r#"{"node":"a_b"}"#, "`node`")]
fn a_wrong_question_is_answered_with_what_is_wrong_and_an_example(#[case] body: &str, #[case] named: &str) {
    let mut stage = wanted();
    let answer = stage.ask(ControlVerb::Explain, body);
    assert!(answer["error"].as_str().is_some_and(|e| e.contains(named)), "{answer}");
    assert!(stage.ask(ControlVerb::Explain, &answer["example"].to_string())["error"].is_null());
}

#[test]
fn before_everything_is_known_status_says_what_is_awaited_and_orders_are_refused() {
    let mut stage = Stage::new();
    let status = stage.ask(ControlVerb::Status, "");
    assert!(status["ready"].as_str().is_some_and(|t| t.contains("waiting for")), "{status}");
    assert!(next(&mut stage).contains("nothing before the first full content"), "{}", next(&mut stage));
    let answer = stage.ask(ControlVerb::Pause, r#"{"reason":"r","by":"b"}"#);
    assert!(answer["error"].as_str().is_some_and(|e| e.contains("waiting for")), "{answer}");
}

#[test]
fn status_and_state_are_bounded_and_say_what_they_leave_out() {
    let mut stage = wanted();
    for n in 0..250 {
        let n = format!("m{n}");
        stage.join(&n, node(&n));
        stage.report(&n, 1, &[]);
    }
    let status = stage.ask(ControlVerb::Status, "");
    let nodes = &status["nodes"];
    assert_eq!(status["nodesAssigned"], 251);
    for agent in nodes.as_object().unwrap().values() {
        assert!(agent["names"].as_array().unwrap().len() <= 20, "{nodes}");
    }
    let book = stage.world.summary(stage.now);
    assert_eq!((&book["evidence"]["total"], &book["evidence"]["leftOut"]), (&json!(250), &json!(50)));
    let of_node = &book["evidence"]["nodes"]["m0"];
    assert_eq!((&of_node["images"], &of_node["uid"]), (&json!({ "warm": 1 }), &json!("m0")), "{of_node}");
    assert_eq!(book["pools"]["pools"][PoolId::all().as_str()]["members"], 251);
    assert!(status.to_string().len() < 20_000, "{}", status.to_string().len());
}
