//! Who writes.

use std::time::Duration;

use cluster_plan::fact::{Change, IntentsDoc, Newer, Stored, StoredValue};
use cluster_plan::{Effect, Fact};
use shared::machine::Machine as _;
use shared::message::Meta;
use shared::name::PoolId;
use shared::reason::Reason;
use shared::subject::IntentsKey;

use super::stage::{CLUSTER, Stage, changes, deployment, name, node, workload};

fn led() -> Stage {
    let mut stage = Stage::new();
    stage.nodes.insert(name("n1"), node("u1"));
    stage.want("web", workload(&["nginx:1.27"]));
    stage.start();
    stage
}

fn meta(term: u64, cluster: &str) -> Meta {
    Meta {
        epoch: "epoch-0".to_owned(),
        term,
        cluster: cluster.to_owned(),
        stream_created: "2026-01-01T00:00:00Z".to_owned(),
        by: "pod-b".to_owned(),
    }
}

fn reconnect(stage: &mut Stage) -> Vec<Effect> {
    stage.learn(Fact::Disconnected);
    for fact in stage.reads() {
        stage.tell(fact);
    }
    stage.learn(Fact::Connected)
}

#[test]
fn buckets_of_another_cluster_are_left_alone_and_both_are_named() {
    let mut stage = Stage::new();
    stage.want("web", workload(&["nginx:1.27"]));
    stage.intents.put(&IntentsKey::Meta, None, Some(IntentsDoc::Meta(meta(4, "other-uid")))).unwrap();
    stage.start();
    stage.pass(Duration::from_secs(600));
    assert!(stage.log.is_empty(), "{:?}", stage.log);
    let text = stage.world.readiness().unwrap_err();
    assert!(text.contains("other-uid") && text.contains(CLUSTER) && text.contains("cluster id"), "{text}");
}

#[test]
fn the_epoch_is_kept_while_the_stream_is_the_same_and_is_new_otherwise() {
    for (created, epoch) in [("2026-01-01T00:00:00Z", "epoch-0"), ("2026-02-02T00:00:00Z", "epoch-1")] {
        let mut stage = Stage::new();
        stage.created = created.to_owned();
        stage.intents.put(&IntentsKey::Meta, None, Some(IntentsDoc::Meta(meta(4, CLUSTER)))).unwrap();
        stage.start();
        assert_eq!(stage.meta().map(|m| (m.term, m.epoch)), Some((5, epoch.to_owned())));
    }
}

#[test]
fn a_lost_contest_at_start_is_tried_again_above_the_winner() {
    let mut stage = Stage::new();
    for fact in stage.first_facts() {
        stage.tell(fact);
    }
    stage.intents.put(&IntentsKey::Meta, None, Some(IntentsDoc::Meta(meta(9, CLUSTER)))).unwrap();
    stage.run();
    assert_eq!(stage.meta().map(|m| m.term), Some(9));
    assert!(stage.world.readiness().unwrap_err().contains("conflict"));
    stage.pass(Duration::from_secs(2));
    assert_eq!(stage.meta().map(|m| (m.term, m.by)), Some((10, "pod-a".to_owned())));
    assert!(stage.world.readiness().is_ok());
}

/// Another controller takes the term `term`, and the watch tells.
fn supersede(stage: &mut Stage, term: u64) -> Vec<Effect> {
    stage.intents.put(&IntentsKey::Meta, None, Some(IntentsDoc::Meta(meta(term, CLUSTER)))).unwrap();
    let stored = stage.intents.stored(&IntentsKey::Meta);
    stage.learn(Fact::IntentChanged(stored))
}

fn leads(term: u64) -> String {
    format!("leads term {term}")
}

fn follows(by: &str) -> String {
    format!("follows {by}")
}

#[test]
fn a_higher_term_of_another_ends_all_writing_until_the_lease_is_lost_and_regained() {
    let mut stage = led();
    assert_eq!(supersede(&mut stage, 2), [Effect::ReleaseLease]);
    assert!(stage.world.readiness().unwrap_err().contains("pod-b"));
    let mut effects = stage.want("more", workload(&["redis"]));
    effects.extend(stage.learn(Fact::Lease(true)));
    effects.extend(reconnect(&mut stage));
    effects.extend(stage.pass(Duration::from_secs(600)));
    assert!(effects.is_empty(), "{effects:?}");

    assert!(stage.learn(Fact::Lease(false)).is_empty());
    assert_eq!(stage.world.readiness(), Ok(follows("pod-b")));
    assert!(stage.pass(Duration::from_secs(600)).is_empty());

    stage.learn(Fact::Lease(true));
    assert_eq!(stage.world.readiness(), Ok(leads(3)));
    assert_eq!(stage.held(&PoolId::all()).len(), 2);
}

#[test]
fn without_the_lease_everything_is_watched_nothing_is_written_and_the_replica_is_ready() {
    let mut stage = Stage::new();
    stage.nodes.insert(name("n1"), node("u1"));
    for fact in stage.first_facts() {
        let fact = if fact == Fact::Lease(true) { Fact::Lease(false) } else { fact };
        stage.learn(fact);
    }
    stage.want("web", workload(&["nginx:1.27"]));
    assert_eq!(stage.world.readiness(), Ok("follows whoever will lead: nobody has taken the term yet".to_owned()));
    supersede(&mut stage, 7);
    stage.pass(Duration::from_secs(600));
    assert!(stage.log.is_empty(), "{:?}", stage.log);
    assert_eq!(stage.world.readiness(), Ok(follows("pod-b")));

    stage.learn(Fact::Lease(true));
    assert_eq!(stage.world.readiness(), Ok(leads(8)));
    assert_eq!(stage.held(&PoolId::all()).len(), 1);
    assert_eq!(stage.pools("n1"), [PoolId::all()]);
}

#[test]
fn what_is_written_when_the_lease_is_lost_is_still_learnt_and_never_written_again() {
    let mut stage = led();
    stage.workloads.insert(deployment("more"), workload(&["redis"]));
    stage.tell(Fact::Workload(Change::Upsert(deployment("more"), Ok(workload(&["redis"])))));
    let effects = stage.world.step(stage.now);
    let [Effect::WriteIntents(batch)] = effects.as_slice() else { panic!("{effects:?}") };
    assert!(stage.learn(Fact::Lease(false)).is_empty());
    assert_eq!(stage.world.readiness(), Ok(follows("pod-a")));

    // The batch had left before.
    stage.write_intents(batch.clone());
    assert!(stage.pass(Duration::from_secs(600)).is_empty());

    let effects = stage.learn(Fact::Lease(true));
    assert_eq!(stage.world.readiness(), Ok(leads(2)));
    assert!(!effects.iter().any(|e| matches!(e, Effect::WriteIntents(_))), "{effects:?}");
}

#[test]
fn a_term_taken_too_late_is_led_by_nobody_and_the_next_is_above_it() {
    let mut stage = Stage::new();
    for fact in stage.first_facts() {
        stage.tell(fact);
    }
    let effects = stage.world.step(stage.now);
    let [Effect::TakeTerm { .. }] = effects.as_slice() else { panic!("{effects:?}") };
    stage.tell(Fact::Lease(false));
    for effect in effects {
        stage.carry_out(effect);
    }
    assert!(stage.pass(Duration::from_secs(600)).is_empty());
    assert_eq!(stage.world.readiness(), Ok(follows("pod-a")));
    stage.learn(Fact::Lease(true));
    assert_eq!((stage.meta().map(|m| m.term), stage.world.readiness()), (Some(2), Ok(leads(2))));
}

#[test]
fn a_regained_lease_is_used_at_once_whatever_failed_before() {
    let mut stage = Stage::new();
    stage.faults = vec![Reason::Timeout; 20];
    stage.start();
    stage.pass(Duration::from_secs(100));
    stage.faults.clear();
    stage.learn(Fact::Lease(false));
    stage.learn(Fact::Lease(true));
    assert!(stage.world.readiness().is_ok_and(|text| text.starts_with("leads")));
}

#[test]
fn a_damaged_epoch_document_is_put_right() {
    let mut stage = led();
    stage.intents.put(&IntentsKey::Meta, None, Some(IntentsDoc::Meta(meta(1, CLUSTER)))).unwrap();
    let stored = stage.intents.stored(&IntentsKey::Meta);
    stage.learn(Fact::IntentChanged(stored));
    assert_eq!(stage.meta().map(|m| (m.term, m.by)), Some((2, "pod-a".to_owned())));
    assert!(stage.world.readiness().is_ok());
}

#[test]
fn a_stream_that_was_created_anew_gets_a_new_epoch_and_everything_again() {
    let mut stage = led();
    let before = stage.held(&PoolId::all());
    for n in 2..4 {
        stage.intents = super::stage::Bucket::default();
        stage.assign = super::stage::Bucket::default();
        stage.created = format!("2026-0{n}-01T00:00:00Z");
        reconnect(&mut stage);
        let epoch = format!("epoch-1-{}", n - 1);
        assert_eq!(stage.meta().map(|m| (m.term, m.epoch)), Some((n, epoch)));
        assert_eq!(stage.held(&PoolId::all()).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        assert_eq!(stage.pools("n1").len(), 1);
    }
}

#[test]
fn a_rolled_back_stream_is_rewritten_under_a_higher_term() {
    let mut stage = led();
    let (intents, assign) = (stage.intents.clone(), stage.assign.clone());
    stage.want("more", workload(&["redis"]));
    stage.intents = intents;
    stage.assign = assign;
    stage.intents.put(&IntentsKey::Meta, None, Some(IntentsDoc::Meta(meta(1, CLUSTER)))).unwrap();
    reconnect(&mut stage);
    assert_eq!(stage.meta().map(|m| m.term), Some(2));
    assert_eq!(stage.held(&PoolId::all()).len(), 2);
}

#[test]
fn while_disconnected_nothing_goes_to_nats_and_afterwards_both_reads_are_awaited() {
    let mut stage = led();
    stage.learn(Fact::Disconnected);
    let mut effects = stage.want("more", workload(&["redis"]));
    effects.extend(stage.pass(Duration::from_secs(100)));
    effects.extend(stage.learn(Fact::Connected));
    let mut reads = stage.reads().into_iter();
    effects.extend(stage.learn(reads.next().unwrap()));
    assert!(effects.is_empty(), "{effects:?}");
    assert!(stage.world.readiness().unwrap_err().contains("read again"));
    stage.learn(reads.next().unwrap());
    assert_eq!(stage.held(&PoolId::all()).len(), 2);
    assert_eq!(stage.meta().map(|m| m.term), Some(1));
}

#[test]
fn a_refused_term_is_said_and_tried_again_ever_more_rarely() {
    let mut stage = Stage::new();
    stage.faults = vec![Reason::Forbidden; 20];
    stage.start();
    stage.pass(Duration::from_secs(240));
    let attempts = changes(&stage.log).len();
    assert!((8..=16).contains(&attempts), "{attempts}");
    assert!(stage.world.readiness().unwrap_err().contains("forbidden"));
    stage.faults.clear();
    stage.pass(Duration::from_secs(60));
    assert!(stage.world.readiness().is_ok());
}

/// A newer version writes under a key, and the watch tells.
fn newer(stage: &mut Stage, key: IntentsKey) -> Vec<Effect> {
    let seq = stage.intents.put(&key, None, Some(IntentsDoc::Meta(meta(9, CLUSTER)))).unwrap();
    let value = StoredValue::Newer(Newer { schema: 2, by: Some("pod-z".to_owned()) });
    stage.learn(Fact::IntentChanged(Stored { key, seq, value }))
}

#[test]
fn an_epoch_document_of_a_newer_major_is_never_overwritten_and_its_author_is_named() {
    let mut stage = led();
    assert_eq!(newer(&mut stage, IntentsKey::Meta), [Effect::ReleaseLease]);
    let text = stage.world.readiness().unwrap_err();
    assert!(text.contains("version 2") && text.contains("pod-z"), "{text}");
    let mut effects = stage.want("more", workload(&["redis"]));
    effects.extend(stage.learn(Fact::Lease(false)));
    effects.extend(stage.pass(Duration::from_secs(600)));
    assert!(effects.is_empty(), "{effects:?}");
    // A Lease that nobody else wants comes back, and is given up again.
    assert_eq!(stage.learn(Fact::Lease(true)), [Effect::ReleaseLease]);
    assert!(stage.pass(Duration::from_secs(600)).is_empty());

    // The newer version is gone, and what it wrote was put back.
    supersede(&mut stage, 11);
    assert_eq!(stage.world.readiness(), Ok(leads(12)));
    assert_eq!(stage.held(&PoolId::all()).len(), 2);
}

#[test]
fn a_key_of_a_newer_major_is_left_alone_whether_it_is_wanted_or_not() {
    let mut stage = led();
    let key = IntentsKey::Intent(PoolId::all(), super::stage::key("nginx:1.27"));
    newer(&mut stage, key.clone());
    newer(&mut stage, IntentsKey::Definition(PoolId::all()));
    let seq = stage.intents.stored(&key).seq;
    stage.want("more", workload(&["redis"]));
    stage.withdraw("web");
    stage.withdraw("more");
    stage.pass(Duration::from_secs(600));
    assert_eq!(stage.intents.stored(&key).seq, seq);
    assert_eq!(stage.world.summary(stage.now)["newerKeys"], 2);
    assert_eq!(stage.held(&PoolId::all()).len(), 0, "what is ours comes and goes");
    assert!(stage.world.readiness().is_ok());
}
