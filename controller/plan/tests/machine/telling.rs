//! What people are told of workloads whose images fail: once, with the reason, not as news what is old, and of the recovery.

use std::time::Duration;

use cluster_plan::effect::{Notice, WorkloadEvent};
use cluster_plan::fact::Change;
use cluster_plan::{Effect, EventSettings, Fact, Settings};
use shared::message::{Event, Inventory};
use shared::reason::Reason;
use shared::state::ImageState;

use super::stage::{Stage, deployment, name, node, settings, tolerating, workload};

const IMAGE: &str = "registry.example/team/web:1";

fn with(events: EventSettings) -> Stage {
    let mut stage = Stage::with(Settings { events, ..settings() });
    for (n, uid) in [("n1", "u1"), ("n2", "u2")] {
        stage.nodes.insert(name(n), node(uid));
    }
    stage.want("web", workload(&[IMAGE, "nginx"]));
    stage
}

fn led() -> Stage {
    let mut stage = with(EventSettings::default());
    stage.start();
    stage
}

fn events(effects: &[Effect]) -> Vec<WorkloadEvent> {
    let posted = |e: &Effect| if let Effect::PostEvent(event) = e { Some((**event).clone()) } else { None };
    effects.iter().filter_map(posted).collect()
}

fn said(effects: &[Effect]) -> Vec<Notice> {
    events(effects).into_iter().map(|event| event.notice).collect()
}

fn fails(stage: &mut Stage, node: &str, n: u64, why: Reason) -> Vec<Effect> {
    fails_at(stage, node, n, why, 1)
}

fn fails_at(stage: &mut Stage, node: &str, n: u64, why: Reason, attempt: u32) -> Vec<Effect> {
    let event = stage.event(node, IMAGE, n, ImageState::Failed);
    stage.learn(Fact::Event(Box::new(Event { why: Some(why), r#try: Some(attempt), ..event })))
}

fn becomes(stage: &mut Stage, node: &str, n: u64, st: ImageState) -> Vec<Effect> {
    let event = stage.event(node, IMAGE, n, st);
    stage.learn(Fact::Event(Box::new(event)))
}

/// Agents say the same for so long, with a heartbeat every 30 s.
fn hold(stage: &mut Stage, inventories: &[Inventory], n: &mut u64, time: Duration) -> Vec<Effect> {
    let mut effects = Vec::new();
    for _ in 0..time.as_secs() / 30 {
        effects.extend(stage.pass(Duration::from_secs(30)));
        *n += 1;
        for inventory in inventories {
            effects.extend(stage.learn(Fact::Heartbeat(stage.heartbeat(inventory, *n, &[]))));
        }
    }
    effects
}

#[test]
fn a_failure_is_told_once_after_a_while_with_reason_and_nodes_and_then_the_recovery() {
    let mut stage = led();
    stage.report("n1", 1, &[]);
    stage.report("n2", 1, &[]);
    assert!(said(&fails(&mut stage, "n1", 2, Reason::NotFound)).is_empty());
    let effects = stage.pass(Duration::from_secs(5));
    assert!(said(&effects).is_empty(), "not at once: {effects:?}");
    let told = events(&stage.pass(Duration::from_secs(15)));
    assert_eq!(told.len(), 1, "{told:?}");
    let event = &told[0];
    assert_eq!((&event.workload, event.notice), (&deployment("web"), Notice::Failed(Reason::NotFound)));
    for part in [IMAGE, "1 of 2 nodes", "n1", "not-found"] {
        assert!(event.note.contains(part), "{part} is missing: {}", event.note);
    }
    // It goes on: tried again and again, and on another node too.
    for n in 3..40 {
        becomes(&mut stage, "n1", 2 * n, ImageState::Pulling);
        let mut effects = fails_at(&mut stage, "n1", 2 * n + 1, Reason::NotFound, 2);
        effects.extend(fails(&mut stage, "n2", n, Reason::NotFound));
        effects.extend(stage.pass(Duration::from_secs(10)));
        assert!(said(&effects).is_empty(), "again: {effects:?}");
    }
    becomes(&mut stage, "n1", 100, ImageState::Warm);
    assert!(said(&stage.pass(Duration::from_secs(20))).is_empty(), "it still fails on one");
    becomes(&mut stage, "n2", 100, ImageState::Pulling);
    assert!(said(&stage.pass(Duration::from_secs(20))).is_empty(), "not yet warm everywhere");
    becomes(&mut stage, "n2", 101, ImageState::Warm);
    let told = events(&stage.pass(Duration::from_secs(10)));
    assert_eq!(told.iter().map(|e| e.notice).collect::<Vec<_>>(), [Notice::Recovered]);
    assert!(told[0].note.contains("all of its 2 nodes"), "{}", told[0].note);
    assert!(said(&stage.pass(Duration::from_secs(7_200))).is_empty());
}

#[test]
fn a_failure_that_passes_at_once_is_not_told() {
    let mut stage = led();
    stage.report("n1", 1, &[]);
    stage.report("n2", 1, &[]);
    fails(&mut stage, "n1", 2, Reason::Network);
    stage.pass(Duration::from_secs(4));
    becomes(&mut stage, "n1", 3, ImageState::Warm);
    assert!(said(&stage.pass(Duration::from_secs(600))).is_empty());
}

#[test]
fn what_failed_before_the_start_is_no_news_but_its_recovery_is() {
    let mut first = led();
    let failing = [first.inventory("n1", 1, &[IMAGE]), first.inventory("n2", 1, &[IMAGE])];
    for inventory in &failing {
        first.put(inventory.clone());
    }
    // Another process begins with what the buckets hold.
    let mut stage = with(EventSettings::default());
    (stage.intents, stage.assign) = (first.intents.clone(), first.assign.clone());
    stage.inventories.clone_from(&first.inventories);
    stage.start();
    stage.pass(Duration::from_secs(10));
    let mut n = 1;
    let effects = hold(&mut stage, &failing, &mut n, Duration::from_secs(1_800));
    assert_eq!(stage.state("n1", IMAGE), Some(ImageState::Failed), "it is known");
    assert!(said(&effects).is_empty(), "old news: {:?}", events(&effects));
    // An agent tries again: that is no news either.
    let again = fails_at(&mut stage, "n1", 1_000, Reason::NotFound, 7);
    assert!(said(&again).is_empty() && said(&stage.pass(Duration::from_secs(60))).is_empty());
    becomes(&mut stage, "n1", 1_001, ImageState::Warm);
    becomes(&mut stage, "n2", 1_001, ImageState::Warm);
    assert_eq!(said(&stage.pass(Duration::from_secs(10))), [Notice::Recovered]);
}

#[test]
fn a_first_attempt_that_fails_right_after_the_start_is_news() {
    let mut stage = led();
    fails(&mut stage, "n1", 2, Reason::Unauthorized);
    assert_eq!(said(&stage.pass(Duration::from_secs(20))), [Notice::Failed(Reason::Unauthorized)]);
}

#[test]
fn news_right_after_the_start_stays_news_though_an_inventory_or_another_attempt_follows_at_once() {
    let mut stage = led();
    fails(&mut stage, "n1", 2, Reason::NotFound);
    fails_at(&mut stage, "n1", 3, Reason::NotFound, 2);
    stage.report("n1", 4, &[IMAGE]);
    stage.report("n2", 1, &[]);
    assert_eq!(said(&stage.pass(Duration::from_secs(20))), [Notice::Failed(Reason::NotFound)]);
}

#[test]
fn a_failure_that_goes_on_is_told_again_before_api_servers_forget_it() {
    let mut stage = led();
    fails(&mut stage, "n1", 2, Reason::NotFound);
    assert_eq!(said(&stage.pass(Duration::from_secs(20))).len(), 1);
    let told = events(&stage.pass(Duration::from_secs(51 * 60)));
    assert_eq!(told.iter().map(|e| (e.notice, e.count)).collect::<Vec<_>>(), [(Notice::Failed(Reason::NotFound), 2)]);
}

#[test]
fn what_fails_again_and_again_is_told_at_most_every_tenth_minute_or_so() {
    let mut stage = led();
    stage.report("n1", 1, &[]);
    stage.report("n2", 1, &[]);
    let mut told = Vec::new();
    for n in 0..60 {
        fails(&mut stage, "n1", 10 + 2 * n, Reason::Network);
        told.extend(said(&stage.pass(Duration::from_secs(30))));
        becomes(&mut stage, "n1", 11 + 2 * n, ImageState::Warm);
        told.extend(said(&stage.pass(Duration::from_secs(30))));
    }
    let failures = told.iter().filter(|n| matches!(n, Notice::Failed(_))).count();
    // An hour, with 50 / 6 minutes between two.
    assert!((5..=8).contains(&failures), "{failures} of {told:?}");
    assert!(told.len() <= 2 * failures, "{told:?}");
}

#[test]
fn never_more_than_so_many_a_minute_over_all_workloads_and_the_rest_waits_and_is_counted() {
    let mut stage = with(EventSettings { per_minute: 3, ..EventSettings::default() });
    for i in 0..10 {
        stage.want(&format!("w{i}"), workload(&[IMAGE]));
    }
    stage.start();
    fails(&mut stage, "n1", 2, Reason::NotFound);
    let mut told = Vec::new();
    for minute in 0..4 {
        let now = events(&stage.pass(Duration::from_secs(60)));
        assert!(now.len() <= 3, "{} in minute {minute}", now.len());
        told.extend(now.into_iter().map(|e| e.workload));
    }
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 11, "everybody is told in the end, once: {told:?}");
    let summary = stage.world.summary(stage.now);
    assert_eq!((&summary["events"]["limited"], &summary["events"]["waiting"]), (&8.into(), &0.into()));
}

#[test]
fn an_event_that_could_not_be_posted_is_tried_again_and_one_that_is_refused_is_not() {
    for (reason, again) in [(Reason::KubernetesUnavailable, 1), (Reason::LeaseLost, 1), (Reason::Forbidden, 0)] {
        let mut stage = led();
        fails(&mut stage, "n1", 2, Reason::NotFound);
        stage.faults = vec![reason];
        let told = said(&stage.pass(Duration::from_secs(120)));
        assert_eq!(told.len(), 1 + again, "{reason}: {told:?}");
    }
}

#[test]
fn a_workload_is_told_only_of_its_own_nodes() {
    let mut stage = led();
    // In no pool of its own: all it wants is wanted everywhere.
    let mut elsewhere = workload(&[IMAGE]);
    elsewhere.constraint.node_name = Some("n2".to_owned());
    stage.want("elsewhere", elsewhere);
    let mut everywhere = workload(&[IMAGE]);
    everywhere.constraint = tolerating("gpu");
    stage.want("everywhere", everywhere);
    fails(&mut stage, "n1", 2, Reason::NotFound);
    let mut told: Vec<String> =
        events(&stage.pass(Duration::from_secs(30))).into_iter().map(|e| e.workload.name).collect();
    told.sort();
    assert_eq!(told, ["everywhere", "web"]);
}

#[test]
fn who_does_not_lead_says_nothing_and_takes_old_failures_for_told_when_it_leads() {
    let mut stage = led();
    stage.learn(Fact::Lease(false));
    fails(&mut stage, "n1", 2, Reason::NotFound);
    assert!(said(&stage.pass(Duration::from_secs(600))).is_empty());
    fails(&mut stage, "n2", 2, Reason::NotFound);
    let web = |e: &WorkloadEvent| e.workload == deployment("web");
    let mut effects = stage.learn(Fact::Lease(true));
    effects.extend(stage.pass(Duration::from_secs(60)));
    assert!(!events(&effects).iter().any(web), "told by whoever led: {:?}", events(&effects));
}

#[test]
fn a_workload_that_is_gone_or_opts_out_is_told_nothing_more() {
    let mut stage = led();
    fails(&mut stage, "n1", 2, Reason::NotFound);
    assert_eq!(said(&stage.pass(Duration::from_secs(20))).len(), 1);
    stage.withdraw("web");
    assert!(said(&stage.pass(Duration::from_secs(7_200))).is_empty());
}

#[test]
fn turned_off_nobody_is_told_anything() {
    for events in [
        EventSettings { enabled: false, ..EventSettings::default() },
        EventSettings { per_minute: 0, ..EventSettings::default() },
    ] {
        let mut stage = with(events);
        stage.start();
        fails(&mut stage, "n1", 2, Reason::NotFound);
        assert!(said(&stage.pass(Duration::from_secs(600))).is_empty());
    }
}

#[test]
fn what_cannot_be_used_of_a_workload_is_told_on_it_once_until_it_is_other() {
    let mut stage = led();
    stage.report("n1", 1, &[]);
    stage.report("n2", 1, &[]);
    // The first look: what is wrong already when a controller begins was told by whoever was there before.
    stage.pass(Duration::from_secs(10));
    let deploy = |stage: &mut Stage, images: &[&str]| {
        stage.learn(Fact::Workload(Change::Upsert(deployment("odd"), Ok(workload(images)))))
    };
    deploy(&mut stage, &["nginx", "Bad//Ref"]);
    let told = events(&stage.pass(Duration::from_secs(30)));
    assert_eq!(
        told.iter().map(|e| (&e.workload, e.notice)).collect::<Vec<_>>(),
        [(&deployment("odd"), Notice::Unusable)]
    );
    assert!(told[0].note.contains("containers[1]"), "{}", told[0].note);
    let posted = |event: &WorkloadEvent| Fact::EventPosted {
        workload: event.workload.clone(),
        id: event.id.clone(),
        result: Ok(()),
    };
    stage.learn(posted(&told[0]));
    assert!(said(&stage.pass(Duration::from_mins(5))).is_empty(), "said already");
    deploy(&mut stage, &["Worse//Ref"]);
    let told = events(&stage.pass(Duration::from_mins(10)));
    assert_eq!(told.iter().map(|e| e.notice).collect::<Vec<_>>(), [Notice::Unusable], "other words are news");
    deploy(&mut stage, &["nginx"]);
    assert!(said(&stage.pass(Duration::from_hours(2))).is_empty());
}

#[test]
fn what_could_not_be_used_when_a_controller_began_is_no_news() {
    let mut stage = with(EventSettings::default());
    stage.want("odd", workload(&["Bad//Ref"]));
    stage.start();
    assert!(said(&stage.pass(Duration::from_mins(10))).is_empty());
}
