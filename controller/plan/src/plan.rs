//! The plan: what the buckets are to hold.
//!
//! Owns the composition of selection, pools and placement into intents and assignments. A value; never looks at what
//! the buckets hold now.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shared::image::Digest;
use shared::message::Intent;
use shared::message::assignment::Pressure;
use shared::message::intent::{Keep, MAX_OWNERS, MAX_SECRETS};
use shared::name::{ImageKey, NodeName, PoolId};
use shared::wave::Wave;

use crate::demand::{self, Demand, DemandPool, Want};
use crate::input::{Constraint, Node, WorkloadKey};
use crate::known::Known;
use crate::lists::{Lists, PoolList};
use crate::member::Membership;
use crate::place;
use crate::pool;

/// The images wanted on a node.
pub(crate) type Wanted<'a> = BTreeMap<&'a ImageKey, Regard<'a>>;

/// How an image is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Regard<'a> {
    /// The highest priority.
    pub(crate) priority: u8,
    /// The digest that the intent names.
    pub(crate) digest: Option<&'a Digest>,
    /// By how many, in the pool where they are most.
    pub(crate) owners: u64,
    /// Whether one of them opted in by annotation.
    pub(crate) is_opted_in: bool,
}

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
    /// How many pairs of node and constraint went to private pools for lack of room.
    pub(crate) overflow: usize,
    /// Whether a limit was met, so that what is planned for a node depends on more than that node.
    pub(crate) is_limited: bool,
}

/// One pool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlannedPool {
    /// Its normalised constraint.
    pub(crate) constraint: Constraint,
    /// Its document for people.
    pub(crate) definition: Value,
    /// Its intents; their term is filled in when they are written.
    pub(crate) intents: BTreeMap<ImageKey, Intent>,
    /// Those of them that somebody wants who opted in by annotation.
    pub(crate) opted_in: BTreeSet<ImageKey>,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlannedNode {
    /// UID of the Node.
    pub(crate) uid: String,
    /// Sorted.
    pub(crate) pools: PoolList,
    /// What the Node says is short.
    pub(crate) pressure: Vec<Pressure>,
    /// Whether it is there to stay: only then is it labelled.
    pub(crate) stays: bool,
}

impl Plan {
    /// The intents of some pools; an image can occur in several.
    pub(crate) fn intents_in(&self, pools: &[PoolId]) -> impl Iterator<Item = (&ImageKey, &Intent)> {
        pools.iter().filter_map(|pool| self.pools.get(pool)).flat_map(|pool| &pool.intents)
    }

    /// The images wanted by some pools, at their highest priority.
    pub(crate) fn wanted_in(&self, pools: &[PoolId]) -> Wanted<'_> {
        let mut wanted = Wanted::new();
        for pool in pools.iter().filter_map(|pool| self.pools.get(pool)) {
            for (id, intent) in &pool.intents {
                let regard: &mut Regard<'_> = wanted.entry(id).or_default();
                regard.priority = regard.priority.max(intent.priority);
                regard.digest = regard.digest.or(intent.digest.as_ref());
                regard.owners = regard.owners.max(intent.owners_total);
                regard.is_opted_in |= pool.opted_in.contains(id);
            }
        }
        wanted
    }

    /// Whether an image is wanted on a node.
    pub(crate) fn wants(&self, node: &NodeName, id: &ImageKey) -> bool {
        self.nodes.get(node).is_some_and(|node| self.wants_in(&node.pools, id))
    }

    /// Whether an image is wanted by some pools.
    pub(crate) fn wants_in(&self, pools: &[PoolId], id: &ImageKey) -> bool {
        pools.iter().any(|pool| self.pools.get(pool).is_some_and(|p| p.intents.contains_key(id)))
    }
}

/// Composes the plan from what is wanted and who is where.
pub(crate) fn plan(
    demand: Demand<'_>,
    membership: &Membership,
    nodes: &Known<NodeName, Node>,
    lists: &mut Lists,
) -> Plan {
    let mut of_node = |name: &NodeName| lists.one(membership.of_node.get(name).map_or(&[], Vec::as_slice));
    let real = nodes.good().filter_map(|(name, node)| Some((name.clone(), planned_node(node, of_node(name))?)));
    Plan {
        nodes: real.collect(),
        workloads: demand.workloads,
        overflow: membership.overflow.values().map(BTreeSet::len).sum(),
        is_limited: !membership.is_within_limits(),
        pools: pools(demand.pools, membership),
        problems: demand.problems,
    }
}

fn pools(demand: BTreeMap<PoolId, DemandPool<'_>>, membership: &Membership) -> BTreeMap<PoolId, PlannedPool> {
    let mut wants: BTreeMap<PoolId, (Constraint, BTreeMap<ImageKey, Want<'_>>)> = BTreeMap::new();
    for (node, beyond) in &membership.overflow {
        let constraint = Constraint { node_name: Some(node.as_str().to_owned()), ..Constraint::default() };
        let (_, private) = wants.entry(PoolId::private(node)).or_insert_with(|| (constraint, BTreeMap::new()));
        for pool in beyond.iter().filter_map(|id| demand.get(id)) {
            demand::join(private, &pool.wants);
        }
    }
    for (id, pool) in demand {
        if membership.dropped.contains(&id) {
            continue;
        }
        match wants.entry(id) {
            Entry::Vacant(entry) => drop(entry.insert((pool.constraint.clone(), pool.wants))),
            Entry::Occupied(mut entry) => demand::join(&mut entry.get_mut().1, &pool.wants),
        }
    }
    wants.into_iter().map(|(id, (constraint, wants))| planned_pool(id, constraint, wants)).collect()
}

impl PlannedPool {
    /// A pool in which nothing is wanted yet.
    pub(crate) fn empty(id: &PoolId, constraint: Constraint) -> Self {
        let definition = pool::definition(id, &constraint);
        Self { constraint, definition, intents: BTreeMap::new(), opted_in: BTreeSet::new() }
    }
}

fn planned_pool(id: PoolId, constraint: Constraint, wants: BTreeMap<ImageKey, Want<'_>>) -> (PoolId, PlannedPool) {
    let definition = pool::definition(&id, &constraint);
    let opted_in = wants.iter().filter(|(_, want)| want.is_opted_in).map(|(id, _)| id.clone()).collect();
    let intents = wants.into_iter().map(|(id, want)| (id.clone(), intent(id, want))).collect();
    (id, PlannedPool { constraint, definition, intents, opted_in })
}

/// What is planned for a node in these pools: an assignment for every node with a runtime of its own, an empty one for
/// one that is leaving.
pub(crate) fn planned_node(node: &Node, pools: PoolList) -> Option<PlannedNode> {
    (!place::is_virtual(node)).then(|| PlannedNode {
        uid: node.uid.clone(),
        pools,
        pressure: node.pressure.iter().copied().collect(),
        stays: !place::is_leaving(node),
    })
}

/// The intent for an image that is wanted so.
pub(crate) fn intent(id: ImageKey, mut want: Want<'_>) -> Intent {
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
        // Where nobody asks for pulls it is closed: what is there is kept.
        wave: Wave { open: if want.is_open { Wave::all().open } else { 0 }, ..Wave::all() },
        // What is named by its digest does not move.
        refresh_sec: want.refresh_sec.filter(|_| want.digest().is_none()),
        secrets: want.secrets.into_iter().take(MAX_SECRETS).cloned().collect(),
        keep: Keep::default(),
        owners,
        owners_total,
        term: 0,
    }
}
