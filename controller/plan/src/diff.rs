//! What the buckets lack of the plan.
//!
//! Owns the comparison, the order of writes and the size of a batch. Compares with what the buckets hold, never with
//! memory of what was sent; [`Suspects`] says what has to be compared, and loses what is as planned.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use shared::machine::Moment;
use shared::message::Assignment;
use shared::message::assignment::PULLS_IN_FLIGHT;
use shared::name::{ImageKey, NodeName, PoolId};
use shared::subject::IntentsKey;

use crate::bucket::{AssignBucket, Held, IntentsBucket, Key, PoolBucket};
use crate::effect::{AssignmentWrite, IntentChange, IntentWrite};
use crate::ledger::Retries;
use crate::lists::PoolList;
use crate::plan::{Plan, PlannedNode};
use crate::suspect::Suspects;

/// Most writes of one batch.
pub(crate) const MAX_BATCH: usize = 256;

/// What the buckets that the controller writes hold.
#[derive(Clone, Copy)]
pub(crate) struct Buckets<'a> {
    pub(crate) intents: &'a IntentsBucket,
    pub(crate) assigned: &'a AssignBucket,
}

/// The next writes to the intents bucket. Definitions come before the intents of their pool, and every put before any
/// purge: an image that moves from one pool to another is wanted at every moment. For the same reason it stays in a pool
/// while a node that was told that pool has not been told the other, or the other does not hold it yet: deltas are one a
/// pool, so a purge in the same batch could overtake its put.
pub(crate) fn intents(
    plan: &Plan,
    buckets: Buckets<'_>,
    suspects: &mut Suspects,
    retries: &Retries<IntentsKey>,
    term: u64,
    now: Moment,
) -> Vec<IntentWrite> {
    let bucket = buckets.intents;
    let mut writes = Vec::new();
    let mut purges = Vec::new();
    suspects.intents.retain(|pool, ids| {
        if writes.len() >= MAX_BATCH {
            return true;
        }
        let mut add = |write: IntentWrite| {
            if retries.may(&write.key(), now) && writes.len() < MAX_BATCH {
                writes.push(write);
            }
        };
        let definition = put_definition(plan, bucket, pool);
        let is_defined = definition.is_none();
        definition.into_iter().for_each(&mut add);
        ids.retain(|id| {
            if let Some(write) = put(plan, bucket, pool, id, term) {
                add(write);
                return true;
            }
            let purge = purge(plan, bucket, pool, id);
            let differs = purge.is_some();
            purges.extend(purge);
            differs
        });
        let purge = if ids.is_empty() { purge_definition(plan, bucket, pool) } else { None };
        let is_over = purge.is_some();
        purges.extend(purge);
        !is_defined || is_over || !ids.is_empty()
    });
    if !purges.is_empty() {
        let awaited = Awaited::new(plan, buckets);
        let may = |write: &IntentWrite| !awaited.holds(write) && retries.may(&write.key(), now);
        let room = MAX_BATCH.saturating_sub(writes.len());
        writes.extend(purges.into_iter().filter(may).take(room));
    }
    writes
}

fn put_definition(plan: &Plan, bucket: &IntentsBucket, pool: &PoolId) -> Option<IntentWrite> {
    let planned = plan.pools.get(pool)?;
    let there = bucket.pool(pool).map(PoolBucket::definition);
    let is_another = there.and_then(|k| k.value()) != Some(&planned.definition);
    (is_another && there.is_none_or(Key::is_ours)).then(|| IntentWrite {
        pool: pool.clone(),
        expected: there.map_or(0, |k| k.seq),
        write: IntentChange::PutDefinition(planned.definition.clone()),
    })
}

fn put(plan: &Plan, bucket: &IntentsBucket, pool: &PoolId, id: &ImageKey, term: u64) -> Option<IntentWrite> {
    let intent = plan.pools.get(pool)?.intents.get(id)?;
    let key = bucket.pool(pool).and_then(|p| p.intent(id));
    let is_there = key.and_then(|k| k.value()).is_some_and(|there| there.asks_the_same(intent));
    if is_there || !key.is_none_or(Key::is_ours) {
        return None;
    }
    let mut intent = Box::new(intent.clone());
    intent.term = term;
    Some(IntentWrite { pool: pool.clone(), expected: key.map_or(0, |k| k.seq), write: IntentChange::Put(intent) })
}

fn purge(plan: &Plan, bucket: &IntentsBucket, pool: &PoolId, id: &ImageKey) -> Option<IntentWrite> {
    if plan.pools.get(pool).is_some_and(|p| p.intents.contains_key(id)) {
        return None;
    }
    let key = bucket.pool(pool)?.intent(id).filter(|key| key.held != Held::Nothing && key.is_ours())?;
    Some(IntentWrite { pool: pool.clone(), expected: key.seq, write: IntentChange::Purge(id.clone()) })
}

fn purge_definition(plan: &Plan, bucket: &IntentsBucket, pool: &PoolId) -> Option<IntentWrite> {
    let held = bucket.pool(pool).filter(|held| !plan.pools.contains_key(pool) && held.len() == 0)?;
    let definition = held.definition();
    let is_there = definition.held != Held::Nothing && definition.is_ours();
    is_there.then(|| IntentWrite { pool: pool.clone(), expected: definition.seq, write: IntentChange::PurgeDefinition })
}

/// Which purges have to wait.
struct Awaited<'a> {
    plan: &'a Plan,
    buckets: Buckets<'a>,
    /// What nodes were told and are to be told; few differ.
    classes: OnceCell<Vec<(&'a [PoolId], &'a [PoolId])>>,
}

impl<'a> Awaited<'a> {
    fn new(plan: &'a Plan, buckets: Buckets<'a>) -> Self {
        Self { plan, buckets, classes: OnceCell::new() }
    }

    fn holds(&self, write: &IntentWrite) -> bool {
        let IntentChange::Purge(id) = &write.write else { return false };
        let wants = |pool: &PoolId| self.plan.pools.get(pool).is_some_and(|p| p.intents.contains_key(id));
        let has = |pool: &PoolId| self.buckets.intents.born(pool, id).is_some() && wants(pool);
        let is_awaiting = |(told, planned): &(&[PoolId], &[PoolId])| {
            told.contains(&write.pool) && planned.iter().any(wants) && !told.iter().any(has)
        };
        self.plan.pools.keys().any(wants) && self.classes.get_or_init(|| self.classes()).iter().any(is_awaiting)
    }

    fn classes(&self) -> Vec<(&'a [PoolId], &'a [PoolId])> {
        let mut met = BTreeSet::new();
        let mut classes = Vec::new();
        for (node, planned) in &self.plan.nodes {
            if let Some(told) = self.buckets.assigned.told(node)
                && met.insert((told.name(), planned.pools.name()))
            {
                classes.push((&told[..], &planned.pools[..]));
            }
        }
        classes
    }
}

/// The next writes to the assign bucket. `exists` says whether there is such a Node object: one whose content cannot
/// be used keeps its assignment. While paused every agent is told to start no pull, and keeps the pools it has: leaving
/// one would be a withdrawal. For the same reason nobody leaves a pool before the others hold what is to come from them.
#[expect(clippy::too_many_arguments, reason = "all that an assignment follows from")]
pub(crate) fn assignments(
    plan: &Plan,
    buckets: Buckets<'_>,
    suspects: &mut Suspects,
    retries: &Retries<NodeName>,
    exists: impl Fn(&NodeName) -> bool,
    is_paused: bool,
    term: u64,
    now: Moment,
) -> Vec<AssignmentWrite> {
    let limits: BTreeMap<String, u64> = is_paused.then(|| (PULLS_IN_FLIGHT.to_owned(), 0)).into_iter().collect();
    let mut puts = Vec::new();
    let mut purges = Vec::new();
    suspects.assignments.retain(|node| {
        if puts.len() >= MAX_BATCH {
            return true;
        }
        let Some(planned) = plan.nodes.get(node) else {
            let key = buckets.assigned.get(node).filter(|key| key.held != Held::Nothing && key.is_ours());
            let Some(key) = key else { return false };
            if !exists(node) && retries.may(node, now) {
                purges.push(AssignmentWrite { node: node.clone(), expected: key.seq, assignment: None });
            }
            return true;
        };
        let told = Put { node, planned, plan, buckets, is_paused, limits: &limits, term };
        match told.verdict() {
            Verdict::AsPlanned => return false,
            Verdict::Waits => {}
            Verdict::Due(write) => puts.extend(retries.may(node, now).then_some(write)),
        }
        true
    });
    puts.into_iter().chain(purges).take(MAX_BATCH).collect()
}

/// What becomes of one assignment.
enum Verdict {
    /// The node is told already, or what is there is not ours.
    AsPlanned,
    /// What it is to enter does not hold yet what it would lose.
    Waits,
    /// It is written.
    Due(AssignmentWrite),
}

/// What one node is to be told.
struct Put<'a> {
    node: &'a NodeName,
    planned: &'a PlannedNode,
    plan: &'a Plan,
    buckets: Buckets<'a>,
    is_paused: bool,
    limits: &'a BTreeMap<String, u64>,
    term: u64,
}

impl Put<'_> {
    fn verdict(&self) -> Verdict {
        let Self { node, planned, plan, buckets: Buckets { intents, assigned: bucket }, is_paused, limits, term } =
            *self;
        let key = bucket.get(node);
        let there = key.and_then(|k| k.good.as_ref());
        let held = there.filter(|there| is_paused && there.uid == planned.uid).map(|there| &there.pools);
        let pools: &PoolList = held.unwrap_or(&planned.pools);
        let is_told = !bucket.is_in_doubt(node)
            && key.and_then(|k| k.value()).is_some_and(|there| {
                there.is_of_its_key
                    && there.uid == planned.uid
                    && there.pools == *pools
                    && there.pressure == planned.pressure
                    && there.limits == *limits
            });
        if is_told || !key.is_none_or(Key::is_ours) {
            return Verdict::AsPlanned;
        }
        let is_missing = |id: &ImageKey| plan.wants(node, id) && !pools.iter().any(|p| intents.born(p, id).is_some());
        let mut left = bucket.pools_of(node).iter().filter(|pool| !pools.contains(pool));
        let is_same_node = there.is_some_and(|there| there.uid == planned.uid);
        if is_same_node && left.any(|pool| intents.pool(pool).is_some_and(|p| p.live().any(|(id, _)| is_missing(id)))) {
            return Verdict::Waits;
        }
        let assignment = Assignment {
            node: node.clone(),
            uid: planned.uid.clone(),
            pools: pools.to_vec(),
            rev: bucket.next_rev(node),
            pressure: planned.pressure.clone(),
            limits: limits.clone(),
            term,
        };
        let expected = key.map_or(0, |k| k.seq);
        Verdict::Due(AssignmentWrite { node: node.clone(), expected, assignment: Some(assignment) })
    }
}

/// The pools that have intents among the writes.
pub(crate) fn pools_of(writes: &[IntentWrite]) -> impl Iterator<Item = &PoolId> {
    let is_intent = |w: &&IntentWrite| matches!(w.write, IntentChange::Put(_) | IntentChange::Purge(_));
    writes.iter().filter(is_intent).map(|w| &w.pool)
}
