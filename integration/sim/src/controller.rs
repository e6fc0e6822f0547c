//! The controllers' side of the world: facts that reach a replica over NATS and effects that leave it.
//!
//! Owns what `controller/src/{act,bus}` do, without a runtime and without I/O; documents, messages and the rule of the
//! first hole are those of the same code.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use cluster_plan::effect::{AssignmentWrite, IntentBatch, IntentChange, IntentWrite};
use cluster_plan::fact::{Stored, StoredValue};
use cluster_plan::{Effect, Fact, World};
use controller::act::delta::deltas;
use controller::act::snapshot::{self, Change};
use controller::bus::feed::{Feed, stored};
use controller::bus::receive::{Refusal, fact};
use controller::bus::{Assignments, Intents, Inventories};
use shared::machine::Kind as _;
use shared::message::{Beat, Message as _, SCHEMA, header};
use shared::reason::Reason;
use shared::subject::{Bucket, IntentsKey, RequestVerb, Subject, assignment_key};

use super::bus::{Body, Write};
use super::connection::Wire;
use super::dice::About;
use super::process::{Process, Who};
use super::queue::{MS, Us};
use super::universe::Universe;

/// One replica.
#[derive(Default)]
pub(super) struct Replica {
    pub(super) process: Option<Process<World>>,
    pub(super) incarnations: u64,
    pub(super) skew: i64,
    /// Intents and beats, in the order decided.
    lane: VecDeque<Ordered>,
    lane_busy: bool,
    /// Buckets that this connection has read.
    read: BTreeSet<Bucket>,
    pub(super) told: bool,
    /// The server's consumers for it, by number.
    consumers: BTreeMap<Bucket, u64>,
    consumer_count: u64,
    /// The next message of these is lost on its way.
    pub(super) loses: BTreeSet<Bucket>,
    /// What the election has told it.
    pub(super) lease: bool,
    /// When it last renewed.
    pub(super) renewed: Us,
}

impl Replica {
    pub(super) fn end(&mut self) {
        self.process = None;
        self.lane.clear();
        self.lane_busy = false;
        self.read.clear();
        self.told = false;
        self.consumers.clear();
        self.lease = false;
    }
}

enum Ordered {
    Intents(Box<IntentBatch>),
    Beat(Beat),
}

/// A batch under way: each write with what came of it.
struct Batch<W> {
    writes: Vec<W>,
    results: Vec<Option<Result<u64, Reason>>>,
}

type Results = Vec<Result<u64, Reason>>;

fn us(duration: std::time::Duration) -> Us {
    Us::try_from(duration.as_micros()).unwrap_or(Us::MAX)
}

/// A stored message as the fact of its bucket.
fn changed(bucket: Bucket, key: &str, seq: u64, body: Option<&[u8]>) -> Option<Fact> {
    match bucket {
        Bucket::Intents => stored::<Intents>(key, seq, body).map(Intents::changed),
        Bucket::Assign => stored::<Assignments>(key, seq, body).map(Assignments::changed),
        Bucket::Nodes => stored::<Inventories>(key, seq, body).map(Inventories::changed),
    }
}

type Snapshot = Vec<(String, u64, Option<Body>)>;

fn read(bucket: Bucket, created: String, head: u64, keys: &Snapshot) -> Fact {
    fn entries<F: Feed>(keys: &Snapshot) -> Vec<Stored<F::Key, F::Doc>> {
        keys.iter().filter_map(|(key, seq, body)| stored::<F>(key, *seq, body.as_deref())).collect()
    }
    match bucket {
        Bucket::Intents => Intents::read(created, head, entries::<Intents>(keys)),
        Bucket::Assign => Assignments::read(created, head, entries::<Assignments>(keys)),
        Bucket::Nodes => Inventories::read(created, head, entries::<Inventories>(keys)),
    }
}

impl Universe {
    /// A fact for a replica, if it is still the same process.
    pub(super) fn tell_controller(&mut self, number: usize, incarnation: u64, fact: Fact) {
        let process = self.replicas.get_mut(number).and_then(|replica| replica.process.as_mut());
        if let Some(process) = process.filter(|process| process.incarnation == incarnation) {
            process.tell(fact);
            self.queue_turn(Who::Controller(number));
        }
    }

    fn tell_replica(&mut self, number: usize, fact: Fact) {
        if let Some(incarnation) = self.incarnation(Who::Controller(number)) {
            self.tell_controller(number, incarnation, fact);
        }
    }

    /// A connection is made: it listens to agents and watches the buckets.
    pub(super) fn controller_connected(&mut self, number: usize) {
        let who = Who::Controller(number);
        let subjects = [Subject::all_heartbeats(&self.cluster), Subject::all_events(&self.cluster)].into();
        self.send(who, Box::new(move |u| u.set_subjects(who, subjects)));
        if let Some(replica) = self.replicas.get_mut(number) {
            replica.read.clear();
            replica.consumers.clear();
        }
        for bucket in Bucket::ALL {
            self.watch(number, bucket);
        }
    }

    /// Connections made anew are a disconnect, if they were told of.
    pub(super) fn controller_disconnected(&mut self, number: usize) {
        let Some(replica) = self.replicas.get_mut(number) else { return };
        replica.read.clear();
        replica.consumers.clear();
        if std::mem::take(&mut replica.told) {
            self.tell_replica(number, Fact::Disconnected);
        }
    }

    /// Ensures a bucket and watches it: everything in it, then every change.
    fn watch(&mut self, number: usize, bucket: Bucket) {
        let who = Who::Controller(number);
        let Some(generation) = self.generation(who) else { return };
        self.request(
            who,
            move |u| {
                u.store.expire(u.now);
                let stream = u.store.ensure(bucket);
                let mut keys: Snapshot =
                    stream.keys.iter().map(|(key, m)| (key.clone(), m.seq, m.body.clone())).collect();
                keys.sort_by_key(|(_, seq, _)| *seq);
                let (created, head) = (stream.created.clone(), stream.seq);
                if let Some(replica) = u.replicas.get_mut(number) {
                    replica.consumer_count += 1;
                    let consumer = replica.consumer_count;
                    replica.consumers.insert(bucket, consumer);
                }
                (created, head, keys)
            },
            move |u, answer| {
                if u.generation(who) != Some(generation) {
                    return;
                }
                let Ok((created, head, keys)) = answer else {
                    return u.watch_again(number, bucket);
                };
                u.tell_replica(number, read(bucket, created, head, &keys));
                let Some(replica) = u.replicas.get_mut(number) else { return };
                replica.read.insert(bucket);
                if replica.read.len() == Bucket::ALL.len() && !std::mem::replace(&mut replica.told, true) {
                    u.tell_replica(number, Fact::Connected);
                }
            },
        );
    }

    fn watch_again(&mut self, number: usize, bucket: Bucket) {
        let who = Who::Controller(number);
        let (incarnation, generation) = (self.incarnation(who), self.generation(who));
        let wait = self.dice.about(About::Connect(who)).u64(125 * MS..250 * MS);
        self.after(wait, move |u| {
            if u.incarnation(who) == incarnation && u.generation(who) == generation {
                u.reach(who, Box::new(move |u| u.watch(number, bucket)));
            }
        });
    }

    /// Writes to a bucket; who watches it is told.
    pub(super) fn write(&mut self, bucket: Bucket, write: Write) -> Result<u64, Reason> {
        let (key, body) = (write.key.clone(), write.body.clone());
        self.store.expire(self.now);
        let seq = self.store.write(bucket, write, self.now)?;
        self.say(|| {
            format!("nats         {} {key} = #{seq}{}", bucket.word(), if body.is_none() { " purged" } else { "" })
        });
        self.check_stored(bucket, &key, body.as_ref());
        for number in 0..self.replicas.len() {
            self.pass_on(number, bucket, &key, seq, body.clone());
        }
        Ok(seq)
    }

    fn pass_on(&mut self, number: usize, bucket: Bucket, key: &str, seq: u64, body: Option<Body>) {
        let who = Who::Controller(number);
        let Some(replica) = self.replicas.get_mut(number) else { return };
        let Some(consumer) = replica.consumers.get(&bucket).copied() else { return };
        let is_current = move |u: &Self| {
            u.replicas.get(number).is_some_and(|replica| replica.consumers.get(&bucket) == Some(&consumer))
        };
        if replica.loses.remove(&bucket) {
            // The next message shows the gap; a heartbeat of the server would as well.
            let deed = move |u: &mut Self| {
                if is_current(u) {
                    if let Some(replica) = u.replicas.get_mut(number) {
                        replica.consumers.remove(&bucket);
                        replica.read.remove(&bucket);
                    }
                    u.watch_again(number, bucket);
                }
            };
            return self.deliver(who, Box::new(deed));
        }
        let key = key.to_owned();
        self.deliver(
            who,
            Box::new(move |u| {
                if is_current(u)
                    && let Some(fact) = changed(bucket, &key, seq, body.as_deref())
                {
                    u.tell_replica(number, fact);
                }
            }),
        );
    }

    /// A stream is gone: its consumers are silent, and are made anew.
    pub(super) fn bucket_gone(&mut self, bucket: Bucket) {
        for number in 0..self.replicas.len() {
            let who = Who::Controller(number);
            let generation = self.generation(who);
            let Some(replica) = self.replicas.get_mut(number) else { continue };
            let consumer = replica.consumers.remove(&bucket);
            self.after(1_500 * MS, move |u| {
                if consumer.is_some() && u.generation(who) == generation && generation.is_some() {
                    if let Some(replica) = u.replicas.get_mut(number) {
                        replica.read.remove(&bucket);
                    }
                    u.reach(who, Box::new(move |u| u.watch(number, bucket)));
                }
            });
        }
    }

    /// A message on core NATS reaches a replica.
    pub(super) fn controller_receives(&mut self, number: usize, wire: &Wire) {
        let from_stream = wire.headers.iter().any(|(name, _)| *name == header::STREAM);
        let fact = fact(&self.cluster, &wire.subject, from_stream, &wire.body)
            .unwrap_or_else(|Refusal { kind, reason }| Fact::Refused { kind, reason });
        self.tell_replica(number, fact);
    }

    /// Carries an effect of a replica out.
    pub(super) fn act_for_controller(&mut self, number: usize, incarnation: u64, effect: Effect) {
        match effect {
            Effect::WriteIntents(batch) => self.in_order(number, Ordered::Intents(Box::new(batch))),
            Effect::PublishBeat(beat) => self.in_order(number, Ordered::Beat(beat)),
            Effect::TakeTerm { meta, expected } => {
                let key = IntentsKey::Meta.to_string();
                self.write_document(number, key, meta.encode().into(), expected, Fact::TermTaken);
            }
            Effect::WriteControl { control, expected } => {
                let key = IntentsKey::Control.to_string();
                self.write_document(number, key, control.encode().into(), expected, Fact::ControlWritten);
            }
            Effect::Reply { .. } => {}
            Effect::ReleaseLease => self.release_lease(number),
            Effect::WriteAssignments { epoch, term, writes } => self.write_assignments(number, epoch, term, writes),
            Effect::LabelNode { node, uid, labels } => self.label_node(number, incarnation, node, uid, labels),
            Effect::WriteSetStatus(write) => self.write_set_status(number, incarnation, *write),
            Effect::PostEvent(event) => self.post_event(number, incarnation, *event),
            Effect::WriteSnapshot { snapshot, before, .. } => {
                self.put_one_by_one(number, snapshot::writes(&snapshot, before).into());
            }
            Effect::PurgeSnapshot { pool, chunks, .. } => {
                self.put_one_by_one(number, snapshot::purges(&pool, chunks).into());
            }
            Effect::RequestInventory(node) => {
                let subject = Subject::Request(node, RequestVerb::Inventory).print(&self.cluster);
                let headers = vec![(header::SCHEMA, SCHEMA.to_string())];
                self.publish(Who::Controller(number), Wire { subject, headers, body: [].into() });
            }
        }
    }

    fn in_order(&mut self, number: usize, effect: Ordered) {
        if let Some(replica) = self.replicas.get_mut(number) {
            replica.lane.push_back(effect);
            self.go_on(number);
        }
    }

    /// The next of the lane, unless one is under way.
    fn go_on(&mut self, number: usize) {
        while let Some(replica) = self.replicas.get_mut(number).filter(|replica| !replica.lane_busy) {
            match replica.lane.pop_front() {
                None => return,
                Some(Ordered::Beat(beat)) => {
                    let headers = headers(&beat.epoch, beat.term);
                    let subject = Subject::Beat(beat.pool.clone()).print(&self.cluster);
                    self.publish(Who::Controller(number), Wire { subject, headers, body: beat.encode().into() });
                }
                Some(Ordered::Intents(batch)) => {
                    replica.lane_busy = true;
                    self.write_intents(number, batch);
                }
            }
        }
    }

    /// Writes the keys of a snapshot, each when the one before it is acknowledged.
    fn put_one_by_one(&mut self, number: usize, mut puts: VecDeque<Change>) {
        let Some((key, value)) = puts.pop_front() else { return };
        let body = value.map(|value| Body::from(value.as_ref()));
        let write = Write { key, expected: None, body, ttl: None };
        self.request(
            Who::Controller(number),
            move |u| u.write(Bucket::Intents, write),
            move |u, written| {
                if matches!(written, Ok(Ok(_))) {
                    u.put_one_by_one(number, puts);
                }
            },
        );
    }

    fn write_intents(&mut self, number: usize, batch: Box<IntentBatch>) {
        let ttl = us(batch.marker_ttl);
        let writes = batch.writes.iter().map(|write| {
            let body: Option<Body> = write.body().map(Into::into);
            Write {
                key: write.key().to_string(),
                expected: Some(write.expected),
                ttl: body.is_none().then_some(ttl),
                body,
            }
        });
        let writes: Vec<Write> = writes.collect();
        self.write_all(number, Bucket::Intents, writes, move |u, results| {
            let told = u.publish_deltas(number, &batch, &results);
            let keys: Vec<IntentsKey> = batch.writes.iter().map(IntentWrite::key).collect();
            let conflicts = conflicts(&keys, &results);
            let outcome = Fact::IntentsWritten { results: keys.into_iter().zip(results).collect(), deltas: told };
            u.tell_conflicts(number, Bucket::Intents, conflicts, move |u| {
                u.tell_replica(number, outcome);
                if let Some(replica) = u.replicas.get_mut(number) {
                    replica.lane_busy = false;
                }
                u.go_on(number);
            });
        });
    }

    fn publish_deltas(
        &mut self,
        number: usize,
        batch: &IntentBatch,
        results: &[Result<u64, Reason>],
    ) -> BTreeMap<shared::name::PoolId, u64> {
        let mut told = BTreeMap::new();
        for delta in deltas(batch, results) {
            let subject = Subject::Delta(delta.pool.clone()).print(&self.cluster);
            let wire = Wire { subject, headers: delta.headers(), body: delta.body().into() };
            if self.publish(Who::Controller(number), wire) {
                told.insert(delta.pool, delta.to);
            }
        }
        told
    }

    fn write_assignments(&mut self, number: usize, epoch: String, term: u64, writes: Vec<AssignmentWrite>) {
        let marker_ttl = 15_000 * MS;
        let puts = writes.iter().map(|write| Write {
            key: assignment_key(&write.node),
            expected: Some(write.expected),
            body: write.assignment.as_ref().map(|assignment| assignment.encode().into()),
            ttl: write.assignment.is_none().then_some(marker_ttl),
        });
        let puts: Vec<Write> = puts.collect();
        self.write_all(number, Bucket::Assign, puts, move |u, results| {
            for (write, result) in writes.iter().zip(&results) {
                if let (Some(assignment), Ok(_)) = (&write.assignment, result) {
                    let subject = Subject::Assign(write.node.clone()).print(&u.cluster);
                    let wire = Wire { subject, headers: headers(&epoch, term), body: assignment.encode().into() };
                    u.publish(Who::Controller(number), wire);
                }
            }
            let keys: Vec<String> = writes.iter().map(|write| assignment_key(&write.node)).collect();
            let conflicts = conflicts(&keys, &results);
            let nodes = writes.into_iter().map(|write| write.node);
            let outcome = Fact::AssignmentsWritten(nodes.zip(results).collect());
            u.tell_conflicts(number, Bucket::Assign, conflicts, move |u| u.tell_replica(number, outcome));
        });
    }

    /// One document by compare-and-set.
    fn write_document(
        &mut self,
        number: usize,
        key: String,
        body: Body,
        expected: u64,
        outcome: impl FnOnce(Result<u64, Reason>) -> Fact + 'static,
    ) {
        let write = Write { key: key.clone(), expected: Some(expected), body: Some(body), ttl: None };
        self.write_all(number, Bucket::Intents, vec![write], move |u, results| {
            let conflicts = conflicts(&[key], &results);
            let result = results.into_iter().next().unwrap_or(Err(Reason::Unknown));
            u.tell_conflicts(number, Bucket::Intents, conflicts, move |u| u.tell_replica(number, outcome(result)));
        });
    }

    /// Pipelined writes, in order; `then` once all are answered.
    fn write_all(
        &mut self,
        number: usize,
        bucket: Bucket,
        writes: Vec<Write>,
        then: impl FnOnce(&mut Self, Results) + 'static,
    ) {
        let batch = Batch { results: vec![None; writes.len()], writes };
        let batch = Rc::new(RefCell::new((batch, Some(then))));
        let writes = std::mem::take(&mut batch.borrow_mut().0.writes);
        for (at, write) in writes.into_iter().enumerate() {
            let batch = Rc::clone(&batch);
            self.request(
                Who::Controller(number),
                move |u| u.write(bucket, write),
                move |u, result| {
                    let mut batch = batch.borrow_mut();
                    if let Some(slot) = batch.0.results.get_mut(at) {
                        *slot = Some(result.and_then(|result| result));
                    }
                    let done: Option<Results> = batch.0.results.iter().copied().collect();
                    let then = batch.1.take_if(|_| done.is_some());
                    drop(batch);
                    if let (Some(then), Some(results)) = (then, done) {
                        then(u, results);
                    }
                },
            );
        }
    }

    /// What another writer has put is told first, then the outcome.
    fn tell_conflicts(
        &mut self,
        number: usize,
        bucket: Bucket,
        mut keys: Vec<String>,
        then: impl FnOnce(&mut Self) + 'static,
    ) {
        let Some(key) = keys.pop() else { return then(self) };
        let asked = key.clone();
        self.request(
            Who::Controller(number),
            move |u| {
                u.store.expire(u.now);
                let stream = u.store.get(bucket)?;
                Some(stream.keys.get(&asked).map(|message| (message.seq, message.body.clone())))
            },
            move |u, answer| {
                let found = match answer {
                    Ok(Some(Some((seq, body)))) => changed(bucket, &key, seq, body.as_deref()),
                    Ok(Some(None)) => absent(bucket, &key),
                    _ => None,
                };
                if let Some(fact) = found {
                    u.tell_replica(number, fact);
                }
                u.tell_conflicts(number, bucket, keys, then);
            },
        );
    }

    /// What the trace says of a fact.
    pub(super) fn controller_fact(fact: &Fact) -> String {
        match fact {
            Fact::Intents { stream_created, head, entries } => {
                format!("intents {stream_created} head {head} keys {}", entries.len())
            }
            Fact::IntentChanged(stored) => format!("intent-changed {} #{}", stored.key, stored.seq),
            Fact::AssignmentChanged(stored) => format!("assignment-changed {} #{}", stored.key, stored.seq),
            Fact::InventoryChanged(stored) => format!("inventory-changed {} #{}", stored.key, stored.seq),
            Fact::Event(event) => format!("event {} n {} {} {}", event.node, event.n, event.st, event.id),
            Fact::Heartbeat(h) => format!("heartbeat {} n {}", h.node, h.n),
            Fact::IntentsWritten { results, deltas } => {
                let said: Vec<String> = results.iter().map(|(key, r)| format!("{key} {r:?}")).collect();
                format!("intents-written [{}] {deltas:?}", said.join(", "))
            }
            Fact::AssignmentsWritten(results) => format!("assignments-written {results:?}"),
            Fact::TermTaken(result) => format!("term-taken {result:?}"),
            Fact::Lease(holds) => format!("lease {holds}"),
            Fact::NodeLabelled { node, result, .. } => format!("node-labelled {node} {result:?}"),
            other => other.kind().to_owned(),
        }
    }

    /// What the trace says of an effect.
    pub(super) fn controller_effect(effect: &Effect) -> String {
        match effect {
            Effect::TakeTerm { meta, expected } => {
                format!("take-term {} of {} expecting #{expected}", meta.term, meta.epoch)
            }
            Effect::WriteIntents(batch) => {
                let writes: Vec<String> = batch
                    .writes
                    .iter()
                    .map(|w| {
                        let is_purge = matches!(w.write, IntentChange::Purge(_) | IntentChange::PurgeDefinition);
                        format!("{}{} at #{}", if is_purge { "purge " } else { "" }, w.key(), w.expected)
                    })
                    .collect();
                format!("write-intents term {} [{}]", batch.term, writes.join(", "))
            }
            Effect::WriteAssignments { term, writes, .. } => {
                let said: Vec<String> = writes
                    .iter()
                    .map(|w| match &w.assignment {
                        Some(a) => format!("{} uid {} rev {} pools {}", w.node, a.uid, a.rev, a.pools.len()),
                        None => format!("purge {}", w.node),
                    })
                    .collect();
                format!("write-assignments term {term} [{}]", said.join(", "))
            }
            Effect::LabelNode { node, uid, labels } => format!("label-node {node} uid {uid} {labels:?}"),
            Effect::PublishBeat(beat) => {
                format!("beat {} term {} head {} count {}", beat.pool, beat.term, beat.head, beat.count)
            }
            other => other.kind().to_owned(),
        }
    }
}

fn headers(epoch: &str, term: u64) -> Vec<(&'static str, String)> {
    vec![(header::SCHEMA, SCHEMA.to_string()), (header::EPOCH, epoch.to_owned()), (header::TERM, term.to_string())]
}

fn conflicts<K: ToString>(keys: &[K], results: &[Result<u64, Reason>]) -> Vec<String> {
    let failed = keys.iter().zip(results).filter(|(_, result)| **result == Err(Reason::Conflict));
    failed.map(|(key, _)| key.to_string()).rev().collect()
}

/// A key that does not exist, not even as a marker.
fn absent(bucket: Bucket, key: &str) -> Option<Fact> {
    match bucket {
        Bucket::Intents => {
            let key = IntentsKey::parse(key)?;
            Some(Fact::IntentChanged(Stored { key, seq: 0, value: StoredValue::Marker }))
        }
        Bucket::Assign => {
            let key = shared::subject::parse_assignment_key(key)?;
            Some(Fact::AssignmentChanged(Stored { key, seq: 0, value: StoredValue::Marker }))
        }
        Bucket::Nodes => None,
    }
}
