//! The oracle: after every fact the plan is the one made of everything, and both buckets lack what a full comparison says.

use proptest::prelude::*;
use shared::machine::{Moment, Now};

use super::*;
use crate::fact::{Change, Fact};
use crate::input::selection::{Mode, Namespaces};
use crate::input::{
    Capacity, Constraint, ContainerImage, MatchExpression, Namespace, NodeSelectorTerm, Operator, Requests,
    RuntimeClass, Selection, Taint, TaintEffect, Toleration, TolerationOperator, Workload, WorkloadKey, WorkloadKind,
};
use crate::settings::{Cordoned, TargetSettings};
use crate::{Settings, suspect::Suspects};

fn toleration(key: &str) -> Toleration {
    let operator = TolerationOperator::Exists;
    Toleration { key: Some(key.to_owned()), operator, value: String::new(), effect: None }
}

fn expression(key: &str, operator: Operator, values: &[&str]) -> Constraint {
    let values = values.iter().map(ToString::to_string).collect();
    let expression = MatchExpression { key: key.to_owned(), operator, values };
    let term = if key == "metadata.name" {
        NodeSelectorTerm { match_fields: [expression].into(), ..NodeSelectorTerm::default() }
    } else {
        NodeSelectorTerm { match_expressions: [expression].into(), ..NodeSelectorTerm::default() }
    };
    Constraint { affinity: Some(vec![term]), ..Constraint::default() }
}

fn constraint(kind: u8) -> Constraint {
    let select = |value: &str| Constraint {
        node_selector: [("disk".to_owned(), value.to_owned())].into(),
        ..Constraint::default()
    };
    let ask = |requests| Constraint { requests, ..Constraint::default() };
    match kind {
        0..=2 => Constraint::default(),
        3 => select("ssd"),
        4 => Constraint { node_name: Some("n1".to_owned()), ..Constraint::default() },
        5 => expression("disk", Operator::NotIn, &["ssd"]),
        6 => expression("disk", Operator::Exists, &[]),
        7 => expression("size", Operator::Gt, &["1"]),
        8 => expression("size", Operator::Lt, &["2"]),
        9 => expression("metadata.name", Operator::NotIn, &["n0"]),
        10 => expression("zone", Operator::DoesNotExist, &[]),
        11 => ask(Requests { cpu_milli: 9_000, ..Requests::default() }),
        12 => ask(Requests { extended: [("gpu".to_owned(), 1)].into(), ..Requests::default() }),
        13 => Constraint { affinity: Some(Vec::new()), ..Constraint::default() },
        14 => Constraint { tolerations: [toleration(crate::place::CORDON_TAINT)].into(), ..Constraint::default() },
        // Enough of these meet the limit of a node.
        _ => Constraint { tolerations: [toleration(&format!("taint-{kind}"))].into(), ..Constraint::default() },
    }
}

fn workload(kind: u8, images: &[u8]) -> Workload {
    let image =
        |n: &u8| ContainerImage { position: "containers[0]".to_owned(), image: format!("registry.example/a:{n}") };
    Workload { images: images.iter().map(image).collect(), constraint: constraint(kind), ..Workload::default() }
}

fn key(n: u8) -> WorkloadKey {
    let kind = if n.is_multiple_of(3) { WorkloadKind::DaemonSet } else { WorkloadKind::Deployment };
    WorkloadKey { kind, namespace: ["shop", "team"][usize::from(n % 2)].to_owned(), name: format!("w{n}") }
}

fn workloads() -> impl Strategy<Value = Workload> {
    let images = prop::collection::vec(0_u8..5, 0..3);
    let limit = prop::option::weighted(0.3, prop::sample::select(&["1", "2", "3", "none"][..]));
    let class = prop::option::weighted(0.2, prop::sample::select(&["kata", "absent"][..]));
    let warm = prop::option::weighted(0.2, prop::sample::select(&["true", "false"][..]));
    let refresh = prop::option::weighted(0.3, prop::sample::select(&["1m", "1h", "soon"][..]));
    let words = (limit, class, warm, refresh);
    (0_u8..18, images, words, prop::bool::weighted(0.2)).prop_map(|(kind, images, words, is_suspended)| {
        let (limit, class, warm, refresh) = words;
        let [max_nodes, runtime_class, warm, refresh] =
            [limit, class, warm, refresh].map(|text| text.map(ToOwned::to_owned));
        Workload { warm, max_nodes, runtime_class, refresh, is_suspended, ..workload(kind, &images) }
    })
}

fn nodes() -> impl Strategy<Value = Node> {
    let labels = prop::collection::btree_map(
        prop::sample::select(&["disk", "size", "zone", "topology.kubernetes.io/zone"][..]),
        prop::sample::select(&["ssd", "1", "2", "3"][..]),
        0..4,
    );
    let taint = prop::option::weighted(0.3, 15_u8..17);
    let capacity = (prop::option::of(1_000_u64..16_000), prop::option::of(0_u64..3));
    (0_u8..2, labels, taint, capacity, prop::array::uniform2(prop::bool::weighted(0.2))).prop_map(
        |(uid, labels, taint_of, (cpu, gpus), [deleting, unschedulable])| {
            let taint = |n| Taint { key: format!("taint-{n}"), value: String::new(), effect: TaintEffect::NoSchedule };
            let taints = taint_of.map(taint).into_iter().collect();
            let gpus = gpus.map(|n| ("gpu".to_owned(), n)).into_iter().collect();
            Node {
                uid: format!("u{uid}"),
                labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
                taints,
                deleting,
                unschedulable,
                capacity: Capacity::of(cpu, None, gpus),
                ..Node::default()
            }
        },
    )
}

fn facts() -> impl Strategy<Value = Vec<Fact>> {
    let name = (0_u8..6).prop_map(|n| NodeName::parse(&format!("n{n}")).unwrap());
    let namespace = prop::option::of(prop::sample::select(&["true", "false"][..]))
        .prop_map(|warm| Namespace { warm: warm.map(ToOwned::to_owned), ..Namespace::default() });
    let selection = (any::<bool>(), any::<bool>()).prop_map(|(opt_in, team)| Selection {
        mode: if opt_in { Mode::OptIn } else { Mode::OptOut },
        namespaces: Namespaces {
            exclude: team.then(|| "team".to_owned()).into_iter().collect(),
            ..Namespaces::default()
        },
        ..Selection::default()
    });
    let class = any::<bool>().prop_map(|conflicts| RuntimeClass {
        node_selector: [("disk".to_owned(), if conflicts { "hdd" } else { "ssd" }.to_owned())].into(),
        ..RuntimeClass::default()
    });
    let many = |n: u8| {
        let one = |n: u8| {
            let key = WorkloadKey { kind: WorkloadKind::StatefulSet, ..key(n) };
            (key, Ok(workload(100 + n, &[n % 7])))
        };
        Fact::Workloads(WorkloadKind::StatefulSet, (0..n).map(one).collect())
    };
    let fact = prop_oneof![
        8 => (0_u8..6, workloads()).prop_map(|(k, w)| Fact::Workload(Change::Upsert(key(k), Ok(w)))),
        2 => (0_u8..6).prop_map(|k| Fact::Workload(Change::Remove(key(k)))),
        1 => (0_u8..6).prop_map(|k| Fact::Workload(Change::Upsert(key(k), Err("bad".to_owned())))),
        8 => (name.clone(), nodes()).prop_map(|(n, node)| Fact::Node(Change::Upsert(n, Ok(node)))),
        2 => name.prop_map(|n| Fact::Node(Change::Remove(n))),
        2 => (any::<bool>(), namespace).prop_map(|(team, namespace)| {
            Fact::Namespace(Change::Upsert(if team { "team" } else { "shop" }.to_owned(), Ok(namespace)))
        }),
        1 => selection.prop_map(Fact::Selection),
        1 => class.prop_map(|class| Fact::RuntimeClass(Change::Upsert("kata".to_owned(), Ok(class)))),
        1 => Just(Fact::RuntimeClass(Change::Remove("kata".to_owned()))),
        // More constraints than a node can be in pools, and fewer again.
        1 => prop::sample::select(&[130_u8, 0][..]).prop_map(many),
    ];
    prop::collection::vec(fact, 1..30)
}

proptest! {
    #[test]
    fn a_short_cut_equals_the_plan_made_of_everything(facts in facts(), skip in any::<bool>()) {
        let cordoned = if skip { Cordoned::Skip } else { Cordoned::Warm };
        let settings = Settings { target: TargetSettings { cordoned }, ..Settings::default() };
        let now = Now { mono: Moment(0), wall: jiff::Timestamp::UNIX_EPOCH };
        let mut world = World::new(settings, "e".to_owned(), 1, now);
        world.learn(Fact::Selection(Selection::default()), now.mono);
        world.learn(Fact::Namespace(Change::Upsert("shop".to_owned(), Ok(Namespace::default()))), now.mono);
        for fact in facts {
            let before = world.plan.clone();
            world.suspects = Suspects::default();
            world.learn(fact, now.mono);
            world.replan();
            let (naive, choices) = world.naive_plan().unwrap();
            prop_assert_eq!(&world.plan, &naive);
            if !world.plan.is_limited {
                prop_assert_eq!(&world.choices, &choices);
            }
            every_difference_is_suspected(&before, &world)?;
        }
    }
}

/// What is planned otherwise is compared with the buckets.
fn every_difference_is_suspected(before: &Plan, world: &World) -> Result<(), TestCaseError> {
    let (now, suspects) = (&world.plan, &world.suspects);
    for (a, b) in [(before, now), (now, before)] {
        for (pool, planned) in &a.pools {
            let other = b.pools.get(pool);
            prop_assert!(other.is_some() || suspects.intents.contains_key(pool), "{pool}");
            for (id, intent) in &planned.intents {
                let is_same = other.and_then(|other| other.intents.get(id)) == Some(intent);
                let is_suspected = suspects.intents.get(pool).is_some_and(|ids| ids.contains(id));
                prop_assert!(is_same || is_suspected, "{id} in {pool}");
            }
        }
        for (node, planned) in &a.nodes {
            prop_assert!(b.nodes.get(node) == Some(planned) || suspects.assignments.contains(node), "{node}");
        }
    }
    Ok(())
}
