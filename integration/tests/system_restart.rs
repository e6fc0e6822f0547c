//! Nodes and processes come, go and come back.
//!
//! Shows: a node that joins late, an agent that was away during ten changes, an agent and a controller that restart: all
//! converge, and the registry's log has no second pull of what was there.

#![allow(
    clippy::indexing_slicing,
    reason = "of a JSON value: a missing key is null, never a panic"
)]

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::image::{Image, Published};
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::run::scenario;

const LIMIT: Duration = Duration::from_secs(200);
const STOP: Duration = Duration::from_secs(20);

async fn deploy(installation: &Installation, name: &str) -> Result<Published> {
    let image = installation
        .cluster
        .registry
        .push(&Image::new(format!("team/{name}"), "1").layer(3_000))
        .await?;
    installation.deploy(name, &[&image.by_tag(REGISTRY)]).await?;
    Ok(image)
}

async fn until_warm(installation: &Installation, node: &str, image: &Published) -> Result<()> {
    installation
        .until_labelled(node, &image.by_tag(REGISTRY), &image.digest)
        .await
}

fn pulled_once(installation: &Installation, node: &str, images: &[&Published]) -> Result<()> {
    for image in images {
        for layer in &image.layers {
            let times = installation
                .cluster
                .requests
                .count(|r| r.node == node && r.path.contains(layer.as_str()));
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

#[test]
fn a_node_that_joins_late_gets_everything() -> Result<()> {
    scenario("late", LIMIT, async |run| {
        let spec = InstallationSpec::new(vec![NodeSpec::new("node-a")]).late("late.example");
        let mut installation = Installation::start(&run, spec).await?;
        let (one, two) = (deploy(&installation, "one").await?, deploy(&installation, "two").await?);
        until_warm(&installation, "node-a", &one).await?;
        installation.cluster.add_node(&NodeSpec::new("late.example")).await?;
        installation.start_agent("late.example").await?;
        until_warm(&installation, "late.example", &one).await?;
        until_warm(&installation, "late.example", &two).await?;
        pulled_once(&installation, "late.example", &[&one, &two])?;
        pulled_once(&installation, "node-a", &[&one, &two])
    })
}

#[test]
fn an_agent_that_was_away_during_ten_changes_catches_up() -> Result<()> {
    scenario("away", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let (kept, withdrawn) = (
            deploy(&installation, "kept").await?,
            deploy(&installation, "withdrawn").await?,
        );
        until_warm(&installation, "node-a", &kept).await?;
        until_warm(&installation, "node-a", &withdrawn).await?;
        installation.agent("node-a")?.process.terminate(STOP).await?;
        installation.undeploy("default", "withdrawn").await?;
        let mut images = Vec::new();
        for i in 0..9 {
            images.push(deploy(&installation, &format!("change-{i}")).await?);
        }
        for image in &images {
            until_warm(&installation, "node-b", image).await?;
        }
        // Nothing is known of node-a now; what was proven stands, what nobody wants goes.
        until_warm(&installation, "node-a", &kept).await?;
        installation.agent("node-a")?.process.start_again()?;
        for image in &images {
            until_warm(&installation, "node-a", image).await?;
        }
        installation
            .until_unlabelled("node-a", &withdrawn.by_tag(REGISTRY))
            .await?;
        let mut all: Vec<&Published> = images.iter().collect();
        all.extend([&kept, &withdrawn]);
        pulled_once(&installation, "node-a", &all)
    })
}

#[test]
fn restarts_of_agent_and_controller_pull_nothing_twice_and_lose_no_label() -> Result<()> {
    scenario("restart", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let (one, two) = (deploy(&installation, "one").await?, deploy(&installation, "two").await?);
        for node in ["node-a", "node-b"] {
            until_warm(&installation, node, &one).await?;
            until_warm(&installation, node, &two).await?;
        }
        let version = installation
            .cluster
            .node_objects()
            .get("node-a")
            .await?
            .metadata
            .resource_version;
        installation.agent("node-a")?.process.terminate(STOP).await?;
        installation.agent("node-a")?.process.start_again()?;
        installation.until_agent_ready("node-a").await?;
        installation.controller.process.terminate(STOP).await?;
        installation.controller.process.start_again()?;
        installation.until_controller_ready().await?;
        installation.agent("node-b")?.process.kill()?;
        installation.agent("node-b")?.process.start_again()?;
        installation.controller.process.kill()?;
        installation.controller.process.start_again()?;
        installation.until_ready().await?;
        let sentinel = deploy(&installation, "sentinel").await?;
        for node in ["node-a", "node-b"] {
            until_warm(&installation, node, &sentinel).await?;
            until_warm(&installation, node, &one).await?;
            until_warm(&installation, node, &two).await?;
            pulled_once(&installation, node, &[&one, &two, &sentinel])?;
        }
        let meta = installation.kv("intents", "_meta").await?;
        ensure!(meta["term"] == 3, "each start takes one term: {meta}");
        no_label_went(&installation, version.as_deref(), &one, &two).await
    })
}

/// Every version of the Node since `version` carried both labels: one may come, none may go.
async fn no_label_went(
    installation: &Installation,
    version: Option<&str>,
    one: &Published,
    two: &Published,
) -> Result<()> {
    use futures::StreamExt as _;
    use kube::api::{WatchEvent, WatchParams};
    use shared::image::Reference;
    use shared::label::image_label;
    let keys = [one, two].map(|i| Reference::parse(&i.by_tag(REGISTRY)).map(|r| image_label(&r.key())));
    let last = installation
        .cluster
        .node_objects()
        .get("node-a")
        .await?
        .metadata
        .resource_version;
    let nodes = installation.cluster.node_objects();
    let params = WatchParams::default().fields("metadata.name=node-a").timeout(5);
    let mut versions = std::pin::pin!(nodes.api().watch(&params, version.unwrap_or("0")).await?);
    let mut seen = 0;
    while let Some(event) = versions.next().await {
        let WatchEvent::Modified(node) = event? else { continue };
        seen += 1;
        let labels = node.metadata.labels.unwrap_or_default();
        for key in keys.iter().flatten() {
            ensure!(
                labels.contains_key(key),
                "a version of the Node lacks {key}: {labels:?}"
            );
        }
        if node.metadata.resource_version == last {
            break;
        }
    }
    ensure!(
        seen >= 1,
        "the sentinel's label is a change of the Node, yet none was seen"
    );
    Ok(())
}
