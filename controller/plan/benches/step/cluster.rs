//! A large cluster as one finds them: node groups in zones, teams with nodes of their own, GPUs; most workloads run
//! anywhere.

use std::collections::BTreeMap;

use cluster_plan::input::{
    Constraint, ContainerImage, MatchExpression, Node, NodeSelectorTerm, Operator, Taint, TaintEffect, Toleration,
    TolerationOperator, Workload, WorkloadKey, WorkloadKind,
};
use fastrand::Rng;
use shared::name::{NameError, NodeName};

const GROUPS: usize = 40;
const NAMESPACES: usize = 200;

/// The n-th node; one in fifty has GPUs, and the last groups belong to teams.
pub(crate) fn node(n: usize) -> Result<(NodeName, Node), NameError> {
    let name = format!("ip-10-{}-{}-{}.eu-central-1.compute.internal", n / 65_536, n / 256 % 256, n % 256);
    let group = n % GROUPS;
    let is_gpu = n % 50 == 7;
    let zone = format!("eu-central-1{}", ["a", "b", "c"].get(n / GROUPS % 3).unwrap_or(&"a"));
    let mut labels: BTreeMap<String, String> = [
        ("kubernetes.io/hostname", name.clone()),
        ("kubernetes.io/os", "linux".to_owned()),
        ("kubernetes.io/arch", if group.is_multiple_of(5) { "arm64" } else { "amd64" }.to_owned()),
        ("topology.kubernetes.io/region", "eu-central-1".to_owned()),
        ("topology.kubernetes.io/zone", zone.clone()),
        ("failure-domain.beta.kubernetes.io/zone", zone),
        ("node.kubernetes.io/instance-type", format!("m7i.{}xlarge", 1 << (group % 5))),
        ("example.com/node-group", format!("group-{group}")),
        ("example.com/generation", format!("{}", group % 9)),
        ("example.com/disk", if group.is_multiple_of(2) { "ssd" } else { "hdd" }.to_owned()),
        ("example.com/machine", format!("i-{n:017x}")),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    labels.extend((0..10).map(|at| (format!("feature.node.kubernetes.io/cpu-cpuid.F{at}"), "true".to_owned())));
    let taint = |key: &str, value: &str| Taint {
        key: key.to_owned(),
        value: value.to_owned(),
        effect: TaintEffect::NoSchedule,
    };
    let mut taints = Vec::new();
    if is_gpu {
        labels.insert("nvidia.com/gpu.product".to_owned(), "H100".to_owned());
        taints.push(taint("nvidia.com/gpu", "present"));
    }
    if group >= GROUPS - 8 {
        taints.push(taint("example.com/team", &format!("team-{group}")));
    }
    let node = Node {
        uid: format!("{n:08x}-0000-4000-8000-000000000000"),
        labels,
        taints: taints.into_iter().collect(),
        ..Node::default()
    };
    Ok((NodeName::parse(&name)?, node))
}

/// Names the n-th workload.
pub(crate) fn key(n: usize) -> WorkloadKey {
    let kind = match n % 4 {
        1 => WorkloadKind::StatefulSet,
        2 => WorkloadKind::DaemonSet,
        _ => WorkloadKind::Deployment,
    };
    WorkloadKey { kind, namespace: namespace(n % NAMESPACES), name: format!("service-{n}") }
}

/// Every namespace.
pub(crate) fn namespaces() -> impl Iterator<Item = String> {
    (0..NAMESPACES).map(namespace)
}

fn namespace(n: usize) -> String {
    format!("team-{n}")
}

/// A workload of one to three of `images` images; some are everywhere, as sidecars are.
pub(crate) fn workload(rng: &mut Rng, images: usize) -> Workload {
    let mut workload = Workload { uid: format!("{:032x}", rng.u128(..)), ..Workload::default() };
    for at in 0..rng.usize(1..=3) {
        let n = if at == 2 { rng.usize(..5) } else { rng.usize(..images) };
        workload.images.push(image(n, 0));
    }
    workload.constraint = constraint(rng);
    workload
}

/// The n-th image at some version.
pub(crate) fn image(n: usize, version: usize) -> ContainerImage {
    let image = format!("registry.example.com/team-{}/service-{n}:v1.{version}", n % NAMESPACES);
    ContainerImage { position: "containers[0] \"app\"".to_owned(), image }
}

fn constraint(rng: &mut Rng) -> Constraint {
    let mut constraint = Constraint::default();
    let group = rng.usize(..GROUPS);
    match rng.u8(..100) {
        0..55 => {}
        55..75 => select(&mut constraint, "example.com/node-group", &format!("group-{group}")),
        75..80 => select(&mut constraint, "example.com/disk", "ssd"),
        80..85 => {
            let zones: Vec<String> =
                ["a", "b", "c"].iter().filter(|_| rng.bool()).map(|z| format!("eu-central-1{z}")).collect();
            expect(&mut constraint, "topology.kubernetes.io/zone", Operator::In, &zones);
        }
        85..90 => {
            let generation = rng.u8(..8).to_string();
            expect(&mut constraint, "example.com/generation", Operator::Gt, &[generation]);
        }
        90..95 => {
            let group = format!("group-{group}");
            expect(&mut constraint, "example.com/node-group", Operator::NotIn, &[group]);
        }
        95..98 => {
            let group = GROUPS - 1 - group % 8;
            select(&mut constraint, "example.com/node-group", &format!("group-{group}"));
            tolerate(&mut constraint, "example.com/team", &format!("team-{group}"));
        }
        _ => {
            select(&mut constraint, "nvidia.com/gpu.product", "H100");
            tolerate(&mut constraint, "nvidia.com/gpu", "present");
        }
    }
    constraint
}

/// Asks for a label.
pub(crate) fn select(constraint: &mut Constraint, key: &str, value: &str) {
    constraint.node_selector.insert(key.to_owned(), value.to_owned());
}

fn expect(constraint: &mut Constraint, key: &str, operator: Operator, values: &[String]) {
    let expression = MatchExpression { key: key.to_owned(), operator, values: values.iter().cloned().collect() };
    let term = NodeSelectorTerm { match_expressions: [expression].into(), ..NodeSelectorTerm::default() };
    constraint.affinity = Some(vec![term]);
}

fn tolerate(constraint: &mut Constraint, key: &str, value: &str) {
    let (key, value) = (Some(key.to_owned()), value.to_owned());
    constraint.tolerations.insert(Toleration { key, operator: TolerationOperator::Equal, value, effect: None });
}
