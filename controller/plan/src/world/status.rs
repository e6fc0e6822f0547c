//! How things stand: `ctl.status` on one page, and `/state` with pools, writes and the last evidence of each node.
//!
//! Owns their form and that they stay small in a large cluster: lists are bounded and say what was left out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use shared::machine::{Moment, Now};
use shared::name::{ImageKey, NodeName, PoolId};
use shared::reason::Reason;
use shared::state::ImageState;

use super::World;
use super::explain::{ago, ahead};
use crate::evidence::{Agent, Classes, NodeEvidence};
use crate::fact::Source;

/// How many entries a list of `ctl.status` has at most.
const PAGE: usize = 20;

/// How many entries a list of `/state` has at most.
const BOOK: usize = 200;

impl World {
    /// The answer to `ctl.status`.
    pub(super) fn status(&self, now: Now) -> Value {
        self.page(now, PAGE)
    }

    /// Everything that matters, for people: `/state`.
    pub fn summary(&self, now: Now) -> Value {
        let mut book = self.page(now, BOOK);
        if let Value::Object(book) = &mut book {
            book.insert("pools".to_owned(), self.pools_summary(BOOK));
            book.insert("evidence".to_owned(), self.evidence_summary(now, BOOK));
        }
        book
    }

    fn page(&self, now: Now, most: usize) -> Value {
        let problems: Vec<Value> = self
            .invalid()
            .into_iter()
            .map(|(kind, name, problems)| json!({ "kind": kind, "name": name, "problems": problems }))
            .collect();
        let nodes: BTreeMap<&'static str, Value> = self
            .nodes_by_agent()
            .into_iter()
            .map(|(agent, nodes)| {
                let names: Vec<&&NodeName> = nodes.iter().take(most).collect();
                (agent.as_str(), json!({ "count": nodes.len(), "names": names }))
            })
            .collect();
        json!({
            "instance": self.settings.instance,
            "ts": now.wall.to_string(),
            "ready": self.readiness().err().map_or(json!(true), Value::String),
            "connected": self.connected,
            "leadership": self.leadership_summary(),
            "paused": self.paused_summary(now),
            "sources": self.sources_summary(now),
            "selectionWaitsFor": self.next_selection.as_ref().map(|_| self.unevaluated()),
            "buckets": self.buckets_summary(most),
            "workloads": self.plan.workloads,
            "intents": self.plan.pools.values().map(|p| p.intents.len()).sum::<usize>(),
            "poolsOverflowing": self.plan.overflow,
            "newerKeys": self.intents.newer() + self.assigned.newer(),
            "nodes": nodes,
            "nodesAssigned": self.assigned.iter().filter(|(_, key)| key.value().is_some()).count(),
            "images": self.images_by_state(),
            "writes": self.writes_summary(now, most),
            "events": {
                "failing": self.notices.failing(),
                "inFlight": self.notices.in_flight(),
                "waiting": self.notices.waiting(),
                "limited": self.notices.limited(),
            },
            "sets": { "all": self.sets.keys().count(), "ready": self.sets_by_readiness().0 },
            "labels": {
                "images": self.labels_shown().0,
                "sets": self.labels_shown().1,
                "beyond": self.pace.beyond().0,
                "nodesBeyond": self.pace.beyond().1,
            },
            "invalid": problems.iter().take(most).collect::<Vec<_>>(),
            "invalidTotal": problems.len(),
            "versions": { "controller": self.settings.version, "agents": self.agent_versions() },
        })
    }

    fn leadership_summary(&self) -> Value {
        let leads = self.leadership.leads();
        json!({
            "standing": self.standing(),
            "leading": leads.is_some(),
            "lease": self.leadership.holds_lease(),
            "by": self.intents.meta().good.as_ref().map(|m| &m.by),
            "term": self.leadership.term(),
            "epoch": leads.or(self.intents.meta().good.as_ref()).map(|m| m.epoch.clone()),
            "cluster": self.cluster(),
            "refused": self.leadership.refused(),
        })
    }

    fn paused_summary(&self, now: Now) -> Value {
        let control = self.intents.control().obeyed();
        json!({
            "paused": self.is_paused(),
            "reason": control.map(|c| &c.reason),
            "by": control.map(|c| &c.by),
            "since": control.map(|c| c.since.to_string()),
            "forSec": control.map(|c| now.wall.duration_since(c.since).as_secs().max(0)),
        })
    }

    fn sources_summary(&self, now: Now) -> Value {
        let objects = |source: &Source| match source {
            Source::Workloads(kind) => self.family.count(kind),
            Source::Namespaces => self.namespaces.keys().count(),
            Source::Nodes => self.nodes.keys().count(),
            Source::RuntimeClasses => self.runtime_classes.keys().count(),
            Source::Sets => self.sets.keys().count(),
            Source::Intents => self.intents.pools().map(|(_, pool)| pool.len()).sum(),
            Source::Assignments => self.assigned.iter().filter(|(_, key)| key.value().is_some()).count(),
            Source::Inventories => self.evidence.iter().filter(|(_, node)| node.report().is_some()).count(),
        };
        let one = |source: Source| {
            json!({
                "name": source.as_str(),
                "synced": self.synced.contains(&source),
                "objects": objects(&source),
                "last": self.heard.get(&source).map(|at| ago(now, *at)),
            })
        };
        self.settings.sources().map(one).collect()
    }

    fn buckets_summary(&self, most: usize) -> Value {
        let counts: BTreeMap<&PoolId, usize> =
            self.intents.pools().filter(|(_, p)| p.len() > 0).map(|(id, p)| (id, p.len())).collect();
        json!({
            "fresh": self.sees_buckets(),
            "created": self.intents.created(),
            "head": self.intents.head(),
            "intents": counts.iter().take(most).collect::<BTreeMap<_, _>>(),
            "pools": counts.len(),
        })
    }

    fn writes_summary(&self, now: Now, most: usize) -> Value {
        let retry = |what: &'static str, key: String, (failures, due, why): (u32, Moment, Reason)| {
            (due, json!({ "what": what, "key": key, "failures": failures, "why": why, "again": ahead(now, due) }))
        };
        let ledger = &self.ledger;
        let intents = ledger.intent_retries.waiting(now.mono);
        let assignments = ledger.assignment_retries.waiting(now.mono);
        let mut retries: Vec<(Moment, Value)> = intents
            .map(|(key, failures, due, why)| retry("intents", key.to_string(), (failures, due, why)))
            .chain(assignments.map(|(node, f, due, why)| retry("assign", node.to_string(), (f, due, why))))
            .chain(
                self.pace.waiting(now.mono).map(|(node, f, due, why)| retry("label", node.to_string(), (f, due, why))),
            )
            .chain(
                self.status_pace
                    .waiting(now.mono)
                    .map(|(set, f, due, why)| retry("set-status", set.to_string(), (f, due, why))),
            )
            .collect();
        retries.sort_by_key(|(due, _)| *due);
        json!({
            "inFlight": ledger.in_flight(),
            "control": self.switch.is_writing(),
            "patchesInFlight": self.pace.in_flight(),
            "setStatusInFlight": self.status_pace.in_flight(),
            "retries": retries.iter().take(most).map(|(_, retry)| retry).collect::<Vec<_>>(),
            "retriesTotal": retries.len(),
        })
    }

    fn agent_versions(&self) -> BTreeMap<&str, usize> {
        let mut versions = BTreeMap::new();
        for report in self.evidence.iter().filter_map(|(_, node)| node.report()) {
            *versions.entry(report.version.as_str()).or_default() += 1;
        }
        versions
    }

    fn pools_summary(&self, most: usize) -> Value {
        let mut members: BTreeMap<&PoolId, usize> = BTreeMap::new();
        for pool in self.plan.nodes.values().flat_map(|n| n.pools.iter()) {
            *members.entry(pool).or_default() += 1;
        }
        let held = self.intents.pools().filter(|(_, p)| p.len() > 0).map(|(id, _)| id);
        let ids: BTreeSet<&PoolId> = held.chain(self.plan.pools.keys()).collect();
        let summary = |id: &PoolId| {
            let planned = self.plan.pools.get(id);
            let set = self.intents.pool(id).map(|p| p.summary(self.intents.head())).unwrap_or_default();
            json!({
                "constraint": planned.and_then(|p| p.definition.get("constraint")),
                "wanted": planned.map_or(0, |p| p.intents.len()),
                "set": set,
                "members": members.get(id).copied().unwrap_or(0),
            })
        };
        let listed: BTreeMap<String, Value> = ids.iter().take(most).map(|id| (id.to_string(), summary(id))).collect();
        json!({ "total": ids.len(), "leftOut": ids.len() - listed.len(), "pools": listed })
    }

    /// The last evidence of each node; those that need a look first.
    fn evidence_summary(&self, now: Now, most: usize) -> Value {
        let mut nodes: Vec<(&NodeName, Agent)> =
            self.evidence.iter().map(|(name, node)| (name, node.agent())).collect();
        nodes.sort_by_key(|(name, agent)| (*agent == Agent::Ready, *name));
        let mut classes = Classes::new(&self.plan, &self.evidence, &self.intents);
        let mut listed: BTreeMap<&NodeName, Value> = BTreeMap::new();
        for (name, _) in nodes.iter().take(most) {
            let mut of_node = self.agent_of(name, now);
            if let Value::Object(of_node) = &mut of_node {
                of_node.insert("images".to_owned(), json!(self.states_of(name, &mut classes)));
            }
            listed.insert(name, of_node);
        }
        json!({ "total": nodes.len(), "leftOut": nodes.len() - listed.len(), "nodes": listed })
    }

    /// How many of the images wanted on a node are in each state.
    fn states_of<'a>(&'a self, name: &NodeName, classes: &mut Classes<'a>) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        let Some((_, class)) = self.plan.nodes.get(name).and_then(|planned| classes.of(name, &planned.pools)) else {
            return counts;
        };
        let singles: BTreeMap<_, _> = self.evidence.get(name).into_iter().flat_map(NodeEvidence::singles).collect();
        let state = |id: &ImageKey| singles.get(id).copied().or_else(|| class.proven.get(id)).map(|e| e.state);
        for id in class.wanted.keys() {
            *counts.entry(state(id).map_or("unknown", ImageState::as_str)).or_default() += 1;
        }
        counts
    }
}
