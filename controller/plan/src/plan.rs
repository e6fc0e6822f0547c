//! The plan: what the buckets are to hold.
//!
//! Owns the composition of selection, pools and placement into intents and assignments. A value; never looks at what
//! the buckets hold now.

use std::collections::BTreeMap;

use serde_json::Value;
use shared::message::assignment::Pressure;
use shared::message::intent::{Keep, MAX_OWNERS};
use shared::message::Intent;
use shared::name::{ImageKey, NodeName, PoolId};
use shared::wave::Wave;

use crate::input::{Constraint, Node, WorkloadKey};
use crate::known::Known;
use crate::member::Membership;
use crate::place;
use crate::pool;
use crate::select::{self, Demand, Want};

/// The plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    /// Every pool with at least one intent.
    pub(crate) pools: BTreeMap<PoolId, PlannedPool>,
    /// Every node that gets an assignment.
    pub(crate) nodes: BTreeMap<NodeName, PlannedNode>,
    /// How many workloads are wanted.
    pub(crate) workloads: usize,
    /// What of them cannot be used.
    pub(crate) problems: BTreeMap<WorkloadKey, Vec<String>>,
    /// How many constraints went to private pools for lack of room.
    pub(crate) overflow: usize,
}

/// One pool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlannedPool {
    /// Its document for people.
    pub(crate) definition: Value,
    /// Its intents; their term is filled in when they are written.
    pub(crate) intents: BTreeMap<ImageKey, Intent>,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlannedNode {
    /// UID of the Node.
    pub(crate) uid: String,
    /// Sorted.
    pub(crate) pools: Vec<PoolId>,
    /// What the Node says is short.
    pub(crate) pressure: Vec<Pressure>,
    /// Whether it is there to stay: only then is it labelled.
    pub(crate) stays: bool,
}

impl Plan {
    /// The intents of a node, by pool.
    pub(crate) fn intents_of(&self, node: &NodeName) -> impl Iterator<Item = (&ImageKey, &Intent)> {
        let pools = self.nodes.get(node).into_iter().flat_map(|n| &n.pools);
        pools.filter_map(|pool| self.pools.get(pool)).flat_map(|pool| &pool.intents)
    }

    /// Whether an image is wanted on a node.
    pub(crate) fn wants(&self, node: &NodeName, id: &ImageKey) -> bool {
        let mut pools = self.nodes.get(node).into_iter().flat_map(|n| &n.pools);
        pools.any(|pool| self.pools.get(pool).is_some_and(|p| p.intents.contains_key(id)))
    }
}

/// Composes the plan from what is wanted and who is where.
pub(crate) fn plan(demand: Demand<'_>, membership: &Membership, nodes: &Known<NodeName, Node>) -> Plan {
    let mut wants: BTreeMap<PoolId, (Constraint, BTreeMap<ImageKey, Want<'_>>)> = BTreeMap::new();
    for (node, beyond) in &membership.overflow {
        let constraint = Constraint { node_name: Some(node.as_str().to_owned()), ..Constraint::default() };
        let (_, private) = wants.entry(PoolId::private(node)).or_insert_with(|| (constraint, BTreeMap::new()));
        for pool in beyond.iter().filter_map(|id| demand.pools.get(id)) {
            select::join(private, &pool.wants);
        }
    }
    for (id, pool) in demand.pools {
        if !membership.dropped.contains(&id) {
            let (_, into) = wants.entry(id).or_insert_with(|| (pool.constraint.clone(), BTreeMap::new()));
            select::join(into, &pool.wants);
        }
    }
    let overflow = membership.overflow.values().map(std::collections::BTreeSet::len).sum();
    Plan {
        pools: wants.into_iter().map(|(id, (constraint, wants))| planned(id, &constraint, wants)).collect(),
        nodes: assignments(membership, nodes),
        workloads: demand.workloads,
        problems: demand.problems,
        overflow,
    }
}

fn planned(id: PoolId, constraint: &Constraint, wants: BTreeMap<ImageKey, Want<'_>>) -> (PoolId, PlannedPool) {
    let definition = pool::definition(&id, constraint);
    let intents = wants.into_iter().map(|(id, want)| (id.clone(), intent(id, want))).collect();
    (id, PlannedPool { definition, intents })
}

fn intent(id: ImageKey, mut want: Want<'_>) -> Intent {
    let owners_total = want.owners.len() as u64;
    want.owners.sort();
    let mut owners: Vec<String> = want.owners.iter().take(MAX_OWNERS).map(ToString::to_string).collect();
    owners.sort();
    Intent {
        id,
        image: want.image().to_owned(),
        unqualified: want.unqualified,
        digest: want.digest().cloned(),
        priority: want.priority,
        bytes: None,
        wave: Wave::all(),
        secrets: Vec::new(),
        keep: Keep::default(),
        owners,
        owners_total,
        term: 0,
    }
}

/// Every node with a runtime of its own has an assignment, one that is leaving an empty one.
fn assignments(membership: &Membership, nodes: &Known<NodeName, Node>) -> BTreeMap<NodeName, PlannedNode> {
    let real = nodes.good().filter(|(_, node)| !place::is_virtual(node));
    real.map(|(name, node)| {
        let pools = membership.of_node.get(name).cloned().unwrap_or_default();
        let pressure = node.pressure.iter().copied().collect();
        (name.clone(), PlannedNode { uid: node.uid.clone(), pools, pressure, stays: !place::is_leaving(node) })
    })
    .collect()
}
