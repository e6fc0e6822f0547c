//! A bucket, a runtime and a clock around one machine. Effects are served one millisecond later, unless told otherwise.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use node_plan::fact::{
    Observation, PoolContent, PullFailure, PulledImage, Removal, RuntimeImage, Space, Stored, StoredIntent,
};
use node_plan::{Effect, Fact, Identity, NodeState, Persisted, Settings, Timing};
use shared::machine::{Changed, Machine, Moment, Now};
use shared::message::assignment::PULLS_IN_FLIGHT;
use shared::message::intent::Keep;
use shared::message::{
    Assignment, Beat, Delta, DeltaChange, DeltaEntry, Event, Heartbeat, Intent, Inventory, Meta, Runtime,
};
use shared::name::{ImageKey, NodeName, PoolId};
use shared::pool_set::PoolSet;
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::RequestVerb;
use shared::wave::Wave;

use crate::recorded;

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn reference(name: &str) -> String {
    format!("registry.test/{name}:1")
}

pub(crate) fn key(name: &str) -> ImageKey {
    ImageKey::of(&reference(name))
}

pub(crate) fn digest_text(seed: &str) -> String {
    let words = seed.bytes().fold(7_u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(b)));
    format!("sha256:{}", format!("{words:016x}").repeat(4))
}

pub(crate) fn digest(seed: &str) -> shared::image::Digest {
    shared::image::Digest::parse(&digest_text(seed)).unwrap()
}

pub(crate) fn pool(name: &str) -> PoolId {
    PoolId::parse(name).unwrap()
}

pub(crate) fn intent(name: &str) -> Intent {
    Intent {
        id: key(name),
        image: reference(name),
        unqualified: false,
        digest: None,
        priority: 50,
        bytes: None,
        wave: Wave::all(),
        secrets: vec![],
        refresh_sec: None,
        keep: Keep::default(),
        owners: vec![],
        owners_total: 0,
        term: 1,
    }
}

/// An image as the runtime lists it; its digest is named after `content`.
pub(crate) fn held(name: &str, content: &str) -> RuntimeImage {
    RuntimeImage {
        runtime_id: format!("id-{content}"),
        repo_tags: vec![reference(name)],
        repo_digests: vec![format!("registry.test/{name}@{}", digest_text(content))],
        bytes: 1_000,
        pinned: false,
    }
}

pub(crate) fn failure(reason: Reason) -> PullFailure {
    PullFailure { reason, retry_after: None, took: ms(5) }
}

type Key = (PoolId, ImageKey);

#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fault that a test switches on")]
pub(crate) struct World {
    pub(crate) node: NodeState,
    pub(crate) now: Now,
    pub(crate) log: Vec<(Moment, Effect)>,
    inbox: VecDeque<(Moment, Fact)>,
    // NATS
    pub(crate) epoch: String,
    pub(crate) term: u64,
    pub(crate) stream: u64,
    pub(crate) has_meta: bool,
    pub(crate) is_nats_up: bool,
    pub(crate) puts_fail: bool,
    pub(crate) spread_ms: u64,
    keys: BTreeMap<Key, (u64, Option<Intent>)>,
    undecodable: BTreeSet<Key>,
    /// What stands in the snapshot of every pool, if there is one.
    pub(crate) snapshot: Option<PoolContent>,
    deltas: BTreeMap<PoolId, u64>,
    pub(crate) assignment: Option<Assignment>,
    // the runtime
    pub(crate) images: BTreeMap<String, RuntimeImage>,
    pub(crate) is_runtime_up: bool,
    /// How the next pulls of an image end; without a script they succeed.
    pub(crate) script: BTreeMap<String, VecDeque<Result<RuntimeImage, PullFailure>>>,
    /// Pulls do not end by themselves.
    pub(crate) pulls_hang: bool,
    pub(crate) pulling: Vec<(ImageKey, String)>,
    pub(crate) disk: Option<Space>,
    /// Names that containers use.
    pub(crate) used: BTreeSet<String>,
    /// Containers cannot be listed.
    pub(crate) uses_fail: bool,
    /// What was answered when somebody looked: at the disk, at containers; and each removal with what came of it.
    pub(crate) observations: Vec<(Moment, Option<Space>)>,
    pub(crate) uses: Vec<(Moment, BTreeSet<String>)>,
    pub(crate) removed: Vec<(Moment, RuntimeImage, Result<Removal, Reason>)>,
    /// How the next removals end; without a script as the runtime is.
    pub(crate) removals: VecDeque<Result<Removal, Reason>>,
    /// Answers to `ListImages` are kept back.
    pub(crate) lists_hang: bool,
    pub(crate) hung_lists: usize,
    /// Answers to `Subscribe` are kept back.
    pub(crate) subscriptions_hang: bool,
    pub(crate) saved: Option<Persisted>,
}

pub(crate) fn identity() -> Identity {
    Identity { node: NodeName::parse("a").unwrap(), inst: "run".into(), boot: "boot".into(), agent_version: "1".into() }
}

pub(crate) fn start() -> Now {
    Now { mono: Moment(1_000), wall: Timestamp::from_second(1_800_000_000).unwrap() }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default(), None, 1)
    }

    pub(crate) fn with(settings: Settings, persisted: Option<Persisted>, seed: u64) -> Self {
        let now = start();
        Self {
            node: NodeState::new(identity(), settings, persisted, seed, now),
            now,
            log: vec![],
            inbox: VecDeque::new(),
            epoch: "e1".into(),
            term: 1,
            stream: 0,
            has_meta: true,
            is_nats_up: true,
            puts_fail: false,
            spread_ms: 0,
            keys: BTreeMap::new(),
            undecodable: BTreeSet::new(),
            snapshot: None,
            deltas: BTreeMap::new(),
            assignment: None,
            images: BTreeMap::new(),
            is_runtime_up: true,
            script: BTreeMap::new(),
            pulls_hang: false,
            pulling: vec![],
            disk: None,
            used: BTreeSet::new(),
            uses_fail: false,
            observations: vec![],
            uses: vec![],
            removed: vec![],
            removals: VecDeque::new(),
            lists_hang: false,
            hung_lists: 0,
            subscriptions_hang: false,
            saved: None,
        }
    }

    /// Connected, assigned to `pools`, everything read.
    pub(crate) fn synced(pools: &[&str]) -> Self {
        let mut world = Self::new();
        world.assign(pools);
        world.connect();
        world.run(secs(11));
        assert!(world.node.is_synced());
        world
    }

    /// The same bucket and runtime around a new process with what was saved.
    pub(crate) fn restart(&mut self, seed: u64) {
        self.restart_with(Settings::default(), seed);
    }

    pub(crate) fn restart_with(&mut self, settings: Settings, seed: u64) {
        self.inbox.clear();
        self.log.clear();
        self.pulling.clear();
        self.node = NodeState::new(identity(), settings, self.saved.clone(), seed, self.now);
    }

    // --- the bucket ---

    pub(crate) fn assign(&mut self, pools: &[&str]) -> Assignment {
        let rev = self.assignment.as_ref().map_or(1, |a| a.rev + 1);
        let assignment = Assignment {
            node: identity().node,
            uid: "uid".into(),
            pools: pools.iter().map(|p| pool(p)).collect(),
            rev,
            pressure: vec![],
            limits: BTreeMap::new(),
            term: self.term,
        };
        self.assignment = Some(assignment.clone());
        assignment
    }

    /// Writes the assignment and sends its copy.
    pub(crate) fn reassign(&mut self, pools: &[&str]) {
        let assignment = self.assign(pools);
        self.tell(Fact::AssignmentCopy { epoch: self.epoch.clone(), assignment });
    }

    /// The controllers are paused, or are not any more: the assignment says so.
    pub(crate) fn pause(&mut self, is_paused: bool) {
        let Some(mut assignment) = self.assignment.clone() else { panic!("nothing is assigned") };
        assignment.rev += 1;
        assignment.limits = is_paused.then(|| (PULLS_IN_FLIGHT.to_owned(), 0)).into_iter().collect();
        self.assignment = Some(assignment.clone());
        self.tell(Fact::AssignmentCopy { epoch: self.epoch.clone(), assignment });
    }

    pub(crate) fn put(&mut self, of: &str, intent: Intent) -> u64 {
        self.stream += 1;
        self.undecodable.remove(&(pool(of), intent.id.clone()));
        self.keys.insert((pool(of), intent.id.clone()), (self.stream, Some(intent)));
        self.stream
    }

    pub(crate) fn garble(&mut self, of: &str, name: &str) -> u64 {
        let seq = self.put(of, intent(name));
        self.undecodable.insert((pool(of), key(name)));
        seq
    }

    pub(crate) fn purge(&mut self, of: &str, name: &str) -> u64 {
        self.purge_key(of, &key(name))
    }

    pub(crate) fn purge_key(&mut self, of: &str, id: &ImageKey) -> u64 {
        self.stream += 1;
        self.keys.insert((pool(of), id.clone()), (self.stream, None));
        self.stream
    }

    /// A key vanishes without a marker: its marker expired, or it was lost.
    pub(crate) fn lose(&mut self, of: &str, name: &str) {
        self.keys.remove(&(pool(of), key(name)));
    }

    /// Another pool's key was written.
    pub(crate) fn stream_moves(&mut self, by: u64) {
        self.stream += by;
    }

    /// The bucket is created anew, empty.
    pub(crate) fn wipe(&mut self, epoch: &str) {
        self.epoch = epoch.into();
        self.term = 1;
        self.stream = 0;
        self.keys.clear();
        self.deltas.clear();
    }

    /// The stream is again what it was in `before`.
    pub(crate) fn roll_back_to(&mut self, before: Self) {
        (self.stream, self.keys, self.deltas) = (before.stream, before.keys, before.deltas);
    }

    /// The keys of the live set.
    pub(crate) fn live(&self, of: &PoolId) -> BTreeMap<ImageKey, u64> {
        self.keys
            .iter()
            .filter(|((p, _), (_, value))| p == of && value.is_some())
            .map(|((_, id), (seq, _))| (id.clone(), *seq))
            .collect()
    }

    pub(crate) fn beat_of(&self, of: &str) -> Beat {
        let mut set = PoolSet::new(pool(of));
        for (id, seq) in self.live(&pool(of)) {
            set.insert(id, seq);
        }
        let summary = set.summary(self.stream);
        Beat {
            epoch: self.epoch.clone(),
            term: self.term,
            pool: pool(of),
            head: summary.head,
            count: summary.count,
            digest: summary.digest,
            spread_ms: self.spread_ms,
            ts: self.now.wall,
        }
    }

    /// What changed in the pool since its last delta, as the controller would say it.
    pub(crate) fn delta_of(&mut self, of: &str) -> Delta {
        let prev = self.deltas.get(&pool(of)).copied().unwrap_or(0);
        let mut entries: Vec<DeltaEntry> = self
            .keys
            .iter()
            .filter(|((p, _), (seq, _))| *p == pool(of) && *seq > prev)
            .map(|((_, id), (seq, value))| DeltaEntry {
                seq: *seq,
                id: id.clone(),
                change: value.clone().map_or(DeltaChange::Del, |intent| DeltaChange::Put(std::sync::Arc::new(intent))),
            })
            .collect();
        entries.sort_by_key(|entry| entry.seq);
        let to = entries.last().map_or(prev, |entry| entry.seq);
        self.deltas.insert(pool(of), to);
        Delta {
            pool: pool(of),
            epoch: self.epoch.clone(),
            term: self.term,
            prev,
            to,
            spread_ms: self.spread_ms,
            entries: Some(entries),
        }
    }

    /// Writes an intent and sends its delta.
    pub(crate) fn announce(&mut self, of: &str, intent: Intent) {
        self.put(of, intent);
        self.send_delta(of);
    }

    pub(crate) fn send_delta(&mut self, of: &str) {
        let delta = self.delta_of(of);
        self.tell(Fact::Delta(delta));
    }

    pub(crate) fn send_beat(&mut self, of: &str) {
        let beat = self.beat_of(of);
        self.tell(Fact::Beat(beat));
    }

    /// What a read finds: unless it is plain, the snapshot and what was written since.
    fn read_by_snapshot(&self, of: &PoolId, from: u64, plain: bool) -> PoolContent {
        let Some(snapshot) = self.snapshot.as_ref().filter(|_| from <= 1 && !plain) else {
            return self.read(of, from);
        };
        let head = snapshot.entries.iter().map(|entry| entry.seq).max().unwrap_or(0);
        let mut content = snapshot.clone();
        content.entries.extend(self.read(of, head + 1).entries);
        content
    }

    fn read(&self, of: &PoolId, from: u64) -> PoolContent {
        let mut entries: Vec<StoredIntent> = self
            .keys
            .iter()
            .filter(|((p, _), (seq, _))| p == of && *seq >= from)
            .map(|(at, (seq, value))| StoredIntent {
                id: at.1.clone(),
                seq: *seq,
                value: value.clone().map(|intent| {
                    if self.undecodable.contains(at) {
                        Stored::Undecodable
                    } else {
                        Stored::Intent(std::sync::Arc::new(intent))
                    }
                }),
            })
            .collect();
        entries.sort_by_key(|entry| entry.seq);
        PoolContent { entries, snapshot: None }
    }

    // --- time ---

    pub(crate) fn connect(&mut self) {
        self.is_nats_up = true;
        self.tell(Fact::Connected);
    }

    pub(crate) fn disconnect(&mut self) {
        self.is_nats_up = false;
        self.tell(Fact::Disconnected);
    }

    /// Tells the machine now and lets it decide.
    /// Every fact of every test also shows that it can be recorded.
    pub(crate) fn tell(&mut self, fact: Fact) {
        recorded::survives(&fact);
        if self.node.apply(fact, self.now) == Changed::Yes {
            self.step();
        }
    }

    pub(crate) fn request(&mut self, verb: RequestVerb, body: &str) -> serde_json::Value {
        self.tell(Fact::Request { verb, body: body.into(), reply: Some(7) });
        let found = self.log.iter().rev().find_map(|(_, effect)| match effect {
            Effect::Reply { reply: 7, body } => Some(body.clone()),
            _ => None,
        });
        found.expect("an answer")
    }

    pub(crate) fn step(&mut self) {
        for effect in self.node.step(self.now) {
            self.log.push((self.now.mono, effect.clone()));
            if let Some(fact) = self.serve(effect) {
                self.inbox.push_back((self.now.mono + ms(1), fact));
            }
        }
        assert_eq!(self.node.step(self.now), vec![], "a second step at the same time");
        if let Some(due) = self.node.next_due() {
            assert!(due > self.now.mono, "due at {due:?}, which is not after {:?}", self.now.mono);
        }
    }

    /// Lets time pass: whatever is due happens, effects are served.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now.mono + span;
        loop {
            let due = self.node.next_due();
            let mail = self.inbox.front().map(|(at, _)| *at);
            match [due, mail].into_iter().flatten().min().filter(|at| *at <= end) {
                None => break,
                Some(at) => self.set_clock(at.max(self.now.mono)),
            }
            while self.inbox.front().is_some_and(|(at, _)| *at <= self.now.mono) {
                let (_, fact) = self.inbox.pop_front().unwrap();
                recorded::survives(&fact);
                self.node.apply(fact, self.now);
            }
            self.step();
        }
        self.set_clock(end);
    }

    pub(crate) fn set_clock(&mut self, at: Moment) {
        let passed = at.since(self.now.mono);
        self.now = Now { mono: at, wall: self.now.wall + passed };
    }

    fn nats<T>(&self, value: impl FnOnce() -> T) -> Result<T, Reason> {
        if self.is_nats_up { Ok(value()) } else { Err(Reason::Timeout) }
    }

    fn serve(&mut self, effect: Effect) -> Option<Fact> {
        Some(match effect {
            Effect::ReadMeta => Fact::Meta(self.nats(|| self.has_meta.then(|| self.meta()))),
            Effect::ReadAssignment => Fact::AssignmentRead(self.nats(|| self.assignment.clone())),
            Effect::Subscribe(_) if self.subscriptions_hang => return None,
            Effect::Subscribe(pools) => Fact::Subscribed(pools),
            Effect::ReadPool { pool, from, read, plain } => {
                let result = self.nats(|| self.read_by_snapshot(&pool, from, plain));
                Fact::PoolRead { pool, read, result }
            }
            Effect::Pull { id, image, .. } => {
                self.pulling.push((id.clone(), image));
                if self.pulls_hang {
                    return None;
                }
                return self.end_pull(&id);
            }
            Effect::CancelPull(id) => {
                self.pulling.retain(|(pulling, _)| *pulling != id);
                Fact::Pulled { id, result: Err(failure(Reason::DeadlineExceeded)) }
            }
            Effect::ListImages if self.lists_hang => {
                self.hung_lists += 1;
                return None;
            }
            Effect::ListImages => Fact::Images(self.list()),
            Effect::Observe => {
                let runtime = Runtime { name: "containerd".into(), version: "2".into() };
                let result = self.list().map(|_| Observation { space: self.disk, runtime });
                if result.is_ok() {
                    self.observations.push((self.now.mono, self.disk));
                }
                Fact::Observed(result)
            }
            Effect::ListContainers if self.uses_fail => Fact::InUse(Err(Reason::Timeout)),
            Effect::ListContainers => {
                self.uses.push((self.now.mono, self.used.clone()));
                Fact::InUse(self.list().map(|_| self.used.clone()))
            }
            Effect::RemoveImage { image, held, is_dry_run } => {
                let result = self.remove(&held, is_dry_run);
                self.removed.push((self.now.mono, *held, result));
                Fact::Removed { image, result }
            }
            Effect::PutInventory(_) => {
                let result = if self.puts_fail { Err(Reason::Timeout) } else { self.nats(|| ()) };
                Fact::InventoryPut(result)
            }
            Effect::Persist(persisted) => {
                self.saved = Some(*persisted);
                Fact::Persisted(Ok(()))
            }
            Effect::PublishEvent(_) | Effect::PublishHeartbeat(_) | Effect::Reply { .. } => return None,
        })
    }

    pub(crate) fn meta(&self) -> Meta {
        Meta {
            epoch: self.epoch.clone(),
            term: self.term,
            cluster: "c".into(),
            stream_created: "t".into(),
            by: "pod".into(),
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<RuntimeImage>, Reason> {
        if self.is_runtime_up { Ok(self.images.values().cloned().collect()) } else { Err(Reason::RuntimeUnavailable) }
    }

    /// Removes as an executor does: looks once more, then drops every name of the image.
    fn remove(&mut self, held: &RuntimeImage, is_dry_run: bool) -> Result<Removal, Reason> {
        let listed = self.list()?;
        match self.removals.pop_front() {
            Some(result) => result,
            None if !listed.contains(held) || held.pinned => Ok(Removal::Changed),
            None if node_plan::gc::is_used(held, &self.used) => Ok(Removal::Used),
            None if is_dry_run => Ok(Removal::Planned),
            None => {
                self.images.retain(|_, image| image.runtime_id != held.runtime_id);
                if let Some(space) = &mut self.disk {
                    let freed = held.bytes.min(space.used);
                    (space.used, space.free) = (space.used - freed, space.free + freed);
                }
                Ok(Removal::Removed)
            }
        }
    }

    /// Ends a pull in flight as scripted, and gives its outcome.
    pub(crate) fn end_pull(&mut self, id: &ImageKey) -> Option<Fact> {
        let at = self.pulling.iter().position(|(pulling, _)| pulling == id)?;
        let (id, image) = self.pulling.remove(at);
        let name = image.strip_prefix("registry.test/").unwrap().split([':', '@']).next().unwrap().to_owned();
        let scripted = self.script.get_mut(&name).and_then(VecDeque::pop_front);
        let result = match scripted {
            _ if !self.is_runtime_up => Err(failure(Reason::RuntimeUnavailable)),
            Some(result) => result,
            None => Ok(held(&name, &name)),
        };
        let result = result.map(|held| {
            let before = self.images.insert(name, held.clone()).map(|image| image.runtime_id);
            PulledImage { image: held, before, took: ms(5) }
        });
        Some(Fact::Pulled { id, result })
    }

    pub(crate) fn fail_next(&mut self, name: &str, reasons: &[Reason]) {
        self.script.entry(name.into()).or_default().extend(reasons.iter().map(|reason| Err(failure(*reason))));
    }

    // --- what happened ---

    /// Forgets what happened so far.
    pub(crate) fn forget(&mut self) {
        self.log.clear();
    }

    pub(crate) fn reads(&self) -> Vec<(String, u64)> {
        self.log
            .iter()
            .filter_map(|(_, effect)| match effect {
                Effect::ReadPool { pool, from, .. } => Some((pool.to_string(), *from)),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn count(&self, is_counted: impl Fn(&Effect) -> bool) -> usize {
        self.log.iter().filter(|(_, effect)| is_counted(effect)).count()
    }

    /// Names of images in the order of their pulls.
    pub(crate) fn pulls(&self) -> Vec<String> {
        self.log
            .iter()
            .filter_map(|(_, effect)| match effect {
                Effect::Pull { image, .. } => {
                    Some(image.trim_start_matches("registry.test/").split([':', '@']).next().unwrap().to_owned())
                }
                _ => None,
            })
            .collect()
    }

    pub(crate) fn pull_times(&self) -> Vec<Moment> {
        self.log.iter().filter(|(_, effect)| matches!(effect, Effect::Pull { .. })).map(|(at, _)| *at).collect()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.log
            .iter()
            .filter_map(|(_, effect)| match effect {
                Effect::PublishEvent(event) => Some(event.clone()),
                _ => None,
            })
            .collect()
    }

    /// States said of one image, in order.
    pub(crate) fn story(&self, name: &str) -> Vec<ImageState> {
        self.events().into_iter().filter(|event| event.id == key(name)).map(|event| event.st).collect()
    }

    pub(crate) fn inventories(&self) -> Vec<Inventory> {
        self.log
            .iter()
            .filter_map(|(_, effect)| match effect {
                Effect::PutInventory(inventory) => Some((**inventory).clone()),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn heartbeats(&self) -> Vec<Heartbeat> {
        self.log
            .iter()
            .filter_map(|(_, effect)| match effect {
                Effect::PublishHeartbeat(heartbeat) => Some(heartbeat.clone()),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn state_of(&self, name: &str) -> Option<(ImageState, Option<Reason>)> {
        let summary = self.node.summary(self.now);
        let image = summary["images"].get(key(name).as_str())?;
        let st = serde_json::from_value(image["state"].clone()).unwrap();
        Some((st, serde_json::from_value(image["why"].clone()).unwrap()))
    }

    /// Ids of the live set that the machine holds, with their sequences.
    pub(crate) fn held_set(&self, of: &str) -> (u64, u64, String) {
        let pool = self.node.summary(self.now)["pools"][of].clone();
        (
            pool["head"].as_u64().unwrap_or(0),
            pool["count"].as_u64().unwrap_or(0),
            pool["digest"].as_str().unwrap_or_default().to_owned(),
        )
    }

    /// Whether the machine's set is the bucket's.
    pub(crate) fn is_in_step(&self, of: &str) -> bool {
        let beat = self.beat_of(of);
        let (_, count, digest) = self.held_set(of);
        count == beat.count && digest == beat.digest.to_string()
    }

    pub(crate) fn head(&self, of: &str) -> u64 {
        self.held_set(of).0
    }
}

/// Intervals of a test that wants everything soon.
pub(crate) fn brisk() -> Settings {
    let timing = Timing {
        heartbeat: secs(2),
        verify_min: secs(1),
        verify_max: secs(2),
        inventory_delay: ms(100),
        inventory_gap: ms(200),
        inventory_every: secs(30),
        inventory_backoff_max: secs(2),
        beat_lost: secs(6),
        poll: secs(4),
        start_spread: ms(200),
        read_retry: ms(100),
        persist: ms(200),
        pull_deadline: secs(60),
        pull_backoff: ms(500),
        pull_backoff_max: secs(5),
        pull_final: secs(20),
        pressure_hold: secs(1),
        gc_retry: secs(3),
    };
    Settings { timing, ..Settings::default() }
}
