//! Which pools each node is in.
//!
//! Owns membership and the limits: 1,024 pools a cluster, 128 a node. What lies beyond them goes to private pools of
//! nodes, the rarest constraints first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use shared::message::assignment::MAX_POOLS as MAX_OF_NODE;
use shared::name::{NodeName, PoolId};

use crate::choice::Choice;
use crate::demand::DemandPool;
use crate::input::{Capacity, Constraint, Node, Taint};
use crate::place::{self, NAME_FIELD};

/// How many pools a cluster can have, private pools of nodes not counted.
pub(crate) const MAX_OF_CLUSTER: usize = 1_024;

/// Who is in what.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Membership {
    /// The pools that were placed.
    pub(crate) pools: Vec<PoolId>,
    /// The pools of each node that can be warmed, sorted.
    pub(crate) of_node: BTreeMap<NodeName, Vec<PoolId>>,
    /// Pools beyond a limit, whose images go to the private pool of the node.
    pub(crate) overflow: BTreeMap<NodeName, BTreeSet<PoolId>>,
    /// Who is chosen for each pool that is limited.
    pub(crate) choices: BTreeMap<PoolId, Choice>,
    /// Pools beyond the cluster's limit: they exist only as private pools of nodes.
    pub(crate) dropped: BTreeSet<PoolId>,
}

impl Membership {
    /// Whether nothing had to go to private pools.
    pub(crate) fn is_within_limits(&self) -> bool {
        self.overflow.is_empty() && self.dropped.is_empty()
    }
}

/// Places every pool.
pub(crate) fn place<'n>(
    pools: &BTreeMap<PoolId, DemandPool<'_>>,
    nodes: impl Iterator<Item = (&'n NodeName, &'n Node)>,
    max_of_cluster: usize,
    max_of_node: usize,
) -> Membership {
    // Best first: `all`, then what most workloads have.
    let shared = pools.iter().filter(|(_, p)| p.constraint.node_name.is_none());
    let mut ranked: Vec<(&PoolId, &DemandPool<'_>)> = shared.collect();
    ranked.sort_by_key(|(id, pool)| (**id != PoolId::all(), Reverse(pool.workloads), *id));
    let dropped = ranked.iter().skip(max_of_cluster).map(|(id, _)| (*id).clone()).collect();
    let pools_placed = pools.keys().cloned().collect();
    let mut membership = Membership { pools: pools_placed, dropped, ..Membership::default() };
    let nodes: Vec<(&'n NodeName, &'n Node)> = nodes.collect();
    for (id, pool) in ranked.iter().filter(|(_, pool)| pool.constraint.limit.is_some()) {
        membership.choices.insert((*id).clone(), Choice::of(pool.constraint, nodes.iter().copied()));
    }
    let relevant = Relevant::of(ranked.iter().map(|(_, p)| p.constraint));
    let mut classes: BTreeMap<Class<'n>, Vec<usize>> = BTreeMap::new();
    for (name, node) in nodes {
        if place::is_leaving(node) || place::is_virtual(node) {
            continue;
        }
        let of_class = classes.entry(relevant.class(name, node)).or_insert_with(|| {
            let is_eligible = |(at, (_, pool)): (usize, &(&PoolId, &DemandPool<'_>))| {
                place::is_eligible(pool.constraint, name, node).then_some(at)
            };
            ranked.iter().enumerate().filter_map(is_eligible).collect()
        });
        let is_chosen = |at: &&usize| {
            let choice = ranked.get(**at).and_then(|(id, _)| membership.choices.get(*id));
            choice.is_none_or(|choice| choice.chosen.contains(name))
        };
        let eligible: Vec<usize> = of_class.iter().filter(is_chosen).copied().collect();
        let private = PoolId::private(name);
        let is_named = pools.contains_key(&private);
        let has_dropped = eligible.last().is_some_and(|last| *last >= max_of_cluster);
        let needs_private = is_named || has_dropped || eligible.len() > max_of_node;
        let room = if needs_private { max_of_node.saturating_sub(1) } else { max_of_node };
        let kept = eligible.iter().take_while(|at| **at < max_of_cluster).take(room).count();
        let id = |at: &usize| ranked.get(*at).map(|(id, _)| (*id).clone());
        let mut of_node: Vec<PoolId> = eligible.iter().take(kept).filter_map(id).collect();
        if needs_private {
            of_node.push(private);
        }
        of_node.sort();
        let overflow: BTreeSet<PoolId> = eligible.iter().skip(kept).filter_map(id).collect();
        if !overflow.is_empty() {
            membership.overflow.insert(name.clone(), overflow);
        }
        membership.of_node.insert(name.clone(), of_node);
    }
    membership
}

/// Places every pool within the limits of the protocol.
pub(crate) fn place_within_limits<'n>(
    pools: &BTreeMap<PoolId, DemandPool<'_>>,
    nodes: impl Iterator<Item = (&'n NodeName, &'n Node)>,
) -> Membership {
    place(pools, nodes, MAX_OF_CLUSTER, MAX_OF_NODE)
}

/// What of a node any constraint looks at. Nodes that are equal in it are eligible for the same pools.
struct Relevant<'c> {
    labels: BTreeSet<&'c str>,
    name: bool,
    capacity: bool,
}

type Class<'n> = (Vec<Option<&'n str>>, Vec<&'n Taint>, Option<&'n NodeName>, bool, Option<&'n Capacity>);

impl<'c> Relevant<'c> {
    fn of(constraints: impl Iterator<Item = &'c Constraint>) -> Self {
        let mut relevant = Self { labels: BTreeSet::new(), name: false, capacity: false };
        for constraint in constraints {
            relevant.capacity |= !constraint.requests.is_empty();
            relevant.labels.extend(constraint.node_selector.keys().map(String::as_str));
            for term in constraint.affinity.iter().flatten() {
                relevant.labels.extend(term.match_expressions.iter().map(|e| e.key.as_str()));
                relevant.name |= term.match_fields.iter().any(|e| e.key == NAME_FIELD);
            }
        }
        relevant
    }

    fn class<'n>(&self, name: &'n NodeName, node: &'n Node) -> Class<'n> {
        let labels = self.labels.iter().map(|key| node.labels.get(*key).map(String::as_str)).collect();
        let capacity = self.capacity.then_some(&node.capacity);
        (labels, place::hard_taints(node).collect(), self.name.then_some(name), node.unschedulable, capacity)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pool;

    fn selecting(key: &str) -> Constraint {
        Constraint { node_selector: [(key.to_owned(), "1".to_owned())].into(), ..Constraint::default() }
    }

    fn node(labels: &[&str]) -> Node {
        let labels = labels.iter().map(|l| ((*l).to_owned(), "1".to_owned())).collect();
        Node { labels, ..Node::default() }
    }

    fn demand(constraints: &[(Constraint, usize)]) -> BTreeMap<PoolId, DemandPool<'_>> {
        constraints
            .iter()
            .map(|(constraint, workloads)| {
                let (workloads, wants) = (*workloads, BTreeMap::new());
                (pool::id_of(constraint), DemandPool { constraint, workloads, wants })
            })
            .collect()
    }

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).unwrap()
    }

    #[test]
    fn beyond_a_limit_the_rarest_go_to_the_private_pool() {
        let constraints = [(Constraint::default(), 1), (selecting("a"), 9), (selecting("b"), 5), (selecting("c"), 7)];
        let pools = demand(&constraints);
        let id = |key: &str| pool::id_of(&selecting(key));
        let nodes = BTreeMap::from([(name("n1"), node(&["a", "b", "c"])), (name("n2"), node(&["a", "b"]))]);
        let sorted = |mut ids: Vec<PoolId>| {
            ids.sort();
            ids
        };
        let of_node = place(&pools, nodes.iter(), 10, 3);
        assert_eq!(of_node.of_node[&name("n2")], sorted(vec![PoolId::all(), id("a"), id("b")]));
        assert_eq!(of_node.of_node[&name("n1")], sorted(vec![PoolId::all(), id("a"), PoolId::private(&name("n1"))]));
        assert_eq!(of_node.overflow, BTreeMap::from([(name("n1"), [id("b"), id("c")].into())]));
        let of_cluster = place(&pools, nodes.iter(), 3, 10);
        assert_eq!(of_cluster.dropped, [id("b")].into());
        assert_eq!(of_cluster.of_node[&name("n2")], sorted(vec![PoolId::all(), id("a"), PoolId::private(&name("n2"))]));
        assert_eq!(of_cluster.overflow[&name("n2")], [id("b")].into());
        assert!(place(&pools, nodes.iter(), 4, 4).is_within_limits());
    }

    proptest! {
        #[test]
        fn classes_of_nodes_give_what_each_node_alone_would(
            constraints in prop::collection::btree_map("[a-d]", 0_usize..9, 0..4),
            labels in prop::collection::vec(prop::collection::btree_set("[a-d]", 0..4), 0..8),
            (cluster, of_one) in (1_usize..5, 1_usize..5),
        ) {
            let constraints: Vec<_> = constraints.iter().map(|(key, n)| (selecting(key), *n)).collect();
            let pools = demand(&constraints);
            let nodes: BTreeMap<NodeName, Node> = labels.iter().enumerate().map(|(n, labels)| {
                (name(&format!("n{n}")), node(&labels.iter().map(String::as_str).collect::<Vec<_>>()))
            }).collect();
            let together = place(&pools, nodes.iter(), cluster, of_one);
            for (node, content) in &nodes {
                let alone = place(&pools, [(node, content)].into_iter(), cluster, of_one);
                prop_assert_eq!(alone.of_node.get(node), together.of_node.get(node));
                let listed = &together.of_node[node];
                prop_assert!(listed.len() <= of_one);
                // Nothing is lost: what the node is eligible for is listed, or goes to its private pool.
                for (id, pool) in &pools {
                    let beyond = together.overflow.get(node).is_some_and(|o| o.contains(id));
                    let is_in = listed.contains(id) || beyond;
                    prop_assert_eq!(is_in, place::is_eligible(pool.constraint, node, content));
                    prop_assert!(!beyond || listed.contains(&PoolId::private(node)));
                }
            }
        }
    }
}
