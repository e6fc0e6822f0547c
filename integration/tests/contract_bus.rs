//! The bus against a real NATS server.
//!
//! Shows: buckets are made, verified and refused; compare-and-set, batched reads and markers behave as the protocol relies
//! on; a watch and a subscription survive a killed server and a recreated stream, and leave no consumers behind; what goes
//! wrong with a connection is said in words; a connection counts only after a round trip.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use daemon::bus::{
    BucketEvent, BucketInfo, BucketSpec, Bus, BusError, BusStatus, ByApiSubject, ByBody, NatsConfig, Operation, Status,
    StorageKind, Stored, TlsConfig,
};
use daemon::config::SecretFile;
use daemon::supervise::Tasks;
use integration::eventually::eventually;
use integration::nats::{Nats, NatsConfig as ServerConfig, User};
use integration::parts::{Parts, Tool};
use integration::pki::{Pki, Usage};
use integration::proxy::tcp::TcpProxy;
use integration::run::{RunDir, scenario};
use serde_json::json;
use shared::reason::{Class, Reason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// For a whole test, on a machine that builds at the same time.
const TEST: Duration = Duration::from_mins(2);
/// For one state to be seen.
const SOON: Duration = Duration::from_secs(20);
const STREAM: &str = "KV_warm-t-intents";

/// A server and one client of it.
struct World {
    nats: Nats,
    bus: Bus,
    status: Status,
    tasks: Tasks,
}

impl World {
    async fn start(run: &Arc<RunDir>) -> Result<Self> {
        let nats = serve(run, ServerConfig::open()).await?;
        let (tasks, _) = Tasks::new();
        let (bus, mut status) = Bus::connect(&login(run, &nats, "admin")?, "test", "_WI.t", &tasks).await?;
        connected(&mut status).await?;
        Ok(Self { nats, bus, status, tasks })
    }

    async fn put(&self, key: &str, value: &str) -> Result<u64> {
        Ok(self.bus.put(subject(key), &[], Bytes::from(value.to_owned()), None).await.await?)
    }
}

async fn serve(run: &Arc<RunDir>, config: ServerConfig) -> Result<Nats> {
    Nats::start(run, &Parts::ensure(&[Tool::NatsServer, Tool::Nats])?, config).await
}

fn settings(url: &str) -> NatsConfig {
    NatsConfig {
        urls: vec![url.to_owned()],
        reconnect_max: Duration::from_millis(200),
        request_timeout: Duration::from_secs(3),
        ..NatsConfig::default()
    }
}

/// Harness users have their name as password.
fn login(run: &RunDir, nats: &Nats, user: &str) -> Result<NatsConfig> {
    let password = nats.config().user(user).context("no such user")?.password.clone();
    let file = run.write(&format!("password-{user}"), format!("{password}\n"))?;
    Ok(NatsConfig { user: Some(user.into()), password_file: Some(SecretFile::new(file)), ..settings(&nats.url()) })
}

async fn connected(status: &mut Status) -> Result<u64> {
    let is_connected = tokio::time::timeout(SOON, status.wait_for(BusStatus::is_connected)).await;
    let seen = is_connected.map(|status| status.map(|status| status.generation()));
    match seen {
        Ok(generation) => generation?.context("connected without a generation"),
        Err(_) => bail!("not connected: {}", *status.borrow()),
    }
}

/// Waits for a status that reads like this.
async fn until_said(status: &mut Status, part: &str) -> Result<String> {
    let said = tokio::time::timeout(SOON, status.wait_for(|status| status.to_string().contains(part))).await;
    let seen = said.map(|status| status.map(|status| status.to_string()));
    match seen {
        Ok(text) => Ok(text?),
        Err(_) => bail!("`{part}` was not said; last: {}", *status.borrow()),
    }
}

fn spec() -> BucketSpec {
    BucketSpec {
        name: "warm-t-intents".into(),
        max_message_bytes: 65_536,
        allow_rollup: true,
        max_bytes: -1,
        replicas: 1,
        storage: StorageKind::File,
    }
}

fn subject(key: &str) -> String {
    format!("$KV.warm-t-intents.{key}")
}

fn keys(messages: &[Stored]) -> Vec<&str> {
    messages.iter().filter_map(|message| message.subject.strip_prefix("$KV.warm-t-intents.")).collect()
}

async fn next(watch: &mut daemon::bus::BucketWatch) -> Result<BucketEvent> {
    tokio::time::timeout(SOON, watch.recv()).await.context("the watch says nothing")?.context("the watch ended")
}

/// The next `Read`, whatever comes before it.
async fn next_read(watch: &mut daemon::bus::BucketWatch) -> Result<(String, u64, Vec<Stored>)> {
    loop {
        if let BucketEvent::Read { created, head, entries } = next(watch).await? {
            return Ok((created, head, entries));
        }
    }
}

#[test]
fn a_bucket_is_made_found_again_and_brought_up_to_date() -> Result<()> {
    scenario("bus_bucket", TEST, async |run| {
        let world = World::start(&run).await?;
        let made = world.bus.ensure_bucket(&spec(), true).await?;
        ensure!(made.last_seq == 0, "{made:?}");
        let config = world.nats.cli("admin", &["stream", "info", STREAM, "--json"]).await?;
        let config = serde_json::from_str::<serde_json::Value>(&config)?["config"].clone();
        for (field, wanted) in [
            ("subjects", json!(["$KV.warm-t-intents.>"])),
            ("max_msgs_per_subject", json!(1)),
            ("max_consumers", json!(64)),
            ("max_msg_size", json!(65_536)),
            ("discard", json!("new")),
            ("allow_direct", json!(true)),
            ("allow_msg_ttl", json!(true)),
            ("allow_rollup_hdrs", json!(true)),
            ("deny_delete", json!(true)),
            ("storage", json!("file")),
        ] {
            ensure!(config[field] == wanted, "{field} is {}, not {wanted}", config[field]);
        }
        ensure!(config["metadata"]["warm.schema"] == "1", "{config}");
        let seq = world.put("all.def", "x").await?;
        let again = world.bus.ensure_bucket(&spec(), true).await?;
        let expected = BucketInfo { last_seq: seq, messages: 1, bytes: again.bytes, ..made.clone() };
        ensure!(again == expected, "{again:?} after {made:?}");
        ensure!(
            made.bytes == 0 && again.bytes > 0 && again.max_bytes == u64::try_from(spec().max_bytes).ok(),
            "{again:?}"
        );

        let other = BucketSpec { max_message_bytes: 1_000, allow_rollup: false, max_bytes: 1_000_000, ..spec() };
        let error = world.bus.ensure_bucket(&other, false).await.expect_err("nothing is changed unless managed");
        ensure!(
            error.to_string()
                == "bucket warm-t-intents cannot be used as it is: max_msg_size is 65536, it must be 1000; \
                    allow_rollup_hdrs is true, it must be false; change the stream KV_warm-t-intents, or remove it so that \
                    it is made anew (nothing is ever removed by itself)",
            "{error}"
        );
        let changed = world.bus.ensure_bucket(&other, true).await?;
        ensure!(changed.created == made.created && changed.messages == 1, "{changed:?}");
        world.bus.ensure_bucket(&other, false).await?;
        let refused = world.bus.put(subject("big"), &[], Bytes::from(vec![b'x'; 2_000]), None).await.await;
        ensure!(refused.as_ref().is_err_and(|error| error.class() == Class::Permanent), "{refused:?}");
        Ok(())
    })
}

#[test]
fn a_bucket_that_cannot_be_used_is_refused_with_the_difference_and_left_alone() -> Result<()> {
    scenario("bus_incompatible", TEST, async |run| {
        let world = World::start(&run).await?;
        let error = world.bus.ensure_bucket(&spec(), false).await.expect_err("there is none");
        ensure!(error.to_string().contains("it does not exist, and buckets.manage is off"), "{error}");
        let memory = BucketSpec { storage: StorageKind::Memory, ..spec() };
        world.bus.ensure_bucket(&memory, true).await?;
        world.put("all.def", "x").await?;
        let error = world.bus.ensure_bucket(&spec(), true).await.expect_err("the storage cannot be changed");
        ensure!(error.to_string().contains("storage is \"memory\", it must be \"file\""), "{error}");
        ensure!(error.reason() == Reason::Invalid && error.class() == Class::Permanent, "{error:?}");
        ensure!(world.bus.bucket_info(&memory).await?.messages == 1, "the stream was touched");
        Ok(())
    })
}

#[test]
fn compare_and_set_lets_one_writer_win_and_puts_are_pipelined_in_order() -> Result<()> {
    scenario("bus_cas", TEST, async |run| {
        let world = World::start(&run).await?;
        world.bus.ensure_bucket(&spec(), true).await?;
        let first = world.bus.put(subject("all.i.a"), &[], "1".into(), Some(0)).await.await?;
        let again = world.bus.put(subject("all.i.a"), &[], "2".into(), Some(0)).await.await;
        let error = again.expect_err("the key exists");
        ensure!(matches!(&error, BusError::Conflict { subject: at, .. } if *at == subject("all.i.a")), "{error:?}");
        ensure!(error.reason() == Reason::Conflict && error.class() == Class::Conflict);
        let second = world.bus.put(subject("all.i.a"), &[], "2".into(), Some(first)).await.await?;

        let mut acks = Vec::new();
        for n in 0..256 {
            acks.push(world.bus.put(subject(&format!("all.i.p{n}")), &[], "x".into(), Some(0)).await);
        }
        let mut last = second;
        for ack in acks {
            let seq = ack.await?;
            ensure!(seq == last + 1, "{seq} after {last}");
            last = seq;
        }

        // A marker takes the value away, and the key can be made again over it only.
        let purged = world.bus.purge(subject("all.i.a"), Duration::from_hours(72), Some(second)).await.await?;
        let early = world.bus.put(subject("all.i.a"), &[], "3".into(), Some(0)).await.await;
        ensure!(early.is_err(), "the marker counts: {early:?}");
        world.bus.put(subject("all.i.a"), &[], "3".into(), Some(purged)).await.await?;
        Ok(())
    })
}

#[test]
fn a_batch_is_read_in_pages_by_filter_and_from_a_sequence() -> Result<()> {
    scenario("bus_batch", TEST, async |run| {
        let world = World::start(&run).await?;
        world.bus.ensure_bucket(&spec(), true).await?;
        let filter = subject("all.i.*");
        let nothing = world.bus.direct_get_batch(STREAM, &filter, 1, 500).await?;
        ensure!(nothing.messages.is_empty() && nothing.last_seq == 0, "{nothing:?}");
        for n in 0..25 {
            world.put(&format!("all.i.k{n:02}"), &format!("all {n}")).await?;
            world.put(&format!("auto-0123456789.i.k{n:02}"), "auto").await?;
        }
        world.put("all.def", "def").await?;
        let wanted: Vec<String> = (0..25).map(|n| format!("all.i.k{n:02}")).collect();
        for page in [1, 7, 25, 500, 10_000] {
            let batch = world.bus.direct_get_batch(STREAM, &filter, 1, page).await?;
            ensure!(keys(&batch.messages) == wanted, "page {page}: {:?}", keys(&batch.messages));
            ensure!(batch.last_seq == 49, "page {page}: {}", batch.last_seq);
        }
        let batch = world.bus.direct_get_batch(STREAM, &filter, 1, 7).await?;
        let third = &batch.messages[2];
        ensure!((third.seq, third.payload.as_ref()) == (5, b"all 2".as_slice()), "{third:?}");
        ensure!(third.time.contains('T') && third.operation() == Operation::Put, "{third:?}");

        // Only what is newer, and of a rewritten key only the last value.
        world.put("all.i.k03", "again").await?;
        let newer = world.bus.direct_get_batch(STREAM, &filter, 50, 7).await?;
        ensure!(keys(&newer.messages) == ["all.i.k03"] && newer.last_seq == 52, "{newer:?}");
        let none = world.bus.direct_get_batch(STREAM, &filter, 53, 7).await?;
        ensure!(none.messages.is_empty() && none.last_seq == 52, "{none:?}");

        let missing = world.bus.direct_get_batch("KV_none", &filter, 1, 7).await;
        let error = missing.expect_err("there is no such stream");
        ensure!(matches!(error, BusError::NoResponders { .. }), "{error:?}");
        Ok(())
    })
}

#[test]
fn the_last_value_of_a_key_is_read_both_ways() -> Result<()> {
    scenario("bus_last", TEST, async |run| {
        let world = World::start(&run).await?;
        world.bus.ensure_bucket(&spec(), true).await?;
        for style in [ByApiSubject, ByBody] {
            let none = world.bus.direct_get_last(STREAM, &subject("_meta"), style).await?;
            ensure!(none.is_none(), "{none:?}");
        }
        let headers = [("Warm-Term", "7".to_owned()), ("Nats-Sequence", "999".to_owned())];
        let seq = world.bus.put(subject("_meta"), &headers, "{}".into(), None).await.await?;
        for style in [ByApiSubject, ByBody] {
            let found = world.bus.direct_get_last(STREAM, &subject("_meta"), style).await?.context("it is there")?;
            ensure!(found.seq == seq, "a writer's own Nats-Sequence was believed: {found:?}");
            ensure!(found.subject == subject("_meta") && found.payload.as_ref() == b"{}", "{found:?}");
            ensure!(found.headers.get("Warm-Term") == Some("7"), "{found:?}");
        }
        Ok(())
    })
}

#[test]
fn a_purge_marker_stands_in_the_batch_until_it_expires() -> Result<()> {
    scenario("bus_marker", TEST, async |run| {
        let world = World::start(&run).await?;
        world.bus.ensure_bucket(&spec(), true).await?;
        let seq = world.put("all.i.a", "1").await?;
        world.put("all.i.b", "2").await?;
        let purged = world.bus.purge(subject("all.i.a"), Duration::from_secs(1), Some(seq)).await.await?;
        let batch = world.bus.direct_get_batch(STREAM, &subject("all.i.*"), 1, 500).await?;
        let seen: Vec<_> = batch.messages.iter().map(|m| (m.seq, m.operation())).collect();
        ensure!(seen == [(2, Operation::Put), (purged, Operation::Remove)], "{seen:?}");
        eventually("the marker has expired", SOON, async || {
            let batch = world.bus.direct_get_batch(STREAM, &subject("all.i.*"), 1, 500).await?;
            if keys(&batch.messages) == ["all.i.b"] { Ok(()) } else { Err(anyhow!("{:?}", keys(&batch.messages))) }
        })
        .await?;
        let info = world.bus.ensure_bucket(&spec(), true).await?;
        ensure!(info.last_seq == purged, "the stream's head fell: {info:?}");
        world.bus.put(subject("all.i.a"), &[], "3".into(), Some(0)).await.await?;
        Ok(())
    })
}

#[test]
fn a_watch_gives_the_content_then_changes_and_the_content_again_after_a_killed_server() -> Result<()> {
    scenario("bus_watch", TEST, async |run| {
        let mut world = World::start(&run).await?;
        let mut watch = world.bus.watch_bucket(spec(), true, &world.tasks);
        let (created, head, entries) = next_read(&mut watch).await?;
        ensure!(head == 0 && entries.is_empty(), "{head}, {entries:?}");
        for n in 0..1_500 {
            world.put(&format!("all.i.k{n}"), "x").await?;
            let BucketEvent::Changed(stored) = next(&mut watch).await? else { bail!("a change was expected") };
            ensure!(stored.seq == n + 1 && stored.subject == subject(&format!("all.i.k{n}")), "{stored:?}");
        }
        let purged = world.bus.purge(subject("all.i.k7"), Duration::from_hours(1), None).await.await?;
        let BucketEvent::Changed(stored) = next(&mut watch).await? else { bail!("a change was expected") };
        ensure!((stored.seq, stored.operation()) == (purged, Operation::Remove), "{stored:?}");

        world.nats.restart().await?;
        let lost = next(&mut watch).await?;
        ensure!(matches!(lost, BucketEvent::Lost), "{lost:?}");
        let (again, head, entries) = next_read(&mut watch).await?;
        ensure!(again == created && head == purged, "{again} {head}");
        ensure!(entries.len() == 1_500, "{}", entries.len());
        ensure!(entries.windows(2).all(|pair| pair[0].seq < pair[1].seq), "not in order");
        ensure!(entries.last().is_some_and(|last| last.operation() == Operation::Remove), "{:?}", entries.last());
        let seq = world.put("all.i.after", "y").await?;
        let BucketEvent::Changed(stored) = next(&mut watch).await? else { bail!("a change was expected") };
        ensure!(stored.seq == seq, "{stored:?}");
        Ok(())
    })
}

#[test]
fn a_watch_that_lost_its_stream_makes_it_again_and_says_that_it_is_another() -> Result<()> {
    scenario("bus_recreated", TEST, async |run| {
        let mut world = World::start(&run).await?;
        let mut watch = world.bus.watch_bucket(spec(), true, &world.tasks);
        let (first, ..) = next_read(&mut watch).await?;
        world.put("all.i.a", "x").await?;
        // Removed under a standing connection: only the silence of the consumer tells.
        world.nats.cli("admin", &["stream", "rm", STREAM, "--force"]).await?;
        let (second, head, entries) = next_read(&mut watch).await?;
        ensure!(second != first && head == 0 && entries.is_empty(), "{first} {second} {head} {entries:?}");
        // Lost with the server's disk.
        world.put("all.i.b", "x").await?;
        world.nats.stop().await?;
        world.nats.wipe_store()?;
        world.nats.start_again().await?;
        let (third, head, entries) = next_read(&mut watch).await?;
        ensure!(third != second && head == 0 && entries.is_empty(), "{second} {third} {head} {entries:?}");
        Ok(())
    })
}

#[test]
fn a_watch_that_loses_its_connection_again_and_again_leaves_no_consumer_behind() -> Result<()> {
    scenario("bus_consumers", TEST, async |run| {
        let nats = serve(&run, ServerConfig::open()).await?;
        let proxy = TcpProxy::start(nats.address()).await?;
        let config = NatsConfig {
            urls: vec![format!("nats://{}", proxy.address())],
            ping_interval: Duration::from_millis(200),
            ..login(&run, &nats, "admin")?
        };
        let (tasks, _) = Tasks::new();
        let (bus, _) = Bus::connect(&config, "test", "_WI.t", &tasks).await?;
        let mut watch = bus.watch_bucket(spec(), true, &tasks);
        next_read(&mut watch).await?;
        let consumers = async || -> Result<u64> {
            let info = nats.jetstream("admin", &format!("STREAM.INFO.{STREAM}"), &json!({})).await?;
            info["state"]["consumer_count"].as_u64().context("no count of consumers")
        };
        for round in 1..=5 {
            // The server takes the old connection for open, and the consumer for one that somebody listens to.
            proxy.stall_open();
            next_read(&mut watch).await?;
            let open = proxy.traffic().open;
            ensure!(open > round, "{open} connections open, the server has noticed the end of one");
            eventually("one consumer is left", SOON, async || match consumers().await? {
                1 => Ok(()),
                count => Err(anyhow!("{count} consumers after {round} rounds")),
            })
            .await?;
        }
        // Killed: the server sees the end of the connection and keeps the consumer for some seconds.
        proxy.cut().await?;
        eventually("none is left of a client that is gone", SOON, async || match consumers().await? {
            0 => Ok(()),
            count => Err(anyhow!("{count} consumers")),
        })
        .await
    })
}

#[test]
fn a_watch_that_is_told_a_change_by_another_reads_again() -> Result<()> {
    scenario("bus_forged", TEST, async |run| {
        let world = World::start(&run).await?;
        let mut watch = world.bus.watch_bucket(spec(), true, &world.tasks);
        next_read(&mut watch).await?;
        let seq = world.put("all.i.a", "x").await?;
        let first = next(&mut watch).await?;
        ensure!(matches!(first, BucketEvent::Changed(_)), "{first:?}");
        let names = world.nats.cli("admin", &["consumer", "ls", STREAM, "--names"]).await?;
        let name = names.lines().last().context("the watch has no consumer")?.trim();
        let info = world.nats.cli("admin", &["consumer", "info", STREAM, name, "--json"]).await?;
        let info: serde_json::Value = serde_json::from_str(&info)?;
        let inbox = info["config"]["deliver_subject"].as_str().context("no deliver subject")?;
        // The server itself refuses a reply that looks like a stream's.
        let reply = format!("$JS.ACK.{STREAM}.c.1.9.2.1700000000000000000.0");
        let forged = world.nats.cli_output("admin", &["pub", inbox, "forged", "--reply", &reply]).await?;
        ensure!(forged.success().is_err(), "a delivery could be forged whole");
        world.nats.cli("admin", &["pub", inbox, "forged"]).await?;
        let lost = next(&mut watch).await?;
        ensure!(matches!(lost, BucketEvent::Lost), "{lost:?}");
        let (_, head, entries) = next_read(&mut watch).await?;
        ensure!(head == seq && entries.iter().all(|entry| entry.payload.as_ref() == b"x"), "{head} {entries:?}");
        Ok(())
    })
}

#[test]
fn a_watch_says_why_it_cannot_read_and_goes_on_when_it_can() -> Result<()> {
    scenario("bus_watch_fails", TEST, async |run| {
        let world = World::start(&run).await?;
        let mut watch = world.bus.watch_bucket(spec(), false, &world.tasks);
        let failed = next(&mut watch).await?;
        let BucketEvent::Failed(error) = failed else { bail!("{failed:?}") };
        ensure!(error.to_string().contains("it does not exist, and buckets.manage is off"), "{error}");
        world.bus.ensure_bucket(&spec(), true).await?;
        next_read(&mut watch).await?;
        Ok(())
    })
}

#[test]
fn a_subscription_survives_a_killed_server_and_nothing_is_sent_without_a_connection() -> Result<()> {
    scenario("bus_subscription", TEST, async |run| {
        let mut world = World::start(&run).await?;
        let mut subscription = world.bus.subscribe("warm.v1.t.>").await?;
        let headers = [("Warm-Term", "3".to_owned())];
        world.bus.publish("warm.v1.t.beat.all", &headers, "one".into()).await?;
        let message = tokio::time::timeout(SOON, subscription.recv()).await?.context("the subscription ended")?;
        ensure!(message.subject == "warm.v1.t.beat.all" && message.payload.as_ref() == b"one", "{message:?}");
        ensure!(message.headers.get("Warm-Term") == Some("3") && !message.headers.has_stream_header(), "{message:?}");
        let before = connected(&mut world.status).await?;

        world.nats.kill()?;
        until_said(&mut world.status, "connection refused").await?;
        ensure!(matches!(*world.status.borrow(), BusStatus::Disconnected { .. }));
        let error = world.bus.publish("warm.v1.t.beat.all", &[], "lost".into()).await.expect_err("no connection");
        ensure!(error.reason() == Reason::Disconnected && error.class() == Class::Transient, "{error:?}");
        let put = world.bus.put(subject("a"), &[], Bytes::new(), None).await.await;
        ensure!(put.is_err_and(|error| error.reason() == Reason::Disconnected));

        world.nats.start_again().await?;
        let after = connected(&mut world.status).await?;
        ensure!(after == before + 1, "{after} after {before}");
        world.bus.publish("warm.v1.t.beat.all", &[], "two".into()).await?;
        let message = tokio::time::timeout(SOON, subscription.recv()).await?.context("the subscription ended")?;
        ensure!(message.payload.as_ref() == b"two", "{message:?}");
        Ok(())
    })
}

#[test]
fn what_keeps_a_connection_from_being_made_is_said_in_words() -> Result<()> {
    scenario("bus_words", TEST, async |run| {
        let nats = serve(&run, ServerConfig::open()).await?;
        let (tasks, _) = Tasks::new();
        let url = nats.url();

        let nobody = NatsConfig { urls: vec!["nats://127.0.0.1:1".into()], ..settings(&url) };
        let (_bus, mut status) = Bus::connect(&nobody, "test", "_WI.t", &tasks).await?;
        let text = until_said(&mut status, "refused").await?;
        ensure!(text == "nats://127.0.0.1:1: connection refused: nothing listens there", "{text}");

        let unknown = NatsConfig { urls: vec!["nats://nats.invalid:4222".into()], ..settings(&url) };
        let (_bus, mut status) = Bus::connect(&unknown, "test", "_WI.t", &tasks).await?;
        let text = until_said(&mut status, "resolved").await?;
        ensure!(text.starts_with("nats://nats.invalid:4222: the name cannot be resolved: "), "{text}");

        let (_bus, mut status) = Bus::connect(&settings(&url), "test", "_WI.t", &tasks).await?;
        let text = until_said(&mut status, "without credentials").await?;
        ensure!(
            text == format!(
                "{url}: the server refuses a client without credentials; set nats.user and nats.passwordFile, \
                 nats.credsFile, nats.nkeySeedFile or nats.tokenFile"
            ),
            "{text}"
        );

        // A password file that is missing, wrong, then right: each attempt reads it anew.
        let file = run.path().join("rotated");
        let rotated =
            NatsConfig { user: Some("admin".into()), password_file: Some(SecretFile::new(&file)), ..settings(&url) };
        let (_bus, mut status) = Bus::connect(&rotated, "test", "_WI.t", &tasks).await?;
        let text = until_said(&mut status, "passwordFile").await?;
        ensure!(
            text == format!(
                "{url}: nats.passwordFile: the secret file {} cannot be read: No such file or directory (os error 2)",
                file.display()
            ),
            "{text}"
        );
        std::fs::write(&file, "wrong")?;
        let text = until_said(&mut status, "refuses user").await?;
        ensure!(
            text == format!(
                "{url}: the server refuses user `admin`; check nats.user and the file of nats.passwordFile"
            ),
            "{text}"
        );
        std::fs::write(&file, "admin\n")?;
        connected(&mut status).await?;
        Ok(())
    })
}

#[test]
fn tls_is_used_where_asked_for_and_a_foreign_certificate_is_named() -> Result<()> {
    scenario("bus_tls", TEST, async |run| {
        let pki = Pki::new(&run)?;
        let identity = pki.issue("nats", "nats", None, &["127.0.0.1"], Usage::Server)?;
        let mut config = ServerConfig::open();
        let tls = json!({ "cert_file": identity.certificate, "key_file": identity.key });
        config.settings.insert("tls".into(), tls);
        let nats = serve(&run, config).await?;
        let (tasks, _) = Tasks::new();
        let with = |ca: &Path| -> Result<NatsConfig> {
            let tls = TlsConfig { ca_file: Some(ca.to_owned()), required: true, ..TlsConfig::default() };
            Ok(NatsConfig { tls, ..login(&run, &nats, "admin")? })
        };
        let (_bus, mut status) = Bus::connect(&with(pki.authority())?, "test", "_WI.t", &tasks).await?;
        connected(&mut status).await?;
        let foreign = RunDir::new("foreign_ca")?;
        let (_bus, mut status) = Bus::connect(&with(Pki::new(&foreign)?.authority())?, "test", "_WI.t", &tasks).await?;
        let text = until_said(&mut status, "certificate").await?;
        ensure!(text.starts_with(&format!("{}: invalid peer certificate: ", nats.url())), "{text}");
        Ok(())
    })
}

#[test]
fn a_connection_counts_only_after_a_round_trip() -> Result<()> {
    scenario("bus_round_trip", TEST, async |run| {
        // A server whose login is slow: it pings before it has judged the credentials, and then refuses them.
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("nats://{}", listener.local_addr()?);
        let (tasks, _) = Tasks::new();
        let file = run.write("password", "x")?;
        let config =
            NatsConfig { user: Some("slow".into()), password_file: Some(SecretFile::new(file)), ..settings(&url) };
        let (bus, mut status) = Bus::connect(&config, "test", "_WI.t", &tasks).await?;
        let (mut stream, _) = listener.accept().await?;
        let info =
            json!({ "server_id": "x", "version": "2.14.9", "headers": true, "max_payload": 1_048_576, "proto": 1 });
        stream.write_all(format!("INFO {info}\r\nPING\r\n").as_bytes()).await?;
        let mut heard = String::new();
        let mut buffer = [0_u8; 4_096];
        while !heard.contains("$JS.API.INFO") {
            let n = stream.read(&mut buffer).await?;
            ensure!(n > 0, "the client left after {heard}");
            heard.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        // By now the client library calls itself connected.
        ensure!(!status.borrow().is_connected(), "{:?}", *status.borrow());
        ensure!(
            bus.publish("a", &[], Bytes::new()).await.is_err(),
            "something was sent to a server that let nobody in"
        );
        stream.write_all(b"-ERR 'Authorization Violation'\r\n").await?;
        drop(stream);
        let text = until_said(&mut status, "authorization violation").await?;
        ensure!(text == "the server says: authorization violation", "{text}");
        Ok(())
    })
}

#[test]
fn a_stalled_connection_is_noticed_and_made_anew() -> Result<()> {
    scenario("bus_stalled", TEST, async |run| {
        let nats = serve(&run, ServerConfig::open()).await?;
        let proxy = TcpProxy::start(nats.address()).await?;
        let (tasks, _) = Tasks::new();
        let config = NatsConfig {
            urls: vec![format!("nats://{}", proxy.address())],
            ping_interval: Duration::from_millis(300),
            ..login(&run, &nats, "admin")?
        };
        let (_bus, mut status) = Bus::connect(&config, "test", "_WI.t", &tasks).await?;
        let before = connected(&mut status).await?;
        proxy.stall();
        tokio::time::timeout(SOON, status.wait_for(|status| !status.is_connected())).await.context("not noticed")??;
        proxy.heal().await?;
        ensure!(connected(&mut status).await? == before + 1);
        Ok(())
    })
}

#[test]
fn a_slow_consumer_and_a_refused_subscription_are_gaps_and_a_refused_publish_an_error_at_once() -> Result<()> {
    scenario("bus_gaps", TEST, async |run| {
        let mut user = User::new("agent", "agent");
        user.publish.deny("$KV.warm-t-nodes.other.inv");
        user.publish.deny("$JS.API.DIRECT.GET.KV_secret");
        user.subscribe.deny("secret.>");
        let nats = serve(&run, ServerConfig::single_account(vec![user])).await?;
        let (tasks, _) = Tasks::new();
        let (bus, mut status) = Bus::connect(&login(&run, &nats, "agent")?, "test", "_WI.t", &tasks).await?;
        connected(&mut status).await?;
        let gaps = bus.gaps();
        ensure!(*gaps.borrow() == 0);

        let refused = bus.put("$KV.warm-t-nodes.other.inv", &[], "{}".into(), None).await.await;
        let error = refused.expect_err("it is denied");
        ensure!(error.reason() == Reason::Forbidden && error.class() == Class::Permanent, "{error:?}");
        ensure!(error.to_string().starts_with("$KV.warm-t-nodes.other.inv: NATS refuses: "), "{error}");
        let batch = bus.direct_get_batch("KV_secret", "$KV.secret.>", 1, 500).await;
        ensure!(batch.is_err_and(|error| error.reason() == Reason::Forbidden));
        ensure!(*gaps.borrow() == 0, "a refused publish loses nothing that is read");

        let _refused = bus.subscribe("secret.a").await?;
        eventually("the refused subscription is a gap", SOON, async || *gaps.borrow() == 1).await?;

        let _never_read = bus.subscribe("flood").await?;
        let before = *gaps.borrow();
        eventually("the full subscription is a gap", SOON, async || -> Result<bool> {
            for _ in 0..10_000 {
                bus.publish("flood", &[], Bytes::new()).await?;
            }
            Ok(*gaps.borrow() > before)
        })
        .await?;
        Ok(())
    })
}

#[test]
fn a_watched_bucket_of_large_values_is_read_whole() -> Result<()> {
    scenario("bus_large", TEST, async |run| {
        let world = World::start(&run).await?;
        let nodes =
            BucketSpec { name: "warm-t-nodes".into(), max_message_bytes: 262_144, allow_rollup: false, ..spec() };
        world.bus.ensure_bucket(&nodes, true).await?;
        let body = Bytes::from(vec![b'x'; 200_000]);
        let mut acks = Vec::new();
        for n in 0..300 {
            acks.push(world.bus.put(format!("$KV.warm-t-nodes.n{n}.inv"), &[], body.clone(), None).await);
        }
        for ack in acks {
            ack.await?;
        }
        let mut watch = world.bus.watch_bucket(nodes, true, &world.tasks);
        let (_, head, entries) = next_read(&mut watch).await?;
        let subjects: BTreeSet<&str> = entries.iter().map(|entry| entry.subject.as_str()).collect();
        ensure!(head == 300 && subjects.len() == 300, "{head}, {}", subjects.len());
        Ok(())
    })
}
