//! Which keys of the buckets may differ from the plan.
//!
//! Owns what has to be compared again: a key whose planned or stored value has changed since it was last found to be as
//! planned. One that differs stays here until it does not.

use std::collections::{BTreeMap, BTreeSet};

use shared::name::{ImageKey, NodeName, PoolId};
use shared::subject::IntentsKey;

use crate::bucket::{AssignBucket, IntentsBucket};
use crate::plan::Plan;

/// Keys of both buckets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Suspects {
    /// By pool, in the order in which they are written. The definition of each is one too.
    pub(crate) intents: BTreeMap<PoolId, BTreeSet<ImageKey>>,
    /// Of the assign bucket.
    pub(crate) assignments: BTreeSet<NodeName>,
}

impl Suspects {
    /// An intent, planned or stored, is another.
    pub(crate) fn intent(&mut self, pool: &PoolId, id: &ImageKey) {
        if let Some(ids) = self.intents.get_mut(pool) {
            if !ids.contains(id) {
                ids.insert(id.clone());
            }
        } else {
            self.intents.insert(pool.clone(), [id.clone()].into());
        }
    }

    /// There is such a pool now, or is no more.
    pub(crate) fn pool(&mut self, pool: &PoolId) {
        if !self.intents.contains_key(pool) {
            self.intents.insert(pool.clone(), BTreeSet::new());
        }
    }

    /// A stored key is another.
    pub(crate) fn key(&mut self, key: &IntentsKey) {
        match key {
            IntentsKey::Meta | IntentsKey::Control | IntentsKey::Snapshot(_) => {}
            IntentsKey::Definition(pool) => self.pool(pool),
            IntentsKey::Intent(pool, id) => self.intent(pool, id),
        }
    }

    /// The whole intents bucket is to be compared.
    pub(crate) fn all_intents(&mut self, plan: &Plan, bucket: &IntentsBucket) {
        for (pool, planned) in &plan.pools {
            self.intents.entry(pool.clone()).or_default().extend(planned.intents.keys().cloned());
        }
        for (pool, held) in bucket.pools() {
            self.intents.entry(pool.clone()).or_default().extend(held.live().map(|(id, _)| id.clone()));
        }
    }

    /// An assignment, planned or stored, is another.
    pub(crate) fn assignment(&mut self, node: &NodeName) {
        if !self.assignments.contains(node) {
            self.assignments.insert(node.clone());
        }
    }

    /// The whole assign bucket is to be compared.
    pub(crate) fn all_assignments(&mut self, plan: &Plan, bucket: &AssignBucket) {
        self.assignments.extend(plan.nodes.keys().chain(bucket.iter().map(|(node, _)| node)).cloned());
    }
}
