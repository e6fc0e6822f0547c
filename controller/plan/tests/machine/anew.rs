//! The oracle of the diff: whatever a cluster and its buckets went through, both buckets come to hold what a controller that
//! knows nothing of that writes into empty ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_plan::Fact;
use cluster_plan::fact::{IntentsDoc, Stored, StoredValue};
use cluster_plan::input::{
    Capacity, Constraint, MatchExpression, Node, NodeSelectorTerm, Operator, Requests, Taint, TaintEffect, Workload,
};
use proptest::prelude::*;
use shared::message::assignment::Pressure;
use shared::name::{NodeName, PoolId};
use shared::reason::Reason;
use shared::subject::IntentsKey;

use super::stage::{Bucket, Stage, key, name, node, tolerating, workload};

const IMAGES: [&str; 6] = ["nginx", "redis:7", "registry.example/a:1", "registry.example/b:1", "quay.io/c/d", "e:2"];

/// Something that happens to the cluster, or to what is stored of it.
#[derive(Debug, Clone)]
enum Act {
    Want(u8, Box<Workload>),
    Withdraw(u8),
    Join(u8, Box<Node>),
    Leave(u8),
    /// Somebody else writes over an intent, or where one could be.
    OverwriteIntent(u8),
    /// The same of an assignment.
    OverwriteAssignment(u8),
    /// The connection is lost and is back; the buckets are empty then if so.
    Reconnect(bool),
    /// The next write fails, maybe after it was made.
    Fail(Reason),
    Pass(u32),
}

fn constraint(kind: u8) -> Constraint {
    let select = |value: &str| Constraint {
        node_selector: [("disk".to_owned(), value.to_owned())].into(),
        ..Constraint::default()
    };
    let size = |operator| {
        let values = ["2".to_owned()].into();
        let expression = MatchExpression { key: "size".to_owned(), operator, values };
        let term = NodeSelectorTerm { match_expressions: [expression].into(), ..NodeSelectorTerm::default() };
        Constraint { affinity: Some(vec![term]), ..Constraint::default() }
    };
    match kind {
        0..=2 => Constraint::default(),
        3 => select("ssd"),
        4 => select("hdd"),
        5 => tolerating("gpu"),
        6 => size(Operator::Gt),
        7 => size(Operator::Lt),
        8 => Constraint { node_name: Some("n1".to_owned()), ..Constraint::default() },
        _ => Constraint { requests: Requests { cpu_milli: 9_000, ..Requests::default() }, ..Constraint::default() },
    }
}

fn workloads() -> impl Strategy<Value = Workload> {
    let images = prop::collection::vec(prop::sample::select(&IMAGES[..]), 0..4);
    let priority = prop::option::weighted(0.3, prop::sample::select(&["10", "90"][..]));
    let warm = prop::option::weighted(0.2, prop::sample::select(&["true", "false"][..]));
    (0_u8..10, images, priority, warm).prop_map(|(kind, images, priority, warm)| {
        let [priority, warm] = [priority, warm].map(|text| text.map(ToOwned::to_owned));
        Workload { priority, warm, constraint: constraint(kind), ..workload(&images) }
    })
}

fn nodes() -> impl Strategy<Value = Node> {
    let disk = prop::option::of(prop::sample::select(&["ssd", "hdd"][..]));
    let size = prop::option::of(prop::sample::select(&["1", "2", "3"][..]));
    let (taint, deleting, pressure) = (prop::bool::weighted(0.3), prop::bool::weighted(0.1), any::<bool>());
    let cores = prop::option::of(1_u64..20);
    (0_u8..2, disk, size, taint, deleting, pressure, cores).prop_map(
        |(uid, disk, size, is_tainted, deleting, is_short, cores)| {
            let gpu = || Taint { key: "gpu".to_owned(), value: String::new(), effect: TaintEffect::NoSchedule };
            let labels = [("disk", disk), ("size", size)].into_iter();
            Node {
                labels: labels.filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect(),
                taints: is_tainted.then(gpu).into_iter().collect(),
                pressure: is_short.then_some(Pressure::Disk).into_iter().collect(),
                capacity: Capacity::of(cores.map(|cores| cores * 1_000), None, BTreeMap::new()),
                deleting,
                ..node(&format!("u{uid}"))
            }
        },
    )
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let reasons = prop::sample::select(&[Reason::Timeout, Reason::Conflict][..]);
    let act = prop_oneof![
        8 => (0_u8..6, workloads()).prop_map(|(w, workload)| Act::Want(w, Box::new(workload))),
        2 => (0_u8..6).prop_map(Act::Withdraw),
        8 => (0_u8..6, nodes()).prop_map(|(n, node)| Act::Join(n, Box::new(node))),
        2 => (0_u8..6).prop_map(Act::Leave),
        1 => (0_u8..6).prop_map(Act::OverwriteIntent),
        1 => (0_u8..6).prop_map(Act::OverwriteAssignment),
        1 => prop::bool::weighted(0.3).prop_map(Act::Reconnect),
        2 => reasons.prop_map(Act::Fail),
        2 => (0_u32..40_000).prop_map(Act::Pass),
    ];
    prop::collection::vec(act, 1..40)
}

fn perform(stage: &mut Stage, act: &Act) {
    match act {
        Act::Want(w, workload) => drop(stage.want(&format!("w{w}"), Workload::clone(workload))),
        Act::Withdraw(w) => drop(stage.withdraw(&format!("w{w}"))),
        Act::Join(n, node) => drop(stage.join(&format!("n{n}"), Node::clone(node))),
        Act::Leave(n) => drop(stage.leave(&format!("n{n}"))),
        Act::OverwriteIntent(i) => {
            let key = IntentsKey::Intent(PoolId::all(), key(IMAGES[usize::from(*i)]));
            let seq = stage.intents.put(&key, None, Some(IntentsDoc::Definition(serde_json::json!(0)))).unwrap();
            stage.learn(Fact::IntentChanged(Stored { key, seq, value: StoredValue::Undecodable }));
        }
        Act::OverwriteAssignment(n) => {
            let node = name(&format!("n{n}"));
            if let Some(mut there) = stage.assign.live().remove(&node) {
                there.pools = vec![PoolId::auto("nonsense")];
                stage.assign.put(&node, None, Some(there)).unwrap();
                stage.learn(Fact::AssignmentChanged(stage.assign.stored(&node)));
            }
        }
        Act::Reconnect(is_empty) => {
            stage.learn(Fact::Disconnected);
            if *is_empty {
                (stage.intents, stage.assign) = (Bucket::default(), Bucket::default());
                stage.created = format!("stream-{}", stage.log.len());
            }
            for fact in stage.reads() {
                stage.learn(fact);
            }
            stage.learn(Fact::Connected);
        }
        Act::Fail(reason) => stage.faults.push(*reason),
        Act::Pass(ms) => drop(stage.pass(Duration::from_millis(u64::from(*ms)))),
    }
    stage.run();
}

/// What both buckets hold, apart from terms, revisions, and the owners, who are told to people and are no reason to write:
/// definitions and intents, and what each node is told.
fn held(stage: &Stage) -> (BTreeMap<IntentsKey, String>, BTreeMap<NodeName, String>) {
    let intents = stage.intents.live().into_iter().filter_map(|(key, doc)| {
        let text = match doc {
            IntentsDoc::Intent(mut intent) => {
                (intent.term, intent.owners_total) = (0, 0);
                intent.owners.clear();
                format!("{intent:?}")
            }
            IntentsDoc::Definition(doc) => doc.to_string(),
            _ => return None,
        };
        Some((key, text))
    });
    let told = stage.assign.live().into_iter().map(|(node, mut told)| {
        (told.term, told.rev) = (0, 0);
        (node, format!("{told:?}"))
    });
    (intents.collect(), told.collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_buckets_come_to_hold_what_is_written_into_empty_ones(acts in acts(), echo_first in any::<bool>()) {
        let mut stage = Stage::new();
        stage.echo_first = echo_first;
        stage.start();
        for act in &acts {
            perform(&mut stage, act);
        }
        stage.faults.clear();
        stage.pass(Duration::from_secs(200));

        let mut anew = Stage::new();
        (anew.nodes, anew.workloads) = (stage.nodes.clone(), stage.workloads.clone());
        for node in anew.nodes.values_mut() {
            node.our_labels.clear();
        }
        anew.start();
        let ((intents, told), (expected_intents, expected_told)) = (held(&stage), held(&anew));
        prop_assert_eq!(intents, expected_intents);
        prop_assert_eq!(told, expected_told);
        // And it rests: nothing is written that is there.
        let nodes: BTreeSet<_> = stage.nodes.keys().cloned().collect();
        prop_assert!(stage.assign.live().keys().eq(&nodes));
    }
}
