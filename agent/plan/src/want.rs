//! What is wanted on this node: the union over its pools, one entry an image.
//!
//! Owns the merge. Knows nothing of what is present.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use shared::message::Intent;
use shared::name::{ImageKey, NodeName, PoolId};

use crate::pool::Pool;

/// Whether this node may start to pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gate {
    /// Yes.
    Open,
    /// Leave must be asked first.
    Permit,
    /// The wave has not come this far.
    Wave,
}

/// One wanted image: an intent, which it shares with the pool it stands in, and what this node makes of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Want {
    intent: Arc<Intent>,
    pub(crate) gate: Gate,
    /// After so many seconds it is pulled again: the least that any pool asks for.
    pub(crate) refresh_sec: Option<u64>,
    /// No intent that is known to be live names it: it is verified, not pulled and not reported.
    pub(crate) is_retained: bool,
}

impl Want {
    fn of(node: &NodeName, id: &ImageKey, intent: &Arc<Intent>, is_retained: bool) -> Self {
        let gate = match (intent.wave.admits(node, id), intent.wave.permit) {
            (false, _) => Gate::Wave,
            (true, true) => Gate::Permit,
            (true, false) => Gate::Open,
        };
        Self { intent: Arc::clone(intent), gate, refresh_sec: intent.refresh_sec, is_retained }
    }

    /// The same image in another pool: a live intent beats a retained one, then the higher priority wins; a live wave
    /// that admits is enough, and the most eager of the live ones says when it is pulled again.
    fn merge(&mut self, other: Self) {
        let (gate, refresh_sec) = match (self.is_retained, other.is_retained) {
            (false, true) => (self.gate, self.refresh_sec),
            (true, false) => (other.gate, other.refresh_sec),
            _ => {
                let least = [self.refresh_sec, other.refresh_sec].into_iter().flatten().min();
                (self.gate.min(other.gate), least)
            }
        };
        if (!other.is_retained, other.priority) > (!self.is_retained, self.priority) {
            *self = other;
        }
        (self.gate, self.refresh_sec) = (gate, refresh_sec);
    }

    /// Whether an attempt at the one says something about the other.
    pub(crate) fn is_same_attempt(&self, other: &Self) -> bool {
        self.image == other.image && self.digest == other.digest && self.secrets == other.secrets
    }
}

impl Deref for Want {
    type Target = Intent;

    fn deref(&self) -> &Intent {
        &self.intent
    }
}

/// The union over all pools, and what is leaving them.
pub(crate) fn wanted<'a>(
    node: &NodeName,
    pools: &BTreeMap<PoolId, Pool>,
    leaving: impl Iterator<Item = (&'a ImageKey, &'a Arc<Intent>)>,
) -> BTreeMap<ImageKey, Want> {
    let mut all: BTreeMap<ImageKey, Want> = BTreeMap::new();
    let mut add = |id: &ImageKey, intent: &Arc<Intent>, is_retained: bool| {
        let want = Want::of(node, id, intent, is_retained);
        match all.get_mut(id) {
            Some(known) => known.merge(want),
            None => {
                all.insert(id.clone(), want);
            }
        }
    };
    for pool in pools.values() {
        for (id, intent) in pool.content.intents() {
            add(id, intent, false);
        }
        for (id, kept) in pool.content.retained() {
            add(id, &kept.intent, !kept.is_pullable);
        }
    }
    for (id, intent) in leaving {
        add(id, intent, true);
    }
    all
}
