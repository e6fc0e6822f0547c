//! NATS goes away, is cut off, loses messages.
//!
//! Shows: NATS killed and restarted, wiped, a connection cut for 20 s, deltas withheld: everything converges, nothing is
//! pulled twice, and in no version of a Node is a label missing whose image is there.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::Published;
use integration::installation::{Installation, InstallationSpec, agent_user};
use integration::run::{RunDir, scenario};
use integration::witness::Witness;

const LIMIT: Duration = Duration::from_secs(200);
const NODES: [&str; 2] = ["node-a", "node-b"];

/// Starts, and has every version of every Node seen from now on.
async fn start(run: &Arc<RunDir>) -> Result<(Installation, Witness)> {
    let installation = Installation::start(run, InstallationSpec::two_nodes()).await?;
    let witness = Witness::start(installation.cluster.client()).await?;
    Ok((installation, witness))
}

/// Fails if a label went, or was wrong, or a node pulled what it held, or pulled anything twice.
async fn nothing_was_lost(installation: &Installation, witness: &Witness, images: &[&Published]) -> Result<()> {
    witness.none_lost(&NODES, images).await?;
    witness.none_asked_for_again(&installation.cluster.requests, images).await?;
    installation.labels_are_true().await?;
    installation.pulled_once(&NODES, images)
}

#[test]
fn nats_killed_and_restarted_with_its_store() -> Result<()> {
    scenario("nats-killed", LIMIT, async |run| {
        let (mut installation, witness) = Box::pin(start(&run)).await?;
        let before = installation.deploy_new("before").await?;
        installation.until_warm(&NODES, &before).await?;
        installation.cluster.nats.kill()?;
        let during = installation.deploy_new("during").await?;
        until_unready(&installation).await?;
        installation.cluster.nats.start_again().await?;
        installation.until_warm(&NODES, &during).await?;
        installation.until_ready().await?;
        let after = installation.deploy_new("after").await?;
        installation.until_warm(&NODES, &after).await?;
        nothing_was_lost(&installation, &witness, &[&before, &during, &after]).await
    })
}

#[test]
fn nats_wiped_is_filled_again_in_a_new_epoch() -> Result<()> {
    scenario("nats-wiped", LIMIT, async |run| {
        let (mut installation, witness) = Box::pin(start(&run)).await?;
        let (one, two) = (installation.deploy_new("one").await?, installation.deploy_new("two").await?);
        installation.until_warm(&NODES, &one).await?;
        installation.until_warm(&NODES, &two).await?;
        let epoch = installation.kv("intents", "_meta").await?["epoch"].clone();
        installation.cluster.nats.kill()?;
        installation.cluster.nats.wipe_store()?;
        installation.cluster.nats.start_again().await?;
        let three = installation.deploy_new("three").await?;
        installation.until_warm(&NODES, &three).await?;
        let now = installation.kv("intents", "_meta").await?["epoch"].clone();
        ensure!(now != epoch && now.is_string(), "the epoch stayed {epoch}");
        eventually("inventories are there again", Duration::from_secs(20), async || {
            let inventory = installation.kv("nodes", "node-a.inv").await?;
            ensure!(inventory["epoch"] == now && inventory["pools"]["all"]["count"] == 3, "{inventory}");
            Ok(())
        })
        .await?;
        nothing_was_lost(&installation, &witness, &[&one, &two, &three]).await
    })
}

async fn until_unready(installation: &Installation) -> Result<()> {
    let http = integration::http::Http::new();
    let url = format!("{}/readyz", installation.controller.admin());
    eventually("the controller says that it is not ready", Duration::from_secs(15), async || {
        let answer = http.get(&url).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(!answer.status.is_success() && text.to_lowercase().contains("nats"), "{}: {text}", answer.status);
        Ok(())
    })
    .await
}

#[test]
fn an_agent_cut_off_for_20_s_catches_up() -> Result<()> {
    scenario("nats-cut", LIMIT, async |run| {
        let (mut installation, witness) = Box::pin(start(&run)).await?;
        let before = installation.deploy_new("before").await?;
        installation.until_warm(&NODES, &before).await?;
        installation.agent("node-a")?.nats.cut().await?;
        let cut = tokio::time::Instant::now();
        let during = installation.deploy_new("during").await?;
        installation.until_labelled("node-b", &during.by_tag(REGISTRY), &during.digest).await?;
        // Missed heartbeats make the node unknown; nothing is taken away. Then until 20 s are over.
        eventually("node-a is unknown for 20 s", Duration::from_secs(40), async || {
            let state = installation.controller_state().await?;
            ensure!(state["nodes"]["unknown"]["count"] == 1, "{}", state["nodes"]);
            ensure!(cut.elapsed() >= Duration::from_secs(20), "cut for {:?}", cut.elapsed());
            Ok(())
        })
        .await?;
        installation.agent("node-a")?.nats.heal().await?;
        installation.until_warm(&NODES, &during).await?;
        nothing_was_lost(&installation, &witness, &[&before, &during]).await
    })
}

#[test]
fn deltas_withheld_by_permissions_are_made_up_by_beats() -> Result<()> {
    scenario("no-deltas", LIMIT, async |run| {
        let (mut installation, witness) = Box::pin(start(&run)).await?;
        let mut config = installation.cluster.nats.config().clone();
        let user = config.user_mut(&agent_user("node-a")).expect("node-a has a user");
        user.subscribe.deny("warm.v1.default.delta.*");
        installation.cluster.nats.reload(config).await?;
        let (one, two) = (installation.deploy_new("one").await?, installation.deploy_new("two").await?);
        installation.until_warm(&NODES, &one).await?;
        installation.until_warm(&NODES, &two).await?;
        installation.undeploy("default", "one").await?;
        installation.until_unlabelled("node-a", &one.by_tag(REGISTRY)).await?;
        nothing_was_lost(&installation, &witness, &[&two]).await?;
        installation.pulled_once(&NODES, &[&one])
    })
}
