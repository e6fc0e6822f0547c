//! Evidence as many nodes at once are asked for it.
//!
//! Owns classes: nodes that are in the same pools and whose proofs are the same agree in everything but what was proven
//! one by one, so it is worked out once for all of them.

use std::collections::BTreeMap;

use shared::name::{ImageKey, NodeName};

use super::{Evidence, NodeEvidence};
use crate::bucket::IntentsBucket;
use crate::judge::ImageEvidence;
use crate::lists::PoolList;
use crate::plan::{Plan, Wanted};

/// What the nodes of a class have in common.
#[derive(Debug)]
pub(crate) struct Class<'p> {
    /// The images wanted on each of them.
    pub(crate) wanted: Wanted<'p>,
    /// What whole sets prove of those.
    pub(crate) proven: BTreeMap<&'p ImageKey, ImageEvidence>,
}

/// What tells a class from others: the list of its pools, and what whole sets prove, as [`NodeEvidence::class`] says it.
/// Numbers alone: thousands of nodes are looked up by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassName {
    pools: usize,
    proofs: Vec<(u64, u64)>,
}

impl ClassName {
    pub(crate) fn of(evidence: Option<&NodeEvidence>, pools: &PoolList) -> Self {
        Self { pools: pools.name(), proofs: evidence.map(NodeEvidence::class).unwrap_or_default() }
    }
}

/// The classes met so far.
#[derive(Debug)]
pub(crate) struct Classes<'a> {
    plan: &'a Plan,
    evidence: &'a Evidence,
    intents: &'a IntentsBucket,
    numbers: BTreeMap<ClassName, usize>,
    met: Vec<Class<'a>>,
}

impl<'a> Classes<'a> {
    pub(crate) fn new(plan: &'a Plan, evidence: &'a Evidence, intents: &'a IntentsBucket) -> Self {
        Self { plan, evidence, intents, numbers: BTreeMap::new(), met: Vec::new() }
    }

    /// The class of a planned node and its number, which is that of no other class.
    pub(crate) fn of(&mut self, node: &NodeName, pools: &PoolList) -> Option<(usize, &Class<'a>)> {
        let evidence = self.evidence.get(node);
        let name = ClassName::of(evidence, pools);
        let number = if let Some(number) = self.numbers.get(&name) {
            *number
        } else {
            let wanted = self.plan.wanted_in(pools);
            let proven = evidence.map(|evidence| evidence.proven_among(&wanted, self.intents)).unwrap_or_default();
            self.met.push(Class { wanted, proven });
            self.numbers.insert(name, self.met.len() - 1);
            self.met.len() - 1
        };
        self.met.get(number).map(|class| (number, class))
    }

    /// The class of a number.
    pub(crate) fn get(&self, number: usize) -> Option<&Class<'a>> {
        self.met.get(number)
    }
}
