//! Planning again: what of the plan has to be made anew.
//!
//! Owns the short cuts: the same pools have the same members, and a node's pools follow from that node alone, as long as
//! no limit is met. [`crate::plan::plan`] made of everything is what any short cut must equal.

use std::collections::{BTreeMap, BTreeSet};

use shared::message::Intent;
use shared::message::assignment::MAX_POOLS;
use shared::name::{ImageKey, NodeName, PoolId};

use super::World;
use crate::demand;
use crate::input::Node;
use crate::member::{self, Membership};
use crate::place;
use crate::plan::{self, Plan, PlannedNode, PlannedPool};

impl World {
    /// Makes anew what of the plan depends on what has changed.
    pub(super) fn replan(&mut self) {
        let nodes = std::mem::take(&mut self.stale.nodes);
        let is_demand_stale = std::mem::take(&mut self.stale.demand);
        if !is_demand_stale && nodes.is_empty() {
            return;
        }
        if !(is_demand_stale || self.plan.is_limited) && self.place_alone(&nodes) {
            return;
        }
        let Some(selection) = &self.selection else { return };
        let demand = demand::demand(selection, &self.namespaces, &self.workloads);
        if self.plan.is_limited || !self.plan.pools.keys().eq(demand.pools.keys()) {
            let membership = member::place_within_limits(&demand.pools, self.nodes.good());
            let new = plan::plan(demand, &membership, &self.nodes);
            let old = std::mem::replace(&mut self.plan, new);
            self.pools_replaced(&old.pools);
            self.nodes_replaced(&old.nodes);
            return;
        }
        (self.plan.workloads, self.plan.problems) = (demand.workloads, demand.problems);
        let pools = plan::pools(demand.pools, &Membership::default());
        let old = std::mem::replace(&mut self.plan.pools, pools);
        self.pools_replaced(&old);
        if !self.place_alone(&nodes) {
            // A node meets a limit: what it lacks room for goes to pools that do not exist yet.
            self.plan.is_limited = true;
            self.stale.demand = true;
            self.stale.nodes = nodes;
            self.replan();
        }
    }

    /// Plans some nodes on their own; says whether that was possible for all of them.
    fn place_alone(&mut self, names: &BTreeSet<NodeName>) -> bool {
        for name in names {
            let new = match self.nodes.get(name) {
                None => None,
                Some(node) => match pools_alone(&self.plan, name, node) {
                    None => return false,
                    Some(pools) => plan::planned_node(node, pools),
                },
            };
            let old = match new.clone() {
                Some(new) => self.plan.nodes.insert(name.clone(), new),
                None => self.plan.nodes.remove(name),
            };
            self.node_replaced(name, old.as_ref(), new.as_ref());
        }
        true
    }

    fn nodes_replaced(&mut self, old: &BTreeMap<NodeName, PlannedNode>) {
        let names: BTreeSet<NodeName> = old.keys().chain(self.plan.nodes.keys()).cloned().collect();
        for name in names {
            let new = self.plan.nodes.get(&name).cloned();
            self.node_replaced(&name, old.get(&name), new.as_ref());
        }
    }

    fn node_replaced(&mut self, name: &NodeName, old: Option<&PlannedNode>, new: Option<&PlannedNode>) {
        if old == new {
            return;
        }
        self.stale.assignments = true;
        self.evidence.look_again(name);
        self.pace.touch(name);
    }

    /// Has those nodes looked at whose labels other pools can change: an image that is planned otherwise is labelled or
    /// proven there.
    fn pools_replaced(&mut self, old: &BTreeMap<PoolId, PlannedPool>) {
        if *old == self.plan.pools {
            return;
        }
        self.stale.intents = true;
        let moved: Vec<(&ImageKey, String)> =
            moved_images(old, &self.plan.pools).into_iter().map(|id| (id, shared::label::image_label(id))).collect();
        if moved.is_empty() {
            return;
        }
        for (name, node) in self.nodes.good() {
            let evidence = self.evidence.get(name);
            let is_concerned = |(id, label): &(&ImageKey, String)| {
                evidence.is_some_and(|e| e.knows(id)) || node.our_labels.contains_key(label)
            };
            if moved.iter().any(is_concerned) {
                self.pace.touch(name);
            }
        }
        let wanted: BTreeSet<&ImageKey> = self.plan.pools.values().flat_map(|p| p.intents.keys()).collect();
        self.evidence.keep_sizes(|id| wanted.contains(id));
    }
}

/// The pools of one node, as long as no limit is met.
fn pools_alone(plan: &Plan, name: &NodeName, node: &Node) -> Option<Vec<PoolId>> {
    let eligible = plan.pools.iter().filter(|(_, pool)| place::is_eligible(&pool.constraint, name, node));
    let pools: Vec<PoolId> = eligible.map(|(id, _)| id.clone()).collect();
    (pools.len() <= MAX_POOLS).then_some(pools)
}

/// Images that are not treated alike, as far as labels go.
fn moved_images<'a>(
    old: &'a BTreeMap<PoolId, PlannedPool>,
    new: &'a BTreeMap<PoolId, PlannedPool>,
) -> BTreeSet<&'a ImageKey> {
    type Pools = BTreeMap<PoolId, PlannedPool>;
    let intents = |pools: &'a Pools| pools.iter().flat_map(|(id, p)| p.intents.values().map(move |i| (id, i)));
    let is_in = |pools: &Pools, pool: &PoolId, intent: &Intent| {
        let other = pools.get(pool).and_then(|p| p.intents.get(&intent.id));
        other.is_some_and(|o| o.priority == intent.priority && o.digest == intent.digest)
    };
    let gone = intents(old).filter(|(pool, intent)| !is_in(new, pool, intent));
    let come = intents(new).filter(|(pool, intent)| !is_in(old, pool, intent));
    gone.chain(come).map(|(_, intent)| &intent.id).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::machine::{Moment, Now};

    use super::*;
    use crate::Settings;
    use crate::fact::{Change, Fact};
    use crate::input::{
        Constraint, ContainerImage, Namespace, Selection, Toleration, TolerationOperator, Workload, WorkloadKey,
        WorkloadKind,
    };

    fn constraint(kind: u8) -> Constraint {
        let mut constraint = Constraint::default();
        match kind {
            0 | 1 => {}
            2 => drop(constraint.node_selector.insert("disk".to_owned(), "ssd".to_owned())),
            3 => constraint.node_name = Some("n1".to_owned()),
            // Enough of these meet the limit of a node.
            _ => drop(constraint.tolerations.insert(Toleration {
                key: Some(format!("taint-{kind}")),
                operator: TolerationOperator::Exists,
                value: String::new(),
                effect: None,
            })),
        }
        constraint
    }

    fn workload(constraint_kind: u8, images: &[u8]) -> Workload {
        let image =
            |n: &u8| ContainerImage { position: "containers[0]".to_owned(), image: format!("registry.example/a:{n}") };
        Workload {
            images: images.iter().map(image).collect(),
            constraint: constraint(constraint_kind),
            ..Workload::default()
        }
    }

    fn key(n: u8) -> WorkloadKey {
        WorkloadKey { kind: WorkloadKind::Deployment, namespace: "shop".to_owned(), name: format!("w{n}") }
    }

    fn node(uid: u8, ssd: bool, deleting: bool) -> Node {
        let labels = ssd.then(|| ("disk".to_owned(), "ssd".to_owned())).into_iter().collect();
        Node { uid: format!("u{uid}"), labels, deleting, ..Node::default() }
    }

    fn now() -> Now {
        Now { mono: Moment(0), wall: jiff::Timestamp::UNIX_EPOCH }
    }

    fn facts() -> impl Strategy<Value = Vec<Fact>> {
        let name = (0_u8..4).prop_map(|n| NodeName::parse(&format!("n{n}")).unwrap());
        let images = prop::collection::vec(0_u8..5, 0..3);
        let fact = prop_oneof![
            4 => (0_u8..6, 0_u8..8, images)
                .prop_map(|(k, c, i)| Fact::Workload(Change::Upsert(key(k), Ok(workload(c, &i))))),
            2 => (0_u8..6).prop_map(|k| Fact::Workload(Change::Remove(key(k)))),
            4 => (name.clone(), 0_u8..2, any::<bool>(), any::<bool>())
                .prop_map(|(n, u, s, d)| Fact::Node(Change::Upsert(n, Ok(node(u, s, d))))),
            1 => name.prop_map(|n| Fact::Node(Change::Remove(n))),
            // More constraints than a node can be in pools.
            1 => Just(Fact::Workloads(
                WorkloadKind::StatefulSet,
                (0..130)
                    .map(|n| (WorkloadKey { kind: WorkloadKind::StatefulSet, ..key(n) }, Ok(workload(100 + n, &[n % 7]))))
                    .collect(),
            )),
            1 => Just(Fact::Workloads(WorkloadKind::StatefulSet, BTreeMap::new())),
        ];
        prop::collection::vec(fact, 1..20)
    }

    proptest! {
        #[test]
        fn a_short_cut_equals_the_plan_made_of_everything(facts in facts()) {
            let mut world = World::new(Settings::default(), "e".to_owned(), 1, now());
            world.selection = Some(Selection::default());
            let shop = Namespace::default();
            world.learn(Fact::Namespace(Change::Upsert("shop".to_owned(), Ok(shop))), now().mono);
            for fact in facts {
                world.learn(fact, now().mono);
                world.replan();
                let demand = demand::demand(&Selection::default(), &world.namespaces, &world.workloads);
                let membership = member::place_within_limits(&demand.pools, world.nodes.good());
                let naive = plan::plan(demand, &membership, &world.nodes);
                prop_assert_eq!(&world.plan, &naive);
            }
        }
    }
}
