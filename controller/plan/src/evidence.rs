//! What agents have said, node by node.
//!
//! Owns who said what when: instances and counters, lateness, reports that wait for their set, and what ends the
//! worth of evidence. What a report proves is [`crate::judge`]'s. Silence never takes anything away.

mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shared::machine::Moment;
use shared::message::{Event, Heartbeat, Inventory};
use shared::name::{ImageKey, NodeName, PoolId};
use shared::pool_set::{PoolSummary, SetDigest};

pub(crate) use self::node::{Agent, NodeEvidence};
use crate::bucket::{AssignBucket, IntentsBucket, Moves};
use crate::fact::{Stored, StoredValue};
use crate::judge::Images;
use crate::plan::Plan;

/// Heartbeats that may be missed before a node is unknown.
const MISSED: u32 = 3;

/// All evidence.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    nodes: BTreeMap<NodeName, NodeEvidence>,
    /// How long a node may be silent.
    patience: Duration,
    /// Whose reports are to be judged.
    unjudged: BTreeSet<NodeName>,
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

impl<'a> Scope<'a> {
    fn pools(self, node: &NodeName) -> BTreeSet<&'a PoolId> {
        let planned = self.plan.nodes.get(node).into_iter().flat_map(|n| &n.pools);
        planned.chain(self.assigned.pools_of(node)).collect()
    }

    /// Whether a node can be asked about an image at all.
    pub(crate) fn covers(self, node: &NodeName, id: &ImageKey) -> bool {
        self.plan.wants(node, id)
            || self.assigned.pools_of(node).iter().any(|pool| self.intents.born(pool, id).is_some())
    }

    /// Whether an image has been wanted there without a break since before `seq`.
    fn covered_since(self, pools: &BTreeSet<&PoolId>, id: &ImageKey, seq: u64) -> bool {
        pools.iter().any(|pool| self.intents.born(pool, id).is_some_and(|born| born < seq))
    }
}

impl Evidence {
    pub(crate) fn new(heartbeat: Duration) -> Self {
        Self { nodes: BTreeMap::new(), patience: heartbeat * MISSED, unjudged: BTreeSet::new() }
    }

    /// What is known of a node.
    pub(crate) fn get(&self, node: &NodeName) -> Option<&NodeEvidence> {
        self.nodes.get(node)
    }

    /// What is proven about the images of a node.
    pub(crate) fn images(&self, node: &NodeName) -> Option<&Images> {
        self.nodes.get(node).map(NodeEvidence::images)
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

    /// The entry of a node whose Node has this UID, if it is known.
    fn entry(&mut self, name: &NodeName, uid: Option<&str>) -> &mut NodeEvidence {
        let node = self.nodes.entry(name.clone()).or_default();
        if let Some(uid) = uid.filter(|uid| !node.is_of(uid)) {
            node.renew(uid);
        }
        node
    }

    /// There is no such Node.
    pub(crate) fn node_gone(&mut self, name: &NodeName) {
        self.nodes.remove(name);
        self.unjudged.remove(name);
    }

    /// Takes a pulse. A step is only needed if it may prove something. Here and below `uid` is that of the Node, if it is
    /// known.
    pub(crate) fn heartbeat(&mut self, heartbeat: &Heartbeat, uid: Option<&str>, now: Moment) -> bool {
        let patience = self.patience;
        let node = self.entry(&heartbeat.node, uid);
        if !node.admits(&heartbeat.inst, heartbeat.n, now, patience) {
            return false;
        }
        let changed = node.heartbeat(heartbeat, now);
        if changed {
            self.unjudged.insert(heartbeat.node.clone());
        }
        changed
    }

    /// Takes a transition of an image that the node can be asked about.
    pub(crate) fn event(&mut self, event: &Event, uid: Option<&str>, now: Moment) -> bool {
        if !event.uid.is_empty() && uid != Some(event.uid.as_str()) {
            return false;
        }
        let patience = self.patience;
        let node = self.entry(&event.node, uid);
        node.admits(&event.inst, event.n, now, patience) && node.event(event, now)
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
            StoredValue::Undecodable => false,
            StoredValue::Marker => {
                if let Some(node) = self.nodes.get_mut(&key) {
                    node.forget_report();
                }
                false
            }
            StoredValue::Value(inventory) => {
                let patience = self.patience;
                let node = self.entry(&key, uid);
                let admitted = node.admits(&inventory.inst, inventory.n, now, patience)
                    && node.take_inventory(*inventory, heard);
                if admitted {
                    self.unjudged.insert(key);
                }
                admitted
            }
        }
    }

    /// Judges what has not been judged, and drops what nobody vouches for any more. Gives the nodes whose evidence
    /// differs since.
    pub(crate) fn judge(&mut self, moves: &Moves, replanned: bool, scope: Scope<'_>) -> BTreeSet<NodeName> {
        let mut changed = BTreeSet::new();
        let mut proven = Proven::default();
        for (name, node) in &mut self.nodes {
            let is_unjudged = self.unjudged.contains(name);
            let is_waiting = node.waits_for_any(&moves.pools);
            let has_ended = moves.ended.iter().any(|(_, id, _)| node.images().contains_key(id));
            if !(replanned || moves.renewed || is_unjudged || is_waiting || has_ended) {
                continue;
            }
            let pools = scope.pools(name);
            let mut differs = false;
            if has_ended {
                for (_, id, seq) in moves.ended.iter().filter(|(pool, ..)| pools.contains(pool)) {
                    differs |= !scope.covered_since(&pools, id, *seq) && node.drop_image(id);
                }
            }
            if node.enters(&pools) || moves.renewed {
                differs |= node.keep_images(|id| scope.covers(name, id));
                differs |= node.judge(&pools, |pool, set| proven.by(scope.intents, pool, set));
            } else if is_unjudged || is_waiting {
                differs |= node.judge(&pools, |pool, set| proven.by(scope.intents, pool, set));
            }
            if differs {
                changed.insert(name.clone());
            }
        }
        self.unjudged.clear();
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
    pub(crate) fn take_requests(&mut self) -> Vec<NodeName> {
        let asked = self.nodes.iter_mut().filter_map(|(name, node)| node.take_request().then(|| name.clone()));
        asked.collect()
    }

    /// Whether there is anything to judge at the next tick.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Drops what came, before the nodes were known, from nodes that do not exist.
    pub(crate) fn keep(&mut self, exists: impl Fn(&NodeName) -> bool) {
        self.nodes.retain(|name, _| exists(name));
        self.unjudged.retain(|name| exists(name));
    }
}

/// Shared by the nodes that report the same set.
type Ids = Option<Arc<[ImageKey]>>;

/// What sets prove, looked up once a step: many nodes report the same set.
#[derive(Default)]
struct Proven {
    seen: BTreeMap<(PoolId, u64, SetDigest), Ids>,
}

impl Proven {
    fn by(
        &mut self,
        intents: &IntentsBucket,
        pool: &PoolId,
        set: &PoolSummary,
    ) -> Ids {
        let look_up = || intents.pool(pool).and_then(|p| p.proven_by(set)).map(Arc::from);
        self.seen.entry((pool.clone(), set.count, set.digest)).or_insert_with(look_up).clone()
    }
}
