//! What each entry of a schedule does to the universe.
//!
//! Owns the mechanics of faults. Which happen when is the schedule's.

use cluster_plan::Effect;
use shared::message::{Beat, Message as _, Meta, SCHEMA, header};
use shared::name::PoolId;
use shared::pool_set::{PoolSummary, SetDigest};
use shared::subject::{Bucket, ControlVerb, Subject};

use super::api::Wish;
use super::bus::Write;
use super::connection::Wire;
use super::node::DISK;
use super::process::Who;
use super::queue::MS;
use super::sabotage::Sabotage;
use super::schedule::{BucketName, Disk, Op, Way};
use super::universe::{Universe, Weather};

impl From<BucketName> for Bucket {
    fn from(name: BucketName) -> Self {
        match name {
            BucketName::Intents => Self::Intents,
            BucketName::Assign => Self::Assign,
            BucketName::Nodes => Self::Nodes,
        }
    }
}

fn ways(way: Way) -> (bool, bool) {
    (way != Way::Down, way != Way::Up)
}

impl Universe {
    /// An entry of the schedule happens.
    pub(super) fn happen(&mut self, op: &Op) {
        match op {
            Op::Workload { name, images, place } => {
                self.set_wish(*name, Some(Wish { images: images.clone(), place: *place }));
            }
            Op::Delete { name } => self.set_wish(*name, None),
            Op::Set { name, images, place, suspend, refresh } => {
                self.make_set(*name, Wish { images: images.clone(), place: *place }, (*suspend, *refresh));
                self.wants_changed();
            }
            Op::DropSet { name } => {
                self.drop_set(*name);
                self.wants_changed();
            }
            Op::EditStatus { name } => self.edit_status(*name),
            Op::OptOut { is_out } => self.opt_out(*is_out),
            Op::Join { node, kind, is_fresh } => self.join(*node, *kind, *is_fresh),
            Op::Leave { node } => self.leave(*node),
            Op::Recreate { node, is_fresh } => {
                if let Some(kind) = self.api.nodes.get(node).map(|object| object.kind) {
                    self.leave(*node);
                    self.join(*node, kind, *is_fresh);
                }
            }
            Op::Become { node, kind } => {
                if let Some(object) = self.api.nodes.get_mut(node) {
                    object.kind = *kind;
                    self.node_changed(*node);
                }
            }
            Op::Pressure { node, is_on } => {
                if let Some(object) = self.api.nodes.get_mut(node) {
                    object.pressure = *is_on;
                    self.node_changed(*node);
                }
            }
            other => self.fault(other),
        }
    }

    fn join(&mut self, node: usize, kind: super::schedule::Kind, is_fresh: bool) {
        let Some(host) = self.host(node).filter(|host| !host.is_joined) else { return };
        host.is_joined = true;
        if is_fresh {
            host.renew();
        }
        self.add_node(node, kind);
        self.start_agent(node);
    }

    fn leave(&mut self, node: usize) {
        if let Some(host) = self.host(node) {
            host.is_joined = false;
        }
        self.remove_node(node);
        self.end_agent(node, Disk::Kept);
    }
}

/// A beat that agrees with a set.
fn beat(meta: &Meta, pool: &PoolId, set: PoolSummary) -> Beat {
    Beat {
        epoch: meta.epoch.clone(),
        term: meta.term,
        pool: pool.clone(),
        head: set.head,
        count: set.count,
        digest: set.digest,
        spread_ms: 0,
        ts: jiff::Timestamp::UNIX_EPOCH,
    }
}

/// Faults of processes and of what they talk to.
impl Universe {
    fn fault(&mut self, op: &Op) {
        match *op {
            Op::CrashAgent { node, disk, down } => self.crash_agent(node, disk, down * MS),
            Op::CrashController { replica, down } => self.crash_controller(replica, down * MS),
            Op::PauseController { replica, down } => self.pause(Who::Controller(replica), down),
            Op::PauseAgent { node, down } => self.pause(Who::Agent(node), down),
            Op::ApiDown { down } => {
                self.api.down += 1;
                self.api_breaks();
                self.after(down * MS, |u| u.api.down = u.api.down.saturating_sub(1));
            }
            Op::Relist { replica } => self.relist(replica),
            Op::SlowWatch { replica, late, down } => {
                self.set_late(replica, late * MS);
                self.after(down * MS, move |u| u.set_late(replica, 0));
            }
            Op::Registry { image, answer } => self.registry.set(image, answer),
            Op::MoveTag { image } => self.registry.move_tag(image),
            Op::RuntimeDown { node, down } => {
                if let Some(host) = self.host(node) {
                    host.runtime_down += 1;
                }
                self.after(down * MS, move |u| {
                    if let Some(host) = u.host(node) {
                        host.runtime_down = host.runtime_down.saturating_sub(1);
                    }
                });
            }
            Op::Evict { node, image } => {
                let (now, reference) = (self.now, super::node::reference(image));
                let Some(host) = self.host(node) else { return };
                if host.images.get(&reference).is_some_and(|held| !held.is_used)
                    && host.images.remove(&reference).is_some_and(|held| held.is_ours)
                {
                    host.unseen.insert(reference, now);
                }
            }
            Op::Use { node, image, is_used } => {
                let reference = super::node::reference(image);
                if let Some(held) = self.host(node).and_then(|host| host.images.get_mut(&reference)) {
                    held.is_used = is_used;
                }
            }
            Op::DiskFull { node, is_full } => {
                if let Some(host) = self.host(node) {
                    host.is_full = is_full;
                }
            }
            Op::Fill { node, percent } => {
                if let Some(host) = self.host(node) {
                    host.others = DISK / 100 * u64::from(percent);
                }
            }
            Op::Preload { node, image, is_pinned } => self.preload(node, image, is_pinned),
            Op::Order { replica, paused } => self.order(replica, paused),
            Op::Jump { peer, seconds } => self.jump(peer.into(), seconds),
            ref other => self.nats_fault(other),
        }
    }

    /// A person asks a replica to pause or to resume.
    pub(super) fn order(&mut self, replica: usize, paused: bool) {
        let verb = if paused { ControlVerb::Pause } else { ControlVerb::Resume };
        if let Some(incarnation) = self.incarnation(Who::Controller(replica)) {
            self.paused = paused;
            let fact = cluster_plan::Fact::Asked { verb, body: "{}".to_owned(), reply: 0 };
            self.tell_controller(replica, incarnation, fact);
        }
    }

    fn pause(&mut self, who: Who, down: u64) {
        let Some(incarnation) = self.incarnation(who) else { return };
        let Some(client) = self.clients.get_mut(&who) else { return };
        client.is_paused = true;
        self.after(down * MS, move |u| {
            if u.incarnation(who) != Some(incarnation) {
                return;
            }
            if let Who::Controller(number) = who {
                u.lease_after_wake(number);
            }
            u.wake(who);
        });
    }

    fn jump(&mut self, who: Who, seconds: i64) {
        let clock = match who {
            Who::Controller(number) => {
                let Some(replica) = self.replicas.get_mut(number) else { return };
                replica.skew = seconds;
                replica.process.as_mut().map(|process| &mut process.clock)
            }
            Who::Agent(node) => {
                let Some(host) = self.host(node) else { return };
                host.skew = seconds;
                host.agent.as_mut().map(|process| &mut process.clock)
            }
        };
        if let Some(clock) = clock {
            clock.skew = jiff::SignedDuration::from_secs(seconds);
        }
    }

    /// Faults of NATS.
    fn nats_fault(&mut self, op: &Op) {
        match *op {
            Op::RestartNats { down } => self.restart_nats(down),
            Op::WipeNats { down } => {
                self.store.wipe();
                self.restart_nats(down);
            }
            Op::WipeBucket { bucket } => {
                self.store.wipe_one(bucket.into());
                self.bucket_gone(bucket.into());
            }
            Op::SaveNats => self.saved = Some(self.store.clone()),
            Op::RollBackNats { down } => {
                if let Some(older) = self.saved.clone() {
                    self.store.roll_back(&older);
                    if older.has_markers() {
                        // A withdrawal of then is a positive statement again.
                        self.checks.meddled = Some(self.now);
                    }
                    self.restart_nats(down);
                }
            }
            Op::Cut { peer, way, down } => {
                let (up, back) = ways(way);
                self.block(peer.into(), up, back);
                self.after(down * MS, move |u| u.unblock(peer.into(), up, back));
            }
            Op::Lossy { lost, doubled, late } => self.weather = Weather { lost, doubled, late },
            Op::LoseWatch { replica, bucket } => {
                if let Some(replica) = self.replicas.get_mut(replica) {
                    replica.loses.insert(bucket.into());
                }
            }
            Op::Corrupt { bucket, nth } => {
                if let Some(key) = self.nth_key(bucket.into(), nth) {
                    self.meddle(bucket.into(), key, Some(b"{\"v\":1,\"junk\":".as_slice().into()));
                }
            }
            Op::Remove { bucket, nth } => {
                if let Some(key) = self.nth_key(bucket.into(), nth) {
                    self.checks.meddled = Some(self.now);
                    self.meddle(bucket.into(), key, None);
                }
            }
            Op::Foreign { bucket, nth } => self.foreign(bucket.into(), nth),
            Op::Forge { nth } => self.forge(nth),
            Op::Ask { node, is_resync } => self.ask(node, is_resync),
            _ => {}
        }
    }

    fn restart_nats(&mut self, down: u64) {
        self.nats_up = false;
        let clients: Vec<Who> = self.clients.keys().copied().collect();
        for who in clients {
            self.close(who, true);
        }
        self.after(down * MS, |u| u.nats_up = true);
    }

    /// Everything that blocks a client's ways is gone.
    pub(super) fn mend_ways(&mut self, who: Who) {
        for _ in 0..8 {
            self.unblock(who, true, true);
        }
    }

    fn nth_key(&self, bucket: Bucket, nth: usize) -> Option<String> {
        let keys = &self.store.get(bucket)?.keys;
        let count = keys.len().max(1);
        keys.keys().nth(nth % count).cloned()
    }

    /// Somebody with the right to do so writes to a bucket.
    fn meddle(&mut self, bucket: Bucket, key: String, body: Option<super::bus::Body>) {
        let write = Write { key, expected: None, body, ttl: None };
        // An absent bucket cannot be written: nothing then.
        let _ = self.write(bucket, write);
    }

    /// A copy of one value under another key of the same bucket, or an intent that nobody wants.
    fn foreign(&mut self, bucket: Bucket, nth: usize) {
        let (Some(from), Some(to)) = (self.nth_key(bucket, nth), self.nth_key(bucket, nth + 1)) else { return };
        let body = self.store.get(bucket).and_then(|s| s.keys.get(&from)).and_then(|m| m.body.clone());
        self.checks.meddled = Some(self.now);
        self.meddle(bucket, to, body);
    }

    /// A message that its sender has no right to send (`protocol.md` section 6), as the server would pass it on.
    fn forge(&mut self, nth: usize) {
        let node = |u: &Self, n: usize| u.hosts.get(n % u.hosts.len().max(1)).map(|host| host.node.clone());
        let (Some(mine), Some(theirs)) = (node(self, nth), node(self, nth + 1)) else { return };
        let stored = || (header::STREAM, "KV_warm-default-intents".to_owned());
        let of = |bucket: Bucket, u: &Self| {
            let key = u.nth_key(bucket, nth)?;
            u.store.get(bucket)?.keys.get(&key)?.body.clone()
        };
        let (intent, inventory) = (of(Bucket::Intents, self), of(Bucket::Nodes, self));
        let beat = Beat {
            epoch: "forged".to_owned(),
            term: 1_000,
            pool: PoolId::all(),
            head: 1_000_000,
            count: 0,
            digest: SetDigest(0),
            spread_ms: 0,
            ts: jiff::Timestamp::UNIX_EPOCH,
        };
        let (subject, headers, body) = match nth % 6 {
            // Direct gets with a foreign reply subject.
            0 => (Subject::Delta(PoolId::all()), vec![stored()], intent),
            1 => (Subject::Beat(PoolId::all()), vec![stored()], intent),
            2 => (Subject::Heartbeat(mine), vec![stored()], inventory),
            // A pool that is not its subject's, a node that is not its subject's, no headers.
            3 => (Subject::Beat(PoolId::auto("other")), vec![], Some(beat.encode().into())),
            4 => (Subject::Assign(theirs), vec![(header::SCHEMA, SCHEMA.to_string())], of(Bucket::Assign, self)),
            _ => (Subject::Delta(PoolId::all()), vec![], intent),
        };
        if let Some(body) = body {
            self.spread(&Wire { subject: subject.print(&self.cluster), headers, body });
        }
    }

    fn ask(&mut self, node: usize, is_resync: bool) {
        let Some(name) = self.hosts.get(node).map(|host| host.node.clone()) else { return };
        let verb =
            if is_resync { shared::subject::RequestVerb::Resync } else { shared::subject::RequestVerb::Inventory };
        let subject = Subject::Request(name, verb).print(&self.cluster);
        self.spread(&Wire { subject, headers: vec![(header::SCHEMA, SCHEMA.to_string())], body: [].into() });
    }

    /// What sabotage tells an agent after its step.
    pub(super) fn whisper(&mut self, node: usize, incarnation: u64) {
        if self.sabotage != Some(Sabotage::SweepWithoutMatch) {
            return;
        }
        let stream = self.store.get(Bucket::Intents);
        let meta = stream.and_then(|s| s.keys.get("_meta")).and_then(|m| Meta::decode(m.body.as_ref()?).ok());
        let (Some(meta), Some(host)) = (meta, self.hosts.get(node)) else { return };
        let Some(agent) = &host.agent else { return };
        let beats: Vec<Beat> = agent.machine.pools().map(|(pool, set)| beat(&meta, pool, set)).collect();
        let is_news = host.whispered != beats;
        if let Some(host) = self.host(node).filter(|_| is_news) {
            host.whispered.clone_from(&beats);
            for beat in beats {
                self.tell_agent(node, incarnation, node_plan::Fact::Beat(beat));
            }
        }
    }

    /// What sabotage makes of an effect of a controller.
    pub(super) fn tamper(&mut self, effect: Effect) -> Effect {
        match (self.sabotage, effect) {
            (Some(Sabotage::LabelBeforeEvidence), Effect::LabelNode { node, uid, mut labels }) => {
                let number = super::api::node_number(&node).unwrap_or_default();
                let wanted = self.wanted(number).into_iter();
                labels.extend(wanted.filter_map(|image| {
                    let id = super::oracle::key(image)?;
                    Some((shared::label::image_label(&id), "0".repeat(32)))
                }));
                Effect::LabelNode { node, uid, labels }
            }
            (Some(Sabotage::KeepLabels), Effect::LabelNode { node, uid, mut labels }) => {
                let number = super::api::node_number(&node).unwrap_or_default();
                labels.extend(self.api.nodes.get(&number).into_iter().flat_map(|object| object.ours.clone()));
                Effect::LabelNode { node, uid, labels }
            }
            (_, effect) => effect,
        }
    }
}
