//! A Node is deleted and created again under its name: another machine, or the same one registered anew.
//!
//! Shows: the new Node is assigned under its own UID, is labelled with nothing before its agent has reported under that UID,
//! and with everything soon after; the agent, whether it ran on or was away, takes the new assignment, keeps its ledger
//! and pulls nothing that is there.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::eventually::eventually;
use integration::image::Published;
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::run::scenario;
use serde_json::Value;

const LIMIT: Duration = Duration::from_mins(5);
const SOON: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(20);
const NODE: &str = "node-a";

async fn replace(installation: &Installation) -> Result<String> {
    let node = installation.cluster.node_objects().replace(&NodeSpec::new(NODE)).await?;
    node.metadata.uid.context("a Node without a UID")
}

/// The new Node is known to the controller, which labels another, and not this one.
async fn nothing_before_evidence(installation: &Installation, uid: &str, name: &str) -> Result<Published> {
    eventually("the new Node has an assignment", SOON, async || {
        let assignment = installation.kv("assign", NODE).await?;
        ensure!(assignment["uid"] == uid, "{assignment}");
        Ok(())
    })
    .await?;
    let sentinel = installation.deploy_new(name).await?;
    installation.until_warm(&["node-b"], &sentinel).await?;
    let labels = installation.our_labels(NODE).await?;
    ensure!(labels.is_empty(), "labelled without evidence: {labels:?}");
    let table = installation.table().await?;
    let row = table.iter().find(|row| row.node == NODE && row.state.is_some());
    ensure!(row.is_none(), "evidence of the old Node counts for the new one: {row:?}");
    Ok(sentinel)
}

fn kept(installation: &Installation) -> Result<Value> {
    let path = installation.cluster.run().path().join(NODE).join("state/state.json");
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// Waits until the agent has written down whose assignment it holds.
async fn until_kept(installation: &Installation, uid: &str) -> Result<Value> {
    eventually("the state file tells of the Node", SOON, async || {
        let state = kept(installation)?;
        ensure!(state["assignment"]["uid"] == uid, "{}", state["assignment"]);
        Ok(Some(state))
    })
    .await
}

/// `ledger` is that of before.
async fn everything_comes_back(
    installation: &Installation,
    uid: &str,
    ledger: &Value,
    images: &[&Published],
) -> Result<()> {
    for image in images {
        installation.until_warm(&[NODE], image).await?;
    }
    // An event of the new Node's is evidence as well, and comes first.
    let key = format!("{NODE}.inv");
    eventually("the inventory speaks for the new Node", SOON, async || {
        Ok::<_, anyhow::Error>(installation.kv("nodes", &key).await?["uid"] == uid)
    })
    .await?;
    let state = until_kept(installation, uid).await?;
    for pulled in ledger.as_object().context("no ledger")?.keys() {
        ensure!(!state["ledger"][pulled].is_null(), "the ledger forgot {pulled}: {}", state["ledger"]);
    }
    installation.pulled_once(&[NODE], images)
}

#[test]
fn a_node_recreated_while_its_agent_runs() -> Result<()> {
    scenario("recreated", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let (one, two) = (installation.deploy_new("one").await?, installation.deploy_new("two").await?);
        for image in [&one, &two] {
            installation.until_warm(&[NODE, "node-b"], image).await?;
        }
        let process = installation.agent(NODE)?.process.id();
        let old = installation.kv("assign", NODE).await?["uid"].as_str().context("no uid")?.to_owned();
        let ledger = until_kept(&installation, &old).await?["ledger"].clone();

        // Stopped for a moment, so that "before evidence" lasts long enough to be looked at.
        installation.agent(NODE)?.process.pause()?;
        let uid = replace(&installation).await?;
        let three = nothing_before_evidence(&installation, &uid, "three").await?;
        installation.agent(NODE)?.process.resume()?;
        everything_comes_back(&installation, &uid, &ledger, &[&one, &two, &three]).await?;

        // At full speed, several times: the last one counts.
        for _ in 0..4 {
            replace(&installation).await?;
        }
        let uid = replace(&installation).await?;
        everything_comes_back(&installation, &uid, &ledger, &[&one, &two, &three]).await?;
        ensure!(installation.agent(NODE)?.process.id() == process, "the agent was restarted");
        installation.pulled_once(&["node-b"], &[&one, &two, &three])
    })
}

#[test]
fn a_node_recreated_while_its_agent_is_away() -> Result<()> {
    scenario("recreated-away", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let (one, two) = (installation.deploy_new("one").await?, installation.deploy_new("two").await?);
        for image in [&one, &two] {
            installation.until_warm(&[NODE, "node-b"], image).await?;
        }
        let old = installation.kv("assign", NODE).await?["uid"].as_str().context("no uid")?.to_owned();
        until_kept(&installation, &old).await?;
        installation.agent(NODE)?.process.terminate(STOP).await?;
        let ledger = kept(&installation)?["ledger"].clone();
        let uid = replace(&installation).await?;
        let three = nothing_before_evidence(&installation, &uid, "three").await?;
        // The old Node's last inventory is still in the bucket; neither it nor a new start of the controller counts.
        installation.controller.process.restart()?;
        installation.until_controller_ready().await?;
        let four = nothing_before_evidence(&installation, &uid, "four").await?;
        installation.agent(NODE)?.process.start_again()?;
        everything_comes_back(&installation, &uid, &ledger, &[&one, &two, &three, &four]).await
    })
}
