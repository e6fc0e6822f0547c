//! Who writes.

use std::time::Duration;

use cluster_plan::fact::IntentsDoc;
use cluster_plan::{Effect, Fact};
use shared::message::Meta;
use shared::reason::Reason;
use shared::subject::IntentsKey;

use super::stage::{CLUSTER, Stage, changes, name, node, workload};

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
    assert_eq!(stage.world.readiness(), Ok(()));
}

#[test]
fn a_higher_term_of_another_ends_all_writing_for_good() {
    let mut stage = led();
    stage.intents.put(&IntentsKey::Meta, None, Some(IntentsDoc::Meta(meta(2, CLUSTER)))).unwrap();
    let stored = stage.intents.stored(&IntentsKey::Meta);
    stage.learn(Fact::IntentChanged(stored));
    assert!(stage.world.readiness().unwrap_err().contains("pod-b"));
    let mut effects = stage.want("more", workload(&["redis"]));
    effects.extend(reconnect(&mut stage));
    effects.extend(stage.pass(Duration::from_secs(600)));
    assert!(effects.is_empty(), "{effects:?}");
}

#[test]
fn a_damaged_epoch_document_is_put_right() {
    let mut stage = led();
    stage.intents.put(&IntentsKey::Meta, None, Some(IntentsDoc::Meta(meta(1, CLUSTER)))).unwrap();
    let stored = stage.intents.stored(&IntentsKey::Meta);
    stage.learn(Fact::IntentChanged(stored));
    assert_eq!(stage.meta().map(|m| (m.term, m.by)), Some((2, "pod-a".to_owned())));
    assert_eq!(stage.world.readiness(), Ok(()));
}

#[test]
fn a_stream_that_was_created_anew_gets_a_new_epoch_and_everything_again() {
    let mut stage = led();
    let before = stage.held(&shared::name::PoolId::all());
    for n in 2..4 {
        stage.intents = super::stage::Bucket::default();
        stage.assign = super::stage::Bucket::default();
        stage.created = format!("2026-0{n}-01T00:00:00Z");
        reconnect(&mut stage);
        let epoch = format!("epoch-1-{}", n - 1);
        assert_eq!(stage.meta().map(|m| (m.term, m.epoch)), Some((n, epoch)));
        assert_eq!(
            stage.held(&shared::name::PoolId::all()).keys().collect::<Vec<_>>(),
            before.keys().collect::<Vec<_>>()
        );
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
    assert_eq!(stage.held(&shared::name::PoolId::all()).len(), 2);
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
    assert_eq!(stage.held(&shared::name::PoolId::all()).len(), 2);
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
    assert_eq!(stage.world.readiness(), Ok(()));
}
