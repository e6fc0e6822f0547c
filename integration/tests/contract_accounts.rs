//! Agents in an account of their own (`protocol.md` section 6), against a real NATS server.
//!
//! Shows: with its own user an agent does all that it must, and violates no permission; the server refuses it every
//! subject of another node, of the controllers, of JetStream and of people; whatever it may publish, it may publish with a
//! foreign reply subject, and then the server answers there: of that nothing is written, purged or heard by the controllers,
//! and what another agent hears of it that agent refuses, whatever headers it puts beside: roll-ups, expected sequences, TTLs,
//! batches, schedules. All that is shown of users with passwords and of agents whom the controllers let in by token. In one
//! account for all the same really overwrites a bucket.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent::bus::receive::{Incoming, fact};
use anyhow::{Context as _, Result, anyhow, ensure};
use async_nats::{Client, ConnectOptions, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use daemon::bus::{BucketSpec, Bus, BusStatus, ByApiSubject, ByBody, NatsConfig, Probe, Status, StorageKind};
use daemon::config::SecretFile;
use daemon::supervise::Tasks;
use futures::StreamExt as _;
use integration::eventually::eventually;
use integration::installation::identity::{AGENT_ACCOUNT, AUDIENCE, AgentPods, pod_of};
use integration::installation::{Installation, InstallationSpec, accounts, agent_user, users};
use integration::nats::{Nats, NatsConfig as ServerConfig};
use integration::node::NodeSpec;
use integration::parts::{Parts, Tool};
use integration::run::{RunDir, scenario};
use serde_json::json;
use shared::name::{ClusterId, NodeName};
use shared::reason::Reason;

const TEST: Duration = Duration::from_mins(2);
const SOON: Duration = Duration::from_secs(20);
const NODES: [&str; 2] = ["n1", "n2"];
const INTENTS: &str = "KV_warm-default-intents";
/// What the last message of an attack leaves behind once the server has done everything before it.
const SENTINEL: &str = "sentinel";
/// Below `warm.v1.default.`: of other nodes, of controllers and people, and what only controllers say.
const NOT_ITS_OWN: &str = "\
    delta.all beat.all assign.n1 assign.n2 node.n2.hb node.n2.ev.warm node.n2.req.inventory \
    node.n1.req.inventory permit.n2 cred.n2 ctl.status ctl.explain ctl.pause ctl.resume";
/// Of JetStream's API.
const CALLS: &str = "\
    INFO STREAM.NAMES STREAM.LIST STREAM.INFO.KV_warm-default-nodes STREAM.PURGE.KV_warm-default-nodes \
    STREAM.DELETE.KV_warm-default-intents STREAM.MSG.GET.KV_warm-default-nodes STREAM.CREATE.mine \
    CONSUMER.CREATE.KV_warm-default-nodes";
/// What would hear others.
const LISTENING: &str = "\
    > $KV.> $JS.> warm.v1.default.> warm.v1.default.assign.* warm.v1.default.assign.n2 warm.v1.default.node.*.hb \
    warm.v1.default.node.n2.req.* _WI.default.agent.*.> _WI.default.agent.n2.> _WI.default.ctl.> _INBOX.> _R_.>";
/// Below `warm.v1.default.`: where an agent would like NATS to speak in another's name.
const SPOKEN: &str = "\
    delta.all beat.all assign.n2 node.n2.hb node.n2.ev.warm node.n2.req.resync permit.n2 cred.n2 ctl.pause";

/// A server with buckets and what is in them, and those who look.
struct World {
    server: Server,
    admin: Bus,
    tasks: Tasks,
    run: Arc<RunDir>,
    /// Those who logged in while somebody could let them in.
    agents: BTreeMap<String, (Client, Said)>,
}

enum Server {
    Alone(Box<Nats>),
    /// With controllers that have let the agents in and are gone now: what they would put right is to be seen.
    Left(Box<Installation>),
}

impl World {
    async fn start(run: &Arc<RunDir>, config: ServerConfig) -> Result<Self> {
        let nats = Nats::start(run, &Parts::ensure(&[Tool::NatsServer, Tool::Nats])?, config).await?;
        Self::fill(run, Server::Alone(Box::new(nats)), BTreeMap::new()).await
    }

    /// The same with agents that have logged in by token.
    async fn start_by_token(run: &Arc<RunDir>) -> Result<Self> {
        let mut installed = Installation::start(run, InstallationSpec::new(Vec::new()).with_callout()).await?;
        let pods = AgentPods::new(installed.cluster.client());
        let mut agents = BTreeMap::new();
        for node in NODES {
            installed.cluster.node_objects().create(&NodeSpec::new(node)).await?;
            let uid = pods.create(&pod_of(node), AGENT_ACCOUNT, node).await?;
            let token = pods.token(&pod_of(node), &uid, AGENT_ACCOUNT, AUDIENCE).await?;
            let options = ConnectOptions::with_token(token);
            let (client, said) =
                connect(&installed.cluster.nats, options, &format!("_WI.default.agent.{node}")).await?;
            // Any answer shows that it is let in.
            let _answer = client.request("$JS.API.DIRECT.GET.KV_warm-default-intents", r#"{"seq":1}"#.into()).await?;
            agents.insert(node.to_owned(), (client, said));
        }
        installed.controller.process.kill()?;
        for bucket in ["intents", "assign", "nodes"] {
            let call = format!("STREAM.DELETE.KV_warm-default-{bucket}");
            installed.cluster.nats.jetstream("admin", &call, &json!({})).await?;
        }
        Self::fill(run, Server::Left(Box::new(installed)), agents).await
    }

    async fn fill(run: &Arc<RunDir>, server: Server, agents: BTreeMap<String, (Client, Said)>) -> Result<Self> {
        let (tasks, _) = Tasks::new();
        let config = login(run, server.nats(), "admin")?;
        let (admin, mut status) = Bus::connect(&config, "admin", "_WI.admin", &tasks).await?;
        connected(&mut status).await?;
        for bucket in ["intents", "assign", "nodes"] {
            admin.ensure_bucket(&spec(bucket), true).await?;
        }
        let world = Self { server, admin, tasks, run: Arc::clone(run), agents };
        for n in 0..30 {
            world.put("intents", &format!("all.i.k{n:02}"), "x").await?;
        }
        for node in NODES {
            world.put("assign", node, &format!("assignment of {node}")).await?;
            world.put("nodes", &format!("{node}.inv"), &format!("inventory of {node}")).await?;
        }
        Ok(world)
    }

    async fn put(&self, bucket: &str, key: &str, value: &str) -> Result<u64> {
        Ok(self.admin.put(kv(bucket, key), &[], Bytes::from(value.to_owned()), None).await.await?)
    }

    /// Every key there is, with its sequence and value.
    async fn content(&self) -> Result<BTreeMap<String, (u64, Bytes)>> {
        let mut content = BTreeMap::new();
        for bucket in ["intents", "assign", "nodes"] {
            let stream = format!("KV_warm-default-{bucket}");
            let batch = self.admin.direct_get_batch(&stream, &kv(bucket, ">"), 1, 500).await?;
            content.extend(batch.messages.into_iter().map(|m| (m.subject, (m.seq, m.payload))));
        }
        Ok(content)
    }

    /// A bare client of a user, and what the server says to it.
    async fn client(&self, user: &str, inbox: &str) -> Result<(Client, Said)> {
        let options = ConnectOptions::with_user_and_password(user.into(), self.password(user)?);
        connect(self.server.nats(), options, inbox).await
    }

    /// The client of a node's agent, which does whatever it likes.
    async fn hostile(&self, node: &str) -> Result<(Client, Said)> {
        match self.agents.get(node) {
            Some(agent) => Ok(agent.clone()),
            None => self.client(&agent_user(node), &format!("_WI.default.agent.{node}")).await,
        }
    }

    fn password(&self, user: &str) -> Result<String> {
        Ok(self.server.nats().config().user(user).context("no such user")?.password.clone())
    }
}

impl Server {
    fn nats(&self) -> &Nats {
        match self {
            Self::Alone(nats) => nats,
            Self::Left(installed) => &installed.cluster.nats,
        }
    }
}

async fn connect(nats: &Nats, options: ConnectOptions, inbox: &str) -> Result<(Client, Said)> {
    let said = Said::default();
    let heard = said.clone();
    let client = options
        .custom_inbox_prefix(inbox)
        .event_callback(move |event| {
            let heard = heard.clone();
            async move { heard.0.lock().unwrap_or_else(PoisonError::into_inner).push(event.to_string()) }
        })
        .connect(nats.url())
        .await?;
    Ok((client, said))
}

/// What the server has said to a client.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    /// Waits until the server has refused to let a client publish to, or subscribe, this subject.
    async fn until_refused(&self, what: &str, subject: &str) -> Result<()> {
        let part = format!("permissions violation for {what} to \"{subject}\"").to_lowercase();
        eventually(format!("{what} {subject} is refused"), SOON, async || {
            let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let is_refused = said.iter().any(|said| said.to_lowercase().contains(&part));
            if is_refused { Ok(()) } else { Err(anyhow!("{:?}", said.last())) }
        })
        .await
    }
}

fn kv(bucket: &str, key: &str) -> String {
    format!("$KV.warm-default-{bucket}.{key}")
}

fn spec(bucket: &str) -> BucketSpec {
    BucketSpec {
        name: format!("warm-default-{bucket}"),
        max_message_bytes: 65_536,
        allow_rollup: bucket != "nodes",
        max_bytes: -1,
        replicas: 1,
        storage: StorageKind::File,
    }
}

/// Harness users have their name as password.
fn login(run: &RunDir, nats: &Nats, user: &str) -> Result<NatsConfig> {
    let password = nats.config().user(user).context("no such user")?.password.clone();
    let file = run.write(&format!("password-{user}"), format!("{password}\n"))?;
    Ok(NatsConfig {
        urls: vec![nats.url()],
        user: Some(user.into()),
        password_file: Some(SecretFile::new(file)),
        reconnect_max: Duration::from_millis(200),
        request_timeout: Duration::from_secs(3),
        ..NatsConfig::default()
    })
}

async fn connected(status: &mut Status) -> Result<()> {
    tokio::time::timeout(SOON, status.wait_for(BusStatus::is_connected)).await.context("not connected")??;
    Ok(())
}

#[test]
fn an_agent_in_an_account_of_its_own_does_what_it_must() -> Result<()> {
    scenario("accounts", TEST, async |run| {
        let world = World::start(&run, accounts("default", &NODES)).await?;
        let probe = Probe::direct_get(INTENTS, &kv("intents", "_meta"));
        let config = login(&world.run, world.server.nats(), &agent_user("n1"))?;
        let inbox = "_WI.default.agent.n1";
        let (agent, mut status) = Bus::connect_with_probe(&config, "n1", inbox, probe, &world.tasks).await?;
        connected(&mut status).await?;
        let found = agent.direct_get_last("KV_warm-default-assign", &kv("assign", "n1"), ByApiSubject).await?;
        ensure!(found.is_some_and(|found| found.payload.as_ref() == b"assignment of n1"));
        ensure!(agent.direct_get_last(INTENTS, &kv("intents", "_meta"), ByBody).await?.is_none());
        let batch = agent.direct_get_batch(INTENTS, &kv("intents", "all.i.*"), 1, 7).await?;
        ensure!(batch.messages.len() == 30, "{}", batch.messages.len());
        let ttl = [("Nats-TTL", "48h".to_owned())];
        let seq = agent.put(kv("nodes", "n1.inv"), &ttl, "{}".into(), None).await.await?;
        ensure!(seq == 3, "{seq}");

        // Both ways on core NATS, and a question with its answer.
        for (subject, from, to) in [
            ("warm.v1.default.beat.all", &world.admin, &agent),
            ("warm.v1.default.delta.all", &world.admin, &agent),
            ("warm.v1.default.assign.n1", &world.admin, &agent),
            ("warm.v1.default.node.n1.hb", &agent, &world.admin),
            ("warm.v1.default.node.n1.ev.warm", &agent, &world.admin),
        ] {
            let pattern = if subject.contains(".node.") { subject.replace("n1", "*") } else { subject.to_owned() };
            let mut heard = to.subscribe(pattern).await?;
            eventually(format!("{subject} arrives"), SOON, async || -> Result<bool> {
                from.publish(subject, &[], "x".into()).await?;
                Ok(tokio::time::timeout(Duration::from_millis(100), heard.recv()).await.is_ok())
            })
            .await?;
        }
        let mut questions = agent.subscribe("warm.v1.default.node.n1.req.*").await?;
        let answer = async {
            let question = questions.recv().await.context("no question")?;
            Ok(agent.publish(&question.reply.context("nobody to answer")?, &[], "yes".into()).await?)
        };
        // The server may not know of the subscription yet: then it says at once that nobody listens.
        let asked = eventually("the question is answered", SOON, async || {
            world.admin.request("warm.v1.default.node.n1.req.explain", &[], "?".into()).await.map(Some)
        });
        let (said, ()) = tokio::try_join!(asked, answer)?;
        ensure!(said.payload.as_ref() == b"yes", "{said:?}");

        let log = std::fs::read_to_string(run.log("nats-server"))?;
        ensure!(!log.to_lowercase().contains("violation"), "an agent that keeps to its own violated a permission");
        let other = agent.put(kv("nodes", "n2.inv"), &ttl, "{}".into(), None).await.await;
        ensure!(other.is_err_and(|error| error.reason() == Reason::Forbidden));
        let rollup = [("Nats-Rollup", "all".to_owned())];
        let wipe = agent.put(kv("nodes", "n1.inv"), &rollup, "{}".into(), None).await.await;
        ensure!(wipe.is_err(), "an agent could roll up the inventories: {wipe:?}");

        // A probe that is refused is an answer too.
        let (_bus, mut status) = Bus::connect(&config, "n1", inbox, &world.tasks).await?;
        connected(&mut status).await
    })
}

#[test]
fn a_hostile_agent_is_refused_every_subject_that_is_not_its_own() -> Result<()> {
    scenario("hostile-subjects", TEST, async |run| {
        refused_what_is_not_its_own(&World::start(&run, accounts("default", &NODES)).await?).await
    })
}

#[test]
fn so_is_a_hostile_agent_that_was_let_in_by_its_token() -> Result<()> {
    scenario("hostile-token", TEST, async |run| refused_what_is_not_its_own(&World::start_by_token(&run).await?).await)
}

async fn refused_what_is_not_its_own(world: &World) -> Result<()> {
    let before = world.content().await?;
    let (hostile, said) = world.hostile("n1").await?;
    let direct = |bucket: &str| format!("$JS.API.DIRECT.GET.KV_warm-default-{bucket}");
    let mut subjects: Vec<String> =
        NOT_ITS_OWN.split_whitespace().map(|word| format!("warm.v1.default.{word}")).collect();
    subjects.extend([kv("nodes", "n2.inv"), kv("nodes", "n1"), kv("assign", "n1"), kv("intents", "_meta")]);
    // What others are told and what they report: by body, by subject, and by the old way.
    subjects.extend([direct("assign"), direct("nodes"), format!("{}.{}", direct("assign"), kv("assign", "n2"))]);
    subjects.push(format!("{}.{}", direct("nodes"), kv("nodes", "n2.inv")));
    subjects.push(format!("{}.{}", direct("intents"), kv("intents", "_meta")));
    for call in CALLS.split_whitespace() {
        subjects.push(format!("$JS.API.{call}"));
    }
    subjects.extend(["$SRV.PING", "$SYS.REQ.SERVER.PING", "_INBOX.x", "_WI.default.agent.n2.x"].map(str::to_owned));
    for subject in &subjects {
        hostile.publish_with_reply(subject.clone(), hostile.new_inbox(), "{}".into()).await?;
        said.until_refused("publish", subject).await?;
    }
    for subject in LISTENING.split_whitespace() {
        let _refused = hostile.subscribe(subject).await?;
        said.until_refused("subscription", subject).await?;
    }
    ensure!(world.content().await? == before, "something was written");
    Ok(())
}

/// All that an agent may publish and the server answers, or passes on with the reply.
fn granted() -> Vec<(String, HeaderMap, String)> {
    let direct = "$JS.API.DIRECT.GET.KV_warm-default-intents".to_owned();
    let get = |body: serde_json::Value| (direct.clone(), HeaderMap::new(), body.to_string());
    let with = |header: &str, value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header, value);
        (kv("nodes", "n1.inv"), headers, "mine".to_owned())
    };
    let mut granted = vec![
        get(json!({ "last_by_subj": kv("intents", "all.i.k00") })),
        get(json!({ "last_by_subj": kv("intents", "none") })),
        get(json!({ "batch": 3, "seq": 1, "next_by_subj": kv("intents", ">") })),
        get(json!({ "multi_last": [kv("intents", "all.i.*")] })),
        get(json!("junk")),
        (kv("nodes", "n1.inv"), HeaderMap::new(), "mine".to_owned()),
    ];
    let foreign = kv("nodes", "n2.inv");
    granted.extend(
        [
            ("Nats-Rollup", "all"),
            ("Nats-Rollup", "sub"),
            ("Nats-Expected-Last-Sequence", "1"),
            ("Nats-Expected-Last-Subject-Sequence", "1"),
            ("Nats-Expected-Last-Subject-Sequence-Subject", foreign.as_str()),
            ("Nats-Expected-Stream", INTENTS),
            ("Nats-Msg-Id", "n2"),
            ("Nats-TTL", "1s"),
            ("Nats-Marker-Reason", "MaxAge"),
            ("KV-Operation", "PURGE"),
            ("Nats-Batch-Id", "b"),
            ("Nats-Incr", "1"),
            ("Nats-Schedule", "@every 1s"),
            ("Nats-Schedule-Target", foreign.as_str()),
            ("Nats-Stream-Source", foreign.as_str()),
        ]
        .map(|(header, value)| with(header, value)),
    );
    let own = [
        format!("$JS.API.DIRECT.GET.KV_warm-default-assign.{}", kv("assign", "n1")),
        "warm.v1.default.node.n1.hb".to_owned(),
        "warm.v1.default.node.n1.ev.warm".to_owned(),
        "warm.v1.default.permit.n1".to_owned(),
        "warm.v1.default.cred.n1".to_owned(),
    ];
    granted.extend(own.map(|subject| (subject, HeaderMap::new(), "{}".to_owned())));
    granted
}

/// Where an agent would like the server to speak in its stead.
fn foreign_replies() -> Vec<String> {
    let mut replies = vec![
        kv("nodes", "n2.inv"),
        kv("intents", "all.i.k01"),
        kv("intents", "_meta"),
        kv("assign", "n2"),
        "$JS.API.STREAM.PURGE.KV_warm-default-nodes".to_owned(),
        "$JS.API.STREAM.DELETE.KV_warm-default-intents".to_owned(),
        "_WI.default.agent.n2.x".to_owned(),
        "_WI.default.ctl.x.y".to_owned(),
    ];
    replies.extend(SPOKEN.split_whitespace().map(|word| format!("warm.v1.default.{word}")));
    replies
}

/// Publishes everything granted with every foreign reply, and returns once the server has answered all of it.
async fn attack(hostile: &Client) -> Result<()> {
    for reply in foreign_replies() {
        for (subject, headers, body) in granted() {
            hostile.publish_with_reply_and_headers(subject, reply.clone(), headers, body.into()).await?;
        }
    }
    // Each is answered in its turn: by direct get, and by the stream of inventories.
    let direct = "$JS.API.DIRECT.GET.KV_warm-default-intents";
    for (subject, body) in [(direct.to_owned(), r#"{"seq":1}"#), (kv("nodes", "n1.inv"), SENTINEL)] {
        let answer = tokio::time::timeout(SOON, hostile.request(subject.clone(), body.into())).await;
        answer.with_context(|| format!("no answer on {subject}"))??;
    }
    Ok(())
}

/// Everything that was said before a word of `SENTINEL`.
async fn heard(ear: &mut Subscriber) -> Result<Vec<Message>> {
    let mut all = Vec::new();
    loop {
        let message = tokio::time::timeout(SOON, ear.next()).await.context("the sentinel does not arrive")?;
        let message = message.context("the subscription ended")?;
        if message.payload.as_ref() == SENTINEL.as_bytes() {
            return Ok(all);
        }
        all.push(message);
    }
}

#[test]
fn whatever_reply_a_hostile_agent_names_changes_only_what_is_its_own() -> Result<()> {
    scenario("hostile-replies", TEST, async |run| {
        changes_only_its_own(&World::start(&run, accounts("default", &NODES)).await?).await
    })
}

#[test]
fn so_it_is_of_an_agent_that_was_let_in_by_its_token() -> Result<()> {
    scenario("hostile-token-replies", TEST, async |run| changes_only_its_own(&World::start_by_token(&run).await?).await)
}

async fn changes_only_its_own(world: &World) -> Result<()> {
    let before = world.content().await?;
    let (other, _) = world.hostile("n2").await?;
    let (boss, _) = world.client("admin", "_INBOX").await?;
    let mut ears = Vec::new();
    for subject in ["delta.*", "beat.*", "assign.n2", "node.n2.req.*"] {
        ears.push(other.subscribe(format!("warm.v1.default.{subject}")).await?);
    }
    let mut warm = boss.subscribe("warm.v1.default.>").await?;
    let mut inboxes = boss.subscribe("_WI.default.>").await?;
    other.flush().await?;
    boss.flush().await?;
    let (hostile, _) = world.hostile("n1").await?;
    attack(&hostile).await?;

    let mut after = world.content().await?;
    let mine = kv("nodes", "n1.inv");
    ensure!(after.remove(&mine).is_some_and(|(_, value)| value.as_ref() == SENTINEL.as_bytes()), "{mine}");
    let same: BTreeMap<_, _> = before.into_iter().filter(|(key, _)| *key != mine).collect();
    ensure!(after == same, "the buckets are {after:?}, not {same:?}");

    // The controllers hear from n1 what n1 may say, and nothing in the name of anybody else.
    boss.publish("_WI.default.ctl.x.y", SENTINEL.into()).await?;
    ensure!(heard(&mut inboxes).await?.is_empty(), "somebody spoke in an answer's place");
    boss.publish("warm.v1.default.end", SENTINEL.into()).await?;
    for message in heard(&mut warm).await? {
        let subject = message.subject.as_str();
        ensure!(subject.contains(".n1") && message.payload.as_ref() == b"{}", "the controllers hear {message:?}");
    }

    // Another agent hears answers where it listens, and believes none of them.
    let (cluster, node) = (ClusterId::default(), NodeName::parse("n2")?);
    let mut count = 0;
    for (ear, word) in ears.iter_mut().zip(["delta.end", "beat.end", "assign.n2", "node.n2.req.end"]) {
        boss.publish(format!("warm.v1.default.{word}"), SENTINEL.into()).await?;
        for message in heard(ear).await? {
            count += 1;
            let headers = message.headers.clone().unwrap_or_default();
            let header = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
            let (subject, reply) = (message.subject.as_str(), message.reply.as_deref());
            let incoming = Incoming { subject, reply, header: &header, payload: &message.payload };
            let judged = fact(&incoming, &cluster, &node, |_| 0);
            ensure!(judged.is_err(), "{message:?} is believed: {judged:?}");
        }
    }
    integration::run::said(&format!("{count} answers reached another agent, and were refused"));
    Ok(())
}

#[test]
fn in_one_account_for_all_the_same_reply_overwrites_what_is_not_the_agents() -> Result<()> {
    scenario("hostile-single", TEST, async |run| {
        let world = World::start(&run, users("default", &NODES)).await?;
        let before = world.content().await?;
        let (hostile, _) = world.hostile("n1").await?;
        let get = json!({ "last_by_subj": kv("intents", "all.i.k00") }).to_string();
        let subject = "$JS.API.DIRECT.GET.KV_warm-default-intents";
        hostile.publish_with_reply(subject, kv("nodes", "n2.inv"), get.into()).await?;
        eventually("the inventory of another node is overwritten", SOON, async || {
            Ok::<_, anyhow::Error>(
                world.content().await?.get(&kv("nodes", "n2.inv")) != before.get(&kv("nodes", "n2.inv")),
            )
        })
        .await
    })
}
