//! Learning: what each fact changes of what is known.
//!
//! Owns the arms of `apply`. Never decides.

use std::collections::BTreeMap;

use shared::machine::Moment;
use shared::message::{Assignment, Event, Inventory};
use shared::name::{NodeName, PoolId};
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::IntentsKey;

use super::World;
use super::ask::Question;
use crate::admit;
use crate::fact::{Change, Fact, IntentsDoc, Source, Stored};
use crate::input::{Namespace, Node, RuntimeClass, Workload, WorkloadKey};
use crate::leadership::Standing;
use crate::notice::Subject;
use crate::select::Reading;
use crate::settings::Cordoned;

impl World {
    /// Takes a fact; says whether a step is due.
    pub(super) fn learn(&mut self, fact: Fact, now: Moment) -> bool {
        if let Some(source) = fact.source() {
            self.heard.insert(source, now);
        }
        match fact {
            Fact::Workload(_) | Fact::Workloads(..) | Fact::Replicas(_) | Fact::AllReplicas(_) => {
                self.objects(fact, now)
            }
            Fact::Namespace(change) => self.namespace(change),
            Fact::Namespaces(list) => self.namespaces_listed(list),
            Fact::Set(change) => self.set_changed(change),
            Fact::Sets(list) => self.sets_listed(list),
            Fact::Node(change) => self.node(change),
            Fact::Nodes(list) => self.nodes_listed(list),
            Fact::RuntimeClass(change) => self.runtime_class(change),
            Fact::RuntimeClasses(list) => self.runtime_classes_listed(list),
            Fact::Selection(selection) => {
                self.next_selection = Some(selection);
                self.take_selection()
            }
            Fact::Intents { stream_created, head, entries } => {
                self.intents.read(stream_created, head, entries);
                self.suspects.all_intents(&self.plan, &self.intents);
                self.stale.intents = true;
                self.synced.insert(Source::Intents);
                true
            }
            Fact::IntentChanged(stored) => self.intent_changed(stored),
            Fact::Assignments(entries) => {
                self.assigned.read(entries);
                self.suspects.all_assignments(&self.plan, &self.assigned);
                self.evidence.look_again_at_all();
                self.stale.assignments = true;
                self.synced.insert(Source::Assignments);
                true
            }
            Fact::AssignmentChanged(stored) => self.assignment_changed(stored),
            Fact::Inventories(entries) => self.inventories_read(entries, now),
            Fact::InventoryChanged(stored) => {
                let uid = self.uid(&stored.key);
                self.may_exist(&stored.key) && self.evidence.inventory(stored, uid.as_deref(), Some(now), now)
            }
            Fact::Heartbeat(heartbeat) => {
                let uid = self.uid(&heartbeat.node);
                self.may_exist(&heartbeat.node) && self.evidence.heartbeat(&heartbeat, uid.as_deref(), now)
            }
            Fact::Event(event) => self.event(&event, now),
            Fact::Connected => {
                self.silence.connected(now);
                !std::mem::replace(&mut self.connected, true)
            }
            Fact::Disconnected => {
                self.connected = false;
                self.silence.disconnected();
                self.intents.overtaken();
                self.assigned.overtaken();
                true
            }
            Fact::Lease(holds) => self.leadership.lease(holds),
            Fact::TermTaken(result) => self.term_taken(result, now),
            Fact::ControlWritten(result) => self.control_written(result, now),
            Fact::Asked { verb, body, reply } => {
                self.questions.push(Question { verb, body, reply });
                true
            }
            Fact::IntentsWritten { results, deltas } => self.intents_written(results, deltas, now),
            Fact::AssignmentsWritten(results) => self.assignments_written(results, now),
            Fact::NodeLabelled { node, result, retry_after } => {
                let backoff = self.backoff();
                let was_ours = self.pace.done(&node, result, now, &backoff, &mut self.rng);
                self.pace.spare(&node, now + retry_after.unwrap_or_default());
                was_ours
            }
            Fact::SetStatusWritten { set, result, retry_after } => {
                self.set_status_written(&set, result, retry_after, now)
            }
            Fact::EventPosted { workload, id, result } => self.event_posted(&(workload, id), result, now),
            Fact::Refused { .. } => false,
        }
    }

    fn namespaces_listed(&mut self, list: BTreeMap<String, Result<Namespace, String>>) -> bool {
        let changed = self.namespaces.replace(list, |_| true);
        let is_news = self.synced.insert(Source::Namespaces) || !changed.is_empty();
        self.stale.namespaces.extend(changed);
        is_news
    }

    /// Takes in what is told of objects that may be workloads.
    fn objects(&mut self, fact: Fact, now: Moment) -> bool {
        let mut is_first = false;
        let amount = match fact {
            Fact::Workload(change) => self.family.change(change, now),
            Fact::Workloads(kind, list) => {
                let amount = self.family.replace(&kind, list, now);
                is_first = self.synced.insert(Source::Workloads(kind));
                amount
            }
            Fact::Replicas(change) => self.family.replicas(change, now),
            Fact::AllReplicas(list) => self.family.replace_replicas(list, now),
            _ => Vec::new(),
        };
        self.workloads_are(amount) || is_first
    }

    /// Takes in what the objects amount to.
    pub(super) fn workloads_are(&mut self, amount: Vec<Change<WorkloadKey, Workload>>) -> bool {
        let mut is_news = false;
        for change in amount {
            let key = change.key().clone();
            let change = match change {
                Change::Upsert(key, content) => {
                    let reading = content.map(|workload| self.admit(&key, workload));
                    Change::Upsert(key, reading)
                }
                Change::Remove(key) => {
                    self.classed.remove(&key);
                    Change::Remove(key)
                }
            };
            if self.workloads.change(change) {
                self.stale.workloads.insert(key);
                is_news = true;
            }
        }
        // Somebody may have begun to wait.
        is_news || self.family.due().is_some()
    }

    /// Reads a workload with what Kubernetes adds to its pods. What names a `RuntimeClass` is kept, to be read again.
    pub(super) fn admit(&mut self, key: &WorkloadKey, mut workload: Workload) -> Reading {
        if workload.runtime_class.is_some() {
            self.classed.insert(key.clone(), workload.clone());
        } else {
            self.classed.remove(key);
        }
        let problems = admit::complete(key, &mut workload, &self.runtime_classes, self.settings.target.cordoned);
        let mut reading = self.read(key, &workload);
        reading.add_problems(problems);
        reading
    }

    fn runtime_class(&mut self, change: Change<String, RuntimeClass>) -> bool {
        let name = change.key().clone();
        let changed = self.runtime_classes.change(change);
        if changed {
            self.read_again(&[name]);
        }
        changed
    }

    fn runtime_classes_listed(&mut self, list: BTreeMap<String, Result<RuntimeClass, String>>) -> bool {
        let names = self.runtime_classes.replace(list, |_| true);
        self.read_again(&names);
        self.synced.insert(Source::RuntimeClasses) || !names.is_empty()
    }

    /// Workloads that name one of these are read again.
    fn read_again(&mut self, names: &[String]) {
        let is_named = |workload: &Workload| workload.runtime_class.as_ref().is_some_and(|name| names.contains(name));
        let concerned = self.classed.iter().filter(|(_, workload)| is_named(workload));
        let concerned: Vec<(WorkloadKey, Workload)> = concerned.map(|(k, w)| (k.clone(), w.clone())).collect();
        for (key, workload) in concerned {
            self.workloads_are(vec![Change::Upsert(key, Ok(workload))]);
        }
    }

    fn namespace(&mut self, change: Change<String, Namespace>) -> bool {
        let name = change.key().clone();
        let changed = self.namespaces.change(change);
        if changed {
            self.stale.namespaces.insert(name);
        }
        changed
    }

    fn node(&mut self, change: Change<NodeName, Node>) -> bool {
        let name = change.key().clone();
        let change = match change {
            Change::Upsert(name, content) => Change::Upsert(name, content.map(|node| self.seen(node))),
            Change::Remove(name) => Change::Remove(name),
        };
        let before = self.nodes.get(&name).cloned();
        if !self.nodes.change(change) {
            return false;
        }
        self.node_changed(&name, before.as_ref());
        true
    }

    fn nodes_listed(&mut self, list: BTreeMap<NodeName, Result<Node, String>>) -> bool {
        let before: BTreeMap<NodeName, Node> = self.nodes.good().map(|(k, v)| (k.clone(), v.clone())).collect();
        let list = list.into_iter().map(|(name, content)| (name, content.map(|node| self.seen(node)))).collect();
        let changed = self.nodes.replace(list, |_| true);
        let gone = before.keys().filter(|name| !self.nodes.contains(name));
        let names: Vec<NodeName> = gone.chain(self.nodes.keys()).cloned().collect();
        for name in names {
            if self.nodes.get(&name) != before.get(&name) || !self.nodes.contains(&name) {
                self.node_changed(&name, before.get(&name));
            }
        }
        if self.synced.insert(Source::Nodes) {
            let nodes = &self.nodes;
            self.evidence.keep(|name| nodes.contains(name));
            return true;
        }
        !changed.is_empty()
    }

    /// A node as far as it counts: a cordon may not.
    fn seen(&self, node: Node) -> Node {
        let unschedulable = node.unschedulable && self.settings.target.cordoned == Cordoned::Skip;
        Node { unschedulable, ..node }
    }

    fn node_changed(&mut self, name: &NodeName, before: Option<&Node>) {
        if !self.nodes.contains(name) {
            self.evidence.node_gone(name);
            self.pace.forget(name);
            self.stale.nodes.insert(name.clone());
            self.stale.assignments = true;
            self.suspects.assignment(name);
            return;
        }
        let Some(node) = self.nodes.get(name) else { return };
        if before.is_some_and(|before| before.uid != node.uid) {
            self.pace.forget(name);
        }
        self.evidence.node_is(name, &node.uid);
        self.pace.shows(name, &node.our_labels);
        self.pace.touch(name);
        // Labels of ours place nothing.
        let places_the_same = before.is_some_and(|before| {
            before.uid == node.uid
                && before.labels == node.labels
                && before.taints == node.taints
                && before.deleting == node.deleting
                && before.pressure == node.pressure
                && before.unschedulable == node.unschedulable
                && before.capacity == node.capacity
        });
        if !places_the_same {
            self.stale.nodes.insert(name.clone());
        }
    }

    fn intent_changed(&mut self, stored: Stored<IntentsKey, IntentsDoc>) -> bool {
        if stored.seq < self.intents.seq(&stored.key) {
            if matches!((self.leadership.standing(), &stored.key), (Standing::Taking { .. }, IntentsKey::Meta)) {
                self.leadership.keep(stored);
            } else if stored.key == IntentsKey::Control {
                self.switch.keep(stored);
            } else {
                self.ledger.keep_intent(stored);
            }
            return false;
        }
        self.suspects.key(&stored.key);
        let changed = self.intents.changed(stored);
        self.stale.intents |= changed;
        changed
    }

    fn assignment_changed(&mut self, stored: Stored<NodeName, Assignment>) -> bool {
        if stored.seq < self.assigned.seq(&stored.key) {
            self.ledger.keep_assignment(stored);
            return false;
        }
        self.evidence.look_again(&stored.key);
        self.suspects.assignment(&stored.key);
        let changed = self.assigned.changed(stored);
        self.stale.assignments |= changed;
        self.stale.intents |= changed;
        changed
    }

    fn inventories_read(&mut self, entries: Vec<Stored<NodeName, Box<Inventory>>>, now: Moment) -> bool {
        self.evidence.read(&entries);
        for stored in entries {
            if self.may_exist(&stored.key) {
                let uid = self.uid(&stored.key);
                self.evidence.inventory(stored, uid.as_deref(), None, now);
            }
        }
        self.synced.insert(Source::Inventories);
        true
    }

    /// What is wanted nowhere near the node cannot be asked about later: such an event is dropped.
    fn event(&mut self, event: &Event, now: Moment) -> bool {
        let uid = self.uid(&event.node);
        let covers = self.may_exist(&event.node) && self.scope().covers(&event.node, &event.id);
        let changed = covers && self.evidence.event(event, uid.as_deref(), &self.intents, now);
        if changed {
            let is_failing = matches!(event.st, ImageState::Failed | ImageState::Refused);
            if is_failing && event.r#try.is_none_or(|attempt| attempt <= 1) {
                self.notices.met(&event.id);
            }
            self.pace.touch(&event.node);
        }
        changed
    }

    fn term_taken(&mut self, result: Result<u64, Reason>, now: Moment) -> bool {
        let backoff = self.backoff();
        let reread = self.leadership.take_kept().filter(|_| result == Err(Reason::Conflict));
        if let Some(stored) = reread {
            self.suspects.key(&stored.key);
            self.intents.reread(stored);
        }
        if let Some((seq, meta, reads)) = self.leadership.taken(result, now, &backoff, &mut self.rng) {
            if reads == self.intents.reads() {
                self.intents.meta_acknowledged(seq, &meta);
            }
            self.ledger.renewed();
            self.beats.restart();
            self.silence.leads(now);
            self.status_pace.leads(self.sets.keys(), now);
            self.stale.intents = true;
            self.stale.assignments = true;
            self.suspects.all_intents(&self.plan, &self.intents);
            self.suspects.all_assignments(&self.plan, &self.assigned);
            for (name, _) in self.nodes.good() {
                self.pace.touch(name);
            }
        }
        true
    }

    /// What follows is seen at the next look.
    fn event_posted(&mut self, subject: &Subject, result: Result<(), Reason>, now: Moment) -> bool {
        let backoff = self.backoff();
        self.notices.posted(subject, result, now, &backoff, &mut self.rng);
        false
    }

    fn control_written(&mut self, result: Result<u64, Reason>, now: Moment) -> bool {
        let (answer, failed) = self.switch.written(result, &mut self.intents);
        self.outbox.extend(answer);
        match failed {
            Some(reason) => {
                let backoff = self.backoff();
                self.ledger.intent_retries.failed(IntentsKey::Control, reason, now, &backoff, &mut self.rng);
            }
            None => self.ledger.intent_retries.succeeded(&IntentsKey::Control),
        }
        true
    }

    fn intents_written(
        &mut self,
        results: Vec<(IntentsKey, Result<u64, Reason>)>,
        deltas: BTreeMap<PoolId, u64>,
        now: Moment,
    ) -> bool {
        let Some(mut batch) = self.ledger.take_intents() else {
            return false;
        };
        // An assignment may have waited for it.
        (self.stale.intents, self.stale.assignments) = (true, true);
        let backoff = self.backoff();
        let is_current = batch.reads == self.intents.reads();
        for (key, result) in results {
            let Some((expected, change)) = batch.writes.remove(&key) else {
                continue;
            };
            self.suspects.key(&key);
            match result {
                Ok(seq) => {
                    self.ledger.intent_retries.succeeded(&key);
                    // What was stored earlier than what is known is in another stream, made anew under the old name.
                    if is_current && seq <= batch.latest {
                        self.intents.overtaken();
                    }
                    if is_current {
                        self.intents.acknowledged(&key, seq, &change);
                    }
                    if let IntentsKey::Intent(pool, _) = key {
                        self.note_delta(pool, seq);
                    }
                }
                Err(reason) => {
                    let reread = batch.reread.remove(&key).filter(|_| reason == Reason::Conflict && is_current);
                    if let Some(stored) = reread.filter(|_| self.intents.seq(&key) == expected) {
                        self.intents.reread(stored);
                    }
                    // After a conflict that taught nothing, as after any other failure, the key is left alone.
                    if reason != Reason::Conflict || self.intents.seq(&key) == expected {
                        self.ledger.intent_retries.failed(key, reason, now, &backoff, &mut self.rng);
                    }
                }
            }
        }
        // A key without a result has failed for a reason nobody knows.
        for key in batch.writes.into_keys() {
            self.ledger.intent_retries.failed(key, Reason::Unknown, now, &backoff, &mut self.rng);
        }
        for (pool, to) in deltas {
            self.note_delta(pool, to);
        }
        true
    }

    /// The next delta of a pool follows this sequence. What was acknowledged and did not go out in a delta makes a gap,
    /// which agents notice.
    fn note_delta(&mut self, pool: PoolId, to: u64) {
        let last = self.ledger.deltas.entry(pool).or_default();
        *last = (*last).max(to);
    }

    fn assignments_written(&mut self, results: Vec<(NodeName, Result<u64, Reason>)>, now: Moment) -> bool {
        let Some(mut batch) = self.ledger.take_assignments() else {
            return false;
        };
        // A withdrawal may have waited for it.
        (self.stale.assignments, self.stale.intents) = (true, true);
        let is_current = batch.reads == self.assigned.reads();
        let backoff = self.backoff();
        for (node, result) in results {
            let Some((write, told)) = batch.writes.remove(&node) else {
                continue;
            };
            self.suspects.assignment(&node);
            match result {
                Ok(seq) => {
                    self.ledger.assignment_retries.succeeded(&node);
                    if is_current {
                        self.assigned.acknowledged(&node, seq, write.assignment.as_ref());
                    }
                    self.evidence.look_again(&node);
                }
                Err(reason) => {
                    let reread = batch.reread.remove(&node).filter(|_| reason == Reason::Conflict && is_current);
                    if let Some(stored) = reread.filter(|_| self.assigned.seq(&node) == write.expected) {
                        self.assigned.reread(stored);
                    }
                    if reason != Reason::Conflict {
                        self.assigned.in_doubt(node.clone(), told);
                    }
                    if reason != Reason::Conflict || self.assigned.seq(&node) == write.expected {
                        self.ledger.assignment_retries.failed(node, reason, now, &backoff, &mut self.rng);
                    }
                }
            }
        }
        for (node, (_, told)) in batch.writes {
            self.suspects.assignment(&node);
            self.assigned.in_doubt(node.clone(), told);
            self.ledger.assignment_retries.failed(node, Reason::Unknown, now, &backoff, &mut self.rng);
        }
        true
    }
}
