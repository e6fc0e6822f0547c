//! The controller's NATS adapters against a real server, with the controller's permissions.
//!
//! The contract: connected is told once all three buckets were made and read on this connection, and a disconnect before
//! anything of the next; a batch of writes keeps its order, tells agents only what precedes the first hole, and says what
//! is there before it says that it lost; what agents say counts only for their own node; people who may ask are answered,
//! and nobody else can turn the pause switch, not even by having the server itself answer there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use cluster_plan::effect::{AssignmentWrite, IntentBatch, IntentChange, IntentWrite};
use cluster_plan::fact::{IntentsDoc, Stored, StoredValue};
use cluster_plan::{Effect, Fact};
use controller::act::Peers;
use controller::act::dispatch::Dispatcher;
use controller::api::client;
use controller::bus::questions::Questions;
use controller::bus::receive::Receiver;
use controller::bus::session::Session;
use controller::config::BucketSettings;
use controller::leader::Seat;
use daemon::bus::Bus;
use daemon::clock::Clock;
use daemon::config::SecretFile;
use daemon::driver::{self, DriverSettings};
use daemon::replies::Replies;
use daemon::supervise::Tasks;
use integration::eventually::eventually;
use integration::installation::users;
use integration::nats::Nats;
use integration::parts::{Parts, Tool};
use integration::run::{RunDir, scenario};
use serde_json::{Value, json};
use shared::machine::{Changed, Kind as _, Machine, Moment, Now};
use shared::message::intent::Keep;
use shared::message::{Assignment, Control, Delta, DeltaChange, Intent, Message as _, Meta, header};
use shared::name::{ClusterId, ImageKey, NodeName, PoolId};
use shared::reason::Reason;
use shared::subject::{ControlVerb, IntentsKey, Subject, controller_inbox};
use shared::wave::Wave;

const TEST: Duration = Duration::from_mins(2);
const SOON: Duration = Duration::from_secs(20);

/// Facts in, and the effects a test wants out.
#[derive(Clone, Default)]
struct Said {
    facts: Arc<Mutex<Vec<Fact>>>,
    wanted: Arc<Mutex<Vec<Effect>>>,
}

impl Machine for Said {
    type Fact = Fact;
    type Effect = Effect;

    fn apply(&mut self, fact: Fact, _now: Now) -> Changed {
        self.facts.lock().unwrap().push(fact);
        Changed::No
    }

    fn step(&mut self, _now: Now) -> Vec<Effect> {
        std::mem::take(&mut self.wanted.lock().unwrap())
    }

    fn next_due(&self) -> Option<Moment> {
        // Always: a test's effects go out within a turn.
        Some(Moment(0))
    }
}

/// The controller's adapters on one NATS, without Kubernetes.
struct Adapters {
    nats: Nats,
    bus: Bus,
    said: Said,
    tasks: Tasks,
    cluster: ClusterId,
}

impl Drop for Adapters {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Adapters {
    async fn start(run: &Arc<RunDir>) -> Result<Self> {
        let parts = Parts::ensure(&[Tool::NatsServer, Tool::Nats])?;
        let nats = Nats::start(run, &parts, users("default", &["a", "b"])).await?;
        let cluster = ClusterId::default();
        let config = daemon::bus::NatsConfig {
            urls: vec![nats.url()],
            user: Some("controller".into()),
            password_file: Some(SecretFile::new(run.write("password", "controller")?)),
            reconnect_max: Duration::from_millis(200),
            request_timeout: Duration::from_secs(2),
            ..daemon::bus::NatsConfig::default()
        };
        let (tasks, shutdown) = Tasks::new();
        let (bus, _) = Bus::connect(&config, "test", &controller_inbox(&cluster, "test"), &tasks).await?;
        let (inbox, facts) = driver::channel(1_024);
        let session = Session::new(&bus, &cluster, &BucketSettings::default(), inbox.clone(), &tasks);
        tasks.spawn("buckets", session.run(shutdown.clone()));
        let receiver = Receiver::subscribe(&bus, &cluster, inbox.clone()).await?;
        tasks.spawn("agents", receiver.run(shutdown.clone()));
        let kube = client::connect(Some(&nowhere(run)?), Duration::from_secs(40)).await?;
        let marker_ttl = Duration::from_mins(1);
        let questions = Arc::new(Replies::default());
        let asked = Questions::offer(&bus, &cluster, "test", inbox.clone(), Arc::clone(&questions)).await?;
        tasks.spawn("questions", asked.run(shutdown.clone()));
        let seat = Seat::of_the_only_controller();
        let peers = Peers {
            api_versions: Arc::default(),
            bus: bus.clone(),
            cluster: cluster.clone(),
            kube,
            seat,
            inbox,
            questions,
            instance: "pod".to_owned(),
            marker_ttl,
        };
        let dispatcher = Dispatcher::new(peers, &tasks);
        let said = Said::default();
        let machine = said.clone();
        tasks.spawn("loop", async move {
            driver::run(machine, facts, dispatcher, DriverSettings::default(), Clock::new(), |_, _| {}, shutdown).await;
        });
        Ok(Self { nats, bus, said, tasks, cluster })
    }

    async fn connected(run: &Arc<RunDir>) -> Result<Self> {
        let adapters = Self::start(run).await?;
        adapters.until("connected", |facts| facts.contains(&Fact::Connected)).await?;
        Ok(adapters)
    }

    fn facts(&self) -> Vec<Fact> {
        self.said.facts.lock().unwrap().clone()
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.facts().iter().map(shared::machine::Kind::kind).collect()
    }

    async fn until(&self, what: &str, seen: impl Fn(&[Fact]) -> bool) -> Result<()> {
        eventually(what, SOON, async || if seen(&self.facts()) { Ok(()) } else { Err(anyhow!("{:?}", self.kinds())) })
            .await
    }

    /// Asks as `user`, has `body` answered, and gives what the `nats` CLI printed.
    async fn ask(&self, user: &str, verb: ControlVerb, question: &str, body: Value) -> Result<String> {
        let subject = Subject::Control(verb).print(&self.cluster);
        let args = ["req", &subject, question, "--timeout", "10s"];
        // Whoever answers looks first: a question that was there before is not waited for.
        Ok(tokio::try_join!(self.reply(verb, question, body), self.nats.cli(user, &args))?.1)
    }

    /// Waits for a question that is yet to come, and answers it.
    async fn reply(&self, verb: ControlVerb, question: &str, body: Value) -> Result<()> {
        let before = self.facts().len();
        let number = |fact: &Fact| match fact {
            Fact::Asked { verb: v, body, reply } if *v == verb && body == question => Some(*reply),
            _ => None,
        };
        self.until("the question", |facts| facts.iter().skip(before).any(|f| number(f).is_some())).await?;
        let reply = self.facts().iter().skip(before).find_map(number).unwrap();
        self.said.wanted.lock().unwrap().push(Effect::Reply { reply, body });
        Ok(())
    }

    /// Fails unless the server refuses `user` to publish a request there.
    async fn may_not_ask(&self, user: &str, subject: &str) -> Result<()> {
        let output = self.nats.cli_output(user, &["req", subject, "{}", "--timeout", "500ms"]).await?;
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(said.to_lowercase().contains("permissions violation"), "{user} may ask {subject}: {said}");
        Ok(())
    }

    /// Sends an effect out and waits for a fact of this kind; gives the facts since, that one last.
    async fn act(&self, effect: Effect, outcome: &'static str) -> Result<Vec<Fact>> {
        let before = self.facts().len();
        self.said.wanted.lock().unwrap().push(effect);
        self.until(outcome, |facts| facts.iter().skip(before).any(|fact| fact.kind() == outcome)).await?;
        let mut facts = self.facts().split_off(before);
        let end = facts.iter().position(|fact| fact.kind() == outcome).unwrap();
        facts.truncate(end + 1);
        Ok(facts)
    }
}

/// A kubeconfig of a cluster that does not answer: nothing here asks it.
fn nowhere(run: &RunDir) -> Result<std::path::PathBuf> {
    let config = json!({
        "clusters": [{ "name": "c", "cluster": { "server": "http://127.0.0.1:1" } }],
        "users": [{ "name": "u", "user": {} }],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    });
    run.write("kubeconfig", serde_json::to_vec(&config)?)
}

fn intent(image: &str) -> Box<Intent> {
    Box::new(Intent {
        id: ImageKey::of(image),
        image: image.into(),
        unqualified: false,
        digest: None,
        priority: 50,
        bytes: None,
        wave: Wave::default(),
        secrets: Vec::new(),
        refresh_sec: None,
        keep: Keep::default(),
        owners: Vec::new(),
        owners_total: 0,
        term: 1,
    })
}

fn key(image: &str) -> IntentsKey {
    IntentsKey::Intent(PoolId::all(), ImageKey::of(image))
}

fn batch(writes: Vec<(u64, IntentChange)>) -> Effect {
    let write = |(expected, write)| IntentWrite { pool: PoolId::all(), expected, write };
    Effect::WriteIntents(IntentBatch {
        epoch: "epoch".into(),
        term: 4,
        writes: writes.into_iter().map(write).collect(),
        prev: [(PoolId::all(), 0)].into(),
        spread: Duration::from_millis(100),
        marker_ttl: Duration::from_mins(1),
    })
}

#[test]
fn a_connection_is_told_when_all_buckets_are_read_and_its_loss_before_anything_of_the_next() -> Result<()> {
    scenario("session", TEST, async |run| {
        let mut adapters = Adapters::connected(&run).await?;
        let mut first = adapters.kinds();
        assert_eq!(first.pop(), Some("connected"));
        first.sort_unstable();
        assert_eq!(first, ["assignments", "intents", "inventories"]);
        for (bucket, bytes) in [("intents", 65_536), ("assign", 8_192), ("nodes", 262_144)] {
            let stream = format!("KV_warm-default-{bucket}");
            let info = adapters.nats.cli("admin", &["stream", "info", &stream, "--json"]).await?;
            let info: serde_json::Value = serde_json::from_str(&info)?;
            assert_eq!(info["config"]["max_msg_size"], json!(bytes), "{info}");
            assert_eq!(info["config"]["metadata"]["warm.schema"], json!("1"));
        }

        adapters.nats.restart().await?;
        adapters
            .until("connected again", |facts| facts.iter().filter(|fact| **fact == Fact::Connected).count() == 2)
            .await?;
        let kinds = adapters.kinds();
        assert_eq!(kinds[4], "disconnected", "{kinds:?}");
        let mut second = kinds[5..8].to_vec();
        second.sort_unstable();
        assert_eq!(second, ["assignments", "intents", "inventories"], "{kinds:?}");
        Ok(())
    })
}

#[test]
fn a_batch_keeps_its_order_tells_up_to_the_first_hole_and_says_what_is_there() -> Result<()> {
    scenario("intents", TEST, async |run| {
        let adapters = Adapters::connected(&run).await?;
        let mut deltas = adapters.bus.subscribe(Subject::Delta(PoolId::all()).print(&adapters.cluster)).await?;
        let writes = vec![
            (0, IntentChange::PutDefinition(json!({ "constraint": {} }))),
            (0, IntentChange::Put(intent("a"))),
            (0, IntentChange::Put(intent("b"))),
            (99, IntentChange::Put(intent("c"))),
            (0, IntentChange::Put(intent("d"))),
        ];
        let facts = adapters.act(batch(writes), "intents-written").await?;
        let Some(Fact::IntentsWritten { results, deltas: told }) = facts.last() else { panic!("{facts:?}") };
        let expected = vec![
            (IntentsKey::Definition(PoolId::all()), Ok(1)),
            (key("a"), Ok(2)),
            (key("b"), Ok(3)),
            (key("c"), Err(Reason::Conflict)),
            (key("d"), Ok(4)),
        ];
        assert_eq!(*results, expected);
        assert_eq!(*told, BTreeMap::from([(PoolId::all(), 3)]));
        let absent = Fact::IntentChanged(Stored { key: key("c"), seq: 0, value: StoredValue::Marker });
        assert!(facts.contains(&absent), "what is there comes before the outcome: {facts:?}");

        let message = deltas.recv().await.unwrap();
        let delta = Delta::decode(&PoolId::all(), |name| message.headers.get(name), &message.payload)?;
        assert_eq!((delta.epoch.as_str(), delta.term, delta.prev, delta.to), ("epoch", 4, 0, 3));
        let ids: Vec<_> = delta.entries.unwrap().into_iter().map(|entry| (entry.seq, entry.id)).collect();
        assert_eq!(ids, [(2, ImageKey::of("a")), (3, ImageKey::of("b"))]);

        let withdrawn = batch(vec![(2, IntentChange::Purge(ImageKey::of("a"))), (2, IntentChange::Put(intent("b")))]);
        let facts = adapters.act(withdrawn, "intents-written").await?;
        let there = |fact: &Fact| {
            matches!(fact, Fact::IntentChanged(Stored { key: of, seq: 3, value: StoredValue::Value(IntentsDoc::Intent(_)) })
                if *of == key("b"))
        };
        assert!(facts.iter().any(there), "{facts:?}");
        let message = deltas.recv().await.unwrap();
        let delta = Delta::decode(&PoolId::all(), |name| message.headers.get(name), &message.payload)?;
        assert_eq!(delta.entries.unwrap()[0].change, DeltaChange::Del);
        let marker = Fact::IntentChanged(Stored { key: key("a"), seq: 5, value: StoredValue::Marker });
        adapters.until("the watch shows the marker", |facts| facts.contains(&marker)).await
    })
}

#[test]
fn the_term_is_taken_once_and_who_comes_second_learns_who_was_first() -> Result<()> {
    scenario("term", TEST, async |run| {
        let adapters = Adapters::connected(&run).await?;
        let meta = |by: &str| Meta {
            epoch: "e".into(),
            term: 1,
            cluster: "uid".into(),
            stream_created: "t".into(),
            by: by.into(),
        };
        let take = |by: &str| Effect::TakeTerm { meta: meta(by), expected: 0 };
        assert_eq!(adapters.act(take("first"), "term-taken").await?.last(), Some(&Fact::TermTaken(Ok(1))));
        let facts = adapters.act(take("second"), "term-taken").await?;
        let value = StoredValue::Value(IntentsDoc::Meta(meta("first")));
        assert!(facts.contains(&Fact::IntentChanged(Stored { key: IntentsKey::Meta, seq: 1, value })), "{facts:?}");
        assert_eq!(facts.last(), Some(&Fact::TermTaken(Err(Reason::Conflict))));
        Ok(())
    })
}

#[test]
fn assignments_are_copied_to_their_agents_once_they_are_stored() -> Result<()> {
    scenario("assign", TEST, async |run| {
        let adapters = Adapters::connected(&run).await?;
        let mut copies = adapters.bus.subscribe("warm.v1.default.assign.*").await?;
        let write = |node: &str, expected, exists: bool| {
            let node = NodeName::parse(node).unwrap();
            let assignment = Assignment {
                node: node.clone(),
                uid: "u".into(),
                pools: vec![PoolId::all()],
                rev: 1,
                pressure: Vec::new(),
                limits: BTreeMap::new(),
                term: 4,
            };
            AssignmentWrite { node, expected, assignment: exists.then_some(assignment) }
        };
        let effect = |writes| Effect::WriteAssignments { epoch: "epoch".into(), term: 4, writes };
        let writes = vec![write("lost", 9, true), write("a.b", 0, true)];
        let facts = adapters.act(effect(writes), "assignments-written").await?;
        let results = [("lost", Err(Reason::Conflict)), ("a.b", Ok(1))];
        let results = results.map(|(node, result)| (NodeName::parse(node).unwrap(), result)).to_vec();
        assert_eq!(facts.last(), Some(&Fact::AssignmentsWritten(results)));
        let copy = copies.recv().await.unwrap();
        assert_eq!(copy.subject, "warm.v1.default.assign.a_b", "none of what was not stored");
        let headers = [header::SCHEMA, header::EPOCH, header::TERM].map(|name| copy.headers.get(name));
        assert_eq!(headers, [Some("1"), Some("epoch"), Some("4")]);
        assert_eq!(Assignment::decode(&copy.payload)?.node.as_str(), "a.b");

        let facts = adapters.act(effect(vec![write("a.b", 1, false)]), "assignments-written").await?;
        assert!(matches!(facts.last(), Some(Fact::AssignmentsWritten(results)) if results[0].1 == Ok(2)), "{facts:?}");
        let gone = Stored { key: NodeName::parse("a.b")?, seq: 2, value: StoredValue::Marker };
        let gone = Fact::AssignmentChanged(gone);
        adapters.until("the watch shows the marker", |facts| facts.contains(&gone)).await
    })
}

#[test]
fn agents_are_heard_for_their_own_node_and_junk_is_counted_not_believed() -> Result<()> {
    scenario("agents", TEST, async |run| {
        let adapters = Adapters::connected(&run).await?;
        let heartbeat = |node: &str| {
            json!({ "v": 1, "node": node, "inst": "i", "boot": "b", "n": 1, "invDigest": "0000000000000001",
                "ts": "2026-01-01T00:00:00Z" })
            .to_string()
        };
        let subject = "warm.v1.default.node.a.hb";
        adapters.bus.publish(subject, &[], heartbeat("b").into()).await?;
        let stream = [(header::STREAM, "KV_warm-default-nodes".to_owned())];
        adapters.bus.publish(subject, &stream, heartbeat("a").into()).await?;
        adapters.bus.publish(subject, &[], "junk".into()).await?;
        adapters.bus.publish(subject, &[], heartbeat("a").into()).await?;
        adapters.until("the heartbeat", |facts| facts.iter().any(|fact| fact.kind() == "heartbeat")).await?;
        let refused = |reason| Fact::Refused { kind: "heartbeat", reason };
        let said: Vec<Fact> =
            adapters.facts().into_iter().filter(|fact| ["heartbeat", "refused"].contains(&fact.kind())).collect();
        assert_eq!(said[..3], [refused(Reason::Forged), refused(Reason::Forged), refused(Reason::Invalid)]);
        assert_eq!(said.len(), 4);

        // Keys that follow no rule are passed over; an inventory that speaks of another node is not taken in.
        for key in ["junk", "a.inv"] {
            adapters.nats.cli("admin", &["kv", "put", "warm-default-nodes", key, "x"]).await?;
        }
        let undecodable = Stored { key: NodeName::parse("a")?, seq: 2, value: StoredValue::Undecodable };
        let undecodable = Fact::InventoryChanged(undecodable);
        adapters.until("the undecodable value", |facts| facts.contains(&undecodable)).await
    })
}

#[test]
fn people_who_may_ask_are_answered_and_nobody_else_is_heard() -> Result<()> {
    scenario("questions", TEST, async |run| {
        let adapters = Adapters::connected(&run).await?;
        let said = adapters.ask("reader", ControlVerb::Status, "", json!({ "paused": false })).await?;
        ensure!(said.contains(r#"{"paused":false}"#), "{said}");
        let wrong = json!({ "error": "no such image" });
        let asked = async {
            let subject = Subject::Control(ControlVerb::Explain).print(&adapters.cluster);
            Ok(adapters.bus.request(&subject, &[], "{}".into()).await?)
        };
        let ((), said) = tokio::try_join!(adapters.reply(ControlVerb::Explain, "{}", wrong), asked)?;
        assert_eq!(said.headers.get("Nats-Service-Error"), Some("no such image"));
        assert_eq!(&said.payload[..], br#"{"error":"no such image"}"#);
        let services = adapters.nats.cli("reader", &["micro", "ls"]).await?;
        ensure!(services.contains("warm-controller"), "{services}");
        let stats = adapters.nats.cli("reader", &["micro", "stats", "warm-controller", "--json"]).await?;
        ensure!(stats.contains("warm.v1.default.ctl.status"), "{stats}");

        for (user, subject) in [
            ("reader", "warm.v1.default.ctl.pause"),
            ("reader", "warm.v1.default.ctl.resume"),
            ("agent-a", "warm.v1.default.ctl.status"),
            ("agent-a", "warm.v1.default.ctl.pause"),
            ("agent-a", "$SRV.PING"),
        ] {
            adapters.may_not_ask(user, subject).await?;
        }

        // An agent has the server itself speak there: a stored message, "not found", an acknowledgement.
        let resume = Subject::Control(ControlVerb::Resume).print(&adapters.cluster);
        let get = "$JS.API.DIRECT.GET.KV_warm-default-intents";
        let missing = r#"{"last_by_subj":"$KV.warm-default-intents.none"}"#;
        let there = r#"{"last_by_subj":"$KV.warm-default-intents.all.i.x"}"#;
        adapters.nats.cli("admin", &["kv", "put", "warm-default-intents", "all.i.x", r#"{"by":"agent-a"}"#]).await?;
        for (subject, body) in [(get, missing), (get, there), ("$KV.warm-default-nodes.a.inv", "{}")] {
            adapters.nats.cli("agent-a", &["pub", subject, body, "--reply", &resume]).await?;
        }
        let forged = Fact::Refused { kind: "control", reason: Reason::Forged };
        adapters
            .until("all three are refused", |facts| facts.iter().filter(|fact| **fact == forged).count() == 3)
            .await?;
        let turned = |fact: &Fact| matches!(fact, Fact::Asked { verb: ControlVerb::Pause | ControlVerb::Resume, .. });
        ensure!(!adapters.facts().iter().any(turned), "{:?}", adapters.facts());
        let said = adapters.ask("admin", ControlVerb::Pause, "{}", json!({ "paused": true })).await?;
        ensure!(said.contains("true"), "{said}");
        Ok(())
    })
}

#[test]
fn the_switch_is_turned_by_compare_and_set_and_every_watch_shows_it() -> Result<()> {
    scenario("switch", TEST, async |run| {
        let adapters = Adapters::connected(&run).await?;
        let control =
            Control { paused: true, reason: "test".into(), by: "me".into(), since: "2026-11-21T12:00:00Z".parse()? };
        let turn = |expected| Effect::WriteControl { control: control.clone(), expected };
        let facts = adapters.act(turn(0), "control-written").await?;
        assert!(matches!(facts.last(), Some(Fact::ControlWritten(Ok(1)))), "{facts:?}");
        let there = StoredValue::Value(IntentsDoc::Control(control.clone()));
        let there = Fact::IntentChanged(Stored { key: IntentsKey::Control, seq: 1, value: there });
        adapters.until("the watch shows it", |facts| facts.contains(&there)).await?;
        let facts = adapters.act(turn(7), "control-written").await?;
        assert_eq!(facts.iter().filter(|fact| **fact == there).count(), 1, "what is there is told first: {facts:?}");
        assert!(matches!(facts.last(), Some(Fact::ControlWritten(Err(Reason::Conflict)))), "{facts:?}");
        let shown = adapters.nats.cli("reader", &["kv", "get", "warm-default-intents", "_ctl", "--raw"]).await?;
        ensure!(shown.contains(r#""paused":true"#) && shown.contains(r#""by":"me""#), "{shown}");
        adapters.nats.cli("admin", &["kv", "del", "warm-default-intents", "_ctl", "--force"]).await?;
        let gone = Fact::IntentChanged(Stored { key: IntentsKey::Control, seq: 2, value: StoredValue::Marker });
        adapters.until("the watch shows the marker", |facts| facts.contains(&gone)).await
    })
}
