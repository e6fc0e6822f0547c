//! An image on every node.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use shared::machine::Now;
use shared::name::{ImageKey, NodeName, PoolId};

use super::super::World;
use super::{Image, MAX_LISTED};

/// The word for a node of which nothing is proven.
const UNKNOWN: &str = "unknown";

impl World {
    pub(super) fn explain_image(&self, image: &Image, now: Now) -> Value {
        let id = &image.id;
        let claims = self.claims(id, None);
        let planned: BTreeSet<&PoolId> =
            self.plan.pools.iter().filter(|(_, p)| p.intents.contains_key(id)).map(|(pool, _)| pool).collect();
        let held = self.intents.pools().filter(|(_, p)| p.live().any(|(held, _)| held == id)).map(|(pool, _)| pool);
        let pools: BTreeSet<&PoolId> = planned.iter().copied().chain(held).collect();
        let listed: Vec<Value> = pools.iter().take(MAX_LISTED).map(|pool| self.pool_of(pool, id, None, now)).collect();
        let (total, states, rest) = self.nodes_of(id, &planned);
        let mut answer = json!({
            "image": image.reference,
            "key": id,
            "wanted": !planned.is_empty(),
            "text": claims.text(),
            "paused": self.is_paused(),
            "pools": listed,
            "poolsTotal": pools.len(),
            "nodes": {
                "wanted": total,
                "states": states,
                "notWarm": rest.iter().take(MAX_LISTED).collect::<Vec<_>>(),
                "leftOut": rest.len().saturating_sub(MAX_LISTED),
            },
            "bytes": self.evidence.size(id),
        });
        claims.put_into(&mut answer);
        answer
    }

    /// How many nodes are to hold it, in which states, and which of them do not.
    fn nodes_of(&self, id: &ImageKey, pools: &BTreeSet<&PoolId>) -> (usize, BTreeMap<&'static str, usize>, Vec<Value>) {
        let (mut total, mut states, mut rest) = (0, BTreeMap::new(), Vec::new());
        let is_in = |node: &NodeName| {
            self.plan.nodes.get(node).is_some_and(|planned| planned.pools.iter().any(|p| pools.contains(p)))
        };
        for node in self.plan.nodes.keys().filter(|node| is_in(node)) {
            let evidence = self.evidence.of(node, id, &self.intents);
            let state = evidence.as_ref().map_or(UNKNOWN, |e| e.state.as_str());
            total += 1;
            *states.entry(state).or_default() += 1;
            if state != "warm" {
                let next = self.evidence.get(node).and_then(|n| n.told(id)).and_then(|told| told.next);
                rest.push(json!({
                    "node": node,
                    "state": state,
                    "why": evidence.and_then(|e| e.why),
                    "next": next,
                }));
            }
        }
        (total, states, rest)
    }
}
