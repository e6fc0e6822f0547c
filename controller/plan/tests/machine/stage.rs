//! Everything around the machine, in memory and naive: two buckets with compare-and-set, Nodes, a clock.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_plan::effect::{IntentBatch, IntentChange};
use cluster_plan::fact::{Change, IntentsDoc, Stored, StoredValue};
use cluster_plan::input::{
    Constraint, ContainerImage, ImageSet, Namespace, Node, Selection, SetKey, Taint, TaintEffect, Toleration,
    TolerationOperator, Workload, WorkloadKey, WorkloadKind,
};
use cluster_plan::{Effect, Fact, Settings, Timing, World};
use shared::image::{Digest, Reference};
use shared::machine::{Changed, Machine, Moment, Now};
use shared::message::{Assignment, Content, Event, Exception, Heartbeat, Intent, Inventory, Meta};
use shared::name::{ImageKey, NodeName, PoolId};
use shared::pool_set::{PoolSet, PoolSummary};
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::{ControlVerb, IntentsKey};

use crate::recorded;

pub(crate) const CLUSTER: &str = "cluster-uid";

/// One of two buckets: history 1, so a key has one message.
#[derive(Debug, Clone)]
pub(crate) struct Bucket<K, V> {
    pub(crate) seq: u64,
    pub(crate) keys: BTreeMap<K, (u64, Option<V>)>,
}

impl<K, V> Default for Bucket<K, V> {
    fn default() -> Self {
        Self { seq: 0, keys: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, V: Clone> Bucket<K, V> {
    pub(crate) fn put(&mut self, key: &K, expected: Option<u64>, value: Option<V>) -> Result<u64, Reason> {
        let there = self.keys.get(key).map_or(0, |(seq, _)| *seq);
        if expected.is_some_and(|e| e != there) {
            return Err(Reason::Conflict);
        }
        self.seq += 1;
        self.keys.insert(key.clone(), (self.seq, value));
        Ok(self.seq)
    }

    pub(crate) fn stored(&self, key: &K) -> Stored<K, V> {
        let (seq, value) = self.keys.get(key).cloned().unwrap_or((0, None));
        Stored { key: key.clone(), seq, value: value.map_or(StoredValue::Marker, StoredValue::Value) }
    }

    fn all(&self) -> Vec<Stored<K, V>> {
        self.keys.keys().map(|k| self.stored(k)).collect()
    }

    pub(crate) fn live(&self) -> BTreeMap<K, V> {
        self.keys.iter().filter_map(|(k, (_, v))| Some((k.clone(), v.clone()?))).collect()
    }
}

/// The stage.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) now: Now,
    pub(crate) created: String,
    pub(crate) intents: Bucket<IntentsKey, IntentsDoc>,
    pub(crate) assign: Bucket<NodeName, Assignment>,
    pub(crate) inventories: BTreeMap<NodeName, (u64, Inventory)>,
    pub(crate) nodes: BTreeMap<NodeName, Node>,
    pub(crate) workloads: BTreeMap<WorkloadKey, Workload>,
    pub(crate) sets: BTreeMap<SetKey, ImageSet>,
    /// Every effect so far, in order.
    pub(crate) log: Vec<Effect>,
    /// The watch echoes a write before its outcome arrives.
    pub(crate) echo_first: bool,
    /// Patches reach the Node, but the watch does not tell.
    pub(crate) node_watch_hangs: bool,
    /// The next writes that fail, and how.
    pub(crate) faults: Vec<Reason>,
    /// How many questions were asked.
    pub(crate) asked: u64,
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

pub(crate) fn key(image: &str) -> ImageKey {
    Reference::parse(image).unwrap().key()
}

pub(crate) fn digest(n: u8) -> Digest {
    Digest::parse(&format!("sha256:{}", format!("{n:02x}").repeat(32))).unwrap()
}

pub(crate) fn deployment(name: &str) -> WorkloadKey {
    WorkloadKey { kind: WorkloadKind::Deployment, namespace: "shop".to_owned(), name: name.to_owned() }
}

pub(crate) fn workload(images: &[&str]) -> Workload {
    let container = |(at, image): (usize, &&str)| ContainerImage {
        position: format!("containers[{at}]"),
        image: (*image).to_owned(),
    };
    Workload { images: images.iter().enumerate().map(container).collect(), ..Workload::default() }
}

pub(crate) fn node(uid: &str) -> Node {
    Node { uid: uid.to_owned(), ..Node::default() }
}

pub(crate) fn tainted(uid: &str, key: &str) -> Node {
    let taint = Taint { key: key.to_owned(), value: String::new(), effect: TaintEffect::NoSchedule };
    Node { taints: [taint].into(), ..node(uid) }
}

pub(crate) fn tolerating(key: &str) -> Constraint {
    let toleration = Toleration {
        key: Some(key.to_owned()),
        operator: TolerationOperator::Exists,
        value: String::new(),
        effect: None,
    };
    Constraint { tolerations: [toleration].into(), ..Constraint::default() }
}

pub(crate) fn settings() -> Settings {
    Settings { timing: Timing::default(), instance: "pod-a".to_owned(), ..Settings::default() }
}

pub(crate) fn at(mono: u64) -> Now {
    Now { mono: Moment(mono), wall: jiff::Timestamp::UNIX_EPOCH }
}

/// The facts of a first full content of everything Kubernetes shows.
impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(settings())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let now = at(1_000_000);
        Self {
            world: World::new(settings, "epoch-1".to_owned(), 7, now),
            now,
            created: "2026-01-01T00:00:00Z".to_owned(),
            intents: Bucket::default(),
            assign: Bucket::default(),
            inventories: BTreeMap::new(),
            nodes: BTreeMap::new(),
            workloads: BTreeMap::new(),
            sets: BTreeMap::new(),
            log: Vec::new(),
            echo_first: false,
            node_watch_hangs: false,
            faults: Vec::new(),
            asked: 0,
        }
    }

    /// The facts a start consists of, `Connected` last.
    pub(crate) fn first_facts(&self) -> Vec<Fact> {
        let namespace = |uid: &str| Ok(Namespace { uid: uid.to_owned(), warm: None, ..Namespace::default() });
        let namespaces =
            BTreeMap::from([("kube-system".to_owned(), namespace(CLUSTER)), ("shop".to_owned(), namespace("s"))]);
        let mut facts = vec![
            Fact::Selection(Selection::default()),
            Fact::Namespaces(namespaces),
            Fact::Nodes(self.nodes.iter().map(|(k, v)| (k.clone(), Ok(v.clone()))).collect()),
        ];
        for kind in WorkloadKind::BUILT_IN {
            let of_kind = self.workloads.iter().filter(|(k, _)| k.kind == kind);
            facts.push(Fact::Workloads(kind.clone(), of_kind.map(|(k, v)| (k.clone(), Ok(v.clone()))).collect()));
        }
        if !self.sets.is_empty() {
            facts.push(Fact::Sets(self.sets.iter().map(|(k, v)| (k.clone(), Ok(v.clone()))).collect()));
        }
        facts.extend(self.reads());
        facts.extend([Fact::Lease(true), Fact::Connected]);
        facts
    }

    /// Full reads of the three buckets.
    pub(crate) fn reads(&self) -> Vec<Fact> {
        let inventory = |(k, (seq, v)): (&NodeName, &(u64, Inventory))| Stored {
            key: k.clone(),
            seq: *seq,
            value: StoredValue::Value(Box::new(v.clone())),
        };
        vec![
            Fact::Intents { stream_created: self.created.clone(), head: self.intents.seq, entries: self.intents.all() },
            Fact::Assignments(self.assign.all()),
            Fact::Inventories(self.inventories.iter().map(inventory).collect()),
        ]
    }

    /// Starts and comes to rest.
    pub(crate) fn start(&mut self) {
        for fact in self.first_facts() {
            self.tell(fact);
        }
        self.run();
    }

    /// Every fact of every test also shows that it can be recorded.
    pub(crate) fn tell(&mut self, fact: Fact) -> Changed {
        recorded::survives(&fact);
        self.world.apply(fact, self.now)
    }

    /// Tells and comes to rest; gives the effects since.
    pub(crate) fn learn(&mut self, fact: Fact) -> Vec<Effect> {
        self.tell(fact);
        self.run()
    }

    /// Asks, comes to rest, gives the answer.
    pub(crate) fn ask(&mut self, verb: ControlVerb, body: &str) -> serde_json::Value {
        self.asked += 1;
        let number = self.asked;
        let effects = self.learn(Fact::Asked { verb, body: body.to_owned(), reply: number });
        let answers: Vec<_> = effects
            .into_iter()
            .filter_map(|e| match e {
                Effect::Reply { reply, body } if reply == number => Some(body),
                _ => None,
            })
            .collect();
        match <[_; 1]>::try_from(answers) {
            Ok([answer]) => answer,
            Err(answers) => panic!("not one answer to {verb:?} {body}: {answers:?}"),
        }
    }

    pub(crate) fn want(&mut self, workload_name: &str, workload: Workload) -> Vec<Effect> {
        let key = deployment(workload_name);
        self.workloads.insert(key.clone(), workload.clone());
        self.learn(Fact::Workload(Change::Upsert(key, Ok(workload))))
    }

    pub(crate) fn withdraw(&mut self, workload_name: &str) -> Vec<Effect> {
        let key = deployment(workload_name);
        self.workloads.remove(&key);
        self.learn(Fact::Workload(Change::Remove(key)))
    }

    pub(crate) fn join(&mut self, node_name: &str, node: Node) -> Vec<Effect> {
        self.nodes.insert(name(node_name), node.clone());
        self.learn(Fact::Node(Change::Upsert(name(node_name), Ok(node))))
    }

    pub(crate) fn leave(&mut self, node_name: &str) -> Vec<Effect> {
        self.nodes.remove(&name(node_name));
        self.learn(Fact::Node(Change::Remove(name(node_name))))
    }

    /// Steps and carries out until nothing is left to do; gives the effects.
    pub(crate) fn run(&mut self) -> Vec<Effect> {
        let start = self.log.len();
        for _ in 0..10_000 {
            let effects = self.world.step(self.now);
            if effects.is_empty() {
                return self.log[start..].to_vec();
            }
            assert!(self.world.step(self.now).is_empty(), "a second step at the same time does something");
            for effect in effects {
                self.log.push(effect.clone());
                self.carry_out(effect);
            }
        }
        panic!("no rest after 10,000 steps: {:?}", self.log.last());
    }

    /// Lets time pass, with a step at every due time; gives the effects.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<Effect> {
        let end = self.now.mono + time;
        let mut effects = self.run();
        while let Some(due) = self.world.next_due().filter(|due| *due <= end) {
            assert!(due > self.now.mono, "a timer that does not move: {due:?}");
            self.now.mono = due;
            effects.extend(self.run());
        }
        self.now.mono = end;
        effects.extend(self.run());
        effects
    }

    pub(crate) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::TakeTerm { meta, expected } => {
                let doc = IntentsDoc::Meta(meta);
                let (result, echo) = self.write(&IntentsKey::Meta, expected, Some(doc));
                let outcome = Fact::TermTaken(result);
                self.tell_both(echo.map(Fact::IntentChanged).into_iter().collect(), outcome, result.is_err());
            }
            Effect::WriteIntents(batch) => self.write_intents(batch),
            Effect::WriteAssignments { writes, .. } => {
                let (mut results, mut echoes, mut failed) = (Vec::new(), Vec::new(), false);
                for write in writes {
                    let result = match self.faults.pop() {
                        Some(reason) => Err(reason),
                        None => self.assign.put(&write.node, Some(write.expected), write.assignment),
                    };
                    failed |= result.is_err();
                    if matches!(result, Ok(_) | Err(Reason::Conflict)) {
                        echoes.push(Fact::AssignmentChanged(self.assign.stored(&write.node)));
                    }
                    results.push((write.node, result));
                }
                self.tell_both(echoes, Fact::AssignmentsWritten(results), failed);
            }
            Effect::LabelNode { node, uid, labels } => {
                let result = match self.nodes.get_mut(&node).filter(|n| n.uid == uid) {
                    _ if !self.faults.is_empty() => Err(self.faults.pop().unwrap()),
                    None => Err(Reason::NotFound),
                    Some(there) => {
                        there.our_labels = labels;
                        Ok(())
                    }
                };
                self.tell(Fact::NodeLabelled { node: node.clone(), result, retry_after: None });
                if !self.node_watch_hangs {
                    self.show(&node);
                }
            }
            Effect::WriteControl { control, expected } => {
                let doc = IntentsDoc::Control(control);
                let (result, echo) = self.write(&IntentsKey::Control, expected, Some(doc));
                let outcome = Fact::ControlWritten(result);
                self.tell_both(echo.map(Fact::IntentChanged).into_iter().collect(), outcome, result.is_err());
            }
            Effect::WriteSetStatus(write) => {
                let result = match self.sets.get_mut(&write.set).filter(|set| set.wants.uid == write.uid) {
                    _ if !self.faults.is_empty() => Err(self.faults.pop().unwrap()),
                    None => Err(Reason::Conflict),
                    Some(there) => {
                        there.status = Some(write.status);
                        Ok(())
                    }
                };
                self.tell(Fact::SetStatusWritten { set: write.set.clone(), result, retry_after: None });
                self.show_set(&write.set);
            }
            Effect::PostEvent(event) => {
                let result = self.faults.pop().map_or(Ok(()), Err);
                self.tell(Fact::EventPosted { workload: event.workload, id: event.id, result });
            }
            Effect::PublishBeat(_)
            | Effect::WriteSnapshot { .. }
            | Effect::PurgeSnapshot { .. }
            | Effect::RequestInventory(_)
            | Effect::ReleaseLease
            | Effect::Reply { .. } => {}
        }
    }

    /// The watch tells what a set shows.
    pub(crate) fn show_set(&mut self, key: &SetKey) {
        let change = match self.sets.get(key).cloned() {
            Some(there) => Change::Upsert(key.clone(), Ok(there)),
            None => Change::Remove(key.clone()),
        };
        self.tell(Fact::Set(change));
    }

    /// The watch tells what the Node shows.
    pub(crate) fn show(&mut self, node: &NodeName) {
        if let Some(there) = self.nodes.get(node).cloned() {
            self.tell(Fact::Node(Change::Upsert(node.clone(), Ok(there))));
        }
    }

    pub(crate) fn write_intents(&mut self, batch: IntentBatch) {
        assert!(batch.writes.len() <= 256);
        let (mut results, mut echoes, mut deltas, mut failed) = (Vec::new(), Vec::new(), BTreeMap::new(), false);
        for write in batch.writes {
            let (key, doc) = match write.write {
                IntentChange::PutDefinition(doc) => {
                    (IntentsKey::Definition(write.pool), Some(IntentsDoc::Definition(doc)))
                }
                IntentChange::PurgeDefinition => (IntentsKey::Definition(write.pool), None),
                IntentChange::Put(intent) => {
                    (IntentsKey::Intent(write.pool, intent.id.clone()), Some(IntentsDoc::Intent(intent)))
                }
                IntentChange::Purge(id) => (IntentsKey::Intent(write.pool, id), None),
            };
            let (result, echo) = self.write(&key, write.expected, doc);
            failed |= result.is_err();
            if let (Ok(seq), IntentsKey::Intent(pool, _)) = (result, &key) {
                // In a stream that was made anew a sequence proves nothing.
                assert!(batch.prev[pool] < seq || self.intents.seq < batch.prev[pool]);
                deltas.insert(pool.clone(), seq);
            }
            echoes.extend(echo.map(Fact::IntentChanged));
            results.push((key, result));
        }
        self.tell_both(echoes, Fact::IntentsWritten { results, deltas }, failed);
    }

    fn write(
        &mut self,
        key: &IntentsKey,
        expected: u64,
        doc: Option<IntentsDoc>,
    ) -> (Result<u64, Reason>, Option<Stored<IntentsKey, IntentsDoc>>) {
        let result = match self.faults.pop() {
            Some(reason) => Err(reason),
            None => self.intents.put(key, Some(expected), doc),
        };
        let is_told = matches!(result, Ok(_) | Err(Reason::Conflict));
        (result, is_told.then(|| self.intents.stored(key)))
    }

    fn tell_both(&mut self, echoes: Vec<Fact>, outcome: Fact, echo_first: bool) {
        if echo_first || self.echo_first {
            for echo in echoes {
                self.tell(echo);
            }
            self.tell(outcome);
        } else {
            self.tell(outcome);
            // A step may come between.
            let effects = self.world.step(self.now);
            for echo in echoes {
                self.tell(echo);
            }
            for effect in effects {
                self.log.push(effect.clone());
                self.carry_out(effect);
            }
        }
    }

    /// What agents of a pool have taken in once they are up to date.
    pub(crate) fn summary(&self, pool: &PoolId) -> PoolSummary {
        let mut set = PoolSet::new(pool.clone());
        for (key, (seq, value)) in &self.intents.keys {
            if let (IntentsKey::Intent(of, id), Some(_)) = (key, value)
                && of == pool
            {
                set.insert(id.clone(), *seq);
            }
        }
        set.summary(self.intents.seq)
    }

    /// What an up-to-date agent says: everything warm except these. `n` orders reports.
    pub(crate) fn inventory(&self, node: &str, n: u64, cold: &[&str]) -> Inventory {
        let node = name(node);
        let assignment = self.assign.live().get(&node).cloned();
        let pools: Vec<PoolId> = assignment.as_ref().map(|a| a.pools.clone()).unwrap_or_default();
        let exception = |image: &&str| Exception {
            id: key(image),
            st: ImageState::Failed,
            why: Some(Reason::NotFound),
            since: jiff::Timestamp::UNIX_EPOCH,
            digest: None,
            bytes: None,
            tries: None,
            next: None,
        };
        let intents = self.intents.live();
        let warm = intents.iter().filter_map(|(k, doc)| match (k, doc) {
            (IntentsKey::Intent(pool, id), IntentsDoc::Intent(intent)) if pools.contains(pool) => {
                (intent.digest.is_none() && !cold.iter().any(|c| key(c) == *id)).then(|| (id.clone(), digest(1)))
            }
            _ => None,
        });
        Inventory {
            uid: assignment.map(|a| a.uid).unwrap_or_default(),
            node,
            boot: "boot".to_owned(),
            agent: "0.1.0".to_owned(),
            inst: "run-1".to_owned(),
            n,
            epoch: "epoch-1".to_owned(),
            pools: pools.iter().map(|p| (p.clone(), self.summary(p))).collect(),
            content: Content::Except(cold.iter().map(exception).collect()),
            not_warm: Vec::new(),
            left_out: 0,
            complete: true,
            digests: warm.collect(),
            disk: shared::message::Disk::default(),
            runtime: shared::message::Runtime::default(),
            ts: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    /// An agent puts an inventory.
    pub(crate) fn put(&mut self, inventory: Inventory) -> Vec<Effect> {
        let seq = self.inventories.values().map(|(seq, _)| *seq).max().unwrap_or(0) + 1;
        let node = inventory.node.clone();
        self.inventories.insert(node.clone(), (seq, inventory.clone()));
        self.learn(Fact::InventoryChanged(Stored { key: node, seq, value: StoredValue::Value(Box::new(inventory)) }))
    }

    /// Reports everything but `cold` as warm.
    pub(crate) fn report(&mut self, node: &str, n: u64, cold: &[&str]) -> Vec<Effect> {
        let inventory = self.inventory(node, n, cold);
        self.put(inventory)
    }

    /// A heartbeat that confirms `inventory`, with these pools moved.
    pub(crate) fn heartbeat(&self, inventory: &Inventory, n: u64, moved: &[&PoolId]) -> Heartbeat {
        Heartbeat {
            node: inventory.node.clone(),
            inst: inventory.inst.clone(),
            boot: inventory.boot.clone(),
            n,
            inv_digest: inventory.evidence_digest(),
            pools: moved.iter().map(|p| ((*p).clone(), self.summary(p))).collect(),
            schema: vec![1],
            refused: 0,
            ts: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    pub(crate) fn event(&self, node: &str, image: &str, n: u64, st: ImageState) -> Event {
        Event {
            node: name(node),
            inst: "run-1".to_owned(),
            n,
            uid: self.nodes.get(&name(node)).map(|n| n.uid.clone()).unwrap_or_default(),
            id: key(image),
            image: Reference::parse(image).unwrap().canonical(),
            st,
            why: None,
            ms: None,
            bytes: None,
            digest: (st == ImageState::Warm).then(|| digest(1)),
            r#try: None,
            next: None,
            ts: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    pub(crate) fn labels(&self, node: &str) -> BTreeMap<String, String> {
        self.nodes[&name(node)].our_labels.clone()
    }

    pub(crate) fn state(&self, node: &str, image: &str) -> Option<ImageState> {
        let image = Reference::parse(image).unwrap().canonical();
        let row = self.world.table().into_iter().find(|r| r.node == name(node) && r.image == image);
        row.unwrap_or_else(|| panic!("{image} is not wanted on {node}")).state
    }

    pub(crate) fn meta(&self) -> Option<Meta> {
        match self.intents.live().get(&IntentsKey::Meta) {
            Some(IntentsDoc::Meta(meta)) => Some(meta.clone()),
            _ => None,
        }
    }

    /// Live intents of a pool.
    pub(crate) fn held(&self, pool: &PoolId) -> BTreeMap<ImageKey, Intent> {
        let intents = self.intents.live().into_iter().filter_map(|(key, doc)| match (key, doc) {
            (IntentsKey::Intent(of, id), IntentsDoc::Intent(intent)) if of == *pool => Some((id, *intent)),
            _ => None,
        });
        intents.collect()
    }

    /// The pools of a node, as the bucket says.
    pub(crate) fn pools(&self, node: &str) -> Vec<PoolId> {
        self.assign.live().get(&name(node)).map(|a| a.pools.clone()).unwrap_or_default()
    }
}

/// Effects that change something: beats do not.
pub(crate) fn changes(effects: &[Effect]) -> Vec<&Effect> {
    effects.iter().filter(|e| !matches!(e, Effect::PublishBeat(_))).collect()
}
