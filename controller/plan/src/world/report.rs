//! Telling: what people, probes and metrics are told of the machine.
//!
//! Owns texts and counts. Never decides, never changes anything.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use shared::image::Digest;
use shared::label;
use shared::message::{Intent, SCHEMA};
use shared::metric::{self, Metric};
use shared::name::{ImageKey, NodeName};
use shared::reason::Reason;
use shared::state::ImageState;

use super::{CLUSTER_NAMESPACE, World};
use crate::evidence::{Agent, Classes, NodeEvidence};
use crate::fact::Newer;
use crate::input::{Node, WorkloadKind};
use crate::leadership::Standing;
use crate::select;
use crate::set::{SetStatus, SetView};

/// The word for a pair without evidence.
const UNKNOWN: &str = "unknown";

/// One wanted image on one node, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Canonical pull reference.
    pub image: String,
    /// The node.
    pub node: NodeName,
    /// What was last proven; `None` if nothing ever was.
    pub state: Option<ImageState>,
    /// Why, where there is a reason.
    pub why: Option<Reason>,
    /// The digest that is there, or of which the intent speaks.
    pub digest: Option<Digest>,
    /// Size, if ever told.
    pub bytes: Option<u64>,
}

impl World {
    /// Every wanted image on every node it is wanted on, sorted by image, then node.
    pub fn table(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (node, planned) in &self.plan.nodes {
            let wanted: BTreeMap<&ImageKey, &Intent> = self.plan.intents_in(&planned.pools).collect();
            rows.extend(wanted.into_iter().map(|(id, intent)| {
                let evidence = self.evidence.of(node, id, &self.intents);
                let (state, why) = (evidence.as_ref().map(|e| e.state), evidence.as_ref().and_then(|e| e.why));
                let digest = evidence.and_then(|e| e.digest).map(|digest| Digest::clone(&digest));
                Row {
                    image: intent.image.clone(),
                    node: node.clone(),
                    state,
                    why,
                    digest: digest.or_else(|| intent.digest.clone()),
                    bytes: self.evidence.size(id),
                }
            }));
        }
        rows.sort_by(|a, b| (&a.image, &a.node).cmp(&(&b.image, &b.node)));
        rows
    }

    /// Whether the controller does its work, and which: `leads term 3`, `follows pod-b`. Otherwise what it waits for,
    /// or what a person must do. A follower that sees everything is ready: it does its work, which is to stand by.
    pub fn readiness(&self) -> Result<String, String> {
        match self.leadership.standing() {
            Standing::Foreign(meta) => return Err(self.foreign(&meta.cluster)),
            Standing::Newer { there, .. } => return Err(newer(there)),
            Standing::Superseded { there, .. } => {
                return Err(format!(
                    "a controller with a higher term has taken over (term {}, pod {:?}); this one has stopped writing",
                    there.term, there.by
                ));
            }
            _ => {}
        }
        let awaited = self.awaited();
        if !awaited.is_empty() {
            return Err(format!("waiting for the first full content of: {}", awaited.join(", ")));
        }
        if self.cluster().is_none() {
            return Err(format!(
                "namespace {CLUSTER_NAMESPACE} cannot be seen: its UID names the cluster; check that the controller \
                 may list namespaces"
            ));
        }
        if !self.connected {
            return Err("there is no connection to NATS".to_owned());
        }
        if !self.sees_buckets() {
            return Err("the buckets are being read again after a reconnect".to_owned());
        }
        match (self.leadership.standing(), self.leadership.refused()) {
            (Standing::Leading { meta, .. }, _) => Ok(format!("leads term {}", meta.term)),
            _ if !self.leadership.holds_lease() => Ok(self.follows()),
            (_, Some(reason)) => Err(format!("the term could not be taken ({reason}); trying again")),
            _ => Err("the term is being taken".to_owned()),
        }
    }

    fn follows(&self) -> String {
        match &self.intents.meta().good {
            Some(meta) => format!("follows {}", meta.by),
            None => "follows whoever will lead: nobody has taken the term yet".to_owned(),
        }
    }

    /// The word for where this controller stands.
    pub(super) fn standing(&self) -> &'static str {
        match self.leadership.standing() {
            Standing::Leading { .. } => "leading",
            Standing::Superseded { .. } => "superseded",
            Standing::Newer { .. } => "newer-schema",
            Standing::Foreign(_) => "foreign-cluster",
            Standing::Taking { .. } | Standing::Idle if self.leadership.holds_lease() => "taking-term",
            Standing::Taking { .. } | Standing::Idle => "following",
        }
    }

    fn foreign(&self, theirs: &str) -> String {
        let ours = self.cluster().unwrap_or("unknown");
        format!(
            "the buckets belong to another cluster: its namespace {CLUSTER_NAMESPACE} has UID {theirs}, that of this \
             cluster has {ours}; nothing is written. Give this installation a cluster id of its own: the key `clusterId`, here and at the \
             agents"
        )
    }

    /// How many nodes get an agent.
    pub fn nodes(&self) -> usize {
        self.plan.nodes.len()
    }

    /// Counts for metrics: the metric, the values of its labels, the value.
    pub fn gauges(&self) -> Vec<(Metric, Vec<Cow<'static, str>>, f64)> {
        let count = |n: usize| n as f64;
        let leads = self.leadership.leads().is_some();
        let intents = self.plan.pools.values().map(|p| p.intents.len()).sum();
        let mut gauges = vec![
            (metric::SYNCED, vec![], f64::from(u8::from(self.is_synced()))),
            (metric::LEASE_HELD, vec![], f64::from(u8::from(self.leadership.holds_lease()))),
            (metric::LEADING, vec![], f64::from(u8::from(leads))),
            (metric::PAUSED, vec![], f64::from(u8::from(self.is_paused()))),
            (metric::TERM, vec![], self.leadership.term() as f64),
            (metric::WORKLOADS, vec![], count(self.plan.workloads)),
            (metric::INTENTS, vec![], count(intents)),
            (metric::NEWER_KEYS, vec![], count(self.intents.newer() + self.assigned.newer())),
            (metric::POOLS, vec![], count(self.plan.pools.len())),
            (metric::IMAGES_FAILING, vec![], count(self.notices.failing())),
        ];
        for source in self.settings.sources() {
            let synced = f64::from(u8::from(self.synced.contains(&source)));
            gauges.push((metric::SOURCE_SYNCED, vec![source.as_str().to_owned().into()], synced));
        }
        let nodes = self.nodes_by_agent();
        for agent in [Agent::Ready, Agent::Unknown, Agent::Missing] {
            gauges.push((metric::NODES, vec![agent.as_str().into()], count(nodes.get(&agent).map_or(0, Vec::len))));
        }
        let kinds = WorkloadKind::BUILT_IN.into_iter().chain(self.settings.kinds.iter().cloned());
        let mut invalid: BTreeMap<String, usize> = kinds.map(|kind| (kind.to_string(), 0)).collect();
        invalid.extend([("Namespace".to_owned(), 0), ("Node".to_owned(), 0)]);
        for (kind, _, _) in self.invalid() {
            *invalid.entry(kind).or_default() += 1;
        }
        gauges.extend(invalid.into_iter().map(|(kind, n)| (metric::OBJECTS_INVALID, vec![kind.into()], count(n))));
        let (images, sets) = self.labels_shown();
        gauges.push((metric::NODE_LABELS, vec!["image".into()], count(images)));
        gauges.push((metric::NODE_LABELS, vec!["set".into()], count(sets)));
        gauges.push((metric::NODE_LABELS_BEYOND, vec![], count(self.pace.beyond().0)));
        let (ready, others) = self.sets_by_readiness();
        gauges.push((metric::SETS, vec!["ready".into()], count(ready)));
        gauges.push((metric::SETS, vec!["not-ready".into()], count(others)));
        let states = self.images_by_state().into_iter();
        gauges.extend(states.map(|(state, n)| (metric::NODE_IMAGES, vec![state.into()], count(n))));
        gauges
    }

    /// Labels of ours that Nodes show: of images, of sets.
    pub(super) fn labels_shown(&self) -> (usize, usize) {
        let of = |node: &Node| {
            let sets = node.our_labels.keys().filter(|key| label::is_of_set(key)).count();
            (node.our_labels.len() - sets, sets)
        };
        self.nodes.good().map(|(_, node)| of(node)).fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
    }

    /// Sets that are shown to be ready, and the others.
    pub(super) fn sets_by_readiness(&self) -> (usize, usize) {
        let is_ready = |view: &SetView| view.status.as_ref().is_some_and(SetStatus::is_ready);
        let ready = self.sets.good().filter(|(_, view)| is_ready(view)).count();
        (ready, self.sets.keys().count() - ready)
    }

    /// Totals for metrics, since the machine began.
    pub fn totals(&self) -> Vec<(Metric, u64)> {
        vec![(metric::EVENTS_LIMITED, self.notices.limited())]
    }

    /// Pairs of node and wanted image by state; `unknown` has no evidence.
    pub(super) fn images_by_state(&self) -> BTreeMap<&'static str, usize> {
        let mut counts: BTreeMap<&'static str, usize> = ImageState::ALL.map(|s| (s.as_str(), 0)).into();
        counts.insert(UNKNOWN, 0);
        let mut classes = Classes::new(&self.plan, &self.evidence, &self.intents);
        let mut of_class: BTreeMap<usize, BTreeMap<&'static str, usize>> = BTreeMap::new();
        for (node, planned) in &self.plan.nodes {
            let Some((number, class)) = classes.of(node, &planned.pools) else {
                continue;
            };
            let state = |id: &ImageKey| class.proven.get(id).map_or(UNKNOWN, |e| e.state.as_str());
            let common = of_class.entry(number).or_insert_with(|| {
                let mut counts = BTreeMap::new();
                for id in class.wanted.keys() {
                    *counts.entry(state(id)).or_default() += 1;
                }
                counts
            });
            for (state, n) in common {
                *counts.entry(state).or_default() += *n;
            }
            let singles = self.evidence.get(node).into_iter().flat_map(NodeEvidence::singles);
            for (id, evidence) in singles.filter(|(id, _)| class.wanted.contains_key(id)) {
                if let Some(n) = counts.get_mut(state(id)) {
                    *n -= 1;
                }
                *counts.entry(evidence.state.as_str()).or_default() += 1;
            }
        }
        counts
    }

    /// Nodes that get an agent, by what is known of it.
    pub(super) fn nodes_by_agent(&self) -> BTreeMap<Agent, Vec<&NodeName>> {
        let mut by_agent: BTreeMap<Agent, Vec<&NodeName>> = BTreeMap::new();
        for node in self.plan.nodes.keys() {
            let agent = self.evidence.get(node).map(NodeEvidence::agent).unwrap_or_default();
            by_agent.entry(agent).or_default().push(node);
        }
        by_agent
    }

    /// Objects with a part that cannot be used: kind, name, what is wrong.
    pub(super) fn invalid(&self) -> Vec<(String, String, Vec<String>)> {
        let mut workloads: BTreeMap<_, Vec<String>> = self.plan.problems.clone();
        for (key, text) in self.workloads.invalid() {
            workloads.entry(key.clone()).or_default().push(text.to_owned());
        }
        let namespaces = self.namespaces.invalid().map(|(name, text)| (name, text.to_owned()));
        let annotated = self.namespaces.good().filter_map(|(name, n)| Some((name, select::bad_namespace(n)?)));
        let nodes =
            self.nodes.invalid().map(|(name, text)| ("Node".to_owned(), name.to_string(), vec![text.to_owned()]));
        let of_workloads = workloads.into_iter().map(|(key, texts)| (key.kind.to_string(), key.to_string(), texts));
        let of_namespaces =
            namespaces.chain(annotated).map(|(name, text)| ("Namespace".to_owned(), name.clone(), vec![text]));
        of_workloads.chain(of_namespaces).chain(nodes).collect()
    }
}

fn newer(there: &Newer) -> String {
    let by = there.by.as_deref().unwrap_or("somebody who does not say who");
    format!(
        "the buckets are of schema version {}, written by {by:?}; this build speaks {SCHEMA} and writes nothing. Upgrade \
         it, or let the newer controllers lead",
        there.schema
    )
}
