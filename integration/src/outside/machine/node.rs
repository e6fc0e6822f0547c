//! The agent's machine: a bucket and a runtime around it that answer what they hold, at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent::bus::receive::{self, Incoming};
use agent::cri::CriError;
use jiff::Timestamp;
use node_plan::fact::{PoolContent, PullFailure, PulledImage, RuntimeImage, Stored, StoredIntent};
use node_plan::{Effect, Fact, Identity, NodeState, Settings};
use shared::image::Reference;
use shared::machine::{Machine as _, Moment, Now};
use shared::message::{Assignment, Intent, Message as _, Meta};
use shared::name::{ClusterId, ImageKey, NodeName, PoolId};
use shared::reason::Reason;
use shared::subject::{Bucket, IntentsKey, assignment_key};
use tonic::{Code, Status};

use super::{Step, header};

/// No answer is followed by more effects than this without time passing.
const MOST_TURNS: usize = 200;

pub(super) struct Play {
    machine: NodeState,
    now: Now,
    most_in_flight: usize,
    name: NodeName,
    /// The last value of each key, with its sequence.
    stored: BTreeMap<String, (u64, Vec<u8>)>,
    head: u64,
    images: Vec<RuntimeImage>,
    failure: String,
    /// Until time passes.
    in_flight: BTreeMap<ImageKey, String>,
    /// Questions, numbered from 1, and those that were answered.
    asked: u64,
    answered: BTreeSet<u64>,
}

impl Play {
    pub(super) fn new() -> Self {
        // As an agent of this name is; it is a node name.
        let name = NodeName::parse("a").unwrap_or_else(|error| unreachable!("{error}"));
        let identity =
            Identity { node: name.clone(), inst: "run".into(), boot: "boot".into(), agent_version: "1".into() };
        let now = Now { mono: Moment(1_000), wall: Timestamp::UNIX_EPOCH };
        let settings = Settings { max_in_flight: 2, ..Settings::default() };
        Self {
            most_in_flight: settings.max_in_flight,
            machine: NodeState::new(identity, settings, None, 1, now),
            now,
            name,
            stored: BTreeMap::new(),
            head: 0,
            images: Vec::new(),
            failure: String::new(),
            in_flight: BTreeMap::new(),
            asked: 0,
            answered: BTreeSet::new(),
        }
    }

    pub(super) fn take(&mut self, step: &Step<'_>) {
        match step {
            Step::Message { place, body, .. } if place.starts_with("$KV.") => {
                self.head += 1;
                self.stored.insert((*place).to_owned(), (self.head, body.to_vec()));
            }
            Step::Message { place, headers, body } => {
                let value = |name: &str| header(headers, name);
                let incoming = Incoming { subject: place, reply: Some("_INBOX.1"), header: &value, payload: body };
                let asked = &mut self.asked;
                let keep = |_: &str| {
                    *asked += 1;
                    *asked
                };
                match receive::fact(&incoming, &ClusterId::default(), &self.name, keep) {
                    Ok(fact) => self.learn(fact),
                    Err(refusal) => self.learn(Fact::Refused { kind: refusal.kind, reason: refusal.reason }),
                }
            }
            Step::Connect => self.learn(Fact::Connected),
            Step::Disconnect => self.learn(Fact::Disconnected),
            Step::Images(images) => self.images = images.iter().map(|(name, digest)| held(name, *digest)).collect(),
            Step::PullsFail(text) => (*text).clone_into(&mut self.failure),
            Step::Pass(time) => self.pass(*time),
        }
    }

    /// What is due comes to rest, and what is shown can be shown.
    pub(super) fn end(&mut self) {
        for _ in 0..20 {
            let due = self.machine.next_due().unwrap_or(self.now.mono);
            self.pass(due.since(self.now.mono).max(Duration::from_secs(1)));
        }
        assert!(self.machine.summary(self.now).is_object());
        assert!(self.machine.explain("nginx", self.now).is_object());
        assert_eq!(self.answered.len() as u64, self.asked, "a question has no answer");
    }

    fn learn(&mut self, fact: Fact) {
        self.machine.apply(fact, self.now);
        self.turn();
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        for (id, image) in std::mem::take(&mut self.in_flight) {
            let result = self.pull(&image);
            self.machine.apply(Fact::Pulled { id, result }, self.now);
        }
        self.turn();
    }

    fn turn(&mut self) {
        for _ in 0..MOST_TURNS {
            let effects = self.machine.step(self.now);
            if effects.is_empty() {
                let due = self.machine.next_due();
                assert!(
                    due.is_none_or(|due| due > self.now.mono),
                    "due at {due:?}, yet nothing was done at {:?}",
                    self.now.mono
                );
                return;
            }
            for effect in effects {
                if let Some(fact) = self.answer(effect) {
                    self.machine.apply(fact, self.now);
                }
            }
        }
        assert!(self.machine.step(self.now).is_empty(), "no end of effects at {:?}", self.now.mono);
    }

    fn answer(&mut self, effect: Effect) -> Option<Fact> {
        Some(match effect {
            Effect::ReadMeta => Fact::Meta(self.document::<Meta>(Bucket::Intents, &IntentsKey::Meta.to_string())),
            Effect::ReadAssignment => {
                Fact::AssignmentRead(self.document::<Assignment>(Bucket::Assign, &assignment_key(&self.name)))
            }
            Effect::Subscribe(pools) => Fact::Subscribed(pools),
            Effect::ReadPool { pool, from, read, .. } => {
                let result = Ok(PoolContent { entries: self.entries(&pool, from), snapshot: None });
                Fact::PoolRead { pool, read, result }
            }
            Effect::ListImages => Fact::Images(Ok(self.images.clone())),
            Effect::Pull { id, image, .. } => {
                assert!(Reference::parse(&image).is_ok(), "only a reference is pulled, never {image:?}");
                assert_eq!(self.in_flight.insert(id, image), None, "an image is pulled twice at once");
                assert!(self.in_flight.len() <= self.most_in_flight, "{:?} in flight", self.in_flight);
                return None;
            }
            Effect::CancelPull(id) => {
                assert!(self.in_flight.remove(&id).is_some(), "{id} is not in flight");
                let failure = PullFailure { reason: Reason::DeadlineExceeded, retry_after: None, took: Duration::ZERO };
                Fact::Pulled { id, result: Err(failure) }
            }
            Effect::PutInventory(inventory) => {
                let written = inventory.encode();
                assert_eq!(shared::message::Inventory::decode(&written).ok(), Some(*inventory), "a report is readable");
                Fact::InventoryPut(Ok(()))
            }
            Effect::Reply { reply, body } => {
                assert!(body.is_object(), "{body}");
                assert!((1..=self.asked).contains(&reply) && self.answered.insert(reply), "{reply} is answered twice");
                return None;
            }
            Effect::Persist(_) => Fact::Persisted(Ok(())),
            _ => return None,
        })
    }

    fn document<T: shared::message::Message>(&self, bucket: Bucket, key: &str) -> Result<Option<T>, Reason> {
        let Some((_, body)) = self.stored.get(&bucket.subject(&ClusterId::default(), key)) else { return Ok(None) };
        T::decode(body).map(Some).map_err(|_| Reason::Invalid)
    }

    fn entries(&self, pool: &PoolId, from: u64) -> Vec<StoredIntent> {
        let mut found: Vec<StoredIntent> = self
            .stored
            .iter()
            .filter(|(_, (seq, _))| *seq >= from)
            .filter_map(|(subject, (seq, body))| {
                let key = Bucket::Intents.key_of(&ClusterId::default(), subject)?;
                let Some(IntentsKey::Intent(of, id)) = IntentsKey::parse(key) else { return None };
                let value = match Intent::decode(body) {
                    _ if body.is_empty() => None,
                    Ok(intent) if intent.id == id => Some(Stored::Intent(std::sync::Arc::new(intent))),
                    _ => Some(Stored::Undecodable),
                };
                (of == *pool).then_some(StoredIntent { id, seq: *seq, value })
            })
            .collect();
        found.sort_by_key(|entry| entry.seq);
        found
    }

    fn pull(&mut self, image: &str) -> Result<PulledImage, PullFailure> {
        let took = Duration::from_millis(5);
        if self.failure.is_empty() {
            let there = self.images.iter().find(|held| held.repo_tags.iter().any(|tag| tag == image));
            let before = there.map(|held| held.runtime_id.clone());
            let image = held(image, None);
            self.images.push(image.clone());
            return Ok(PulledImage { image, before, took });
        }
        let error = CriError::new("PullImage", image, &Status::new(Code::Unknown, &self.failure));
        Err(PullFailure { reason: error.reason(), retry_after: None, took })
    }
}

fn held(name: &str, digest: Option<&str>) -> RuntimeImage {
    let repository = Reference::parse(name).map_or_else(|_| name.to_owned(), |r| r.repository());
    RuntimeImage {
        runtime_id: format!("id of {name}"),
        repo_tags: vec![name.to_owned()],
        repo_digests: digest.map(|digest| format!("{repository}@{digest}")).into_iter().collect(),
        bytes: 1,
        pinned: false,
    }
}
