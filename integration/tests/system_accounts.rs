//! Agents in an account of their own, as `protocol.md` section 6 wants it in production.
//!
//! Shows: with real processes everything works over the two accounts: images are pulled and labelled, withdrawn, pulled
//! again after a wiped NATS; a damaged inventory is asked for and comes; people get answers of controllers and agents; NATS
//! refuses nothing of all that, and a restarted agent reads what it missed.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::Published;
use integration::installation::{Installation, InstallationSpec};
use integration::run::scenario;
use integration::witness::Witness;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_secs(30);
const NODES: [&str; 2] = ["node-a", "node-b"];

/// The inventory of a node is there, its own, and says that everything is warm.
async fn until_reported(installation: &Installation, node: &str, count: usize) -> Result<()> {
    eventually(format!("{node} reports {count} images"), SOON, async || {
        let inventory = installation.kv("nodes", &format!("{node}.inv")).await?;
        let is_full = inventory["pools"]["all"]["count"] == count && inventory["except"] == json!([]);
        ensure!(inventory["node"] == node && is_full, "{inventory}");
        Ok(())
    })
    .await
}

#[test]
fn everything_works_with_agents_in_an_account_of_their_own() -> Result<()> {
    scenario("two-accounts", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::two_nodes().with_two_accounts()).await?;
        let witness = Witness::start(installation.cluster.client()).await?;
        let (kept, gone) = (installation.deploy_new("kept").await?, installation.deploy_new("gone").await?);
        for image in [&kept, &gone] {
            installation.until_warm(&NODES, image).await?;
        }
        installation.undeploy("default", "gone").await?;
        for node in NODES {
            installation.until_unlabelled(node, &gone.by_tag(REGISTRY)).await?;
            until_reported(&installation, node, 1).await?;
        }

        // Down to an agent that is asked: a damaged inventory is put again, and a person is told.
        let subject = "$KV.warm-default-nodes.node-a.inv";
        installation.cluster.nats.cli("admin", &["req", subject, "junk"]).await?;
        until_reported(&installation, "node-a", 1).await?;
        let question = json!({ "image": kept.by_tag(REGISTRY) }).to_string();
        let explain = ["req", "warm.v1.default.node.node-a.req.explain", &question, "--raw", "--timeout", "10s"];
        let said = installation.nats(&explain).await?;
        ensure!(said.contains("warm"), "{said}");
        let status: Value = installation.ask("reader", "status", "").await?;
        ensure!(status["nodes"]["ready"]["count"] == 2, "{status}");

        // An agent that was away reads what it missed; then NATS loses everything.
        installation.agent("node-b")?.process.kill()?;
        let missed = installation.deploy_new("missed").await?;
        installation.until_warm(&["node-a"], &missed).await?;
        installation.agent("node-b")?.process.start_again()?;
        installation.until_warm(&NODES, &missed).await?;
        let log = std::fs::read_to_string(run.log("nats-server"))?;
        ensure!(!log.to_lowercase().contains("violation"), "NATS refused something:\n{log}");
        installation.cluster.nats.kill()?;
        installation.cluster.nats.wipe_store()?;
        installation.cluster.nats.start_again().await?;
        let last = installation.deploy_new("last").await?;
        installation.until_warm(&NODES, &last).await?;
        for node in NODES {
            until_reported(&installation, node, 3).await?;
        }
        let images: [&Published; 3] = [&kept, &missed, &last];
        witness.none_lost(&NODES, &images).await?;
        witness.none_asked_for_again(&installation.cluster.requests, &images).await?;
        installation.pulled_once(&NODES, &images)
    })
}
