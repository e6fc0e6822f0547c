//! A node with all its images.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shared::machine::Now;
use shared::name::NodeName;

use super::super::World;
use super::MAX_LISTED;
use crate::place;

impl World {
    pub(super) fn explain_node(&self, name: &NodeName, now: Now) -> Value {
        let node = self.nodes.get(name);
        let planned = self.plan.nodes.get(name);
        let (mut states, mut rest): (BTreeMap<String, usize>, Vec<Value>) = (BTreeMap::new(), Vec::new());
        let wanted = planned.map(|planned| self.plan.wanted_in(&planned.pools)).unwrap_or_default();
        for id in wanted.keys() {
            let evidence = self.evidence.of(name, id, &self.intents);
            let state = evidence.as_ref().map_or("unknown", |e| e.state.as_str());
            *states.entry(state.to_owned()).or_default() += 1;
            if state != "warm" {
                let next = self.evidence.get(name).and_then(|n| n.told(id)).and_then(|told| told.next);
                let (image, why) = (self.reference(id), evidence.and_then(|e| e.why));
                rest.push(json!({ "image": image, "key": id, "state": state, "why": why, "next": next }));
            }
        }
        let problem = self.nodes.invalid().find(|(invalid, _)| *invalid == name).map(|(_, text)| text);
        let pools = planned.map(|p| &p.pools[..]).unwrap_or_default();
        let constraint = |pool| self.plan.pools.get(pool).and_then(|p| p.definition.get("constraint"));
        json!({
            "node": name,
            "exists": self.nodes.contains(name),
            "uid": node.map(|n| &n.uid),
            "problem": problem,
            "virtual": node.is_some_and(place::is_virtual),
            "leaving": node.is_some_and(place::is_leaving),
            "pressure": node.map(|n| &n.pressure),
            "paused": self.is_paused(),
            "pools": pools.iter().take(MAX_LISTED).map(|p| json!({ "pool": p, "constraint": constraint(p) })).collect::<Vec<_>>(),
            "poolsTotal": pools.len(),
            "assignment": self.assignment_of(name, now),
            "agent": self.agent_of(name, now),
            "images": {
                "wanted": wanted.len(),
                "states": states,
                "notWarm": rest.iter().take(MAX_LISTED).collect::<Vec<_>>(),
                "leftOut": rest.len().saturating_sub(MAX_LISTED),
            },
            "labels": { "shown": node.map(|n| n.our_labels.len()), "patch": self.patch_of(name, now) },
        })
    }
}
