//! Lists of pools that many nodes share.
//!
//! Owns that equal lists are one: a large cluster has thousands of nodes and few different lists, which are compared far
//! more often than they change.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use shared::name::PoolId;

/// Pools of a node, in their order.
#[derive(Debug, Clone)]
pub(crate) struct PoolList(Arc<[PoolId]>);

impl Default for PoolList {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl Deref for PoolList {
    type Target = [PoolId];

    fn deref(&self) -> &[PoolId] {
        &self.0
    }
}

impl PartialEq for PoolList {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl PoolList {
    /// Tells lists apart while both are held. Two that are equal may have two names.
    pub(crate) fn name(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

/// Every list there is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lists {
    all: BTreeSet<Arc<[PoolId]>>,
    /// How many make it worth to look for those that nobody holds any more.
    sweep_at: usize,
}

/// Fewer are never swept.
const SWEEP_MIN: usize = 256;

impl Lists {
    /// The one copy of a list.
    pub(crate) fn one(&mut self, pools: &[PoolId]) -> PoolList {
        if let Some(there) = self.all.get(pools) {
            return PoolList(Arc::clone(there));
        }
        if self.all.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.all.retain(|list| Arc::strong_count(list) > 1);
            self.sweep_at = self.all.len() * 2;
        }
        let new: Arc<[PoolId]> = pools.into();
        self.all.insert(Arc::clone(&new));
        PoolList(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(n: usize) -> Vec<PoolId> {
        (0..3).map(|at| PoolId::auto(&format!("{n}-{at}"))).collect()
    }

    #[test]
    fn equal_lists_are_one_and_what_nobody_holds_is_forgotten() {
        let mut lists = Lists::default();
        let (first, again, other) = (lists.one(&list(1)), lists.one(&list(1)), lists.one(&list(2)));
        assert_eq!(first, again);
        assert_eq!(first.name(), again.name());
        assert!(first != other && first.name() != other.name());
        for n in 0..10_000 {
            lists.one(&list(n));
        }
        assert!(lists.all.len() <= 2 * SWEEP_MIN, "{}", lists.all.len());
        assert_eq!(lists.one(&list(1)).name(), first.name(), "one that is held stays");
    }
}
