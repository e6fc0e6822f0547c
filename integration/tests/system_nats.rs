//! NATS goes away, is cut off, loses messages.
//!
//! Shows: NATS killed and restarted, a connection cut for 20 s, deltas withheld: everything converges, nothing is pulled
//! twice, no label goes while its image is there.

#![allow(
    clippy::indexing_slicing,
    reason = "of a JSON value: a missing key is null, never a panic"
)]

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::{Image, Published};
use integration::installation::{Installation, InstallationSpec, agent_user};
use integration::run::scenario;

const LIMIT: Duration = Duration::from_secs(200);
const NODES: [&str; 2] = ["node-a", "node-b"];

async fn deploy(installation: &Installation, name: &str) -> Result<Published> {
    let image = installation
        .cluster
        .registry
        .push(&Image::new(format!("team/{name}"), "1").layer(3_000))
        .await?;
    installation.deploy(name, &[&image.by_tag(REGISTRY)]).await?;
    Ok(image)
}

async fn until_warm(installation: &Installation, image: &Published) -> Result<()> {
    for node in NODES {
        installation
            .until_labelled(node, &image.by_tag(REGISTRY), &image.digest)
            .await?;
    }
    Ok(())
}

/// Nothing was pulled twice.
fn pulled_once(installation: &Installation, images: &[&Published]) -> Result<()> {
    for (node, image) in NODES.iter().flat_map(|n| images.iter().map(move |i| (n, i))) {
        for layer in &image.layers {
            let times = installation
                .cluster
                .requests
                .count(|r| r.node == *node && r.path.contains(layer.as_str()));
            ensure!(
                times == 1,
                "{node} read {} {times} times:\n{}",
                image.repository,
                installation.cluster.requests.show()
            );
        }
    }
    Ok(())
}

/// How often a label of ours was taken from a Node: those of images that are there must never go.
async fn labels_are_there(installation: &Installation, images: &[&Published]) -> Result<()> {
    for node in NODES {
        for image in images {
            let label = installation.image_label(node, &image.by_tag(REGISTRY)).await?;
            ensure!(label.is_some(), "{node} lost the label of {}", image.repository);
        }
    }
    Ok(())
}

#[test]
fn nats_killed_and_restarted_with_its_store() -> Result<()> {
    scenario("nats-killed", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let before = deploy(&installation, "before").await?;
        until_warm(&installation, &before).await?;
        installation.cluster.nats.kill()?;
        let during = deploy(&installation, "during").await?;
        until_unready(&installation).await?;
        labels_are_there(&installation, &[&before]).await?;
        installation.cluster.nats.start_again().await?;
        until_warm(&installation, &during).await?;
        installation.until_ready().await?;
        let after = deploy(&installation, "after").await?;
        until_warm(&installation, &after).await?;
        labels_are_there(&installation, &[&before, &during]).await?;
        pulled_once(&installation, &[&before, &during, &after])
    })
}

#[test]
fn nats_wiped_is_filled_again_in_a_new_epoch() -> Result<()> {
    scenario("nats-wiped", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let (one, two) = (deploy(&installation, "one").await?, deploy(&installation, "two").await?);
        until_warm(&installation, &one).await?;
        until_warm(&installation, &two).await?;
        let epoch = installation.kv("intents", "_meta").await?["epoch"].clone();
        installation.cluster.nats.kill()?;
        installation.cluster.nats.wipe_store()?;
        installation.cluster.nats.start_again().await?;
        let three = deploy(&installation, "three").await?;
        until_warm(&installation, &three).await?;
        labels_are_there(&installation, &[&one, &two]).await?;
        let now = installation.kv("intents", "_meta").await?["epoch"].clone();
        ensure!(now != epoch && now.is_string(), "the epoch stayed {epoch}");
        eventually("inventories are there again", Duration::from_secs(20), async || {
            let inventory = installation.kv("nodes", "node-a.inv").await?;
            ensure!(
                inventory["epoch"] == now && inventory["pools"]["all"]["count"] == 3,
                "{inventory}"
            );
            Ok(())
        })
        .await?;
        pulled_once(&installation, &[&one, &two, &three])
    })
}

async fn until_unready(installation: &Installation) -> Result<()> {
    let http = integration::http::Http::new();
    let url = format!("{}/readyz", installation.controller.admin());
    eventually(
        "the controller says that it is not ready",
        Duration::from_secs(15),
        async || {
            let answer = http.get(&url).await?;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            ensure!(
                !answer.status.is_success() && text.to_lowercase().contains("nats"),
                "{}: {text}",
                answer.status
            );
            Ok(())
        },
    )
    .await
}

#[test]
fn an_agent_cut_off_for_20_s_catches_up() -> Result<()> {
    scenario("nats-cut", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let before = deploy(&installation, "before").await?;
        until_warm(&installation, &before).await?;
        installation.agent("node-a")?.nats.cut().await?;
        let cut = tokio::time::Instant::now();
        let during = deploy(&installation, "during").await?;
        installation
            .until_labelled("node-b", &during.by_tag(REGISTRY), &during.digest)
            .await?;
        // Missed heartbeats make the node unknown; nothing is taken away. Then until 20 s are over.
        eventually("node-a is unknown for 20 s", Duration::from_secs(40), async || {
            let state = installation.controller_state().await?;
            labels_are_there(&installation, &[&before]).await?;
            ensure!(state["nodes"]["unknown"]["count"] == 1, "{}", state["nodes"]);
            ensure!(cut.elapsed() >= Duration::from_secs(20), "cut for {:?}", cut.elapsed());
            Ok(())
        })
        .await?;
        installation.agent("node-a")?.nats.heal().await?;
        until_warm(&installation, &during).await?;
        labels_are_there(&installation, &[&before]).await?;
        pulled_once(&installation, &[&before, &during])
    })
}

#[test]
fn deltas_withheld_by_permissions_are_made_up_by_beats() -> Result<()> {
    scenario("no-deltas", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let mut config = installation.cluster.nats.config().clone();
        let user = config.user_mut(&agent_user("node-a")).expect("node-a has a user");
        user.subscribe.deny("warm.v1.default.delta.*");
        installation.cluster.nats.reload(config).await?;
        let (one, two) = (deploy(&installation, "one").await?, deploy(&installation, "two").await?);
        until_warm(&installation, &one).await?;
        until_warm(&installation, &two).await?;
        installation.undeploy("default", "one").await?;
        installation.until_unlabelled("node-a", &one.by_tag(REGISTRY)).await?;
        pulled_once(&installation, &[&one, &two])
    })
}
