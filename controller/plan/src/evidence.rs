//! What agents have said, node by node.
//!
//! Owns who said what when: instances and counters, lateness, reports that wait for their set, and what ends the
//! worth of evidence. What a report says is [`crate::judge`]'s. Silence never takes anything away.

mod node;
mod proof;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::machine::Moment;
use shared::message::{Event, Heartbeat, Inventory};
use shared::name::{ImageKey, NodeName, PoolId};

pub(crate) use self::node::{Agent, NodeEvidence};
pub(crate) use self::proof::Origin;
pub(crate) use self::view::{Class, ClassName, Classes};
use crate::bucket::{AssignBucket, IntentsBucket, Moves};
use crate::fact::{Stored, StoredValue};
use crate::judge::{ImageEvidence, Shared};
use crate::lists::{Lists, PoolList};
use crate::plan::Plan;

/// Heartbeats that may be missed before a node is unknown.
const MISSED: u32 = 3;

/// All evidence.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    nodes: BTreeMap<NodeName, NodeEvidence>,
    shared: Shared,
    /// What is both planned and told, where they differ.
    lists: Lists,
    /// Sizes of images as any runtime last told.
    sizes: BTreeMap<ImageKey, u64>,
    /// How long a node may be silent.
    patience: Duration,
    /// Whose reports are to be judged.
    unjudged: BTreeSet<NodeName>,
    /// Who may answer for other pools than before.
    placed: BTreeSet<NodeName>,
    /// Whose inventory may have to be asked for.
    contradicted: BTreeSet<NodeName>,
}

/// Which pools a node answers for: those planned for it and those its agent was last told.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// The plan.
    pub(crate) plan: &'a Plan,
    /// The intents bucket.
    pub(crate) intents: &'a IntentsBucket,
    /// The assign bucket.
    pub(crate) assigned: &'a AssignBucket,
}

/// The lists of pools that nodes answer for.
#[derive(Debug, Default)]
struct Unions {
    /// By the names of what is planned and what was told; few differ.
    of: BTreeMap<(usize, usize), PoolList>,
}

impl Scope<'_> {
    /// Sorted.
    pub(crate) fn pools(self, node: &NodeName) -> PoolList {
        self.pools_by(node, &mut Unions::default(), &mut Lists::default())
    }

    /// As [`Scope::pools`], for many nodes.
    fn pools_by(self, node: &NodeName, unions: &mut Unions, lists: &mut Lists) -> PoolList {
        let planned = self.plan.nodes.get(node).map(|planned| &planned.pools);
        match (planned, self.assigned.told(node)) {
            (None, None) => PoolList::default(),
            (Some(one), None) | (None, Some(one)) => one.clone(),
            (Some(planned), Some(told)) => unions
                .of
                .entry((planned.name(), told.name()))
                .or_insert_with(|| {
                    if planned == told {
                        return planned.clone();
                    }
                    let all: BTreeSet<&PoolId> = planned.iter().chain(told.iter()).collect();
                    lists.one(&all.into_iter().cloned().collect::<Vec<_>>())
                })
                .clone(),
        }
    }

    /// Whether a node can be asked about an image at all.
    pub(crate) fn covers(self, node: &NodeName, id: &ImageKey) -> bool {
        self.plan.wants(node, id)
            || self.assigned.pools_of(node).iter().any(|pool| self.intents.born(pool, id).is_some())
    }

    /// Whether an image has been wanted there without a break since before `seq`.
    fn covered_since(self, pools: &[PoolId], id: &ImageKey, seq: u64) -> bool {
        pools.iter().any(|pool| self.intents.born(pool, id).is_some_and(|born| born < seq))
    }
}

impl Evidence {
    pub(crate) fn new(heartbeat: Duration) -> Self {
        Self {
            nodes: BTreeMap::new(),
            shared: Shared::default(),
            lists: Lists::default(),
            sizes: BTreeMap::new(),
            patience: heartbeat * MISSED,
            unjudged: BTreeSet::new(),
            placed: BTreeSet::new(),
            contradicted: BTreeSet::new(),
        }
    }

    /// What is known of a node.
    pub(crate) fn get(&self, node: &NodeName) -> Option<&NodeEvidence> {
        self.nodes.get(node)
    }

    /// The numbers of the sets that have an image: see [`NodeEvidence::knows_by`].
    pub(crate) fn sets_with(&self, id: &ImageKey) -> BTreeSet<u64> {
        self.shared.sets_with(id)
    }

    /// What is proven of an image on a node.
    pub(crate) fn of(&self, node: &NodeName, id: &ImageKey, intents: &IntentsBucket) -> Option<ImageEvidence> {
        self.nodes.get(node)?.of(id, intents)
    }

    /// Size of an image, if any agent ever told.
    pub(crate) fn size(&self, id: &ImageKey) -> Option<u64> {
        self.sizes.get(id).copied()
    }

    /// Every node that ever said anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&NodeName, &NodeEvidence)> {
        self.nodes.iter()
    }

    /// There is a Node of this UID. Another UID is another machine: what the old one proved is worth nothing.
    pub(crate) fn node_is(&mut self, name: &NodeName, uid: &str) {
        if let Some(node) = self.nodes.get_mut(name).filter(|node| !node.is_of(uid)) {
            node.renew(uid);
            self.unjudged.insert(name.clone());
        }
    }

    /// What a node answers for may be different: if it is, it is judged again.
    pub(crate) fn look_again(&mut self, name: &NodeName) {
        if self.nodes.contains_key(name) {
            self.placed.insert(name.clone());
        }
    }

    /// As [`Evidence::look_again`], for many nodes.
    pub(crate) fn look_again_at(&mut self, names: &BTreeSet<NodeName>) {
        self.placed.append(&mut names.clone());
    }

    /// As [`Evidence::look_again`], for every node.
    pub(crate) fn look_again_at_all(&mut self) {
        self.placed = self.nodes.keys().cloned().collect();
    }

    /// There is no such Node.
    pub(crate) fn node_gone(&mut self, name: &NodeName) {
        self.nodes.remove(name);
        self.unjudged.remove(name);
        self.placed.remove(name);
        self.contradicted.remove(name);
    }

    /// Takes a pulse. A step is only needed if it may prove something. Here and below `uid` is that of the Node, if it is
    /// known.
    pub(crate) fn heartbeat(&mut self, heartbeat: &Heartbeat, uid: Option<&str>, now: Moment) -> bool {
        let node = entry(&mut self.nodes, &heartbeat.node, uid);
        let changed = node.admits(&heartbeat.inst, heartbeat.n, now, self.patience) && node.heartbeat(heartbeat, now);
        if node.requests() {
            self.contradicted.insert(heartbeat.node.clone());
        }
        if changed {
            self.unjudged.insert(heartbeat.node.clone());
        }
        changed
    }

    /// Takes a transition of an image that the node can be asked about.
    pub(crate) fn event(&mut self, event: &Event, uid: Option<&str>, intents: &IntentsBucket, now: Moment) -> bool {
        if !event.uid.is_empty() && uid != Some(event.uid.as_str()) {
            return false;
        }
        let node = entry(&mut self.nodes, &event.node, uid);
        let changed =
            node.admits(&event.inst, event.n, now, self.patience) && node.event(event, intents, &mut self.shared, now);
        if let Some(bytes) = event.bytes.filter(|_| changed) {
            self.sizes.insert(event.id.clone(), bytes);
        }
        changed
    }

    /// Takes a full read of the nodes bucket: an inventory that is not in it has expired.
    pub(crate) fn read(&mut self, entries: &[Stored<NodeName, Box<Inventory>>]) {
        let listed: BTreeSet<&NodeName> = entries.iter().map(|e| &e.key).collect();
        for (_, node) in self.nodes.iter_mut().filter(|(name, _)| !listed.contains(name)) {
            node.forget_report();
        }
    }

    /// Takes a change of the nodes bucket; `heard` is when, unless it was only read.
    pub(crate) fn inventory(
        &mut self,
        stored: Stored<NodeName, Box<Inventory>>,
        uid: Option<&str>,
        heard: Option<Moment>,
        now: Moment,
    ) -> bool {
        let Stored { key, value, .. } = stored;
        match value {
            // Whoever damaged it or took it away says nothing of the node: it is asked for again.
            StoredValue::Undecodable | StoredValue::Newer(_) | StoredValue::Marker => {
                if let Some(node) = self.nodes.get_mut(&key) {
                    node.forget_report();
                }
                false
            }
            StoredValue::Value(inventory) => {
                let node = entry(&mut self.nodes, &key, uid);
                let admitted = node.admits(&inventory.inst, inventory.n, now, self.patience)
                    && node.take_inventory(*inventory, &mut self.shared, heard);
                if admitted {
                    self.unjudged.insert(key);
                }
                admitted
            }
        }
    }

    /// Judges what has not been judged, and drops what nobody vouches for any more. Gives the nodes whose evidence
    /// may differ since.
    pub(crate) fn judge(&mut self, moves: &Moves, scope: Scope<'_>) -> BTreeSet<NodeName> {
        let mut changed = BTreeSet::new();
        let intents = scope.intents;
        let everyone = moves.renewed || !moves.ended.is_empty() || !moves.pools.is_empty();
        let (unjudged, placed) = (std::mem::take(&mut self.unjudged), std::mem::take(&mut self.placed));
        // Every node forgets before any is judged: a set that one still holds would be found for the next.
        if moves.renewed {
            changed.extend(self.nodes.iter_mut().filter_map(|(name, node)| node.forget_proofs().then(|| name.clone())));
            self.shared.forget_sets();
        }
        let ended: Vec<_> = moves.ended.iter().map(|ended| (ended, self.shared.sets_with(&ended.id))).collect();
        let (shared, lists, mut unions) = (&mut self.shared, &mut self.lists, Unions::default());
        let mut look = |name: &NodeName, node: &mut NodeEvidence, is_unjudged: bool, is_placed: bool| {
            let mut differs = false;
            let mut ended = ended.iter().filter(|(ended, sets)| node.knows_by(&ended.id, sets)).peekable();
            let mut is_due = moves.renewed || is_unjudged || node.waits_for_any(&moves.pools);
            if is_due || is_placed || ended.peek().is_some() {
                let ended: Vec<_> = ended.map(|(ended, _)| *ended).collect();
                let pools = scope.pools_by(name, &mut unions, lists);
                for ended in ended {
                    differs |= node.ended(ended, scope.covered_since(&pools, &ended.id, ended.seq));
                }
                if node.enters(&pools) || moves.renewed {
                    node.keep(intents, |id| scope.covers(name, id));
                    is_due |= node.has_word_of_new_pools();
                }
            }
            if is_due {
                differs |= node.judge(intents, |pool, set| {
                    shared.set(pool, set, || intents.pool(pool).and_then(|p| p.set_of(set)))
                });
            }
            if differs {
                changed.insert(name.clone());
            }
        };
        if everyone {
            for (name, node) in &mut self.nodes {
                look(name, node, unjudged.contains(name), placed.contains(name));
            }
        } else {
            for name in placed.union(&unjudged) {
                if let Some(node) = self.nodes.get_mut(name) {
                    look(name, node, unjudged.contains(name), true);
                }
            }
        }
        self.shared.tidy();
        changed
    }

    /// Judges lateness; says whether any node's agent is now another.
    pub(crate) fn look_for_late(&mut self, now: Moment) -> bool {
        let mut changed = false;
        for node in self.nodes.values_mut() {
            changed |= node.look_if_late(now, self.patience);
        }
        changed
    }

    /// Nodes whose inventory is to be asked for; asked once each.
    pub(crate) fn take_requests(&mut self) -> BTreeSet<NodeName> {
        let mut asked = std::mem::take(&mut self.contradicted);
        asked.retain(|name| self.nodes.get_mut(name).is_some_and(NodeEvidence::take_request));
        asked
    }

    /// Whether there is anything to judge at the next tick.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Drops what came, before the nodes were known, from nodes that do not exist.
    pub(crate) fn keep(&mut self, exists: impl Fn(&NodeName) -> bool) {
        self.nodes.retain(|name, _| exists(name));
        self.unjudged.retain(|name| exists(name));
        self.placed.retain(|name| exists(name));
    }

    /// Drops sizes of images that are not wanted any more.
    pub(crate) fn forget_sizes(&mut self, unwanted: &BTreeSet<ImageKey>) {
        for id in unwanted {
            self.sizes.remove(id);
        }
    }
}

/// The entry of a node whose Node has this UID, if it is known.
fn entry<'a>(
    nodes: &'a mut BTreeMap<NodeName, NodeEvidence>,
    name: &NodeName,
    uid: Option<&str>,
) -> &'a mut NodeEvidence {
    let node = nodes.entry(name.clone()).or_default();
    if let Some(uid) = uid.filter(|uid| !node.is_of(uid)) {
        node.renew(uid);
    }
    node
}
