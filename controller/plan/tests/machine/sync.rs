//! Nothing is done before everything is known.

use std::time::Duration;

use cluster_plan::fact::{Change, Source};
use cluster_plan::{Effect, Fact};
use proptest::prelude::*;

use super::stage::{Stage, changes, name, node, workload};

#[test]
fn a_first_start_takes_the_term_and_writes_everything() {
    for echo_first in [false, true] {
        let mut stage = Stage::new();
        stage.echo_first = echo_first;
        stage.nodes.insert(name("n1"), node("u1"));
        stage.workloads.insert(super::stage::deployment("web"), workload(&["nginx:1.27"]));
        stage.start();
        assert_eq!(stage.world.readiness(), Ok("leads term 1".to_owned()));
        assert_eq!(stage.meta().map(|m| (m.term, m.epoch)), Some((1, "epoch-1".to_owned())));
        assert_eq!(stage.pools("n1"), [shared::name::PoolId::all()]);
        assert_eq!(stage.held(&shared::name::PoolId::all()).len(), 1);
        assert!(stage.log.iter().any(|e| matches!(e, Effect::PublishBeat(b) if b.count == 1)));
    }
}

#[test]
fn at_rest_nothing_but_beats_goes_out() {
    let mut stage = Stage::new();
    stage.nodes.insert(name("n1"), node("u1"));
    stage.workloads.insert(super::stage::deployment("web"), workload(&["nginx:1.27"]));
    stage.start();
    let effects = stage.pass(Duration::from_secs(600));
    assert!(changes(&effects).is_empty(), "{effects:?}");
    assert!((30..=60).contains(&effects.len()), "{} beats", effects.len());
}

#[test]
fn a_second_start_finds_everything_there_and_writes_only_the_term() {
    let mut stage = Stage::new();
    stage.nodes.insert(name("n1"), node("u1"));
    stage.want("web", workload(&["nginx:1.27"]));
    stage.start();
    let mut again = Stage { intents: stage.intents.clone(), assign: stage.assign.clone(), ..Stage::new() };
    again.nodes = stage.nodes.clone();
    again.workloads = stage.workloads.clone();
    again.start();
    let all = changes(&again.log);
    assert!(matches!(all.as_slice(), [Effect::TakeTerm { meta, .. }] if meta.term == 2), "{all:?}");
    assert_eq!(again.meta().map(|m| m.epoch), Some("epoch-1".to_owned()));
}

#[test]
fn an_empty_world_at_start_retracts_nothing_until_it_is_known_to_be_empty() {
    let mut stage = Stage::new();
    stage.nodes.insert(name("n1"), node("u1"));
    stage.want("web", workload(&["nginx:1.27"]));
    stage.start();
    let mut again = Stage { intents: stage.intents.clone(), assign: stage.assign.clone(), ..Stage::new() };
    let facts = again.first_facts();
    for fact in facts.into_iter().filter(|f| !matches!(f, Fact::Nodes(_))) {
        again.tell(fact);
        again.run();
    }
    again.pass(Duration::from_secs(3600));
    assert!(again.log.is_empty(), "{:?}", again.log);
    assert_eq!(again.world.readiness().unwrap_err(), "waiting for the first full content of: nodes");
}

#[test]
fn without_the_namespace_that_names_the_cluster_nothing_is_written() {
    let mut stage = Stage::new();
    for fact in stage.first_facts() {
        stage.tell(fact);
    }
    stage.tell(Fact::Namespace(Change::Remove("kube-system".to_owned())));
    stage.pass(Duration::from_secs(60));
    assert!(stage.log.is_empty());
    assert!(stage.world.readiness().unwrap_err().contains("kube-system"));
}

#[test]
fn every_source_is_named_while_it_is_awaited() {
    let stage = Stage::new();
    let text = stage.world.readiness().unwrap_err();
    for source in Source::FIXED.into_iter().filter(|source| *source != Source::RuntimeClasses) {
        assert!(text.contains(source.as_str()), "{text}");
    }
    assert!(text.contains("selection"), "{text}");
}

proptest! {
    #[test]
    fn with_any_source_missing_nothing_is_done(present in prop::collection::vec(any::<bool>(), 16), order in any::<u64>()) {
        let mut stage = Stage::new();
        stage.nodes.insert(name("n1"), node("u1"));
        stage.workloads.insert(super::stage::deployment("web"), workload(&["nginx:1.27"]));
        let mut facts = stage.first_facts();
        prop_assert_eq!(facts.len(), present.len());
        let mut keep = present.iter();
        facts.retain(|_| *keep.next().unwrap());
        fastrand::Rng::with_seed(order).shuffle(&mut facts);
        for fact in facts {
            stage.tell(fact);
            stage.run();
        }
        stage.pass(Duration::from_secs(120));
        prop_assert_eq!(stage.log.is_empty(), !present.iter().all(|p| *p));
    }
}
