//! What the buckets come to hold.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_plan::effect::IntentChange;
use cluster_plan::fact::{Change, IntentsDoc, Stored, StoredValue};
use cluster_plan::input::{Constraint, Namespace};
use cluster_plan::{Effect, Fact};
use shared::machine::Machine as _;
use shared::name::PoolId;
use shared::reason::Reason;
use shared::subject::IntentsKey;

use super::stage::{Bucket, Stage, changes, deployment, key, name, node, tainted, tolerating, workload};

fn led() -> Stage {
    let mut stage = Stage::new();
    stage.nodes.insert(name("n1"), node("u1"));
    stage.start();
    stage
}

fn intent_key(image: &str) -> IntentsKey {
    IntentsKey::Intent(PoolId::all(), key(image))
}

#[test]
fn a_deployment_becomes_one_intent_and_a_definition_before_it() {
    let mut stage = led();
    let effects = stage.want("web", workload(&["nginx:1.27", "docker.io/library/nginx:1.27"]));
    let Some(Effect::WriteIntents(batch)) = effects.iter().find(|e| matches!(e, Effect::WriteIntents(_))) else {
        panic!("{effects:?}")
    };
    let [definition, put] = batch.writes.as_slice() else { panic!("{batch:?}") };
    assert!(matches!(definition.write, IntentChange::PutDefinition(_)));
    let IntentChange::Put(intent) = &put.write else { panic!("{put:?}") };
    assert_eq!(intent.image, "docker.io/library/nginx:1.27");
    assert_eq!((intent.owners.as_slice(), intent.owners_total), (&["Deployment/shop/web".to_owned()][..], 1));
    assert!(intent.unqualified && intent.term == 1 && intent.priority == 50);
    assert_eq!(stage.pools("n1"), [PoolId::all()]);
}

#[test]
fn a_second_owner_or_a_restart_rewrites_nothing() {
    let mut stage = led();
    stage.want("web", workload(&["nginx:1.27"]));
    let effects = stage.want("web-2", workload(&["nginx:1.27"]));
    assert!(changes(&effects).is_empty(), "{effects:?}");
}

#[test]
fn after_everything_is_withdrawn_nothing_is_left() {
    for echo_first in [false, true] {
        let mut stage = led();
        stage.echo_first = echo_first;
        stage.want("web", workload(&["nginx:1.27", "redis"]));
        stage.want("gpu", cluster_plan::input::Workload { constraint: tolerating("gpu"), ..workload(&["cuda"]) });
        stage.join("g1", tainted("u2", "gpu"));
        for n in ["n1", "g1"] {
            stage.report(n, 5, &[]);
        }
        stage.pass(Duration::from_secs(60));
        assert_eq!((stage.labels("n1").len(), stage.labels("g1").len()), (3, 1));
        stage.withdraw("web");
        stage.withdraw("gpu");
        stage.pass(Duration::from_secs(60));
        assert_eq!(stage.intents.live().keys().collect::<Vec<_>>(), [&IntentsKey::Meta]);
        assert!(stage.labels("n1").is_empty() && stage.labels("g1").is_empty());
        assert!(stage.pools("n1").is_empty());
        assert_eq!(stage.assign.live().len(), 2);
        stage.leave("g1");
        assert_eq!(stage.assign.live().len(), 1);
        let farewells = |b: &Effect| matches!(b, Effect::PublishBeat(b) if b.count == 0);
        stage.pass(Duration::from_secs(600));
        assert_eq!(stage.log.iter().filter(|e| farewells(e)).count(), 20);
    }
}

#[test]
fn an_image_that_moves_to_another_pool_is_put_before_it_is_purged() {
    let mut stage = led();
    stage.want("web", workload(&["nginx:1.27"]));
    let effects =
        stage.want("web", cluster_plan::input::Workload { constraint: tolerating("x"), ..workload(&["nginx:1.27"]) });
    let writes: Vec<_> = effects
        .iter()
        .filter_map(|e| if let Effect::WriteIntents(b) = e { Some(b) } else { None })
        .flat_map(|b| &b.writes)
        .collect();
    let put = writes.iter().position(|w| matches!(w.write, IntentChange::Put(_))).unwrap();
    let purge = writes.iter().position(|w| matches!(w.write, IntentChange::Purge(_))).unwrap();
    assert!(put < purge);
}

#[test]
fn foreign_damaged_and_missing_keys_are_put_right() {
    let mut stage = led();
    stage.want("web", workload(&["nginx:1.27"]));
    let wanted = stage.held(&PoolId::all());
    let mut other = wanted[&key("nginx:1.27")].clone();
    other.priority = 99;
    let stray = IntentsKey::Intent(PoolId::parse("auto-0123456789").unwrap(), key("evil"));
    let cases = [
        (intent_key("nginx:1.27"), StoredValue::Value(IntentsDoc::Intent(Box::new(other.clone())))),
        (intent_key("nginx:1.27"), StoredValue::Undecodable),
        (intent_key("nginx:1.27"), StoredValue::Marker),
        (intent_key("redis"), StoredValue::Undecodable),
        (stray, StoredValue::Value(IntentsDoc::Intent(Box::new(other)))),
        (IntentsKey::Definition(PoolId::all()), StoredValue::Undecodable),
    ];
    for (key, value) in cases {
        let doc = match &value {
            StoredValue::Value(doc) => Some(doc.clone()),
            StoredValue::Newer(_) | StoredValue::Undecodable => {
                Some(IntentsDoc::Definition(serde_json::json!("damaged")))
            }
            StoredValue::Marker => None,
        };
        let seq = stage.intents.put(&key, None, doc).unwrap();
        stage.learn(Fact::IntentChanged(Stored { key: key.clone(), seq, value }));
        stage.pass(Duration::from_secs(1));
        assert_eq!(stage.held(&PoolId::all()).keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{key}");
        assert!(stage.held(&PoolId::all()).values().all(|i| i.priority == 50), "{key}");
        assert_eq!(stage.intents.live().len(), 3, "{key}");
    }
}

#[test]
fn a_foreign_assignment_is_put_right_with_a_higher_revision() {
    let mut stage = led();
    stage.want("web", workload(&["nginx:1.27"]));
    let mut forged = stage.assign.live()[&name("n1")].clone();
    forged.pools.clear();
    forged.rev = 70;
    let seq = stage.assign.put(&name("n1"), None, Some(forged.clone())).unwrap();
    stage.learn(Fact::AssignmentChanged(Stored { key: name("n1"), seq, value: StoredValue::Value(forged) }));
    let there = stage.assign.live()[&name("n1")].clone();
    assert_eq!((there.rev, there.pools), (71, vec![PoolId::all()]));
}

#[test]
fn a_marker_that_expired_unseen_is_found_out_by_the_conflict() {
    let mut stage = led();
    stage.want("web", workload(&["nginx:1.27"]));
    stage.withdraw("web");
    stage.intents.keys.remove(&intent_key("nginx:1.27"));
    stage.want("web", workload(&["nginx:1.27"]));
    assert_eq!(stage.held(&PoolId::all()).len(), 1, "the re-read is taken at once, without a wait");
}

#[test]
fn a_write_that_fails_is_tried_again_with_growing_waits() {
    let mut stage = led();
    stage.faults = vec![Reason::Timeout; 12];
    stage.want("web", workload(&["nginx:1.27"]));
    assert!(stage.held(&PoolId::all()).is_empty());
    stage.pass(Duration::from_secs(300));
    assert_eq!(stage.held(&PoolId::all()).len(), 1);
    let batches = stage.log.iter().filter(|e| matches!(e, Effect::WriteIntents(_))).count();
    assert!((3..=14).contains(&batches), "{batches}");
}

#[test]
fn six_hundred_images_go_out_in_three_batches_one_after_the_other() {
    let mut stage = led();
    let images: Vec<String> = (0..600).map(|n| format!("registry.example/app:{n}")).collect();
    let effects = stage.want("web", workload(&images.iter().map(String::as_str).collect::<Vec<_>>()));
    let batches = effects.iter().filter(|e| matches!(e, Effect::WriteIntents(_))).count();
    assert_eq!((batches, stage.held(&PoolId::all()).len()), (3, 600));
    let beat = effects.iter().rev().find_map(|e| if let Effect::PublishBeat(b) = e { Some(b.summary()) } else { None });
    assert_eq!(beat, Some(stage.summary(&PoolId::all())));
}

#[test]
fn a_beat_waits_until_the_watch_has_caught_up() {
    let mut stage = led();
    stage.tell(Fact::Workload(Change::Upsert(deployment("web"), Ok(workload(&["nginx:1.27"])))));
    let effects = stage.world.clone().step(stage.now);
    let Some(Effect::WriteIntents(batch)) = effects.into_iter().find(|e| matches!(e, Effect::WriteIntents(_))) else {
        panic!("no batch")
    };
    stage.world.step(stage.now);
    let seq = stage.intents.seq;
    let keys = [IntentsKey::Definition(PoolId::all()), intent_key("nginx:1.27")];
    let results = keys.iter().zip(seq + 1..).map(|(k, s)| (k.clone(), Ok(s))).collect();
    let deltas = [(PoolId::all(), seq + 2)].into();
    stage.world.apply(Fact::IntentsWritten { results, deltas }, stage.now);
    assert!(!stage.world.step(stage.now).iter().any(|e| matches!(e, Effect::PublishBeat(_))));
    for (write, seq) in batch.writes.into_iter().zip(seq + 1..) {
        let (key, doc) = match write.write {
            IntentChange::PutDefinition(d) => (keys[0].clone(), IntentsDoc::Definition(d)),
            IntentChange::Put(i) => (keys[1].clone(), IntentsDoc::Intent(i)),
            other => panic!("{other:?}"),
        };
        stage.world.apply(Fact::IntentChanged(Stored { key, seq, value: StoredValue::Value(doc) }), stage.now);
    }
    let beats = stage.world.step(stage.now);
    assert!(matches!(beats.as_slice(), [Effect::PublishBeat(b)] if b.head == seq + 2 && b.count == 1), "{beats:?}");
}

#[test]
fn what_was_acknowledged_without_a_delta_leaves_a_gap_for_agents_to_notice() {
    let mut stage = led();
    stage.want("web", workload(&["nginx:1.27"]));
    let acked = stage.intents.seq;
    stage.tell(Fact::Workload(Change::Upsert(deployment("more"), Ok(workload(&["redis"])))));
    let effects = stage.world.clone().step(stage.now);
    assert!(effects.iter().any(|e| matches!(e, Effect::WriteIntents(b) if b.prev[&PoolId::all()] == acked)));
    let seq = stage.intents.put(&intent_key("redis"), None, None).unwrap();
    stage.world.step(stage.now);
    let results = vec![(intent_key("redis"), Ok(seq))];
    stage.tell(Fact::IntentsWritten { results, deltas: [].into() });
    stage.tell(Fact::Workload(Change::Upsert(deployment("third"), Ok(workload(&["memcached"])))));
    let effects = stage.world.step(stage.now);
    assert!(
        effects.iter().any(|e| matches!(e, Effect::WriteIntents(b) if b.prev[&PoolId::all()] == seq)),
        "{effects:?}"
    );
}

#[test]
fn a_node_that_is_leaving_has_an_empty_assignment_and_a_virtual_one_has_none() {
    let mut stage = led();
    stage.want("web", workload(&["nginx:1.27"]));
    stage.join("n2", tainted("u2", "ToBeDeletedByClusterAutoscaler"));
    stage.join("n3", tainted("u3", "virtual-kubelet.io/provider"));
    stage.join("n4", tainted("u4", "node.kubernetes.io/unschedulable"));
    assert!(stage.assign.live().contains_key(&name("n2")) && stage.pools("n2").is_empty());
    assert!(!stage.assign.live().contains_key(&name("n3")));
    assert_eq!(stage.pools("n4"), [PoolId::all()]);
}

#[test]
fn a_node_that_cannot_be_read_keeps_its_assignment() {
    let mut stage = led();
    stage.want("web", workload(&["nginx:1.27"]));
    let mut again = Stage { intents: stage.intents.clone(), assign: stage.assign.clone(), ..Stage::new() };
    again.workloads = stage.workloads.clone();
    for mut fact in again.first_facts() {
        if let Fact::Nodes(nodes) = &mut fact {
            nodes.insert(name("n1"), Err("no metadata.uid".to_owned()));
        }
        again.tell(fact);
    }
    again.run();
    assert_eq!(again.pools("n1"), [PoolId::all()]);
}

#[test]
fn a_selector_within_all_adds_nothing_and_a_toleration_beside_all_does() {
    let mut stage = led();
    let selecting =
        Constraint { node_selector: [("disk".to_owned(), "ssd".to_owned())].into(), ..Constraint::default() };
    stage.want("web", workload(&["nginx:1.27"]));
    stage.want("ssd", cluster_plan::input::Workload { constraint: selecting, ..workload(&["nginx:1.27"]) });
    assert_eq!(stage.intents.live().len(), 3);
    assert_eq!(stage.held(&PoolId::all())[&key("nginx:1.27")].owners_total, 1, "owners are as of the last write");
    stage.want("gpu", cluster_plan::input::Workload { constraint: tolerating("gpu"), ..workload(&["nginx:1.27"]) });
    assert_eq!(stage.intents.live().len(), 5);
}

#[test]
fn a_workload_waits_for_its_namespace_which_may_opt_out() {
    let mut stage = led();
    let mut key = deployment("web");
    key.namespace = "new".to_owned();
    let effects = stage.learn(Fact::Workload(Change::Upsert(key, Ok(workload(&["nginx:1.27"])))));
    assert!(changes(&effects).is_empty());
    let namespace = |warm: Option<&str>| {
        Ok(Namespace { uid: "u".to_owned(), warm: warm.map(ToOwned::to_owned), ..Namespace::default() })
    };
    stage.learn(Fact::Namespace(Change::Upsert("new".to_owned(), namespace(Some("false")))));
    assert!(stage.held(&PoolId::all()).is_empty());
    stage.learn(Fact::Namespace(Change::Upsert("new".to_owned(), namespace(None))));
    assert_eq!(stage.held(&PoolId::all()).len(), 1);
}

#[test]
fn a_malformed_reference_spoils_only_itself_and_is_named() {
    let mut stage = led();
    stage.want("web", workload(&["nginx:1.27", "UPPER/Case::x"]));
    assert_eq!(stage.held(&PoolId::all()).len(), 1);
    let summary = stage.world.summary(stage.now);
    let invalid = &summary["invalid"][0];
    assert_eq!(invalid["name"], "Deployment/shop/web");
    assert!(invalid["problems"][0].as_str().unwrap().starts_with("containers[1]: image reference `UPPER/Case::x`"));
    let gauges = stage.world.gauges();
    let invalid = gauges.iter().find(|(m, l, _)| *m == shared::metric::OBJECTS_INVALID && l == &["Deployment"]);
    assert_eq!(invalid.map(|(_, _, n)| *n), Some(1.0));
}

#[test]
fn while_the_first_write_waits_for_its_retry_no_beat_says_that_the_pool_is_empty() {
    let mut stage = led();
    stage.faults = vec![Reason::Timeout; 2];
    let mut effects = stage.want("web", workload(&["nginx:1.27"]));
    assert_eq!(stage.held(&PoolId::all()).len(), 0, "both writes of the batch failed");
    effects.extend(stage.pass(Duration::from_mins(1)));
    let counts: Vec<u64> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::PublishBeat(beat) => Some(beat.count),
            _ => None,
        })
        .collect();
    assert!(!counts.contains(&0), "agents would believe it: {counts:?}");
    assert!(counts.contains(&1), "the retry came: {counts:?}");
}

#[test]
fn a_bucket_made_anew_unnoticed_is_given_away_by_its_sequences_and_nothing_follows_of_the_old_one() {
    let mut stage = led();
    stage.want("web", workload(&["nginx", "redis"]));
    stage.report("n1", 1, &[]);
    (stage.created, stage.intents) = ("later".to_owned(), Bucket::default());
    let effects = stage.want("db", workload(&["postgres"]));
    assert_eq!(changes(&effects).len(), 1, "it is written where the others are thought to be: {effects:?}");
    let effects = stage.withdraw("db");
    assert!(changes(&effects).is_empty(), "who knows what is there: {effects:?}");
    for fact in stage.reads() {
        stage.tell(fact);
    }
    stage.run();
    let held = stage.held(&PoolId::all());
    assert_eq!(held.keys().cloned().collect::<BTreeSet<_>>(), BTreeSet::from([key("nginx"), key("redis")]));
    assert_eq!(stage.pools("n1"), [PoolId::all()]);
}

#[test]
fn the_more_nodes_there_are_the_longer_agents_are_told_to_spread_their_reads() {
    let mut stage = Stage::new();
    for n in 0..2_500 {
        stage.nodes.insert(name(&format!("n{n}")), node(&format!("u{n}")));
    }
    stage.want("web", workload(&["nginx"]));
    stage.start();
    let told = |stage: &Stage| {
        let in_deltas =
            stage.log.iter().rev().find_map(|e| if let Effect::WriteIntents(b) = e { Some(b.spread) } else { None });
        let in_beats =
            stage.log.iter().rev().find_map(|e| if let Effect::PublishBeat(b) = e { Some(b.spread_ms) } else { None });
        (in_deltas.map(|spread| spread.as_millis()), in_beats)
    };
    assert_eq!(told(&stage), (Some(2_500), Some(2_500)));
    for n in 0..2_000 {
        stage.leave(&format!("n{n}"));
    }
    stage.want("api", workload(&["redis"]));
    stage.pass(Duration::from_secs(20));
    assert_eq!(told(&stage), (Some(1_000), Some(1_000)), "a small fleet");
}

#[test]
fn an_image_with_the_pull_secrets_of_very_many_namespaces_still_fits_into_a_message() {
    let mut stage = Stage::new();
    for n in 0..1_000 {
        let secrets = vec![format!("{}-{n:04}/{}", "n".repeat(58), "s".repeat(253))];
        stage.want(&format!("web-{n}"), cluster_plan::input::Workload { secrets, ..workload(&["nginx"]) });
    }
    stage.start();
    let held = stage.held(&PoolId::all());
    let intent = &held[&key("nginx")];
    assert_eq!((intent.secrets.len(), intent.owners.len(), intent.owners_total), (128, 16, 1_000));
    assert!(intent.secrets.iter().all(|secret| *secret < format!("{}-0128", "n".repeat(58))), "the first by name");
    let bytes = shared::message::Message::encode(intent).len();
    assert!(bytes < shared::subject::Bucket::Intents.max_message_bytes() as usize - 1_000, "{bytes}");
}
