//! An image on a node.

use serde_json::{Value, json};
use shared::label::image_label;
use shared::machine::Now;
use shared::name::{ImageKey, NodeName, PoolId};

use super::super::World;
use super::{Image, add, ago, ahead};
use crate::evidence::Origin;
use crate::pace::Outlook;

impl World {
    pub(super) fn explain_pair(&self, image: &Image, name: &NodeName, now: Now) -> Value {
        let id = &image.id;
        let node = self.nodes.get(name);
        let claims = self.claims(id, Some((name, node)));
        let pools = self.pools_with(id, name);
        let pools: Vec<Value> = pools.iter().map(|pool| self.pool_of(pool, id, Some(name), now)).collect();
        let private = PoolId::private(name);
        let is_private = self.plan.wants(name, id)
            && self.plan.pools.get(&private).is_some_and(|pool| pool.intents.contains_key(id));
        let names_node = |key| self.workloads.get(key).is_some_and(|r| r.constraint().node_name.is_some());
        let mut answer = json!({
            "image": image.reference,
            "key": id,
            "node": name,
            "wanted": self.plan.wants(name, id),
            "text": claims.text(),
            "next": self.next(id, name, now),
            "paused": self.is_paused(),
            "pools": pools,
            // Beyond a limit of pools its constraint has none of its own on this node.
            "privateByOverflow": is_private && !claims.owners.iter().any(|(key, ..)| names_node(key)),
            "assignment": self.assignment_of(name, now),
            "evidence": self.evidence_of(id, name, now),
            "label": self.label_of(id, name, now),
        });
        claims.put_into(&mut answer);
        answer
    }

    /// The pools of a node, planned or told to its agent, that hold an image or are to hold it.
    fn pools_with(&self, id: &ImageKey, name: &NodeName) -> Vec<PoolId> {
        let mut pools = self.scope().pools(name).to_vec();
        pools.retain(|pool| {
            let planned = self.plan.pools.get(pool).is_some_and(|p| p.intents.contains_key(id));
            planned || self.intents.born(pool, id).is_some()
        });
        pools
    }

    /// What the agent of a node has been told.
    pub(super) fn assignment_of(&self, name: &NodeName, now: Now) -> Value {
        let Some(key) = self.assigned.get(name) else {
            return json!({ "written": false, "inFlight": self.ledger.writes_assignment(name) });
        };
        let there = key.value();
        let planned = self.plan.nodes.get(name).map(|p| &p.pools);
        json!({
            "written": there.is_some(),
            "seq": key.seq,
            "rev": there.map(|a| a.rev),
            "term": there.map(|a| a.term),
            "uid": there.map(|a| &a.uid),
            "pools": there.map(|a| a.pools.len()),
            "poolsAsPlanned": planned.is_some() && there.map(|a| &a.pools) == planned,
            "pressure": there.map(|a| &a.pressure),
            "limits": there.map(|a| &a.limits),
            "inFlight": self.ledger.writes_assignment(name),
            "retry": self.ledger.assignment_retries.due(name).filter(|due| *due > now.mono).map(|due| ahead(now, due)),
        })
    }

    /// What is known of the agent of a node.
    pub(in crate::world) fn agent_of(&self, name: &NodeName, now: Now) -> Value {
        let Some(node) = self.evidence.get(name) else {
            return json!({ "agent": "no-agent" });
        };
        let inventory = node.report().map(|report| {
            json!({
                "n": report.put,
                "confirmedTo": report.n,
                "put": report.ts,
                "epoch": report.epoch,
                "agent": report.version,
                "disk": report.disk,
                "runtime": report.runtime,
            })
        });
        json!({
            "agent": node.agent().as_str(),
            "uid": node.uid(),
            "instance": node.instance(),
            "heard": node.heard().map(|at| ago(now, at)),
            "last": node.last(),
            "inventory": inventory,
            // Reports wait until these pools are what they speak of.
            "unmatchedPools": node.unmatched(),
        })
    }

    /// What is proven of an image on a node, and by what.
    fn evidence_of(&self, id: &ImageKey, name: &NodeName, now: Now) -> Value {
        let mut answer = self.agent_of(name, now);
        let Some(node) = self.evidence.get(name) else { return answer };
        let from = match node.origin(id, &self.intents) {
            None => Value::Null,
            Some(Origin::Event { n }) => json!({ "kind": "event", "n": n }),
            Some(Origin::Carried { n }) => {
                json!({ "kind": "inventory", "n": n, "text": "from before its pools changed" })
            }
            Some(Origin::Inventory { pool, n }) => json!({ "kind": "inventory", "n": n, "pool": pool }),
        };
        let evidence = node.of(id, &self.intents);
        let told = node.told(id);
        add(
            &mut answer,
            json!({
                "state": evidence.as_ref().map(|e| e.state),
                "why": evidence.as_ref().and_then(|e| e.why),
                "digest": evidence.as_ref().and_then(|e| e.digest.as_deref()),
                "from": from,
                "since": told.map(|t| t.since),
                "tries": told.and_then(|t| t.tries),
                "next": told.and_then(|t| t.next),
                "told": told.and_then(|t| t.heard).map(|at| ago(now, at)),
            }),
        );
        answer
    }

    /// The label a Node is to have for an image.
    pub(super) fn wanted_label(&self, id: &ImageKey, name: &NodeName) -> Option<String> {
        self.wanted_labels(name)?.remove(&image_label(id))
    }

    fn label_of(&self, id: &ImageKey, name: &NodeName, now: Now) -> Value {
        let key = image_label(id);
        json!({
            "shown": self.nodes.get(name).and_then(|n| n.our_labels.get(&key)),
            "wanted": self.wanted_label(id, name),
            "key": key,
            "patch": self.patch_of(name, now),
        })
    }

    /// When the labels of a Node are written next, if they are to be.
    pub(super) fn patch_of(&self, name: &NodeName, now: Now) -> Value {
        match self.pace.outlook(name, self.settings.timing.label_window) {
            Outlook::Rest => Value::Null,
            Outlook::InFlight => json!({ "inFlight": true }),
            Outlook::Due(due) => ahead(now, due.unwrap_or(now.mono)),
        }
    }
}
