//! What must hold after every step.
//!
//! Owns the invariants called *always*, and what has to be remembered to judge them. Each has a name, so that a test can
//! say which one notices what.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use cluster_plan::effect::IntentChange;
use node_plan::fact::{RuntimeImage, digest_in};
use shared::label;
use shared::message::{Content, Inventory};
use shared::name::ImageKey;
use shared::state::ImageState;
use shared::subject::{Bucket, IntentsKey};

use super::bus::Body;
use super::node::{Held, number, reference};
use super::oracle;
use super::queue::{MS, SEC, Us};
use super::refuted::Refuted;
use super::schedule::Answer;
use super::sets::{LEAST, SetMemory};
use super::universe::Universe;

/// Most writes of one batch.
const BATCH: usize = 256;
/// Most Kubernetes Events a minute.
pub(super) const EVENTS: u32 = 3;
/// What has been wanted for this long is known to whoever can know it.
const KNOWN: Us = 12 * SEC;

/// An invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// No more pulls in flight than allowed.
    PullsInFlight,
    /// No pull of what the runtime has shown to be there, but for a refresh that is due.
    SecondPull,
    /// No removal of what is used, pinned, wanted or not ours.
    Removal,
    /// No label that the newest word of its node's agent contradicts for long.
    LabelRefuted,
    /// No more labels on a node than allowed.
    LabelBudget,
    /// No more patches a second than allowed.
    PatchRate,
    /// No more Kubernetes Events a minute than allowed.
    EventRate,
    /// No two writes of the status of a set within its window.
    SetStatusRate,
    /// No batch larger than allowed.
    BatchSize,
    /// No label without evidence.
    LabelEvidence,
    /// No word of an agent that its runtime did not say.
    HonestEvidence,
    /// Nothing that is wanted is let go.
    Release,
    /// Nothing that is wanted is withdrawn from the buckets.
    Withdrawal,
    /// No write of a leader that knows of its successor.
    Deposed,
    /// Nobody writes another's key.
    ForeignKey,
    /// *Eventually*: wanted images are warm, labels and buckets say so.
    Converged,
    /// *Eventually*: nothing happens any more.
    Rest,
}

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When, in milliseconds.
    pub at: u64,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {} ms: {}", self.invariant, self.at, self.what)
    }
}

/// What is remembered of one agent.
#[derive(Debug, Default)]
struct AgentMemory {
    /// Pulls issued and not ended.
    in_flight: BTreeSet<ImageKey>,
    /// When the last pull ended well of what it has held on to since.
    pulled: BTreeMap<ImageKey, Us>,
    /// What the runtime has shown: canonical reference to its digests, and when a pull said so.
    witness: BTreeMap<String, (BTreeSet<String>, Us)>,
    /// What it held on to after its last step.
    holds: BTreeSet<ImageKey>,
    /// For which Node object that was.
    uid: String,
    /// Its last report, which heartbeats extend to sets that moved since.
    report: Option<Box<Inventory>>,
}

/// What is remembered of one replica.
#[derive(Debug, Default)]
struct ReplicaMemory {
    began: Us,
    /// The highest term it has been told of in each epoch.
    terms: BTreeMap<String, u64>,
    /// When it sent its last patches.
    patches: VecDeque<Us>,
    /// When it sent its last Events.
    events: VecDeque<Us>,
}

/// The memory of the invariants.
#[derive(Debug, Default)]
pub(super) struct Checks {
    agents: BTreeMap<usize, AgentMemory>,
    replicas: BTreeMap<usize, ReplicaMemory>,
    /// Label values that agents have vouched for: node's UID, image, value.
    pub(super) claims: BTreeSet<(String, ImageKey, String)>,
    pub(super) refuted: Refuted,
    pub(super) sets: SetMemory,
    /// When somebody outside last changed what the buckets say.
    pub(super) meddled: Option<Us>,
}

impl Checks {
    pub(super) fn agent_begins(&mut self, node: usize) {
        self.agents.insert(node, AgentMemory::default());
    }

    pub(super) fn controller_begins(&mut self, number: usize, now: Us) {
        self.replicas.insert(number, ReplicaMemory { began: now, ..ReplicaMemory::default() });
    }

    /// The runtime has shown a list that was asked for at `asked`.
    pub(super) fn told_list(&mut self, node: usize, asked: Us, images: Option<&[RuntimeImage]>) {
        let (Some(images), Some(agent)) = (images, self.agents.get_mut(&node)) else { return };
        agent.witness.retain(|_, (_, pulled)| *pulled >= asked);
        // One without a digest was cut off: that is not to hold it.
        for image in images.iter().filter(|image| !image.repo_digests.is_empty()) {
            let name = image.repo_tags.first().or(image.repo_digests.first());
            if let Some(name) = name.filter(|name| !agent.witness.contains_key(*name)) {
                agent.witness.insert(name.clone(), (digests(image), 0));
            }
        }
    }

    /// A pull has ended.
    pub(super) fn told_pull(&mut self, node: usize, now: Us, image: Option<&RuntimeImage>) {
        let (Some(image), Some(agent)) = (image, self.agents.get_mut(&node)) else { return };
        if let Some(name) = image.repo_tags.first().or(image.repo_digests.first()) {
            agent.witness.insert(name.clone(), (digests(image), now));
        }
    }

    fn claim(&mut self, node: usize, uid: &str, id: &ImageKey, image: &str) -> bool {
        let Some((digests, _)) = self.agents.get(&node).and_then(|agent| agent.witness.get(image)) else {
            return false;
        };
        for value in digests {
            self.claims.insert((uid.to_owned(), id.clone(), value.clone()));
        }
        true
    }
}

fn digests(image: &RuntimeImage) -> BTreeSet<String> {
    image.repo_digests.iter().filter_map(|d| digest_in(d)).map(|d| label::image_label_value(&d)).collect()
}

impl Universe {
    pub(super) fn check_agent_facts(&mut self, node: usize, facts: &[node_plan::Fact]) {
        let now = self.now;
        let Some(memory) = self.checks.agents.get_mut(&node) else { return };
        for fact in facts {
            if let node_plan::Fact::Pulled { id, result } = fact {
                memory.in_flight.remove(id);
                if result.is_ok() && memory.holds.contains(id) {
                    memory.pulled.insert(id.clone(), now);
                }
            }
        }
    }

    pub(super) fn check_agent_effect(&mut self, node: usize, effect: &node_plan::Effect) {
        use node_plan::Effect as E;
        let Some(name) = self.hosts.get(node).map(|host| host.node.clone()) else { return };
        match effect {
            E::Pull { id, image, is_refresh, .. } => {
                // What the registry does not have is asked for again now and then.
                let is_missing = number(image).is_some_and(|n| self.registry.answer(n) == Answer::Missing);
                self.deeds += u64::from(!is_missing);
                self.check_pull(node, id, image, *is_refresh);
            }
            E::PublishEvent(event) => {
                if event.node != name {
                    self.violated(Invariant::ForeignKey, format!("{name} speaks for {}", event.node));
                }
                if event.st == ImageState::Warm && !self.checks.claim(node, &event.uid, &event.id, &event.image) {
                    let what = format!("{name} says that {} is warm, which its runtime has not shown", event.image);
                    self.violated(Invariant::HonestEvidence, what);
                }
            }
            E::PublishHeartbeat(heartbeat) => {
                if heartbeat.node != name {
                    self.violated(Invariant::ForeignKey, format!("{name} speaks for {}", heartbeat.node));
                }
                let report = self.checks.agents.get(&node).and_then(|memory| memory.report.clone());
                if let Some(report) = report.filter(|report| report.evidence_digest() == heartbeat.inv_digest) {
                    self.check_inventory(node, &report);
                }
            }
            E::PutInventory(inventory) => {
                if inventory.node != name {
                    self.violated(Invariant::ForeignKey, format!("{name} writes for {}", inventory.node));
                }
                self.check_inventory(node, inventory);
                if let Some(memory) = self.checks.agents.get_mut(&node) {
                    memory.report = Some(inventory.clone());
                }
            }
            _ => {}
        }
    }

    fn check_pull(&mut self, node: usize, id: &ImageKey, image: &str, is_refresh: bool) {
        let (limit, now) = (self.setup.pulls, self.now);
        let Some(memory) = self.checks.agents.get_mut(&node) else { return };
        memory.in_flight.insert(id.clone());
        let in_flight = memory.in_flight.len();
        let is_there = memory.witness.contains_key(image);
        let pulled = memory.pulled.get(id).copied();
        if in_flight > limit {
            self.violated(
                Invariant::PullsInFlight,
                format!("node-{node} has {in_flight} pulls in flight, allowed are {limit}"),
            );
        }
        // The machine's clock counts whole milliseconds.
        if let Some(pulled) = pulled.filter(|pulled| is_refresh && pulled + LEAST > now + MS) {
            let text = format!("node-{node} refreshes {image} {} ms after its last pull", (now - pulled) / MS);
            self.violated(Invariant::SecondPull, text);
        }
        if is_there != is_refresh {
            self.violated(
                Invariant::SecondPull,
                format!("node-{node} pulls {image}, as a refresh: {is_refresh}; its runtime holds it: {is_there}"),
            );
        }
    }

    /// An image is removed: nobody may miss it.
    pub(super) fn check_removal(&mut self, node: usize, image: &str, held: &Held) {
        let now = self.now;
        let is_wanted = number(image).is_some_and(|n| {
            let is_meddled = self.checks.meddled.is_some_and(|at| at + KNOWN > now);
            !is_meddled && self.api.wanted_since.get(&(node, n)).is_some_and(|since| since + KNOWN <= now)
        });
        for (is_wrong, why) in [
            (held.is_used, "a container uses it"),
            (held.is_pinned, "it is pinned"),
            (!held.is_ours, "somebody else has pulled it"),
            (is_wanted, "it has been wanted for long"),
        ] {
            if is_wrong {
                self.violated(Invariant::Removal, format!("node-{node} removes {image}, though {why}"));
            }
        }
    }

    /// What a report says to be warm must have been shown by the runtime.
    fn check_inventory(&mut self, node: usize, inventory: &Inventory) {
        let warm: Vec<usize> = match &inventory.content {
            Content::WarmIds(ids) => {
                (0..self.setup.images).filter(|i| oracle::key(*i).is_some_and(|key| ids.contains(&key))).collect()
            }
            Content::Except(exceptions) if inventory.complete => {
                let Some(holds) = self.checks.agents.get(&node).map(|memory| memory.holds.clone()) else { return };
                let is_listed = |key: &ImageKey| exceptions.iter().any(|e| e.id == *key);
                (0..self.setup.images)
                    .filter(|i| oracle::key(*i).is_some_and(|key| holds.contains(&key) && !is_listed(&key)))
                    .collect()
            }
            Content::Except(_) => Vec::new(),
        };
        for image in warm {
            let (Some(id), image) = (oracle::key(image), reference(image)) else { continue };
            self.checks.claim(node, &inventory.uid, &id, &image);
        }
    }

    /// What an agent holds on to after a step: nothing that is wanted may leave.
    pub(super) fn check_agent(&mut self, node: usize) {
        let now = self.now;
        let Some(agent) = self.hosts.get(node).and_then(|host| host.agent.as_ref()) else { return };
        let holds: BTreeSet<ImageKey> = agent.machine.wanted().cloned().collect();
        let Some(memory) = self.checks.agents.get_mut(&node) else { return };
        let before = std::mem::replace(&mut memory.holds, holds);
        memory.pulled.retain(|id, _| memory.holds.contains(id));
        let uid = agent.machine.uid();
        if std::mem::replace(&mut memory.uid, uid.clone()) != uid {
            // What it knew was of another Node object, read from its state file: it reads everything again, and removes
            // nothing until it has.
            return;
        }
        let gone: Vec<ImageKey> = before.difference(&memory.holds).cloned().collect();
        if gone.is_empty() || self.checks.meddled.is_some_and(|at| at + KNOWN > now) {
            return;
        }
        for image in 0..self.setup.images {
            let since = self.api.wanted_since.get(&(node, image)).copied();
            let is_wanted = since.is_some_and(|since| since + KNOWN <= now);
            if is_wanted && oracle::key(image).is_some_and(|key| gone.contains(&key)) {
                let text = format!("node-{node} lets go of {}, which has been wanted for long", reference(image));
                self.violated(Invariant::Release, text);
            }
        }
    }

    pub(super) fn check_controller_facts(&mut self, number: usize, facts: &[cluster_plan::Fact]) {
        use cluster_plan::Fact as F;
        use cluster_plan::fact::{IntentsDoc, StoredValue};
        let Some(memory) = self.checks.replicas.get_mut(&number) else { return };
        let mut see = |value: &StoredValue<IntentsDoc>| {
            if let StoredValue::Value(IntentsDoc::Meta(meta)) = value {
                let term = memory.terms.entry(meta.epoch.clone()).or_default();
                *term = (*term).max(meta.term);
            }
        };
        for fact in facts {
            match fact {
                F::Intents { entries, .. } => entries.iter().for_each(|entry| see(&entry.value)),
                F::IntentChanged(stored) => see(&stored.value),
                _ => {}
            }
        }
    }

    pub(super) fn check_controller_effect(&mut self, number: usize, effect: &cluster_plan::Effect) {
        use cluster_plan::Effect as E;
        let (now, rate) = (self.now, self.setup.patches);
        let Some(memory) = self.checks.replicas.get_mut(&number) else { return };
        let known = |epoch: &str| memory.terms.get(epoch).copied().unwrap_or_default();
        match effect {
            E::TakeTerm { .. } | E::WriteControl { .. } => self.deeds += 1,
            E::WriteIntents(batch) => {
                self.deeds += 1;
                let known = known(&batch.epoch);
                if batch.term < known {
                    self.violated(
                        Invariant::Deposed,
                        format!("controller-{number} of term {} writes intents and knows of term {known}", batch.term),
                    );
                }
                if batch.writes.len() > BATCH {
                    self.violated(Invariant::BatchSize, format!("{} writes in one batch", batch.writes.len()));
                }
                if batch.writes.iter().any(|w| matches!(&w.write, IntentChange::Purge(_))) && batch.term == 0 {
                    self.violated(Invariant::Deposed, format!("controller-{number} writes without a term"));
                }
            }
            E::WriteAssignments { epoch, term, .. } => {
                let known = known(epoch);
                self.deeds += 1;
                if *term < known {
                    self.violated(
                        Invariant::Deposed,
                        format!("controller-{number} of term {term} assigns and knows of term {known}"),
                    );
                }
            }
            E::LabelNode { .. } => {
                self.deeds += 1;
                memory.patches.retain(|at| at + SEC > now);
                memory.patches.push_back(now);
                // A full bucket of tokens, and what flows in during that second.
                let (sent, most) = (memory.patches.len(), 2 * rate as usize);
                let began = memory.began;
                if sent > most {
                    self.violated(
                        Invariant::PatchRate,
                        format!(
                            "controller-{number}, up since {} ms, sends {sent} patches in a second, allowed are {most}",
                            began / MS
                        ),
                    );
                }
            }
            E::PostEvent(event) => {
                memory.events.retain(|at| at + 60 * SEC > now);
                memory.events.push_back(now);
                let (sent, most) = (memory.events.len(), EVENTS as usize);
                if sent > most {
                    let text =
                        format!("controller-{number} sends {sent} Events in a minute, allowed are {most}: {event:?}");
                    self.violated(Invariant::EventRate, text);
                }
            }
            E::WriteSetStatus(write) => {
                self.deeds += 1;
                self.check_set_status(number, write);
            }
            E::PublishBeat(_)
            | E::WriteSnapshot { .. }
            | E::PurgeSnapshot { .. }
            | E::ReleaseLease
            | E::RequestInventory(_)
            | E::Reply { .. } => {}
        }
    }

    /// A patch takes effect: what it adds must have been vouched for.
    pub(super) fn check_labels(
        &mut self,
        node: usize,
        uid: &str,
        before: &BTreeMap<String, String>,
        after: &BTreeMap<String, String>,
    ) {
        let budget = self.setup.labels;
        if after.len() > budget {
            self.violated(
                Invariant::LabelBudget,
                format!("node-{node} gets {} labels, allowed are {budget}", after.len()),
            );
        }
        for (label, value) in after.iter().filter(|(label, value)| before.get(*label) != Some(*value)) {
            let Some(id) = label::parse_image_label(label) else {
                self.check_set_label(node, uid, label);
                continue;
            };
            if !self.checks.claims.contains(&(uid.to_owned(), id, value.clone())) {
                let text = format!("node-{node} ({uid}) gets {label}={value}, which no agent of it has vouched for");
                self.violated(Invariant::LabelEvidence, text);
            }
        }
    }

    /// A write has been stored: nothing that is wanted may have left the bucket.
    pub(super) fn check_stored(&mut self, bucket: Bucket, key: &str, body: Option<&Body>) {
        if bucket != Bucket::Intents || body.is_some() || self.checks.meddled == Some(self.now) {
            return;
        }
        let Some(IntentsKey::Intent(_, id)) = IntentsKey::parse(key) else { return };
        let now = self.now;
        let of_image = |image: usize| oracle::key(image).as_ref() == Some(&id);
        let Some(image) = (0..self.setup.images).find(|image| of_image(*image)) else { return };
        let is_wanted = |(pair, since): (&(usize, usize), &Us)| pair.1 == image && *since + KNOWN <= now;
        if !self.api.wanted_since.iter().any(is_wanted) {
            return;
        }
        let ending = format!(".i.{id}");
        let stream = self.store.get(Bucket::Intents);
        let is_left = stream.is_some_and(|s| s.keys.iter().any(|(k, m)| k.ends_with(&ending) && m.body.is_some()));
        if !is_left {
            self.violated(
                Invariant::Withdrawal,
                format!("{key} is withdrawn, though {} has been wanted for long", reference(image)),
            );
        }
    }
}
