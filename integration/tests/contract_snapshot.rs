//! Snapshots of pools, against a real NATS server with agents in an account of their own.
//!
//! Shows: the controller writes a large pool down; an agent that reads by the snapshot knows the same as one that reads every
//! key, also after intents came and went since; a pool that becomes small loses its own; a snapshot that is damaged,
//! incomplete or of another pool is of no use to it, and then it reads the keys. The permissions and accounts are those of
//! agents that know nothing of snapshots.

use std::collections::BTreeMap;
use std::time::Duration;

use agent::bus::Link;
use anyhow::{Context as _, Result, anyhow, ensure};
use daemon::bus::NatsConfig;
use daemon::config::SecretFile;
use daemon::supervise::Tasks;
use integration::eventually::eventually;
use integration::installation::{Installation, InstallationSpec, agent_user};
use integration::run::scenario;
use node_plan::fact::PoolContent;
use shared::name::{ClusterId, ImageKey, NodeName, PoolId};

const TEST: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_mins(1);
const NODE: &str = "n1";
const BUCKET: &str = "warm-default-intents";

async fn link(installation: &Installation, tasks: &Tasks) -> Result<Link> {
    let user = agent_user(NODE);
    let password = installation.cluster.run().write("n1-password", &user)?;
    let config = NatsConfig {
        urls: vec![installation.cluster.nats.url()],
        user: Some(user),
        password_file: Some(SecretFile::new(password)),
        ..NatsConfig::default()
    };
    let link = Link::connect(&config, ClusterId::default(), NodeName::parse(NODE)?, tasks).await?;
    let mut status = link.status();
    tokio::time::timeout(SOON, status.wait_for(daemon::bus::BusStatus::is_connected)).await??;
    Ok(link)
}

/// What is live, and since when.
fn live(content: PoolContent) -> BTreeMap<ImageKey, u64> {
    let mut live = BTreeMap::new();
    for entry in content.entries {
        if entry.value.is_some() {
            live.insert(entry.id, entry.seq);
        } else {
            live.remove(&entry.id);
        }
    }
    live
}

/// Reads in both ways; gives what is live and whether a snapshot was of use.
async fn both(link: &Link) -> Result<(BTreeMap<ImageKey, u64>, bool)> {
    let pool = PoolId::all();
    let plain = live(link.read_pool(&pool, 1, true).await?);
    let content = link.read_pool(&pool, 1, false).await?;
    let is_used = content.snapshot.is_some();
    let by_snapshot = live(content);
    ensure!(plain == by_snapshot, "{} keys, {} by the snapshot", plain.len(), by_snapshot.len());
    Ok((plain, is_used))
}

async fn deploy(installation: &Installation, name: &str, images: usize) -> Result<()> {
    let images: Vec<String> = (0..images).map(|n| format!("registry.test/{name}/image-{n}:1")).collect();
    installation.deploy(name, &images.iter().map(String::as_str).collect::<Vec<_>>()).await
}

async fn until(link: &Link, intents: usize) -> Result<bool> {
    eventually(format!("{intents} intents are read in both ways"), SOON, async || {
        let (live, is_used) = both(link).await?;
        ensure!(live.len() == intents, "{} are", live.len());
        anyhow::Ok(Some(is_used))
    })
    .await
}

#[test]
fn who_reads_by_a_snapshot_knows_what_the_keys_say_and_a_bad_one_is_passed_over() -> Result<()> {
    scenario("contract-snapshot", TEST, async |run| {
        let spec = InstallationSpec::new(vec![]).with_two_accounts().late(NODE);
        let mut installation = Installation::start(&run, spec).await?;
        installation.cluster.node_objects().create(&integration::node::NodeSpec::new(NODE)).await?;
        let (tasks, _shutdown) = Tasks::new();
        let link = link(&installation, &tasks).await?;
        for name in ["a", "b", "c", "d"] {
            deploy(&installation, name, 40).await?;
        }
        until(&link, 160).await?;
        eventually("a snapshot is written", SOON, async || {
            let (_, is_used) = both(&link).await?;
            anyhow::Ok(is_used.then_some(()))
        })
        .await
        .context("the controller writes none")?;

        // What came and went since is read after it.
        deploy(&installation, "e", 3).await?;
        ensure!(until(&link, 163).await?, "the snapshot is still of use");
        installation.undeploy("default", "a").await?;
        ensure!(until(&link, 123).await?, "the snapshot is still of use");

        // A small pool has none, nor the keys of one. (After half a minute: it was written just now.)
        for name in ["b", "c"] {
            installation.undeploy("default", name).await?;
        }
        until(&link, 43).await?;
        eventually("the snapshot is taken away", SOON, async || {
            let (_, is_used) = both(&link).await?;
            anyhow::Ok((!is_used).then_some(()))
        })
        .await?;
        for name in ["f", "g", "h"] {
            deploy(&installation, name, 40).await?;
        }
        until(&link, 163).await?;
        eventually("a snapshot is written again", SOON, async || {
            let (_, is_used) = both(&link).await?;
            anyhow::Ok(is_used.then_some(()))
        })
        .await?;

        // Nobody but a controller may write there, so it is somebody with all rights who spoils it; a controller would put
        // it right.
        installation.controller.process.kill()?;
        for (key, body) in [("0", "junk"), ("head", "junk"), ("head", "{}")] {
            installation.cluster.nats.cli("admin", &["kv", "put", BUCKET, &format!("all.snap.{key}"), body]).await?;
            let spoilt = eventually("the junk is stored", SOON, async || {
                let (live, is_used) = both(&link).await?;
                if is_used { Err(anyhow!("the snapshot is of use")) } else { Ok(Some(live)) }
            });
            ensure!(spoilt.await?.len() == 163, "a bad snapshot takes intents away");
        }
        Ok(())
    })
}
