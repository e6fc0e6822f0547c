//! The controller's machine: Kubernetes shows two workloads and two nodes, and every write succeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_plan::fact::{Change, IntentsDoc, Stored, StoredValue};
use cluster_plan::input::{ContainerImage, Namespace, Node, Selection, Workload, WorkloadKey, WorkloadKind};
use cluster_plan::{Effect, Fact, Settings, World};
use controller::bus::feed::{Feed, stored};
use controller::bus::receive;
use controller::bus::{Assignments, Intents, Inventories};
use jiff::Timestamp;
use shared::label;
use shared::machine::{Machine as _, Moment, Now};
use shared::message::header as name;
use shared::name::{ClusterId, NodeName};
use shared::subject::{IntentsKey, Subject};

use super::{Step, header};

const MOST_TURNS: usize = 200;

pub(super) struct Play {
    world: World,
    now: Now,
    nodes: BTreeMap<NodeName, Node>,
    head: u64,
    /// Questions, numbered from 1, and those that were answered.
    asked: u64,
    answered: BTreeSet<u64>,
}

impl Play {
    pub(super) fn new() -> Self {
        let now = Now { mono: Moment(1_000), wall: Timestamp::UNIX_EPOCH };
        let node = |uid: &str| Node { uid: uid.to_owned(), ..Node::default() };
        let nodes = ["a", "b"].into_iter().filter_map(|n| Some((NodeName::parse(n).ok()?, node(&format!("uid-{n}")))));
        let mut play = Self {
            world: World::new(Settings::default(), "epoch".to_owned(), 7, now),
            now,
            nodes: nodes.collect(),
            head: 0,
            asked: 0,
            answered: BTreeSet::new(),
        };
        play.learn(Fact::Lease(true));
        for fact in play.kubernetes() {
            play.learn(fact);
        }
        play.connect();
        play
    }

    fn kubernetes(&self) -> Vec<Fact> {
        let namespace = |uid: &str| Ok(Namespace { uid: uid.to_owned(), warm: None, ..Namespace::default() });
        let namespaces = [("kube-system", "cluster"), ("shop", "s")].map(|(n, uid)| (n.to_owned(), namespace(uid)));
        let nodes = self.nodes.iter().map(|(name, node)| (name.clone(), Ok(node.clone()))).collect();
        let mut facts =
            vec![Fact::Selection(Selection::default()), Fact::Namespaces(namespaces.into()), Fact::Nodes(nodes)];
        facts.extend(WorkloadKind::BUILT_IN.map(|kind| {
            let image = ContainerImage { position: "containers[0]".to_owned(), image: "nginx:1.27".to_owned() };
            let workload = Workload { images: vec![image], ..Workload::default() };
            let key = WorkloadKey { kind: kind.clone(), namespace: "shop".to_owned(), name: "front".to_owned() };
            Fact::Workloads(kind, [(key, Ok(workload))].into())
        }));
        facts
    }

    fn connect(&mut self) {
        let stream_created = "2026-01-01T00:00:00Z".to_owned();
        self.learn(Fact::Intents { stream_created, head: self.head, entries: Vec::new() });
        self.learn(Fact::Assignments(Vec::new()));
        self.learn(Fact::Inventories(Vec::new()));
        self.learn(Fact::Connected);
    }

    pub(super) fn take(&mut self, step: &Step<'_>) {
        match step {
            Step::Message { place, headers, body } => {
                if place.starts_with("$KV.") {
                    self.changed::<Intents>(place, body);
                    self.changed::<Assignments>(place, body);
                    self.changed::<Inventories>(place, body);
                } else if let Some(Subject::Control(verb)) = Subject::parse(&ClusterId::default(), place) {
                    self.asked += 1;
                    let body = String::from_utf8_lossy(body).into_owned();
                    self.learn(Fact::Asked { verb, body, reply: self.asked });
                } else {
                    let from_stream = header(headers, name::STREAM).is_some();
                    match receive::fact(&ClusterId::default(), place, from_stream, body) {
                        Ok(fact) => self.learn(fact),
                        Err(refusal) => self.learn(Fact::Refused { kind: refusal.kind, reason: refusal.reason }),
                    }
                }
            }
            Step::Connect => self.connect(),
            Step::Disconnect => self.learn(Fact::Disconnected),
            Step::Pass(time) => self.pass(*time),
            Step::Images(_) | Step::PullsFail(_) => {}
        }
    }

    fn changed<F: Feed>(&mut self, place: &str, body: &[u8]) {
        let Some(key) = F::BUCKET.key_of(&ClusterId::default(), place) else { return };
        self.head += 1;
        let body = (!body.is_empty()).then_some(body);
        if let Some(entry) = stored::<F>(key, self.head, body) {
            self.learn(F::changed(entry));
        }
    }

    /// What is due comes to rest, and what is shown can be shown.
    pub(super) fn end(&mut self) {
        for _ in 0..20 {
            let due = self.world.next_due().unwrap_or(self.now.mono);
            self.pass(due.since(self.now.mono).max(Duration::from_secs(1)));
        }
        assert!(self.world.summary(self.now).is_object());
        assert_eq!(self.answered.len() as u64, self.asked, "a question has no answer");
    }

    fn learn(&mut self, fact: Fact) {
        self.world.apply(fact, self.now);
        self.turn();
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.turn();
    }

    fn turn(&mut self) {
        for _ in 0..MOST_TURNS {
            let effects = self.world.step(self.now);
            if effects.is_empty() {
                let due = self.world.next_due();
                assert!(
                    due.is_none_or(|due| due > self.now.mono),
                    "due at {due:?}, nothing done at {:?}",
                    self.now.mono
                );
                return;
            }
            for effect in effects {
                for fact in self.answer(effect) {
                    self.world.apply(fact, self.now);
                }
            }
        }
        assert!(self.world.step(self.now).is_empty(), "no end of effects at {:?}", self.now.mono);
    }

    fn next(&mut self) -> u64 {
        self.head += 1;
        self.head
    }

    fn answer(&mut self, effect: Effect) -> Vec<Fact> {
        match effect {
            Effect::TakeTerm { meta, .. } => {
                let seq = self.next();
                let value = StoredValue::Value(IntentsDoc::Meta(meta));
                vec![Fact::TermTaken(Ok(seq)), Fact::IntentChanged(Stored { key: IntentsKey::Meta, seq, value })]
            }
            Effect::WriteIntents(batch) => {
                use cluster_plan::effect::IntentChange;
                let results = batch.writes.iter().map(|write| {
                    let pool = write.pool.clone();
                    let key = match &write.write {
                        IntentChange::PutDefinition(_) | IntentChange::PurgeDefinition => IntentsKey::Definition(pool),
                        IntentChange::Put(intent) => IntentsKey::Intent(pool, intent.id.clone()),
                        IntentChange::Purge(id) => IntentsKey::Intent(pool, id.clone()),
                    };
                    self.head += 1;
                    (key, Ok(self.head))
                });
                vec![Fact::IntentsWritten { results: results.collect(), deltas: BTreeMap::new() }]
            }
            Effect::WriteAssignments { writes, .. } => {
                let written = writes.into_iter().map(|write| (write.node, Ok(self.next())));
                vec![Fact::AssignmentsWritten(written.collect())]
            }
            Effect::LabelNode { node, labels, .. } => {
                assert!(labels.keys().all(|label| label::is_ours(label)), "{labels:?}");
                let mut facts = vec![Fact::NodeLabelled { node: node.clone(), result: Ok(()), retry_after: None }];
                if let Some(there) = self.nodes.get_mut(&node) {
                    there.our_labels = labels;
                    facts.push(Fact::Node(Change::Upsert(node, Ok(there.clone()))));
                }
                facts
            }
            Effect::PostEvent(event) => {
                assert!(!event.note.is_empty(), "{event:?}");
                vec![Fact::EventPosted { workload: event.workload, id: event.id, result: Ok(()) }]
            }
            Effect::WriteControl { control, .. } => {
                let seq = self.next();
                let value = StoredValue::Value(IntentsDoc::Control(control));
                vec![
                    Fact::ControlWritten(Ok(seq)),
                    Fact::IntentChanged(Stored { key: IntentsKey::Control, seq, value }),
                ]
            }
            Effect::Reply { reply, body } => {
                assert!(body.is_object(), "{body}");
                assert!((1..=self.asked).contains(&reply) && self.answered.insert(reply), "{reply} is answered twice");
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}
