//! The agents' side of the world: facts that reach them and effects that leave them.
//!
//! Owns what `agent/src/{act,bus}` do, without a runtime and without I/O; forms are checked by the same code.

use agent::bus::read::{entry, held, unpack};
use agent::bus::receive::{Incoming, fact};
use node_plan::fact::PoolContent;
use node_plan::{Effect, Fact};
use shared::machine::Kind as _;
use shared::message::inventory::INVENTORY_TTL;
use shared::message::{Message as _, SCHEMA, Snapshot, header};
use shared::name::PoolId;
use shared::reason::Reason;
use shared::subject::{Bucket, IntentsKey, Subject, assignment_key, inventory_key, snapshot_keys};

use super::bus::{Body, Write};
use super::connection::Wire;
use super::process::Who;
use super::queue::{MS, Us};
use super::universe::Universe;

/// Keys of one page: few, so that writes come between pages.
const PAGE: usize = 3;

impl Universe {
    /// A fact for the agent of a node, if it is still the same one.
    pub(super) fn tell_agent(&mut self, node: usize, incarnation: u64, fact: Fact) {
        let agent = self.host(node).and_then(|host| host.agent.as_mut());
        if let Some(agent) = agent.filter(|agent| agent.incarnation == incarnation) {
            agent.tell(fact);
            self.queue_turn(Who::Agent(node));
        }
    }

    fn tell(&mut self, node: usize, fact: Fact) {
        if let Some(incarnation) = self.incarnation(Who::Agent(node)) {
            self.tell_agent(node, incarnation, fact);
        }
    }

    /// A connection of an agent is made: its subscriptions first, then the word.
    pub(super) fn agent_connected(&mut self, node: usize) {
        self.subscribe_agent(node);
        self.request(
            Who::Agent(node),
            |_| (),
            move |u, result| {
                if result.is_ok() {
                    u.tell(node, Fact::Connected);
                }
            },
        );
    }

    pub(super) fn agent_disconnected(&mut self, node: usize) {
        self.tell(node, Fact::Disconnected);
    }

    fn subscribe_agent(&mut self, node: usize) {
        let cluster = self.cluster.clone();
        let Some(host) = self.host(node) else { return };
        let pools = host.standing.iter();
        let of_pools = pools.flat_map(|pool| [Subject::Delta(pool.clone()), Subject::Beat(pool.clone())]);
        let mut subjects: std::collections::BTreeSet<String> = of_pools.map(|s| s.print(&cluster)).collect();
        subjects.insert(Subject::Assign(host.node.clone()).print(&cluster));
        subjects.insert(Subject::requests_of(&cluster, &host.node));
        let who = Who::Agent(node);
        self.send(who, Box::new(move |u| u.set_subjects(who, subjects)));
    }

    /// A message on core NATS reaches an agent.
    pub(super) fn agent_receives(&mut self, node: usize, wire: &Wire) {
        let Some(host) = self.hosts.get(node) else { return };
        let header = |name: &str| wire.headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
        let message = Incoming { subject: &wire.subject, reply: None, header: &header, payload: &wire.body };
        let fact = fact(&message, &self.cluster, &host.node, |_| 0)
            .unwrap_or_else(|refusal| Fact::Refused { kind: refusal.kind, reason: refusal.reason });
        self.tell(node, fact);
    }

    /// Carries an effect of an agent out.
    pub(super) fn act_for_agent(&mut self, node: usize, incarnation: u64, effect: Effect) {
        let who = Who::Agent(node);
        match effect {
            Effect::ReadMeta => self.request(
                who,
                |u| u.last(Bucket::Intents, &IntentsKey::Meta.to_string()),
                move |u, read| u.tell(node, Fact::Meta(read.and_then(|read| read).and_then(document))),
            ),
            Effect::ReadAssignment => {
                let Some(key) = self.host(node).map(|host| assignment_key(&host.node)) else { return };
                self.request(
                    who,
                    move |u| u.last(Bucket::Assign, &key),
                    move |u, read| u.tell(node, Fact::AssignmentRead(read.and_then(|read| read).and_then(document))),
                );
            }
            Effect::Subscribe(pools) => {
                let Some(host) = self.host(node) else { return };
                host.standing = pools.into_iter().collect();
                let standing: Vec<PoolId> = host.standing.iter().cloned().collect();
                self.subscribe_agent(node);
                self.after(MS, move |u| {
                    u.reach(
                        who,
                        Box::new(move |u| {
                            u.tell_agent(node, incarnation, Fact::Subscribed(standing));
                        }),
                    );
                });
            }
            Effect::ReadPool { pool, from, read, plain } => self.read_pool(node, pool, from, read, plain),
            Effect::Pull { id, image, deadline, is_refresh } => {
                let deadline = Us::try_from(deadline.as_micros()).unwrap_or(Us::MAX);
                self.pull(node, incarnation, id, image, (deadline, is_refresh));
            }
            Effect::CancelPull(id) => self.cancel_pull(node, incarnation, &id),
            Effect::ListImages => self.list_images(node, incarnation),
            Effect::Observe => self.observe(node, incarnation),
            Effect::ListContainers => self.list_containers(node, incarnation),
            Effect::RemoveImage { image, held, is_dry_run } => {
                self.remove(node, incarnation, image, held, is_dry_run);
            }
            Effect::PublishEvent(event) => {
                self.publish_word(node, &Subject::Event(event.node.clone(), event.st), event.encode());
            }
            Effect::PublishHeartbeat(heartbeat) => {
                self.publish_word(node, &Subject::Heartbeat(heartbeat.node.clone()), heartbeat.encode());
            }
            Effect::PutInventory(inventory) => {
                let write = Write {
                    key: inventory_key(&inventory.node),
                    expected: None,
                    body: Some(inventory.encode().into()),
                    ttl: Some(Us::try_from(INVENTORY_TTL.as_micros()).unwrap_or(Us::MAX)),
                };
                self.request(
                    who,
                    move |u| u.write(Bucket::Nodes, write),
                    move |u, result| u.tell(node, Fact::InventoryPut(result.and_then(|result| result).map(drop))),
                );
            }
            Effect::Persist(persisted) => self.persist(node, incarnation, persisted),
            Effect::Reply { .. } => {}
        }
    }

    fn publish_word(&mut self, node: usize, subject: &Subject, body: Vec<u8>) {
        let headers = vec![(header::SCHEMA, SCHEMA.to_string())];
        let wire = Wire { subject: subject.print(&self.cluster), headers, body: body.into() };
        self.publish(Who::Agent(node), wire);
    }

    /// The last message of a key, its marker as nothing.
    fn last(&mut self, bucket: Bucket, key: &str) -> Result<Option<Body>, Reason> {
        self.store.expire(self.now);
        let stream = self.store.get(bucket).ok_or(Reason::Unknown)?;
        Ok(stream.keys.get(key).and_then(|message| message.body.clone()))
    }

    /// Reads a pool; unless `plain`, what stands in its snapshot first, as `Link::read_pool` does.
    fn read_pool(&mut self, node: usize, pool: PoolId, from: u64, read: u64, plain: bool) {
        if plain || from > 1 {
            return self.read_page(node, pool, from, read, None, Vec::new());
        }
        let of = pool.clone();
        let prefix = snapshot_keys(&pool).trim_end_matches('*').to_owned();
        self.request(
            Who::Agent(node),
            move |u| u.store.page(Bucket::Intents, &prefix, 1, PAGE),
            move |u, answer| match answer {
                Ok(Some((keys, _))) => {
                    let live = keys.iter().filter_map(|(key, message)| Some((key.as_str(), message.body.as_deref()?)));
                    let snapshot = unpack(&of, live).ok().flatten();
                    let next = snapshot.as_ref().map_or(from, |snapshot| snapshot.head + 1);
                    u.read_page(node, pool, next, read, snapshot, Vec::new());
                }
                Ok(None) => u.tell(node, Fact::PoolRead { pool, read, result: Err(Reason::Unknown) }),
                Err(reason) => u.tell(node, Fact::PoolRead { pool, read, result: Err(reason) }),
            },
        );
    }

    fn read_page(
        &mut self,
        node: usize,
        pool: PoolId,
        from: u64,
        read: u64,
        snapshot: Option<Snapshot>,
        mut read_so_far: Vec<(String, u64, Option<Body>)>,
    ) {
        let prefix = format!("{pool}.i.");
        self.request(
            Who::Agent(node),
            move |u| {
                u.store.expire(u.now);
                u.store.page(Bucket::Intents, &prefix, from, PAGE)
            },
            move |u, answer| {
                let result = match answer {
                    Ok(Some((page, left))) => {
                        let next = page.last().map_or(from, |(_, message)| message.seq + 1);
                        read_so_far.extend(page.into_iter().map(|(key, message)| (key, message.seq, message.body)));
                        if left > 0 {
                            return u.read_page(node, pool, next, read, snapshot, read_so_far);
                        }
                        Ok(u.content(&pool, snapshot, &read_so_far))
                    }
                    Ok(None) => Err(Reason::Unknown),
                    Err(reason) => Err(reason),
                };
                u.tell(node, Fact::PoolRead { pool, read, result });
            },
        );
    }

    fn content(&self, pool: &PoolId, snapshot: Option<Snapshot>, read: &[(String, u64, Option<Body>)]) -> PoolContent {
        let epoch = snapshot.as_ref().map(|snapshot| snapshot.epoch.clone());
        let before = snapshot.into_iter().flat_map(|snapshot| snapshot.intents).map(held);
        let entries = read.iter().filter_map(|(key, seq, body)| {
            let subject = Bucket::Intents.subject(&self.cluster, key);
            entry(&self.cluster, pool, &subject, *seq, body.as_deref())
        });
        PoolContent { entries: before.chain(entries).collect(), snapshot: epoch }
    }

    /// What the trace says of a fact.
    pub(super) fn agent_fact(fact: &Fact) -> String {
        match fact {
            Fact::Images(Ok(images)) => format!("images {}", images.len()),
            Fact::Delta(delta) => format!(
                "delta {} term {} {}..{} {}",
                delta.pool,
                delta.term,
                delta.prev,
                delta.to,
                delta.entries.as_ref().map_or(0, Vec::len)
            ),
            Fact::Beat(beat) => {
                format!("beat {} {} term {} head {} count {}", beat.pool, beat.epoch, beat.term, beat.head, beat.count)
            }
            Fact::PoolRead { pool, read, result } => match result {
                Ok(content) => {
                    let seqs: Vec<String> = content
                        .entries
                        .iter()
                        .map(|e| format!("{}{}", e.seq, if e.value.is_some() { "" } else { "x" }))
                        .collect();
                    format!("pool-read {pool} #{read} [{}]", seqs.join(" "))
                }
                Err(reason) => format!("pool-read {pool} #{read} {reason}"),
            },
            Fact::AssignmentRead(Ok(Some(a))) | Fact::AssignmentCopy { assignment: a, .. } => {
                format!("{} uid {} term {} rev {} pools {:?}", fact.kind(), a.uid, a.term, a.rev, a.pools.len())
            }
            Fact::Removed { image, result } => format!("removed {image} {result:?}"),
            Fact::Meta(Ok(Some(meta))) => format!("meta {} term {}", meta.epoch, meta.term),
            Fact::Pulled { id, result } => match result {
                Ok(_) => format!("pulled {id}"),
                Err(failure) => format!("not pulled {id}: {}", failure.reason),
            },
            other => other.kind().to_owned(),
        }
    }

    /// What the trace says of an effect.
    pub(super) fn agent_effect(effect: &Effect) -> String {
        match effect {
            Effect::Pull { id, image, is_refresh, .. } => {
                format!("{} {id} {image}", if *is_refresh { "refresh" } else { "pull" })
            }
            Effect::RemoveImage { image, .. } => format!("remove-image {image}"),
            Effect::CancelPull(id) => format!("cancel-pull {id}"),
            Effect::ReadPool { pool, from, read, plain } => {
                format!("read-pool {pool} from {from} #{read} plain {plain}")
            }
            Effect::PublishEvent(event) => format!("event n {} {} {}", event.n, event.st, event.id),
            Effect::PutInventory(i) => {
                format!("put-inventory n {} uid {} complete {} {:?}", i.n, i.uid, i.complete, short(&i.content))
            }
            Effect::PublishHeartbeat(h) => format!("heartbeat n {} moved {}", h.n, h.pools.len()),
            Effect::Persist(p) => format!("persist {} pools", p.pools.len()),
            other => other.kind().to_owned(),
        }
    }
}

fn short(content: &shared::message::Content) -> String {
    match content {
        shared::message::Content::Except(list) => {
            let said: Vec<String> = list.iter().map(|e| format!("{} {}", e.id, e.st)).collect();
            format!("all but [{}]", said.join(", "))
        }
        shared::message::Content::WarmIds(ids) => format!("warm {ids:?}"),
    }
}

fn document<T: shared::message::Message>(body: Option<Body>) -> Result<Option<T>, Reason> {
    body.map(|body| T::decode(&body).map_err(|_| Reason::Invalid)).transpose()
}
