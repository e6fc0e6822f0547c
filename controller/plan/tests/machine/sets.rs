//! Sets of images: what they want, what is told of them, and their labels.

use std::time::Duration;

use cluster_plan::fact::Change;
use cluster_plan::input::{ImageSet, Selection, SetKey, Workload};
use cluster_plan::set::{ConditionStatus, SetStatus};
use cluster_plan::{Effect, Fact, LabelMode, LabelSettings, Settings};
use rstest::rstest;
use shared::label::{image_label, set_label};
use shared::name::PoolId;
use shared::reason::Reason;
use shared::state::ImageState;

use super::stage::{Stage, key, name, node, settings, tainted, tolerating, workload};

fn set(name: &str) -> SetKey {
    SetKey { namespace: "ml".to_owned(), name: name.to_owned() }
}

fn wanting(uid: &str, images: &[&str]) -> ImageSet {
    let wants = Workload { uid: uid.to_owned(), is_named: true, ..workload(images) };
    ImageSet { wants, generation: 1, status: None }
}

/// Watches sets, and has one.
fn with_set(labels: LabelSettings, images: &[&str]) -> Stage {
    let mut stage = Stage::with(Settings { labels, sets: true, ..settings() });
    stage.nodes.insert(name("n1"), node("u1"));
    stage.sets.insert(set("base"), wanting("s1", images));
    stage.start();
    stage
}

fn apply(stage: &mut Stage, set: &SetKey, wanted: ImageSet) -> Vec<Effect> {
    stage.sets.insert(set.clone(), wanted.clone());
    stage.learn(Fact::Set(Change::Upsert(set.clone(), Ok(wanted))))
}

fn told(stage: &Stage, of: &str) -> SetStatus {
    stage.sets[&set(of)].status.clone().unwrap_or_default()
}

fn ready(stage: &Stage, of: &str) -> (ConditionStatus, String) {
    let status = told(stage, of);
    let ready = status.conditions.iter().find(|c| c.kind == "Ready").unwrap();
    (ready.status, ready.reason.clone())
}

fn writes(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::WriteSetStatus(_))).count()
}

fn is_labelled(stage: &Stage, of: &str) -> bool {
    stage.labels("n1").contains_key(&set_label("ml", of))
}

#[test]
fn a_set_of_any_namespace_is_wanted_told_of_and_labelled_when_all_of_it_is_proven() {
    let mut stage = with_set(LabelSettings::default(), &["nginx", "redis"]);
    let intent = &stage.held(&PoolId::all())[&key("nginx")];
    assert_eq!(intent.owners, ["ImageSet/ml/base"], "nobody knows its namespace, and it opts in nowhere");
    stage.pass(Duration::from_secs(60));
    assert_eq!(ready(&stage, "base"), (ConditionStatus::False, "NoNodes".to_owned()));
    assert_eq!(told(&stage, "base").nodes_without_agent, 1);
    stage.report("n1", 1, &["redis"]);
    stage.pass(Duration::from_secs(6));
    assert_eq!((told(&stage, "base").warm, told(&stage, "base").desired), (1, 2));
    assert!(!is_labelled(&stage, "base"));
    stage.report("n1", 2, &[]);
    stage.pass(Duration::from_secs(60));
    assert_eq!(ready(&stage, "base"), (ConditionStatus::True, "AllWarm".to_owned()));
    assert!(is_labelled(&stage, "base"));
    assert_eq!(writes(&stage.pass(Duration::from_secs(600))), 0, "nothing has changed");
    let event = stage.event("n1", "nginx", 3, ImageState::Evicted);
    stage.learn(Fact::Event(Box::new(event)));
    stage.pass(Duration::from_secs(60));
    assert_eq!(ready(&stage, "base"), (ConditionStatus::False, "Pulling".to_owned()));
    assert!(!is_labelled(&stage, "base"), "one image is proven to be away");
}

#[test]
fn a_status_is_written_once_in_its_window_and_a_foreign_hand_is_put_right() {
    let mut stage = with_set(LabelSettings::default(), &["nginx", "redis", "postgres"]);
    stage.report("n1", 1, &["nginx", "redis", "postgres"]);
    stage.pass(Duration::from_secs(60));
    let mut written = 0;
    for (n, image) in [(2, "nginx"), (3, "redis"), (4, "postgres")] {
        let event = stage.event("n1", image, n, ImageState::Warm);
        written += writes(&stage.learn(Fact::Event(Box::new(event))));
        written += writes(&stage.pass(Duration::from_millis(500)));
    }
    assert_eq!(written, 1, "the first at once, the others together after the window");
    assert_eq!(writes(&stage.pass(Duration::from_secs(60))), 1);
    assert_eq!(told(&stage, "base").warm, 3);
    let right = told(&stage, "base");
    let mut theirs = stage.sets[&set("base")].clone();
    theirs.status = Some(SetStatus { warm: 99, ..right.clone() });
    apply(&mut stage, &set("base"), theirs);
    stage.pass(Duration::from_secs(6));
    assert_eq!(told(&stage, "base"), right);
}

#[test]
fn an_image_that_fails_is_told_once_and_not_at_each_attempt() {
    let mut stage = with_set(LabelSettings::default(), &["nginx"]);
    stage.report("n1", 1, &["nginx"]);
    stage.pass(Duration::from_secs(60));
    let mut attempt = |n, st| {
        let mut event = stage.event("n1", "nginx", n, st);
        event.why = (st == ImageState::Failed).then_some(Reason::NotFound);
        let written = writes(&stage.learn(Fact::Event(Box::new(event))));
        (written + writes(&stage.pass(Duration::from_secs(60))), told(&stage, "base").failed)
    };
    assert_eq!(attempt(2, ImageState::Warm), (1, 0));
    assert_eq!(attempt(3, ImageState::Evicted), (1, 0));
    assert_eq!(attempt(4, ImageState::Pulling), (1, 0), "what failed before it was warm is over");
    assert_eq!(attempt(5, ImageState::Failed), (1, 1));
    assert_eq!(attempt(6, ImageState::Pulling), (0, 1), "the next attempt");
    assert_eq!(attempt(7, ImageState::Failed), (0, 1), "and it failed as the one before");
    assert_eq!(attempt(8, ImageState::Pulling), (0, 1));
    assert_eq!(attempt(9, ImageState::Warm), (1, 0));
}

#[test]
fn what_a_set_lets_go_of_stays_as_long_as_anybody_else_wants_it() {
    let mut stage = with_set(LabelSettings::default(), &["nginx", "redis"]);
    stage.want("web", workload(&["nginx"]));
    stage.sets.remove(&set("base"));
    stage.learn(Fact::Set(Change::Remove(set("base"))));
    let held = stage.held(&PoolId::all());
    assert_eq!(held.keys().collect::<Vec<_>>(), [&key("nginx")]);
    stage.withdraw("web");
    assert!(stage.held(&PoolId::all()).is_empty());
}

#[test]
fn a_suspended_set_closes_what_nobody_else_wants_and_keeps_it() {
    let mut stage = with_set(LabelSettings::default(), &["nginx", "redis"]);
    stage.report("n1", 1, &[]);
    stage.pass(Duration::from_secs(60));
    let mut held = stage.sets[&set("base")].clone();
    (held.wants.is_suspended, held.generation) = (true, 2);
    apply(&mut stage, &set("base"), held);
    stage.want("web", workload(&["nginx"]));
    let open = |stage: &Stage, image: &str| stage.held(&PoolId::all())[&key(image)].wave.open;
    assert_eq!((open(&stage, "nginx"), open(&stage, "redis")), (65_536, 0));
    stage.pass(Duration::from_secs(60));
    assert!(is_labelled(&stage, "base"), "what is there is kept");
    assert_eq!(ready(&stage, "base").0, ConditionStatus::True);
}

#[rstest]
#[case::nobody_asks(&[(None, false)], None)]
#[case::one_asks(&[(Some("6h"), false), (None, false)], Some(21_600))]
#[case::the_least(&[(Some("6h"), false), (Some("1h30m"), false)], Some(5_400))]
#[case::a_suspended_one_asks_for_nothing(&[(Some("6h"), false), (Some("1m"), true)], Some(21_600))]
#[case::all_are_suspended(&[(Some("6h"), true)], None)]
#[case::what_cannot_be_used_asks_for_nothing(&[(Some("6h"), false), (Some("soon"), false), (Some("59s"), false)], Some(21_600))]
fn tags_are_looked_up_as_often_as_the_most_eager_set_asks(
    #[case] asked: &[(Option<&str>, bool)],
    #[case] expected: Option<u64>,
) {
    let pinned = format!("redis@sha256:{}", "a".repeat(64));
    let mut stage = with_set(LabelSettings::default(), &[]);
    stage.want("web", workload(&["nginx", &pinned]));
    for (n, (refresh, is_suspended)) in asked.iter().enumerate() {
        let mut wanted = wanting(&format!("s{n}"), &["nginx", &pinned]);
        (wanted.wants.refresh, wanted.wants.is_suspended) = (refresh.map(ToOwned::to_owned), *is_suspended);
        apply(&mut stage, &set(&format!("set-{n}")), wanted);
    }
    let held = stage.held(&PoolId::all());
    assert_eq!(held[&key("nginx")].refresh_sec, expected);
    assert_eq!(held[&key(&pinned)].refresh_sec, None, "what is named by its digest does not move");
}

#[test]
fn another_refresh_is_written_and_an_unusable_one_is_told_of() {
    let mut stage = with_set(LabelSettings::default(), &["nginx"]);
    let refreshed = |stage: &Stage| stage.held(&PoolId::all())[&key("nginx")].refresh_sec;
    for (generation, refresh, expected) in [(2, Some("1h"), Some(3_600)), (3, Some("2h"), Some(7_200)), (4, None, None)]
    {
        let mut wanted = wanting("s1", &["nginx"]);
        (wanted.generation, wanted.wants.refresh) = (generation, refresh.map(ToOwned::to_owned));
        apply(&mut stage, &set("base"), wanted);
        assert_eq!(refreshed(&stage), expected);
    }
    let mut bad = wanting("s1", &["nginx"]);
    (bad.generation, bad.wants.refresh) = (5, Some("30s".to_owned()));
    apply(&mut stage, &set("base"), bad);
    assert_eq!(refreshed(&stage), None);
    let status = stage.world.summary(stage.now);
    let said = status["invalid"][0]["problems"][0].as_str().unwrap_or_default();
    assert!(said.starts_with("spec.refresh: `30s` is less than a minute"), "{status}");
}

#[test]
fn only_nodes_that_a_set_is_for_are_labelled_and_counted() {
    let mut stage = with_set(LabelSettings::default(), &["nginx"]);
    stage.join("n2", tainted("u2", "gpu"));
    let mut gpu = wanting("s2", &["nginx"]);
    gpu.wants.constraint = tolerating("gpu");
    apply(&mut stage, &set("gpu"), gpu);
    stage.report("n1", 1, &[]);
    stage.report("n2", 1, &[]);
    stage.pass(Duration::from_secs(90));
    assert_eq!((told(&stage, "base").nodes, told(&stage, "gpu").nodes), (1, 2));
    let labels = stage.labels("n2");
    assert!(labels.contains_key(&set_label("ml", "gpu")) && !labels.contains_key(&set_label("ml", "base")));
    // It tolerates no more.
    let mut plain = wanting("s2", &["nginx"]);
    plain.generation = 2;
    apply(&mut stage, &set("gpu"), plain);
    stage.pass(Duration::from_secs(90));
    assert!(stage.labels("n2").is_empty() && is_labelled(&stage, "gpu"));
}

#[test]
fn a_controller_that_starts_takes_no_label_and_makes_no_status_worse() {
    let mut before = with_set(LabelSettings::default(), &["nginx"]);
    let mut event = before.event("n1", "nginx", 1, ImageState::Warm);
    event.bytes = Some(7_000);
    before.learn(Fact::Event(Box::new(event)));
    before.report("n1", 2, &[]);
    before.pass(Duration::from_secs(60));
    assert!(is_labelled(&before, "base"));
    let mut stage = Stage::with(Settings { sets: true, ..settings() });
    (stage.nodes, stage.sets) = (before.nodes.clone(), before.sets.clone());
    (stage.intents, stage.assign) = (before.intents.clone(), before.assign.clone());
    (stage.inventories, stage.created) = (before.inventories.clone(), before.created.clone());
    stage.start();
    let effects = stage.pass(Duration::from_secs(80));
    assert_eq!(writes(&effects), 0, "nobody has spoken yet: {:?}", told(&stage, "base"));
    assert!(is_labelled(&stage, "base"));
    let mut heard = stage.clone();
    heard.report("n1", 3, &[]);
    assert_eq!(writes(&heard.pass(Duration::from_secs(60))), 0, "no size has been told again");
    assert_eq!(told(&heard, "base").bytes, 7_000);
    // Silence is no news either, once it had its time: nobody vouches for it.
    stage.pass(Duration::from_secs(60));
    assert_ne!(ready(&stage, "base").0, ConditionStatus::True);
    assert!(is_labelled(&stage, "base"));
}

#[test]
fn an_image_that_comes_to_a_set_takes_its_label_until_it_is_proven() {
    let mut stage = with_set(LabelSettings::default(), &["nginx"]);
    stage.report("n1", 1, &[]);
    stage.pass(Duration::from_secs(60));
    assert!(is_labelled(&stage, "base"));
    let mut more = wanting("s1", &["nginx", "redis"]);
    (more.generation, more.status) = (2, stage.sets[&set("base")].status.clone());
    apply(&mut stage, &set("base"), more);
    stage.pass(Duration::from_secs(31));
    assert!(!is_labelled(&stage, "base"), "the label never spoke of redis");
    stage.report("n1", 2, &[]);
    stage.pass(Duration::from_secs(31));
    assert!(is_labelled(&stage, "base"));
}

#[test]
fn modes_say_what_is_labelled() {
    for (mode, of_set, of_image) in [
        (LabelMode::All, true, true),
        (LabelMode::OptedIn, true, false),
        (LabelMode::Sets, true, false),
        (LabelMode::None, false, false),
    ] {
        let mut stage = with_set(LabelSettings { mode, ..LabelSettings::default() }, &["nginx"]);
        stage.report("n1", 1, &[]);
        stage.pass(Duration::from_secs(60));
        let labels = stage.labels("n1");
        let there = (labels.contains_key(&set_label("ml", "base")), labels.contains_key(&image_label(&key("nginx"))));
        assert_eq!(there, (of_set, of_image), "{mode:?}");
        // Whoever says so by annotation has his images labelled.
        let yes = Workload { warm: Some("true".to_owned()), ..workload(&["nginx"]) };
        stage.want("web", yes);
        stage.pass(Duration::from_secs(60));
        let is_there = stage.labels("n1").contains_key(&image_label(&key("nginx")));
        assert_eq!(is_there, of_image || mode == LabelMode::OptedIn, "{mode:?}");
    }
}

#[test]
fn a_bad_reference_and_a_refused_write_spoil_only_themselves() {
    let mut stage = with_set(LabelSettings::default(), &["nginx", "Bad//Ref"]);
    stage.report("n1", 1, &[]);
    stage.faults = vec![Reason::Forbidden];
    stage.pass(Duration::from_secs(120));
    let status = told(&stage, "base");
    assert_eq!((status.desired, status.warm, status.images_total), (1, 1, 2));
    assert_eq!(ready(&stage, "base"), (ConditionStatus::False, "UnusableImages".to_owned()));
    assert!(status.images[0].image == "Bad//Ref" && !status.images[0].problem.is_empty(), "{status:?}");
    assert!(is_labelled(&stage, "base"), "what can be kept is kept");
}

#[test]
fn nothing_is_decided_before_the_sets_are_known_and_none_is_no_selection() {
    let mut stage = Stage::with(Settings { sets: true, ..settings() });
    stage.nodes.insert(name("n1"), node("u1"));
    stage.want("web", workload(&["nginx"]));
    stage.start();
    assert!(stage.held(&PoolId::all()).is_empty(), "sets are not known yet");
    stage.learn(Fact::Sets([].into()));
    assert_eq!(stage.held(&PoolId::all()).len(), 1);
    stage.learn(Fact::Selection(Selection::default()));
    assert_eq!(stage.held(&PoolId::all()).len(), 1);
}

#[test]
fn an_image_that_the_configuration_leaves_out_names_the_rule() {
    let mut stage = with_set(LabelSettings::default(), &["nginx", "evil.example/miner:1"]);
    stage.report("n1", 1, &[]);
    let exclude = serde_json::json!({ "exclude": [{ "name": "no-miners", "images": [{ "contains": "miner" }] }] });
    stage.learn(Fact::Selection(serde_json::from_value(exclude).unwrap()));
    stage.pass(Duration::from_secs(60));
    let status = told(&stage, "base");
    assert_eq!((status.desired, status.warm), (1, 1));
    assert_eq!(status.images[0].image, "evil.example/miner:1");
    assert!(status.images[0].problem.contains("select.exclude[0] \"no-miners\""), "{status:?}");
}

#[test]
fn silence_takes_no_label_be_it_of_agents_or_of_nats() {
    let mut stage = with_set(LabelSettings::default(), &["nginx"]);
    stage.report("n1", 1, &[]);
    stage.pass(Duration::from_secs(60));
    let labels = stage.labels("n1");
    assert!(is_labelled(&stage, "base") && labels.contains_key(&image_label(&key("nginx"))));
    stage.pass(Duration::from_secs(3 * 3_600));
    assert_eq!(stage.labels("n1"), labels, "the agent is lost");
    stage.tell(Fact::Disconnected);
    stage.pass(Duration::from_secs(3 * 3_600));
    assert_eq!(stage.labels("n1"), labels, "NATS is lost");
    for fact in stage.reads() {
        stage.tell(fact);
    }
    stage.tell(Fact::Connected);
    stage.pass(Duration::from_secs(3_600));
    assert_eq!(stage.labels("n1"), labels, "NATS is back, the agent is not");
    // An inventory that has expired is no word against the image either.
    stage.inventories.clear();
    stage.learn(Fact::Inventories(Vec::new()));
    stage.pass(Duration::from_secs(3_600));
    assert_eq!(stage.labels("n1"), labels, "nobody has said that it is gone");
}
