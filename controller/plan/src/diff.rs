//! What the buckets lack of the plan.
//!
//! Owns the comparison, the order of writes and the size of a batch. Compares with what the buckets hold, never with
//! memory of what was sent.

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
use crate::plan::Plan;

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
    Buckets { intents: bucket, assigned }: Buckets<'_>,
    retries: &Retries<IntentsKey>,
    term: u64,
    now: Moment,
) -> Vec<IntentWrite> {
    // What nodes were told and are to be told; few differ.
    let classes: OnceCell<BTreeSet<(&[PoolId], &[PoolId])>> = OnceCell::new();
    let all = || plan.nodes.iter().map(|(node, planned)| (assigned.pools_of(node), &planned.pools[..])).collect();
    let is_awaited = |pool: &PoolId, id: &ImageKey| {
        let wants = |pool: &PoolId| plan.pools.get(pool).is_some_and(|p| p.intents.contains_key(id));
        let has = |pool: &PoolId| bucket.born(pool, id).is_some() && wants(pool);
        plan.pools.keys().any(wants)
            && classes
                .get_or_init(all)
                .iter()
                .any(|(told, planned)| told.contains(pool) && planned.iter().any(wants) && !told.iter().any(has))
    };
    puts(plan, bucket, term)
        .chain(purges(plan, bucket, &is_awaited))
        .filter(|write| retries.may(&write.key(), now))
        .take(MAX_BATCH)
        .collect()
}

fn puts(plan: &Plan, bucket: &IntentsBucket, term: u64) -> impl Iterator<Item = IntentWrite> {
    plan.pools.iter().flat_map(move |(id, planned)| {
        let held = bucket.pool(id);
        let of_definition = held.map(PoolBucket::definition);
        let is_another = of_definition.and_then(|k| k.value()) != Some(&planned.definition);
        let definition = (is_another && of_definition.is_none_or(Key::is_ours)).then(|| IntentWrite {
            pool: id.clone(),
            expected: of_definition.map_or(0, |k| k.seq),
            write: IntentChange::PutDefinition(planned.definition.clone()),
        });
        let missing = planned.intents.values().filter_map(move |intent| {
            let key = held.and_then(|p| p.intent(&intent.id));
            let is_there = key.and_then(|k| k.value()).is_some_and(|there| there.asks_the_same(intent));
            if is_there || !key.is_none_or(Key::is_ours) {
                return None;
            }
            let mut intent = Box::new(intent.clone());
            intent.term = term;
            Some(IntentWrite { pool: id.clone(), expected: key.map_or(0, |k| k.seq), write: IntentChange::Put(intent) })
        });
        definition.into_iter().chain(missing)
    })
}

fn purges<'a>(
    plan: &'a Plan,
    bucket: &'a IntentsBucket,
    is_awaited: &'a impl Fn(&PoolId, &ImageKey) -> bool,
) -> impl Iterator<Item = IntentWrite> + 'a {
    bucket.pools().flat_map(move |(id, held)| {
        let planned = plan.pools.get(id);
        let is_unwanted = move |id: &ImageKey| planned.is_none_or(|p| !p.intents.contains_key(id));
        let unwanted = held.live().filter(move |(i, key)| key.is_ours() && is_unwanted(i) && !is_awaited(id, i));
        let withdrawn = unwanted.map(move |(i, key)| IntentWrite {
            pool: id.clone(),
            expected: key.seq,
            write: IntentChange::Purge(i.clone()),
        });
        let definition = held.definition();
        let is_there = definition.held != Held::Nothing && definition.is_ours();
        let is_over = planned.is_none() && held.len() == 0 && is_there;
        withdrawn.chain(is_over.then(|| IntentWrite {
            pool: id.clone(),
            expected: definition.seq,
            write: IntentChange::PurgeDefinition,
        }))
    })
}

/// The next writes to the assign bucket. `exists` says whether there is such a Node object: one whose content cannot
/// be used keeps its assignment. While paused every agent is told to start no pull, and keeps the pools it has: leaving
/// one would be a withdrawal. For the same reason nobody leaves a pool before the others hold what is to come from them.
pub(crate) fn assignments(
    plan: &Plan,
    Buckets { intents, assigned: bucket }: Buckets<'_>,
    retries: &Retries<NodeName>,
    exists: impl Fn(&NodeName) -> bool,
    is_paused: bool,
    term: u64,
    now: Moment,
) -> Vec<AssignmentWrite> {
    let limits: BTreeMap<String, u64> = is_paused.then(|| (PULLS_IN_FLIGHT.to_owned(), 0)).into_iter().collect();
    let puts = plan.nodes.iter().filter_map(|(node, planned)| {
        let key = bucket.get(node);
        let there = key.and_then(|k| k.good.as_ref());
        let held = there.filter(|there| is_paused && there.uid == planned.uid).map(|there| &there.pools);
        let pools = held.unwrap_or(&planned.pools);
        let says = |there: &Assignment| {
            there.node == *node
                && there.uid == planned.uid
                && there.pools == *pools
                && there.pressure == planned.pressure
                && there.limits == limits
        };
        let is_told = !bucket.is_in_doubt(node) && key.and_then(|k| k.value()).is_some_and(says);
        if is_told || !key.is_none_or(Key::is_ours) {
            return None;
        }
        let is_missing = |id: &ImageKey| plan.wants(node, id) && !pools.iter().any(|p| intents.born(p, id).is_some());
        let mut left = bucket.pools_of(node).iter().filter(|pool| !pools.contains(pool));
        let is_same_node = there.is_some_and(|there| there.uid == planned.uid);
        if is_same_node && left.any(|pool| intents.pool(pool).is_some_and(|p| p.live().any(|(id, _)| is_missing(id)))) {
            return None;
        }
        let assignment = Assignment {
            node: node.clone(),
            uid: planned.uid.clone(),
            pools: pools.clone(),
            rev: bucket.next_rev(node),
            pressure: planned.pressure.clone(),
            limits: limits.clone(),
            term,
        };
        Some(AssignmentWrite { node: node.clone(), expected: key.map_or(0, |k| k.seq), assignment: Some(assignment) })
    });
    let is_over = |node: &NodeName, held: Held| held != Held::Nothing && !plan.nodes.contains_key(node);
    let purges = bucket
        .iter()
        .filter(|(node, key)| key.is_ours() && is_over(node, key.held) && !exists(node))
        .map(|(node, key)| AssignmentWrite { node: node.clone(), expected: key.seq, assignment: None });
    puts.chain(purges).filter(|write| retries.may(&write.node, now)).take(MAX_BATCH).collect()
}

/// The pools that have intents among the writes.
pub(crate) fn pools_of(writes: &[IntentWrite]) -> impl Iterator<Item = &PoolId> {
    let is_intent = |w: &&IntentWrite| matches!(w.write, IntentChange::Put(_) | IntentChange::Purge(_));
    writes.iter().filter(is_intent).map(|w| &w.pool)
}
