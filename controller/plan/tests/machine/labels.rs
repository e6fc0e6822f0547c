//! What Nodes come to be labelled, and how often they are patched.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_plan::fact::Change;
use cluster_plan::{Effect, Fact, LabelMode, LabelSettings, Settings};
use shared::label::{image_label, image_label_value};
use shared::reason::Reason;
use shared::state::ImageState;

use super::stage::{Stage, changes, digest, key, name, node, settings, workload};

const BY_DIGEST: &str =
    "docker.io/library/redis@sha256:0202020202020202020202020202020202020202020202020202020202020202";

fn led(labels: LabelSettings) -> Stage {
    let mut stage = Stage::with(Settings { labels, ..settings() });
    stage.nodes.insert(name("n1"), node("u1"));
    stage.want("web", workload(&["nginx", BY_DIGEST]));
    stage.start();
    stage
}

fn event(stage: &mut Stage, image: &str, n: u64, st: ImageState) -> Vec<Effect> {
    let event = stage.event("n1", image, n, st);
    stage.learn(Fact::Event(Box::new(event)))
}

fn patches(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::LabelNode { .. })).count()
}

#[test]
fn a_warm_image_is_labelled_with_the_digest_of_the_intent_or_of_the_report() {
    let mut stage = led(LabelSettings::default());
    stage.report("n1", 1, &[]);
    let expected = BTreeMap::from([
        (image_label(&key("nginx")), image_label_value(&digest(1))),
        (image_label(&key(BY_DIGEST)), image_label_value(&digest(2))),
    ]);
    assert_eq!(stage.labels("n1"), expected);
}

#[test]
fn the_first_change_goes_at_once_and_the_next_ones_together_after_the_window() {
    let mut stage = led(LabelSettings::default());
    assert_eq!(patches(&event(&mut stage, "nginx", 1, ImageState::Warm)), 1);
    assert_eq!(patches(&event(&mut stage, BY_DIGEST, 2, ImageState::Warm)), 0);
    assert_eq!(patches(&event(&mut stage, "nginx", 3, ImageState::Evicted)), 0);
    assert_eq!(patches(&stage.pass(Duration::from_millis(29_999))), 0);
    assert_eq!(patches(&stage.pass(Duration::from_millis(1))), 1);
    assert_eq!(stage.labels("n1").keys().collect::<Vec<_>>(), [&image_label(&key(BY_DIGEST))]);
    assert_eq!(patches(&stage.pass(Duration::from_secs(600))), 0);
}

#[test]
fn labels_that_come_and_go_within_the_window_cost_nothing() {
    let mut stage = led(LabelSettings::default());
    event(&mut stage, "nginx", 1, ImageState::Warm);
    event(&mut stage, BY_DIGEST, 2, ImageState::Warm);
    event(&mut stage, BY_DIGEST, 3, ImageState::Evicted);
    assert_eq!(patches(&stage.pass(Duration::from_secs(60))), 0);
}

#[test]
fn what_was_applied_is_not_sent_again_while_the_watch_lags_but_is_compared_again_in_the_end() {
    let mut stage = led(LabelSettings::default());
    stage.node_watch_hangs = true;
    assert_eq!(patches(&event(&mut stage, "nginx", 1, ImageState::Warm)), 1);
    // The watch tells of another change of the Node, seen before ours.
    let mut before = node("u1");
    before.labels.insert("zone".to_owned(), "a".to_owned());
    assert_eq!(patches(&stage.learn(Fact::Node(Change::Upsert(name("n1"), Ok(before))))), 0);
    assert_eq!(patches(&stage.pass(Duration::from_secs(59))), 0);
    assert_eq!(patches(&stage.pass(Duration::from_secs(1))), 1, "the Node never showed it");
}

#[test]
fn what_somebody_else_did_to_our_labels_is_put_right() {
    let mut stage = led(LabelSettings::default());
    event(&mut stage, "nginx", 1, ImageState::Warm);
    let ours = stage.labels("n1");
    stage.pass(Duration::from_secs(60));
    let junk = [
        (image_label(&key("nginx")), "wrong".to_owned()),
        (image_label(&key("unwanted")), "0".repeat(32)),
        ("image.warm-images.dev/junk".to_owned(), "x".to_owned()),
        ("shop.set.warm-images.dev/base".to_owned(), "warm".to_owned()),
    ];
    stage.nodes.get_mut(&name("n1")).unwrap().our_labels = junk.clone().into();
    stage.show(&name("n1"));
    assert_eq!(patches(&stage.run()), 1);
    assert_eq!(stage.labels("n1"), ours, "there is no such set either");
}

#[test]
fn a_label_without_any_evidence_is_kept_as_it_is() {
    let mut stage = Stage::new();
    let kept = BTreeMap::from([(image_label(&key("nginx")), "f".repeat(32))]);
    let labelled = cluster_plan::input::Node { our_labels: kept.clone(), ..node("u1") };
    stage.nodes.insert(name("n1"), labelled);
    stage.want("web", workload(&["nginx"]));
    stage.start();
    stage.pass(Duration::from_secs(600));
    assert_eq!(stage.labels("n1"), kept);
    event(&mut stage, "nginx", 1, ImageState::Pulling);
    assert!(stage.labels("n1").is_empty(), "until there is proof that it is not there");
}

#[test]
fn an_image_nobody_wants_any_more_loses_its_label() {
    let mut stage = led(LabelSettings::default());
    stage.report("n1", 1, &[]);
    stage.pass(Duration::from_secs(60));
    stage.want("web", workload(&["nginx"]));
    assert_eq!(stage.labels("n1").keys().collect::<Vec<_>>(), [&image_label(&key("nginx"))]);
}

#[test]
fn the_budget_keeps_the_highest_priority_and_does_not_flap_at_its_edge() {
    let mut stage = led(LabelSettings { max_per_node: 2, ..LabelSettings::default() });
    let images: Vec<String> = (0..6).map(|n| format!("registry.example/app:{n}")).collect();
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    stage.want("web", workload(&images));
    for (n, image) in images.iter().enumerate().rev() {
        event(&mut stage, image, 10 - n as u64, ImageState::Warm);
        stage.pass(Duration::from_secs(31));
    }
    let mut first = vec![image_label(&key(images[5])), image_label(&key(images[4]))];
    first.sort();
    assert_eq!(stage.labels("n1").into_keys().collect::<Vec<_>>(), first, "those that were there stay");
    let urgent = cluster_plan::input::Workload { priority: Some("90".to_owned()), ..workload(&images[..1]) };
    stage.want("urgent", urgent);
    stage.pass(Duration::from_secs(31));
    let labels = stage.labels("n1");
    assert!(labels.len() == 2 && labels.contains_key(&image_label(&key(images[0]))), "{labels:?}");
}

#[test]
fn what_has_no_room_is_counted_no_more_once_nobody_wants_it() {
    let mut stage = led(LabelSettings { max_per_node: 1, ..LabelSettings::default() });
    let beyond = |stage: &Stage| {
        let gauges = stage.world.gauges();
        gauges.iter().find(|(metric, _, _)| *metric == shared::metric::NODE_LABELS_BEYOND).map(|(_, _, n)| *n).unwrap()
    };
    stage.report("n1", 1, &[]);
    stage.pass(Duration::from_secs(60));
    assert_eq!(beyond(&stage), 1.0);
    let labelled = stage.labels("n1").into_keys().next().unwrap();
    let kept = ["nginx", BY_DIGEST].into_iter().find(|image| image_label(&key(image)) == labelled).unwrap();
    let patched = patches(&stage.want("web", workload(&[kept])));
    assert_eq!((patched, beyond(&stage)), (0, 0.0));
}

#[test]
fn the_cluster_is_patched_no_faster_than_its_rate() {
    let mut stage = Stage::with(settings());
    for n in 0..100 {
        stage.nodes.insert(name(&format!("n{n}")), node(&format!("u{n}")));
    }
    stage.want("web", workload(&["nginx"]));
    stage.start();
    let mut sent = 0;
    for n in 0..100 {
        sent += patches(&stage.report(&format!("n{n}"), 1, &[]));
    }
    assert_eq!(sent, 20);
    for _ in 0..4 {
        assert_eq!(patches(&stage.pass(Duration::from_secs(1))), 20);
    }
    assert_eq!(patches(&stage.pass(Duration::from_secs(600))), 0);
}

#[test]
fn a_failed_patch_is_tried_again_later_and_not_for_a_node_that_is_gone() {
    let mut stage = led(LabelSettings::default());
    stage.faults = vec![Reason::Timeout; 2];
    assert_eq!(patches(&event(&mut stage, "nginx", 1, ImageState::Warm)), 1);
    assert_eq!(patches(&stage.pass(Duration::from_secs(120))), 2);
    assert_eq!(stage.labels("n1").len(), 1);
    stage.faults = vec![Reason::Timeout];
    event(&mut stage, BY_DIGEST, 2, ImageState::Warm);
    stage.leave("n1");
    assert_eq!(patches(&stage.pass(Duration::from_secs(120))), 0);
}

#[test]
fn without_labels_all_of_ours_are_removed() {
    let mut stage = Stage::with(Settings {
        labels: LabelSettings { mode: LabelMode::None, ..LabelSettings::default() },
        ..settings()
    });
    let our_labels = BTreeMap::from([(image_label(&key("nginx")), "f".repeat(32))]);
    stage.nodes.insert(name("n1"), cluster_plan::input::Node { our_labels, ..node("u1") });
    stage.want("web", workload(&["nginx"]));
    stage.start();
    stage.report("n1", 1, &[]);
    assert!(stage.labels("n1").is_empty());
}

#[test]
fn a_node_that_is_leaving_is_not_patched_any_more() {
    let mut stage = led(LabelSettings::default());
    stage.report("n1", 1, &[]);
    let leaving = cluster_plan::input::Node { deleting: true, ..stage.nodes[&name("n1")].clone() };
    let effects = stage.join("n1", leaving);
    assert_eq!(patches(&effects), 0);
    assert!(!changes(&effects).is_empty(), "its assignment is emptied");
}

#[test]
fn labels_from_proof_already_there_go_on_while_nats_is_away() {
    let mut stage = led(LabelSettings::default());
    event(&mut stage, "nginx", 1, ImageState::Warm);
    event(&mut stage, BY_DIGEST, 2, ImageState::Warm);
    stage.learn(Fact::Disconnected);
    assert_eq!(patches(&stage.pass(Duration::from_secs(31))), 1);
    assert_eq!(stage.labels("n1").len(), 2);
}

#[test]
fn a_node_that_was_replaced_is_not_taken_for_the_old_one() {
    let mut stage = led(LabelSettings::default());
    stage.report("n1", 1, &[]);
    assert_eq!(stage.labels("n1").len(), 2);
    stage.join("n1", node("u2"));
    assert_eq!((stage.state("n1", "nginx"), stage.state("n1", BY_DIGEST)), (None, None));
    event(&mut stage, "nginx", 2, ImageState::Pending);
    assert_eq!(patches(&stage.pass(Duration::from_secs(31))), 0);
    assert!(stage.labels("n1").is_empty());
}

#[test]
fn what_was_applied_to_the_old_node_is_not_remembered_of_the_new_one() {
    let mut stage = led(LabelSettings::default());
    stage.node_watch_hangs = true;
    stage.report("n1", 1, &[]);
    stage.join("n1", node("u2"));
    event(&mut stage, "nginx", 2, ImageState::Warm);
    stage.pass(Duration::from_secs(31));
    assert_eq!(stage.labels("n1").keys().collect::<Vec<_>>(), [&image_label(&key("nginx"))]);
}

const HOUR: Duration = Duration::from_hours(1);

/// Judges and beats rarely, for days pass.
fn unhurried() -> Settings {
    let mut settings = settings();
    (settings.timing.judge, settings.timing.beat) = (Duration::from_secs(30), Duration::from_mins(10));
    settings
}

/// Nodes `n1` … with everything warm and labelled, and from then on silent.
fn labelled(nodes: usize) -> Stage {
    let mut stage = Stage::with(unhurried());
    for n in 1..=nodes {
        stage.nodes.insert(name(&format!("n{n}")), node(&format!("u{n}")));
    }
    stage.want("web", workload(&["nginx"]));
    stage.start();
    for n in 1..=nodes {
        stage.report(&format!("n{n}"), 1, &[]);
    }
    stage.pass(Duration::from_secs(60));
    assert_eq!(unlabelled(&stage), Vec::<String>::new());
    stage
}

fn unlabelled(stage: &Stage) -> Vec<String> {
    let bare = stage.nodes.iter().filter(|(_, node)| node.our_labels.is_empty());
    bare.map(|(name, _)| name.to_string()).collect()
}

fn reconnect(stage: &mut Stage) {
    stage.learn(Fact::Disconnected);
    for fact in stage.reads() {
        stage.tell(fact);
    }
    stage.learn(Fact::Connected);
}

#[test]
fn a_node_that_is_silent_for_a_day_loses_its_labels_one_an_hour_and_gets_them_back_when_it_is_heard() {
    let mut stage = labelled(3);
    stage.pass(Duration::from_mins(24 * 60 - 2));
    assert_eq!(unlabelled(&stage).len(), 0);
    stage.pass(Duration::from_mins(3));
    assert_eq!(unlabelled(&stage).len(), 1);
    stage.pass(Duration::from_mins(56));
    assert_eq!(unlabelled(&stage).len(), 1);
    stage.pass(Duration::from_mins(4));
    assert_eq!(unlabelled(&stage).len(), 2);
    // At rest: nothing comes back by itself, not even after a reconnect.
    reconnect(&mut stage);
    assert_eq!(patches(&stage.pass(HOUR * 20)), 0);

    let back = unlabelled(&stage).remove(0);
    stage.report(&back, 2, &[]);
    stage.pass(Duration::from_secs(60));
    assert_eq!(unlabelled(&stage).len(), 1);
    assert!(!stage.labels(&back).is_empty(), "{}", stage.world.summary(stage.now));
}

#[test]
fn silence_while_nats_is_away_or_before_the_start_counts_for_nothing() {
    let mut stage = labelled(1);
    stage.pass(HOUR * 23);
    stage.learn(Fact::Disconnected);
    stage.pass(HOUR * 48);
    assert_eq!(unlabelled(&stage).len(), 0);
    reconnect(&mut stage);
    stage.pass(HOUR * 23);
    assert_eq!(unlabelled(&stage).len(), 0);

    // Another controller, which has never heard the node.
    let mut again = Stage { intents: stage.intents.clone(), assign: stage.assign.clone(), ..Stage::with(unhurried()) };
    again.nodes = stage.nodes.clone();
    again.workloads = stage.workloads.clone();
    again.start();
    again.pass(HOUR * 23);
    assert_eq!(unlabelled(&again).len(), 0);
    again.pass(HOUR * 2);
    assert_eq!(unlabelled(&again).len(), 1);
}

#[test]
fn a_hundredth_of_a_large_fleet_loses_its_labels_in_an_hour() {
    let mut stage = labelled(400);
    stage.pass(HOUR * 25);
    let count = unlabelled(&stage).len();
    assert!((3..=5).contains(&count), "{count}");
}

#[test]
fn a_follower_that_takes_over_does_not_label_a_silent_node_again() {
    let mut stage = labelled(1);
    stage.learn(Fact::Lease(false));
    stage.pass(HOUR * 25);
    assert_eq!(unlabelled(&stage).len(), 0, "a follower writes nothing");
    // The leader has taken them away.
    stage.nodes.get_mut(&name("n1")).unwrap().our_labels.clear();
    stage.show(&name("n1"));
    stage.pass(HOUR);
    stage.learn(Fact::Lease(true));
    stage.pass(HOUR * 2);
    assert_eq!(unlabelled(&stage).len(), 1);
}
