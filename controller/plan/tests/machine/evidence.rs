//! What reports prove, and what they do not.

use std::time::Duration;

use cluster_plan::fact::{Change, Stored, StoredValue};
use cluster_plan::input::Workload;
use cluster_plan::{Effect, Fact};
use shared::machine::Changed;
use shared::message::Content;
use shared::name::PoolId;
use shared::state::ImageState::{self, Failed, Pending, Pulling, Warm};
use shared::subject::IntentsKey;

use super::stage::{Stage, changes, key, name, node, tolerating, workload};

fn led(images: &[&str]) -> Stage {
    let mut stage = Stage::new();
    stage.nodes.insert(name("n1"), node("u1"));
    stage.want("web", workload(images));
    stage.start();
    stage
}

fn heartbeat(stage: &mut Stage, n: u64) -> Vec<Effect> {
    let inventory = stage.inventories[&name("n1")].1.clone();
    let heartbeat = stage.heartbeat(&inventory, n, &[&PoolId::all()]);
    stage.learn(Fact::Heartbeat(heartbeat))
}

/// How many nodes have an agent of which this is known.
fn agent(stage: &Stage, word: &str) -> f64 {
    let gauges = stage.world.gauges();
    gauges.iter().find(|(m, l, _)| *m == shared::metric::NODES && l == &[word]).map_or(-1.0, |(_, _, n)| *n)
}

#[test]
fn nothing_is_known_before_a_report() {
    let stage = led(&["nginx"]);
    assert_eq!(stage.state("n1", "nginx"), None);
    assert_eq!(agent(&stage, "no-agent"), 1.0);
}

#[test]
fn a_report_about_the_current_set_proves_all_of_it() {
    let mut stage = led(&["nginx", "redis"]);
    stage.report("n1", 1, &["redis"]);
    assert_eq!(stage.state("n1", "nginx"), Some(Warm));
    assert_eq!(stage.state("n1", "redis"), Some(Failed));
}

#[test]
fn only_what_is_listed_is_warm_in_a_list_of_the_warm() {
    let mut stage = led(&["nginx", "redis"]);
    let mut inventory = stage.inventory("n1", 1, &[]);
    inventory.content = Content::WarmIds(vec![key("nginx")]);
    stage.put(inventory);
    assert_eq!((stage.state("n1", "nginx"), stage.state("n1", "redis")), (Some(Warm), Some(Pending)));
}

#[test]
fn an_incomplete_report_proves_only_what_it_lists() {
    for content in [Content::WarmIds(vec![key("nginx")]), Content::Except(vec![])] {
        let mut stage = led(&["nginx", "redis"]);
        let mut inventory = stage.inventory("n1", 1, &[]);
        let listed = matches!(content, Content::WarmIds(_)).then_some(Warm);
        (inventory.content, inventory.complete) = (content, false);
        stage.put(inventory);
        assert_eq!((stage.state("n1", "nginx"), stage.state("n1", "redis")), (listed, None));
    }
}

#[test]
fn what_a_report_had_no_room_for_is_neither_warm_nor_gone() {
    let images = ["nginx", "redis", "mysql", "etcd"];
    let cut = |stage: &Stage, n| {
        let mut inventory = stage.inventory("n1", n, &["redis"]);
        let Content::Except(not_warm) = inventory.content else { panic!("exceptions") };
        inventory.content = Content::WarmIds(vec![key("nginx")]);
        inventory.digests.retain(|id, _| *id == key("nginx"));
        (inventory.not_warm, inventory.left_out, inventory.complete) = (not_warm, 2, false);
        inventory
    };
    let states = |stage: &Stage| images.map(|image| stage.state("n1", image));

    // Nothing was known: nothing is known of what was left out.
    let mut stage = led(&images);
    let inventory = cut(&stage, 1);
    stage.put(inventory);
    assert_eq!(states(&stage), [Some(Warm), Some(Failed), None, None]);

    // What was known stays as it was last proven, until somebody speaks of it.
    let mut stage = led(&images);
    stage.report("n1", 1, &["etcd"]);
    assert_eq!(states(&stage), [Some(Warm), Some(Warm), Some(Warm), Some(Failed)]);
    let inventory = cut(&stage, 2);
    stage.put(inventory);
    heartbeat(&mut stage, 3);
    assert_eq!(states(&stage), [Some(Warm), Some(Failed), Some(Warm), Some(Failed)]);
    let event = stage.event("n1", "mysql", 4, ImageState::Evicted);
    stage.learn(Fact::Event(Box::new(event)));
    assert_eq!(states(&stage), [Some(Warm), Some(Failed), Some(ImageState::Evicted), Some(Failed)]);

    // A report with room for everything covers everything again.
    stage.report("n1", 5, &[]);
    assert_eq!(states(&stage), [Some(Warm); 4]);
}

#[test]
fn a_report_about_an_earlier_set_says_nothing_about_what_came_since() {
    let mut stage = led(&["nginx"]);
    let report = stage.inventory("n1", 1, &[]);
    stage.want("more", workload(&["redis"]));
    stage.put(report);
    assert_eq!((stage.state("n1", "nginx"), stage.state("n1", "redis")), (Some(Warm), None));
}

#[test]
fn a_report_about_a_set_that_comes_later_waits_for_it() {
    let mut stage = led(&["nginx"]);
    let mut early = stage.inventory("n1", 1, &[]);
    let mut after = stage.clone();
    after.want("more", workload(&["redis"]));
    early.pools = after.inventory("n1", 1, &[]).pools;
    stage.put(early);
    assert_eq!(stage.state("n1", "nginx"), None);
    stage.want("more", workload(&["redis"]));
    assert_eq!((stage.state("n1", "nginx"), stage.state("n1", "redis")), (Some(Warm), Some(Warm)));
}

#[test]
fn a_report_about_a_set_that_never_was_proves_nothing() {
    let mut stage = led(&["nginx"]);
    let mut report = stage.inventory("n1", 1, &[]);
    report.pools.values_mut().for_each(|p| p.digest.0 ^= 1);
    stage.put(report);
    assert_eq!(stage.state("n1", "nginx"), None);
    assert!(stage.labels("n1").is_empty());
}

#[test]
fn what_was_withdrawn_and_wanted_again_must_be_proven_again() {
    let mut stage = led(&["nginx", "redis"]);
    stage.report("n1", 1, &[]);
    let old = stage.inventories[&name("n1")].1.clone();
    stage.want("web", workload(&["redis"]));
    stage.want("web", workload(&["nginx", "redis"]));
    assert_eq!((stage.state("n1", "nginx"), stage.state("n1", "redis")), (None, Some(Warm)));
    stage.put(shared::message::Inventory { n: 2, ..old });
    assert_eq!(stage.state("n1", "nginx"), None, "the old set speaks of the withdrawn intent");
    stage.report("n1", 3, &[]);
    assert_eq!(stage.state("n1", "nginx"), Some(Warm));
}

#[test]
fn the_newer_of_event_and_report_counts() {
    let mut stage = led(&["nginx"]);
    let event = |stage: &Stage, n, st| Fact::Event(Box::new(stage.event("n1", "nginx", n, st)));
    let fact = event(&stage, 1, Pulling);
    stage.learn(fact);
    assert_eq!(stage.state("n1", "nginx"), Some(Pulling));
    let late_report = stage.inventory("n1", 2, &["nginx"]);
    let fact = event(&stage, 3, Warm);
    stage.learn(fact);
    stage.put(late_report);
    assert_eq!(stage.state("n1", "nginx"), Some(Warm), "an older report does not undo an event");
    let fact = event(&stage, 2, Failed);
    assert_eq!(stage.tell(fact), Changed::No);
    assert_eq!(stage.state("n1", "nginx"), Some(Warm), "nor does an older event");
    stage.report("n1", 4, &["nginx"]);
    assert_eq!(stage.state("n1", "nginx"), Some(Failed), "a newer report does");
}

#[test]
fn a_heartbeat_that_confirms_the_report_settles_events_before_it() {
    let mut stage = led(&["nginx"]);
    stage.report("n1", 1, &[]);
    let fact = Fact::Event(Box::new(stage.event("n1", "nginx", 2, ImageState::Evicted)));
    stage.learn(fact);
    assert_eq!(stage.state("n1", "nginx"), Some(ImageState::Evicted));
    heartbeat(&mut stage, 4);
    assert_eq!(stage.state("n1", "nginx"), Some(Warm), "the event that said it is warm again was lost");
}

#[test]
fn events_for_another_node_object_an_old_run_or_an_unwanted_image_are_dropped() {
    let mut stage = led(&["nginx"]);
    stage.report("n1", 5, &["nginx"]);
    let good = stage.event("n1", "nginx", 9, Warm);
    let mut other_uid = good.clone();
    other_uid.uid = "u0".to_owned();
    let mut old_run = good.clone();
    (old_run.inst, old_run.n) = ("run-0".to_owned(), 4);
    let mut unwanted = good.clone();
    unwanted.id = key("redis");
    let mut nowhere = good.clone();
    nowhere.node = name("n9");
    let event = |e| Fact::Event(Box::new(e));
    // A silent node is believed whatever its counter; this one is heard.
    heartbeat(&mut stage, 5);
    for bad in [other_uid, old_run, unwanted, nowhere] {
        assert_eq!(stage.tell(event(bad.clone())), Changed::No, "{bad:?}");
    }
    assert_eq!(stage.state("n1", "nginx"), Some(Failed));
    let mut no_uid = good;
    no_uid.uid.clear();
    assert_eq!(stage.tell(event(no_uid)), Changed::Yes);
}

#[test]
fn an_event_is_believed_before_our_own_write_is_acknowledged() {
    use shared::machine::Machine as _;
    let mut stage = led(&[]);
    stage.tell(Fact::Workload(Change::Upsert(super::stage::deployment("more"), Ok(workload(&["redis"])))));
    stage.world.step(stage.now);
    let fact = Fact::Event(Box::new(stage.event("n1", "redis", 1, Warm)));
    assert_eq!(stage.tell(fact), Changed::Yes);
    let effects = stage.world.step(stage.now);
    assert!(matches!(effects.as_slice(), [Effect::LabelNode { labels, .. }] if labels.len() == 1), "{effects:?}");
}

#[test]
fn a_node_object_of_another_uid_has_no_evidence_and_the_old_report_proves_nothing() {
    let mut stage = led(&["nginx"]);
    stage.report("n1", 1, &[]);
    stage.join("n1", node("u2"));
    assert_eq!(stage.state("n1", "nginx"), None);
    assert!(stage.labels("n1").is_empty());
    heartbeat(&mut stage, 2);
    assert_eq!(stage.state("n1", "nginx"), None);
    let asked = heartbeat(&mut stage, 3);
    assert!(asked.contains(&Effect::RequestInventory(name("n1"))), "the agent does not know that it must report");
    stage.report("n1", 4, &[]);
    assert_eq!(stage.state("n1", "nginx"), Some(Warm));
}

#[test]
fn fifty_moves_of_an_intent_over_a_hundred_warm_nodes_cost_nothing() {
    let mut stage = Stage::new();
    let names: Vec<String> = (0..100).map(|n| format!("n{n}")).collect();
    for node_name in &names {
        stage.nodes.insert(name(node_name), node(&format!("u-{node_name}")));
    }
    stage.want("web", workload(&["nginx", "redis"]));
    stage.start();
    for node_name in &names {
        stage.report(node_name, 1, &[]);
    }
    stage.pass(Duration::from_secs(60));
    let labels = stage.nodes.clone();
    assert!(labels.values().all(|n| n.our_labels.len() == 2));
    let start = stage.log.len();
    for step in 0..50_u64 {
        let priority = Some((step % 40).to_string());
        stage.want("web", cluster_plan::input::Workload { priority, ..workload(&["nginx", "redis"]) });
        for node_name in &names {
            let inventory = stage.inventories[&name(node_name)].1.clone();
            let heartbeat = stage.heartbeat(&inventory, step + 2, &[&PoolId::all()]);
            stage.tell(Fact::Heartbeat(heartbeat));
        }
        stage.pass(Duration::from_secs(30));
        assert_eq!(stage.world.table().iter().filter(|r| r.state == Some(Warm)).count(), 200);
    }
    let is_cheap = |e: &Effect| matches!(e, Effect::WriteIntents(_) | Effect::PublishBeat(_));
    assert!(stage.log[start..].iter().all(is_cheap));
    assert_eq!(stage.nodes, labels);
    assert_eq!(agent(&stage, "ready"), 100.0);
}

#[test]
fn three_missed_heartbeats_make_a_node_unknown_and_take_nothing_away() {
    let mut stage = led(&["nginx"]);
    stage.report("n1", 1, &[]);
    heartbeat(&mut stage, 1);
    stage.pass(Duration::from_secs(10));
    assert_eq!(agent(&stage, "ready"), 1.0);
    let labels = stage.labels("n1");
    stage.pass(Duration::from_secs(80));
    assert_eq!(agent(&stage, "ready"), 1.0);
    let effects = stage.pass(Duration::from_secs(3600));
    assert_eq!(agent(&stage, "unknown"), 1.0);
    assert!(changes(&effects).is_empty());
    assert_eq!((stage.labels("n1"), stage.state("n1", "nginx")), (labels, Some(Warm)));
    heartbeat(&mut stage, 1);
    stage.pass(Duration::from_secs(10));
    assert_eq!(agent(&stage, "ready"), 1.0);
}

#[test]
fn a_heartbeat_alone_needs_no_step() {
    let mut stage = led(&["nginx"]);
    stage.report("n1", 1, &[]);
    let inventory = stage.inventories[&name("n1")].1.clone();
    let heartbeat = stage.heartbeat(&inventory, 1, &[]);
    assert_eq!(stage.tell(Fact::Heartbeat(heartbeat)), Changed::No);
}

#[test]
fn an_inventory_that_heartbeats_contradict_twice_is_asked_for() {
    let mut stage = led(&["nginx"]);
    stage.report("n1", 1, &[]);
    let inventory = stage.inventories[&name("n1")].1.clone();
    let mut other = stage.heartbeat(&inventory, 2, &[]);
    other.inv_digest.0 ^= 1;
    let asks = |effects: Vec<Effect>| effects.contains(&Effect::RequestInventory(name("n1")));
    assert!(!asks(stage.learn(Fact::Heartbeat(other.clone()))));
    stage.report("n1", 3, &[]);
    other.n = 4;
    assert!(!asks(stage.learn(Fact::Heartbeat(other.clone()))), "an inventory came between");
    assert!(asks(stage.learn(Fact::Heartbeat(other.clone()))));
    assert!(!asks(stage.learn(Fact::Heartbeat(other))));
    assert_eq!(stage.state("n1", "nginx"), Some(Warm));
}

#[test]
fn a_lost_counter_is_forgiven_once_the_node_has_been_silent() {
    let mut stage = led(&["nginx"]);
    stage.report("n1", 1_000, &[]);
    let mut fresh = stage.inventory("n1", 1, &["nginx"]);
    fresh.inst = "run-2".to_owned();
    stage.put(fresh.clone());
    assert_eq!(stage.state("n1", "nginx"), Some(Warm));
    stage.pass(Duration::from_secs(100));
    stage.put(fresh);
    assert_eq!(stage.state("n1", "nginx"), Some(Failed));
}

#[test]
fn inventories_found_at_start_are_evidence_once_a_heartbeat_confirms_them_and_until_then_labels_stay() {
    let mut stage = led(&["nginx"]);
    stage.report("n1", 1, &[]);
    let mut again = Stage { intents: stage.intents.clone(), assign: stage.assign.clone(), ..Stage::new() };
    again.inventories = stage.inventories.clone();
    again.nodes = stage.nodes.clone();
    again.workloads = stage.workloads.clone();
    again.start();
    assert_eq!(again.state("n1", "nginx"), None, "its agent may have said something else since");
    assert_eq!(agent(&again, "unknown"), 1.0);
    assert_eq!(again.labels("n1"), stage.labels("n1"));
    heartbeat(&mut again, 1);
    assert_eq!(again.state("n1", "nginx"), Some(Warm));
    assert_eq!(again.labels("n1"), stage.labels("n1"));
}

#[test]
fn an_expired_or_damaged_inventory_takes_nothing_away_and_is_asked_for_again() {
    for value in [StoredValue::Undecodable, StoredValue::Marker] {
        let mut stage = led(&["nginx"]);
        stage.report("n1", 1, &[]);
        let effects = stage.learn(Fact::InventoryChanged(Stored { key: name("n1"), seq: 99, value }));
        assert!(changes(&effects).is_empty());
        assert_eq!(stage.state("n1", "nginx"), Some(Warm));
        heartbeat(&mut stage, 1);
        assert!(heartbeat(&mut stage, 1).contains(&Effect::RequestInventory(name("n1"))));
    }
}

#[test]
fn a_wiped_nats_takes_no_label_away_and_evidence_comes_with_the_next_report() {
    let mut stage = led(&["nginx"]);
    stage.report("n1", 1, &[]);
    let labels = stage.labels("n1");
    stage.learn(Fact::Disconnected);
    stage.intents = super::stage::Bucket::default();
    stage.assign = super::stage::Bucket::default();
    stage.inventories.clear();
    stage.created = "2027-01-01T00:00:00Z".to_owned();
    for fact in stage.reads() {
        stage.tell(fact);
    }
    stage.learn(Fact::Connected);
    stage.pass(Duration::from_secs(60));
    assert_eq!((stage.labels("n1"), stage.state("n1", "nginx")), (labels.clone(), None));
    stage.report("n1", 2, &[]);
    assert_eq!((stage.labels("n1"), stage.state("n1", "nginx")), (labels, Some(Warm)));
}

/// Wanted by two workloads under two constraints, both of which the node meets.
fn in_two_pools() -> (Stage, [IntentsKey; 2]) {
    let mut stage = led(&["nginx"]);
    stage.want("gpu", Workload { constraint: tolerating("gpu"), ..workload(&["nginx"]) });
    stage.report("n1", 1, &[]);
    assert_eq!(stage.state("n1", "nginx"), Some(Warm));
    let keys: Vec<_> = stage.intents.live().into_keys().filter(|k| matches!(k, IntentsKey::Intent(..))).collect();
    (stage, keys.try_into().unwrap())
}

#[test]
fn an_image_that_changes_pools_without_a_break_stays_proven() {
    let (mut stage, _) = in_two_pools();
    stage.withdraw("web");
    assert_eq!(stage.state("n1", "nginx"), Some(Warm));
    stage.want("web", workload(&["nginx"]));
    stage.withdraw("gpu");
    assert_eq!(stage.state("n1", "nginx"), Some(Warm));
    stage.withdraw("web");
    stage.want("web", workload(&["nginx"]));
    assert_eq!(stage.state("n1", "nginx"), None);
}

#[test]
fn an_image_that_was_wanted_in_no_pool_for_a_moment_must_be_proven_again() {
    let (mut stage, [one, two]) = in_two_pools();
    let doc = stage.intents.live().remove(&two);
    for (key, doc) in [(&two, None), (&one, None), (&two, doc)] {
        stage.intents.put(key, None, doc).unwrap();
        let stored = stage.intents.stored(key);
        stage.tell(Fact::IntentChanged(stored));
    }
    stage.run();
    assert_eq!(stage.state("n1", "nginx"), None);
}
