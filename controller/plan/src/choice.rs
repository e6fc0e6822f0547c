//! The nodes that a limited workload is warmed on.
//!
//! Owns the choice among those where its pods could land: spread over zones, the same whoever asks and whenever, and
//! moved as little as can be: one node that joins or leaves moves at most one other.

use std::collections::{BTreeMap, BTreeSet};

use shared::name::NodeName;
use xxhash_rust::xxh3::xxh3_64;

use crate::input::workload::Limit;
use crate::input::{Constraint, Node};
use crate::place;

/// Nodes without it are a zone of their own.
const ZONE: &str = "topology.kubernetes.io/zone";

/// A choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Choice {
    /// Who is chosen.
    pub(crate) chosen: BTreeSet<NodeName>,
    /// Who would be next in each zone.
    next: BTreeMap<String, (u64, NodeName)>,
}

impl Choice {
    /// Chooses for a constraint; everybody if it has no limit.
    ///
    /// Every node has a score of its own (rendezvous hashing), by which it has a rank in its zone; zones have an order.
    /// Chosen are the lowest by rank, then zone. A node more in a zone is one rank more there, so that at most one other
    /// is chosen no more.
    pub(crate) fn of<'n>(constraint: &Constraint, nodes: impl Iterator<Item = (&'n NodeName, &'n Node)>) -> Self {
        let Some(limit) = &constraint.limit else { return Self::default() };
        let mut zones: BTreeMap<(u64, &str), BTreeSet<(u64, &NodeName)>> = BTreeMap::new();
        for (name, node) in nodes.filter(|(name, node)| place::is_eligible(constraint, name, node)) {
            let zone = zone(node);
            zones.entry((score(limit, zone), zone)).or_default().insert((score(limit, name.as_str()), name));
        }
        let mut open: Vec<_> = zones.iter().map(|((_, zone), nodes)| (*zone, nodes.iter().peekable())).collect();
        let mut chosen = BTreeSet::new();
        'rounds: while open.iter_mut().any(|(_, nodes)| nodes.peek().is_some()) {
            for (_, nodes) in &mut open {
                if chosen.len() >= limit.nodes as usize {
                    break 'rounds;
                }
                chosen.extend(nodes.next().map(|(_, name)| (*name).clone()));
            }
        }
        let next = open.into_iter().filter_map(|(zone, mut nodes)| {
            let (score, name) = nodes.next()?;
            Some((zone.to_owned(), (*score, (*name).clone())))
        });
        Self { chosen, next: next.collect() }
    }

    /// Whether another state of one node can make another choice.
    pub(crate) fn depends_on(&self, constraint: &Constraint, name: &NodeName, node: Option<&Node>) -> bool {
        let Some(limit) = &constraint.limit else { return false };
        if self.chosen.contains(name) || self.next.values().any(|(_, next)| next == name) {
            return true;
        }
        let Some(node) = node.filter(|node| place::is_eligible(constraint, name, node)) else {
            // Whoever came after the next one is missed by nobody.
            return false;
        };
        let is_behind =
            |(score_of_next, next): &(u64, NodeName)| (*score_of_next, next) < (score(limit, name.as_str()), name);
        !self.next.get(zone(node)).is_some_and(is_behind)
    }
}

fn zone(node: &Node) -> &str {
    node.labels.get(ZONE).map_or("", String::as_str)
}

fn score(limit: &Limit, name: &str) -> u64 {
    xxh3_64(format!("{}\0{name}", limit.owner).as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limited(nodes: u32, owner: u8) -> Constraint {
        Constraint { limit: Some(Limit { nodes, owner: format!("Deployment/shop/w{owner}") }), ..Constraint::default() }
    }

    fn node(zone: u8, deleting: bool) -> Node {
        let labels = (zone > 0).then(|| (ZONE.to_owned(), format!("z{zone}"))).into_iter().collect();
        Node { labels, deleting, ..Node::default() }
    }

    fn fleet() -> impl Strategy<Value = BTreeMap<NodeName, Node>> {
        let node = (0_u8..4, prop::bool::weighted(0.1)).prop_map(|(zone, deleting)| node(zone, deleting));
        let name = (0_u8..40).prop_map(|n| NodeName::parse(&format!("n{n}")).unwrap());
        prop::collection::btree_map(name, node, 0..24)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn as_many_as_wanted_and_possible_evenly_over_zones(fleet in fleet(), most in 1_u32..12, owner: u8) {
            let choice = Choice::of(&limited(most, owner), fleet.iter());
            let eligible: Vec<_> = fleet.iter().filter(|(_, node)| !node.deleting).collect();
            prop_assert_eq!(choice.chosen.len(), eligible.len().min(most as usize));
            let mut zones: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
            for (name, node) in eligible {
                let (all, chosen) = zones.entry(zone(node)).or_default();
                *all += 1;
                *chosen += usize::from(choice.chosen.contains(name));
            }
            let most_in_one = zones.values().map(|(_, chosen)| *chosen).max().unwrap_or_default();
            for (all, chosen) in zones.into_values() {
                prop_assert!(chosen + 1 >= most_in_one || chosen == all, "{chosen} of {all}, {most_in_one} elsewhere");
            }
        }

        #[test]
        fn one_node_more_or_less_moves_at_most_one_other(fleet in fleet(), new in 0_u8..40, zone in 0_u8..4, most in 1_u32..12) {
            let constraint = limited(most, 1);
            let name = NodeName::parse(&format!("n{new}")).unwrap();
            let mut without = fleet;
            without.remove(&name);
            let mut with = without.clone();
            with.insert(name.clone(), node(zone, false));
            let [less, more] = [&without, &with].map(|fleet| Choice::of(&constraint, fleet.iter()));
            let moved: Vec<_> = less.chosen.symmetric_difference(&more.chosen).filter(|n| **n != name).collect();
            prop_assert!(moved.len() <= 1, "{moved:?}");
            if less != more {
                prop_assert!(less.depends_on(&constraint, &name, with.get(&name)), "a node that joins");
                prop_assert!(more.depends_on(&constraint, &name, None), "a node that leaves");
            }
        }
    }

    #[test]
    fn owners_choose_differently_and_always_the_same() {
        let fleet: BTreeMap<NodeName, Node> =
            (0..100).map(|n| (NodeName::parse(&format!("n{n}")).unwrap(), node(n % 3, false))).collect();
        let choices = [1, 2].map(|owner| Choice::of(&limited(3, owner), fleet.iter()));
        assert_ne!(choices[0].chosen, choices[1].chosen);
        assert_eq!(Choice::of(&limited(3, 1), fleet.iter().rev()), choices[0]);
        assert_eq!(Choice::of(&Constraint::default(), fleet.iter()), Choice::default(), "without a limit");
    }
}
