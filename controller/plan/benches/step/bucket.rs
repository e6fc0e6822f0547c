//! Both buckets and all agents, as naive as possible: every write succeeds and is echoed by its watch.

use std::collections::{BTreeMap, BTreeSet};

use cluster_plan::Fact;
use cluster_plan::effect::{AssignmentWrite, IntentBatch, IntentChange};
use cluster_plan::fact::{IntentsDoc, Stored, StoredValue};
use shared::message::{Assignment, Content, Disk, Inventory, Meta, Runtime};
use shared::name::{NodeName, PoolId};
use shared::pool_set::PoolSet;
use shared::subject::IntentsKey;

/// What is stored.
#[derive(Default)]
pub(crate) struct Buckets {
    /// Last sequence of the intents bucket.
    pub(crate) head: u64,
    sets: BTreeMap<PoolId, PoolSet>,
    assigned: BTreeMap<NodeName, Assignment>,
    seq: u64,
}

impl Buckets {
    /// Writes a batch: its outcome, and what the watch says of it.
    pub(crate) fn intents(&mut self, batch: IntentBatch) -> (Fact, Vec<Fact>) {
        let (mut results, mut deltas, mut echoes) = (Vec::new(), BTreeMap::new(), Vec::new());
        for write in batch.writes {
            self.head += 1;
            let (key, seq) = (write.key(), self.head);
            let pool = write.pool;
            let set = self.sets.entry(pool.clone()).or_insert_with(|| PoolSet::new(pool.clone()));
            let value = match write.write {
                IntentChange::PutDefinition(doc) => StoredValue::Value(IntentsDoc::Definition(doc)),
                IntentChange::PurgeDefinition => StoredValue::Marker,
                IntentChange::Put(intent) => {
                    set.insert(intent.id.clone(), seq);
                    StoredValue::Value(IntentsDoc::Intent(intent))
                }
                IntentChange::Purge(id) => {
                    set.remove(&id);
                    StoredValue::Marker
                }
            };
            if matches!(key, IntentsKey::Intent(..)) {
                deltas.insert(pool, seq);
            }
            results.push((key.clone(), Ok(seq)));
            echoes.push(Fact::IntentChanged(Stored { key, seq, value }));
        }
        (Fact::IntentsWritten { results, deltas }, echoes)
    }

    /// Takes the term.
    pub(crate) fn meta(&mut self, meta: Meta) -> (Fact, Vec<Fact>) {
        self.head += 1;
        let value = StoredValue::Value(IntentsDoc::Meta(meta));
        let echo = Fact::IntentChanged(Stored { key: IntentsKey::Meta, seq: self.head, value });
        (Fact::TermTaken(Ok(self.head)), vec![echo])
    }

    /// As [`Buckets::intents`].
    pub(crate) fn assignments(&mut self, writes: Vec<AssignmentWrite>) -> (Fact, Vec<Fact>) {
        let (mut results, mut echoes) = (Vec::new(), Vec::new());
        for AssignmentWrite { node, assignment, .. } in writes {
            self.seq += 1;
            results.push((node.clone(), Ok(self.seq)));
            let value = assignment.clone().map_or(StoredValue::Marker, StoredValue::Value);
            match assignment {
                Some(assignment) => drop(self.assigned.insert(node.clone(), assignment)),
                None => drop(self.assigned.remove(&node)),
            }
            echoes.push(Fact::AssignmentChanged(Stored { key: node, seq: self.seq, value }));
        }
        (Fact::AssignmentsWritten(results), echoes)
    }

    /// How many pools are assigned to anybody, and how many to a node at most.
    pub(crate) fn pools(&self) -> (usize, usize) {
        let all: BTreeSet<&PoolId> = self.assigned.values().flat_map(|a| &a.pools).collect();
        (all.len(), self.assigned.values().map(|a| a.pools.len()).max().unwrap_or_default())
    }

    /// What every agent says once all is warm.
    pub(crate) fn inventories(&self) -> Vec<Fact> {
        let summary = |pool: &PoolId| Some((pool.clone(), self.sets.get(pool)?.summary(self.head)));
        let one = |(at, (node, assignment)): (usize, (&NodeName, &Assignment))| {
            let inventory = Inventory {
                node: node.clone(),
                uid: assignment.uid.clone(),
                boot: format!("boot-{at}"),
                agent: "0.1.0".to_owned(),
                inst: format!("run-{at}"),
                n: 1,
                epoch: "epoch".to_owned(),
                pools: assignment.pools.iter().filter_map(summary).collect(),
                content: Content::Except(Vec::new()),
                complete: true,
                not_warm: Vec::new(),
                left_out: 0,
                digests: BTreeMap::new(),
                disk: Disk::default(),
                runtime: Runtime::default(),
                ts: jiff::Timestamp::UNIX_EPOCH,
            };
            let value = StoredValue::Value(Box::new(inventory));
            Fact::InventoryChanged(Stored { key: node.clone(), seq: at as u64 + 1, value })
        };
        self.assigned.iter().enumerate().map(one).collect()
    }
}
