//! Planning again: what of the plan has to be made anew.
//!
//! Owns the short cuts: a workload's change touches the images it asks for, a pool that appears or goes touches the nodes
//! in it, and a node's pools follow from that node alone, as long as no limit is met. [`crate::plan::plan`] made of
//! everything is what any short cut must equal.

use std::collections::{BTreeMap, BTreeSet};

use shared::message::Intent;
use shared::message::assignment::MAX_POOLS;
use shared::name::{ImageKey, NodeName, PoolId};

use super::World;
use crate::abreast::abreast;
use crate::choice::Choice;
use crate::claims::Claims;
use crate::demand;
use crate::evidence::Evidence;
use crate::input::Node;
use crate::lists::{Lists, PoolList};
use crate::member::{self, MAX_OF_CLUSTER};
use crate::place;
use crate::plan::{self, Plan, PlannedNode, PlannedPool};
use crate::select::OfNamespace;
use crate::settings::LabelMode;

/// What is planned otherwise than before.
#[derive(Default)]
struct Moved {
    /// Pools that were not there.
    come: BTreeSet<PoolId>,
    /// Pools that are no more.
    gone: BTreeSet<PoolId>,
    /// Images that are not treated alike in a pool, as far as labels go.
    images: BTreeMap<PoolId, BTreeSet<ImageKey>>,
}

/// What shows that a node is concerned by an image.
struct Look {
    /// Its label.
    label: String,
    /// The sets that have it.
    sets: BTreeSet<u64>,
}

impl Look {
    fn of(id: &ImageKey, evidence: &Evidence) -> Self {
        Self { label: shared::label::image_label(id), sets: evidence.sets_with(id) }
    }
}

impl World {
    /// Makes anew what of the plan depends on what has changed.
    pub(super) fn replan(&mut self) {
        if self.rules.is_none() {
            return;
        }
        let mut nodes = std::mem::take(&mut self.stale.nodes);
        let is_all_stale = std::mem::take(&mut self.stale.everything);
        let touched = if is_all_stale { self.claim_all() } else { self.claim_again() };
        if is_all_stale || (self.plan.is_limited && !(touched.is_empty() && nodes.is_empty())) {
            self.plan_from_nothing();
            return;
        }
        let moved = self.replan_images(&touched);
        self.choose_again(&moved, &mut nodes);
        if self.place_pools(&moved) && self.place_alone(&nodes) {
            self.look_at_labels(&moved.images);
        } else {
            // A limit is met: what there is no room for goes to pools that do not exist yet.
            self.plan_from_nothing();
        }
    }

    /// Asks every workload what it wants.
    fn claim_all(&mut self) -> BTreeSet<ImageKey> {
        self.claims = Claims::default();
        self.plan.problems.clear();
        self.stale.namespaces.clear();
        self.stale.workloads = self.workloads.good().map(|(key, _)| key.clone()).collect();
        self.claim_again()
    }

    /// Asks those workloads again of which something has changed. Gives the images that may be wanted otherwise.
    fn claim_again(&mut self) -> BTreeSet<ImageKey> {
        let mut touched = BTreeSet::new();
        let mut keys = std::mem::take(&mut self.stale.workloads);
        let namespaces = std::mem::take(&mut self.stale.namespaces);
        if !namespaces.is_empty() {
            keys.extend(self.workloads.keys().filter(|key| namespaces.contains(&key.namespace)).cloned());
        }
        let Some(rules) = self.rules.as_ref().filter(|_| !keys.is_empty()) else { return touched };
        let mut judged: BTreeMap<&str, OfNamespace<'_>> = BTreeMap::new();
        for key in &keys {
            let name = key.namespace.as_str();
            let mut claim = self.workloads.get(key).map(|reading| {
                let of_namespace = judged.entry(name).or_insert_with(|| rules.of_namespace(&self.namespaces, name));
                (reading, of_namespace.claim(reading))
            });
            let problems = claim.as_mut().map(|(_, claim)| std::mem::take(&mut claim.problems)).unwrap_or_default();
            if problems.is_empty() {
                self.plan.problems.remove(key);
            } else {
                self.plan.problems.insert(key.clone(), problems);
            }
            self.claims.set(key, claim.filter(|(_, claim)| claim.is_wanted), &mut touched);
        }
        self.plan.workloads = self.claims.workloads();
        touched
    }

    /// The naive way, of everything.
    fn plan_from_nothing(&mut self) {
        let Some((new, choices)) = self.naive_plan() else { return };
        self.choices = choices;
        let old = std::mem::replace(&mut self.plan, new);
        for planned in self.plan.nodes.values_mut() {
            planned.pools = self.lists.one(&planned.pools);
        }
        self.claims.asked(&self.plan);
        self.pools_replaced(&old.pools);
        let mut names: BTreeSet<NodeName> = old.nodes.keys().chain(self.plan.nodes.keys()).cloned().collect();
        names.retain(|name| old.nodes.get(name) != self.plan.nodes.get(name));
        self.nodes_replaced(&names);
    }

    fn naive_plan(&self) -> Option<(Plan, BTreeMap<PoolId, Choice>)> {
        let demand = demand::demand(self.rules.as_ref()?, &self.namespaces, &self.workloads);
        let membership = member::place_within_limits(&demand.pools, self.nodes.good());
        Some((plan::plan(demand, &membership, &self.nodes, &mut Lists::default()), membership.choices))
    }

    /// Whether the plan is the one that is made of everything known, without any short cut. For tests and benchmarks.
    pub fn is_planned_as_from_nothing(&self) -> bool {
        self.naive_plan().is_none_or(|(naive, _)| naive == self.plan)
    }

    /// Plans some images anew, in all pools.
    fn replan_images(&mut self, touched: &BTreeSet<ImageKey>) -> Moved {
        let mut moved = Moved::default();
        for id in touched {
            let before = self.claims.was_asked(id);
            let wants = self.claims.wants(id);
            for pool in before.iter().filter(|pool| !wants.contains_key(pool)) {
                if let Some(planned) = self.plan.pools.get_mut(pool) {
                    planned.intents.remove(id);
                    planned.opted_in.remove(id);
                    if planned.intents.is_empty() {
                        moved.gone.insert(pool.clone());
                    }
                }
                self.suspects.intent(pool, id);
                moved.images.entry(pool.clone()).or_default().insert(id.clone());
            }
            let now: Vec<PoolId> = wants.keys().map(|pool| (*pool).clone()).collect();
            for (pool, want) in wants {
                if !self.plan.pools.contains_key(pool) {
                    let Some(constraint) = self.claims.constraint(pool) else { continue };
                    self.plan.pools.insert(pool.clone(), PlannedPool::empty(pool, constraint.clone()));
                    moved.come.insert(pool.clone());
                }
                let Some(planned) = self.plan.pools.get_mut(pool) else { continue };
                let is_opted_in = want.is_opted_in;
                let opts_otherwise =
                    if is_opted_in { planned.opted_in.insert(id.clone()) } else { planned.opted_in.remove(id) };
                let new = plan::intent(id.clone(), want);
                let old = planned.intents.get(id);
                if old == Some(&new) && !opts_otherwise {
                    continue;
                }
                if opts_otherwise || !old.is_some_and(|old| is_labelled_alike(old, &new)) {
                    moved.images.entry(pool.clone()).or_default().insert(id.clone());
                }
                planned.intents.insert(id.clone(), new);
                self.suspects.intent(pool, id);
            }
            self.claims.is_asked(id, now);
        }
        let pools = &mut self.plan.pools;
        // One that lost its last image may have got another.
        moved.gone.retain(|pool| pools.get(pool).is_some_and(|planned| planned.intents.is_empty()));
        for pool in &moved.gone {
            pools.remove(pool);
            self.suspects.pool(pool);
        }
        let is_new_and_gone: Vec<PoolId> = moved.gone.intersection(&moved.come).cloned().collect();
        for pool in is_new_and_gone {
            moved.come.remove(&pool);
            moved.gone.remove(&pool);
        }
        self.stale.intents |= !touched.is_empty();
        moved
    }

    /// Chooses nodes for limited pools that came, and again where another state of one of `nodes` can make another choice;
    /// whose pools are others by that is added to them.
    fn choose_again(&mut self, moved: &Moved, nodes: &mut BTreeSet<NodeName>) {
        self.choices.retain(|pool, _| !moved.gone.contains(pool));
        for pool in &moved.come {
            if let Some(planned) = self.plan.pools.get(pool).filter(|planned| planned.constraint.limit.is_some()) {
                self.choices.insert(pool.clone(), Choice::of(&planned.constraint, self.nodes.good()));
            }
        }
        let mut others = BTreeSet::new();
        for (pool, choice) in &mut self.choices {
            let Some(planned) = self.plan.pools.get(pool).filter(|_| !moved.come.contains(pool)) else { continue };
            let constraint = &planned.constraint;
            if nodes.iter().any(|name| choice.depends_on(constraint, name, self.nodes.get(name))) {
                let old = std::mem::replace(choice, Choice::of(constraint, self.nodes.good()));
                others.extend(old.chosen.symmetric_difference(&choice.chosen).cloned());
            }
        }
        nodes.extend(others);
    }

    /// Has pools that came joined by whom they are for, and those that went left. Says whether that was possible.
    fn place_pools(&mut self, moved: &Moved) -> bool {
        if moved.come.is_empty() && moved.gone.is_empty() {
            return true;
        }
        let shared = self.plan.pools.values().filter(|pool| pool.constraint.node_name.is_none()).count();
        let Some(changed) = (shared <= MAX_OF_CLUSTER).then(|| self.lists_after(moved)).flatten() else { return false };
        let left = self.left_with_a_label(moved, &changed);
        let names: BTreeSet<NodeName> = changed.keys().cloned().collect();
        for (_, planned, pools) in abreast(self.plan.nodes.iter_mut(), changed.iter()) {
            if let Some(pools) = pools {
                planned.pools = pools.clone();
            }
        }
        self.have_placed_again(&names);
        self.pace.touch_all(&left);
        true
    }

    /// Those of these nodes whose labels can be others by the pools that they are about to leave; what they enter is
    /// [`World::look_at_labels`]'s.
    fn left_with_a_label(&self, moved: &Moved, changed: &BTreeMap<NodeName, PoolList>) -> BTreeSet<NodeName> {
        if moved.gone.is_empty() {
            return BTreeSet::new();
        }
        let of_gone = |pools: &PoolList| -> Vec<String> {
            let gone = pools.iter().filter(|pool| moved.gone.contains(*pool));
            gone.filter_map(|pool| moved.images.get(pool)).flatten().map(shared::label::image_label).collect()
        };
        let mut by_list: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let planned = abreast(self.plan.nodes.iter(), changed.iter()).filter(|(_, _, changed)| changed.is_some());
        let planned = planned.map(|(name, planned, _)| (name, planned));
        let is_concerned = |(name, planned, node): &(&NodeName, &PlannedNode, Option<&Node>)| {
            let Some(node) = node else { return true };
            let labels = by_list.entry(planned.pools.name()).or_insert_with(|| of_gone(&planned.pools));
            self.pace.is_beyond(name)
                || node.our_labels.keys().any(|label| shared::label::is_of_set(label))
                || labels.iter().any(|label| node.our_labels.contains_key(label))
        };
        abreast(planned, self.nodes.good()).filter(is_concerned).map(|(name, _, _)| name.clone()).collect()
    }

    /// The pools of those nodes that enter one that came or leave one that went; `None` if a node has no room.
    fn lists_after(&mut self, moved: &Moved) -> Option<BTreeMap<NodeName, PoolList>> {
        let come: Vec<(&PoolId, &PlannedPool)> =
            self.plan.pools.iter().filter(|(id, _)| moved.come.contains(*id)).collect();
        // Nodes that were in the same pools and enter the same: few differ. `None` where nothing changes.
        let mut after: BTreeMap<(usize, Vec<usize>), Option<PoolList>> = BTreeMap::new();
        let mut changed = Vec::new();
        for (name, planned, node) in abreast(self.plan.nodes.iter(), self.nodes.good()) {
            // One that is gone is planned alone.
            let Some(node) = node else { continue };
            let entered =
                come.iter().enumerate().filter(|(_, (id, pool))| is_member(&self.choices, id, pool, name, node));
            let key = (planned.pools.name(), entered.map(|(number, _)| number).collect());
            if let Some(there) = after.get(&key) {
                changed.extend(there.clone().map(|pools| (name.clone(), pools)));
                continue;
            }
            let stay = planned.pools.iter().filter(|pool| !moved.gone.contains(*pool));
            let entered = key.1.iter().filter_map(|number| come.get(*number)).map(|(id, _)| *id);
            let pools: BTreeSet<&PoolId> = stay.chain(entered).collect();
            if pools.len() > MAX_POOLS {
                return None;
            }
            let is_same = planned.pools.iter().eq(pools.iter().copied());
            let list = (!is_same).then(|| self.lists.one(&pools.into_iter().cloned().collect::<Vec<_>>()));
            changed.extend(list.clone().map(|pools| (name.clone(), pools)));
            after.insert(key, list);
        }
        Some(changed.into_iter().collect())
    }

    /// Plans some nodes on their own; says whether that was possible for all of them.
    fn place_alone(&mut self, names: &BTreeSet<NodeName>) -> bool {
        for name in names {
            let new = match self.nodes.get(name) {
                None => None,
                Some(node) => match pools_alone(&self.plan, &self.choices, name, node) {
                    None => return false,
                    Some(pools) => plan::planned_node(node, self.lists.one(&pools)),
                },
            };
            let is_same = self.plan.nodes.get(name) == new.as_ref();
            match new {
                Some(new) => drop(self.plan.nodes.insert(name.clone(), new)),
                None => drop(self.plan.nodes.remove(name)),
            }
            if !is_same {
                self.node_replaced(name);
            }
        }
        true
    }

    /// A node is planned otherwise.
    fn node_replaced(&mut self, name: &NodeName) {
        self.stale.assignments = true;
        self.suspects.assignment(name);
        self.evidence.look_again(name);
        self.pace.touch(name);
    }

    /// Many nodes are.
    fn nodes_replaced(&mut self, names: &BTreeSet<NodeName>) {
        self.have_placed_again(names);
        self.pace.touch_all(names);
    }

    /// Nodes are in other pools.
    fn have_placed_again(&mut self, names: &BTreeSet<NodeName>) {
        self.stale.assignments |= !names.is_empty();
        self.suspects.assignments.append(&mut names.clone());
        self.evidence.look_again_at(names);
    }

    /// Every pool may be planned otherwise.
    fn pools_replaced(&mut self, old: &BTreeMap<PoolId, PlannedPool>) {
        let new = &self.plan.pools;
        let mut images: BTreeMap<PoolId, BTreeSet<ImageKey>> = BTreeMap::new();
        for (a, b) in [(old, new), (new, old)] {
            for (pool, planned) in a {
                let other = b.get(pool);
                if other.is_none_or(|other| other.definition != planned.definition) {
                    self.suspects.pool(pool);
                }
                for (id, intent) in &planned.intents {
                    let there = other.and_then(|other| other.intents.get(id));
                    let opts_otherwise =
                        other.is_some_and(|other| other.opted_in.contains(id)) != planned.opted_in.contains(id);
                    if there == Some(intent) && !opts_otherwise {
                        continue;
                    }
                    self.suspects.intent(pool, id);
                    if opts_otherwise || !there.is_some_and(|there| is_labelled_alike(there, intent)) {
                        images.entry(pool.clone()).or_default().insert(id.clone());
                    }
                }
            }
        }
        self.stale.intents = true;
        self.look_at_labels(&images);
    }

    /// Has those nodes looked at whose labels these images can change: one that is planned otherwise is labelled or
    /// proven there. A node that leaves a pool is looked at by then.
    fn look_at_labels(&mut self, images: &BTreeMap<PoolId, BTreeSet<ImageKey>>) {
        if images.is_empty() {
            return;
        }
        let unwanted =
            images.values().flatten().filter(|id| !self.plan.pools.values().any(|p| p.intents.contains_key(*id)));
        let unwanted: BTreeSet<ImageKey> = unwanted.cloned().collect();
        self.evidence.forget_sizes(&unwanted);
        let moved: BTreeSet<&ImageKey> = images.values().flatten().collect();
        let looks: BTreeMap<&ImageKey, Look> = moved.into_iter().map(|id| (id, Look::of(id, &self.evidence))).collect();
        // Of each: whether it is wanted still.
        let mut of_list: BTreeMap<usize, BTreeMap<&ImageKey, (&Look, bool)>> = BTreeMap::new();
        // What is warm makes labels.
        let makes_labels = self.settings.labels.mode != LabelMode::None;
        let said = abreast(self.plan.nodes.iter(), self.evidence.iter());
        let said = said.map(|(name, planned, evidence)| (name, (planned, evidence)));
        for (name, (planned, evidence), node) in abreast(said, self.nodes.good()) {
            let concerned = of_list.entry(planned.pools.name()).or_insert_with(|| {
                let moved = planned.pools.iter().filter_map(|pool| images.get(pool)).flatten();
                let is_wanted = |id| self.plan.wants_in(&planned.pools, id);
                moved.filter_map(|id| looks.get_key_value(id)).map(|(id, look)| (*id, (look, is_wanted(id)))).collect()
            });
            if concerned.is_empty() {
                continue;
            }
            // What is wanted no more and has no label there leaves all labels as they are; only where some have no room it
            // may be one of those.
            let lacks_room = self.pace.is_beyond(name);
            let is_concerned = |(id, (look, is_wanted)): (&&ImageKey, &(&Look, bool))| {
                node.is_some_and(|node| node.our_labels.contains_key(&look.label))
                    || ((*is_wanted && makes_labels || lacks_room)
                        && evidence.is_some_and(|evidence| evidence.knows_by(id, &look.sets)))
            };
            // The label of a set speaks of any image.
            let has_set = node.is_some_and(|node| node.our_labels.keys().any(|key| shared::label::is_of_set(key)));
            if has_set || concerned.iter().any(is_concerned) {
                self.pace.touch(name);
            }
        }
    }
}

fn is_member(
    choices: &BTreeMap<PoolId, Choice>,
    id: &PoolId,
    pool: &PlannedPool,
    name: &NodeName,
    node: &Node,
) -> bool {
    match choices.get(id) {
        Some(choice) => choice.chosen.contains(name),
        None => place::is_eligible(&pool.constraint, name, node),
    }
}

/// The pools of one node, as long as no limit is met.
fn pools_alone(plan: &Plan, choices: &BTreeMap<PoolId, Choice>, name: &NodeName, node: &Node) -> Option<Vec<PoolId>> {
    let eligible = plan.pools.iter().filter(|(id, pool)| is_member(choices, id, pool, name, node));
    let pools: Vec<PoolId> = eligible.map(|(id, _)| id.clone()).collect();
    (pools.len() <= MAX_POOLS).then_some(pools)
}

/// Whether two intents for an image are one, as far as labels go.
fn is_labelled_alike(a: &Intent, b: &Intent) -> bool {
    a.priority == b.priority && a.digest == b.digest
}

#[cfg(test)]
mod tests;
