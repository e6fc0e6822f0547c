//! Which deltas a batch of writes allows to be told.
//!
//! Owns the rule of the first hole: a delta says "these are all changes of the pool up to here", so after a write that
//! failed (or whose fate is unknown) nothing later of that pool may be told. The beat mends what stays untold. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_plan::effect::{IntentBatch, IntentChange, IntentWrite};
use shared::message::{Delta, DeltaChange, DeltaEntry};
use shared::name::PoolId;
use shared::reason::Reason;

/// One delta for each pool that has acknowledged intents before its first hole. `results` are those of
/// `batch.writes`, in the same order.
pub fn deltas(batch: &IntentBatch, results: &[Result<u64, Reason>]) -> Vec<Delta> {
    let mut pools: BTreeMap<&PoolId, Told> = BTreeMap::new();
    for (write, result) in batch.writes.iter().zip(results) {
        let Some((id, change)) = told(write) else { continue };
        let told = pools.entry(&write.pool).or_default();
        match result {
            Ok(seq) if !told.has_hole => told.entries.push(DeltaEntry { seq: *seq, id, change }),
            Ok(_) => {}
            Err(_) => told.has_hole = true,
        }
    }
    let mut deltas: Vec<Delta> =
        pools.into_iter().filter_map(|(pool, told)| delta(batch, pool, told.entries)).collect();
    // What is wanted is said before what is not: an agent that missed something of the one is then in no hurry to let go.
    deltas.sort_by_key(|delta| delta.entries.iter().flatten().any(|entry| entry.change == DeltaChange::Del));
    deltas
}

#[derive(Default)]
struct Told {
    entries: Vec<DeltaEntry>,
    has_hole: bool,
}

/// Definitions are for people: no delta speaks of them, and one that failed is no hole.
fn told(write: &IntentWrite) -> Option<(shared::name::ImageKey, DeltaChange)> {
    match &write.write {
        IntentChange::Put(intent) => Some((intent.id.clone(), DeltaChange::Put(Arc::from(intent.clone())))),
        IntentChange::Purge(id) => Some((id.clone(), DeltaChange::Del)),
        IntentChange::PutDefinition(_) | IntentChange::PurgeDefinition => None,
    }
}

fn delta(batch: &IntentBatch, pool: &PoolId, entries: Vec<DeltaEntry>) -> Option<Delta> {
    let to = entries.iter().map(|entry| entry.seq).max()?;
    Some(Delta {
        pool: pool.clone(),
        epoch: batch.epoch.clone(),
        term: batch.term,
        prev: batch.prev.get(pool).copied().unwrap_or(0),
        to,
        spread_ms: u64::try_from(batch.spread.as_millis()).unwrap_or(u64::MAX),
        entries: Some(entries),
    })
}

#[cfg(test)]
mod tests;
