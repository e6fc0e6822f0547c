//! Nodes and processes come, go and come back.
//!
//! Shows: a node that joins late, an agent that was away during ten changes, an agent and a controller that restart: all
//! converge, and the registry's log has no second pull of what was there.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::cluster::REGISTRY;
use integration::image::Published;
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::run::scenario;
use integration::witness::Witness;

const LIMIT: Duration = Duration::from_secs(200);
const STOP: Duration = Duration::from_secs(20);

#[test]
fn a_node_that_joins_late_gets_everything() -> Result<()> {
    scenario("late", LIMIT, async |run| {
        let spec = InstallationSpec::new(vec![NodeSpec::new("node-a")]).late("late.example");
        let mut installation = Installation::start(&run, spec).await?;
        let (one, two) = (installation.deploy_new("one").await?, installation.deploy_new("two").await?);
        installation.until_warm(&["node-a"], &one).await?;
        installation.cluster.add_node(&NodeSpec::new("late.example")).await?;
        installation.start_agent("late.example").await?;
        installation.until_warm(&["late.example"], &one).await?;
        installation.until_warm(&["late.example"], &two).await?;
        installation.pulled_once(&["late.example"], &[&one, &two])?;
        installation.pulled_once(&["node-a"], &[&one, &two])
    })
}

#[test]
fn an_agent_that_was_away_during_ten_changes_catches_up() -> Result<()> {
    scenario("away", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let (kept, withdrawn) = (installation.deploy_new("kept").await?, installation.deploy_new("withdrawn").await?);
        installation.until_warm(&["node-a"], &kept).await?;
        installation.until_warm(&["node-a"], &withdrawn).await?;
        installation.agent("node-a")?.process.terminate(STOP).await?;
        installation.undeploy("default", "withdrawn").await?;
        let mut images = Vec::new();
        for i in 0..9 {
            images.push(installation.deploy_new(&format!("change-{i}")).await?);
        }
        for image in &images {
            installation.until_warm(&["node-b"], image).await?;
        }
        // Nothing is known of node-a now; what was proven stands, what nobody wants goes.
        installation.until_warm(&["node-a"], &kept).await?;
        installation.agent("node-a")?.process.start_again()?;
        for image in &images {
            installation.until_warm(&["node-a"], image).await?;
        }
        installation.until_unlabelled("node-a", &withdrawn.by_tag(REGISTRY)).await?;
        let mut all: Vec<&Published> = images.iter().collect();
        all.extend([&kept, &withdrawn]);
        installation.pulled_once(&["node-a"], &all)
    })
}

#[test]
fn restarts_of_agent_and_controller_pull_nothing_twice_and_lose_no_label() -> Result<()> {
    scenario("restart", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let (one, two) = (installation.deploy_new("one").await?, installation.deploy_new("two").await?);
        for node in ["node-a", "node-b"] {
            installation.until_warm(&[node], &one).await?;
            installation.until_warm(&[node], &two).await?;
        }
        let witness = Witness::start(installation.cluster.client()).await?;
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
        let sentinel = installation.deploy_new("sentinel").await?;
        for node in ["node-a", "node-b"] {
            installation.until_warm(&[node], &sentinel).await?;
            installation.until_warm(&[node], &one).await?;
            installation.until_warm(&[node], &two).await?;
            installation.pulled_once(&[node], &[&one, &two, &sentinel])?;
        }
        let meta = installation.kv("intents", "_meta").await?;
        // The start that was killed may not have come to it: who is ready need not lead.
        let term = meta["term"].as_u64().context("no term")?;
        ensure!((2..=3).contains(&term), "each start takes one term at most: {meta}");
        witness.none_lost(&["node-a"], &[&one, &two]).await?;
        ensure!(
            !witness.versions("node-a").await?.is_empty(),
            "the sentinel's label is a change of the Node, yet none was seen"
        );
        Ok(())
    })
}
