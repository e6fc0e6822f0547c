//! A disk that fills.
//!
//! Shows, on a file system of 64 MiB that is the node's own: at `disk.mark` nothing is pulled, image and inventory say
//! `deferred`, `disk-pressure`, and it goes on when no more than `disk.resume` is used, not before; with `gc.mode: on` an
//! image that nobody wants any more is removed above `gc.high`, and neither what is wanted nor what somebody else pulled;
//! without that key the same is only said.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::{Image, Published};
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::run::{RunDir, scenario};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(200);
const SOON: Duration = Duration::from_secs(30);
const DISK: u64 = 64 << 20;
const NODE: &str = "node-a";

async fn installation(run: &Arc<RunDir>, agent: Value) -> Result<Installation> {
    let spec = InstallationSpec::new(vec![NodeSpec::new(NODE)]).disk(DISK).agent(agent);
    Installation::start(run, spec).await
}

/// Fills the node's disk and waits until the agent has seen it.
async fn fill(installation: &mut Installation, percent: u64) -> Result<()> {
    installation.cluster.node(NODE)?.containerd.fill_to(percent)?;
    eventually(format!("the agent sees {percent} % used"), SOON, async || {
        let disk = installation.agent_state(NODE).await?["disk"].clone();
        let (used, free) = (disk["used"].as_u64().context("used")?, disk["free"].as_u64().context("free")?);
        let seen = (used * 100).div_ceil(used + free);
        ensure!(used + free == DISK && seen.abs_diff(percent) <= 1, "{disk}");
        Ok(())
    })
    .await
}

async fn push(installation: &Installation, name: &str) -> Result<Published> {
    installation.cluster.registry.push(&Image::new(format!("team/{name}"), "1").layer(30_000)).await
}

async fn warm(installation: &Installation, name: &str) -> Result<Published> {
    let image = installation.deploy_new(name).await?;
    installation.until_warm(&[NODE], &image).await?;
    Ok(image)
}

#[test]
fn at_the_mark_nothing_is_pulled_until_no_more_than_resume_is_used() -> Result<()> {
    scenario("disk-mark", LIMIT, async |run| {
        let mut installation =
            installation(&run, json!({ "disk": { "mark": 80, "resume": 70 }, "gc": { "high": 60, "low": 50 } }))
                .await?;
        let there = warm(&installation, "there").await?;
        fill(&mut installation, 82).await?;
        let late = installation.deploy_new("late").await?;
        let reference = late.by_tag(REGISTRY);
        installation.until_state(NODE, &reference, "deferred", Some("disk-pressure")).await?;
        eventually("the inventory says so", SOON, async || {
            let inventory = installation.kv("nodes", &format!("{NODE}.inv")).await?;
            let except = &inventory["except"][0];
            ensure!(except["st"] == "deferred" && except["why"] == "disk-pressure", "{inventory}");
            ensure!(inventory["disk"]["mark"] == DISK * 80 / 100, "{inventory}");
            Ok(())
        })
        .await?;
        // Below the mark again, and not yet at `resume`: the agent has seen it and still waits.
        fill(&mut installation, 75).await?;
        installation.until_state(NODE, &reference, "deferred", Some("disk-pressure")).await?;
        ensure!(installation.reads(NODE, "team/late") == 0, "pulled on a full disk");
        fill(&mut installation, 60).await?;
        installation.until_warm(&[NODE], &late).await?;
        installation.pulled_once(&[NODE], &[&there, &late])
    })
}

#[test]
fn what_nobody_wants_goes_and_neither_what_is_wanted_nor_what_others_pulled() -> Result<()> {
    scenario("disk-gc", LIMIT, async |run| {
        let gc = json!({ "gc": { "mode": "on", "high": 50, "low": 40, "minAge": "500ms" } });
        let mut installation = installation(&run, gc).await?;
        let crictl = installation.cluster.node(NODE)?.containerd.crictl().clone();
        let (foreign, both) = (push(&installation, "foreign").await?, push(&installation, "both").await?);
        for image in [&foreign, &both] {
            crictl.pull(&image.by_tag(REGISTRY)).await?;
        }
        let kept = warm(&installation, "kept").await?;
        warm(&installation, "gone").await?;
        installation.deploy("both", &[&both.by_tag(REGISTRY)]).await?;
        installation.until_warm(&[NODE], &both).await?;
        for name in ["gone", "both"] {
            installation.undeploy("default", name).await?;
        }
        fill(&mut installation, 60).await?;
        until_removed(&installation, "team/gone").await?;
        // Whatever might go wrongly would have gone before this one, which was wanted for longer.
        let last = warm(&installation, "last").await?;
        installation.undeploy("default", "last").await?;
        until_removed(&installation, &last.repository).await?;
        for image in [&foreign, &both, &kept] {
            ensure!(crictl.has(&image.by_tag(REGISTRY)).await?, "{} was removed", image.repository);
        }
        let admin = installation.agent(NODE)?.admin();
        let removed = installation.metric(&admin, "warm_removals_total", "outcome=\"removed\"").await?;
        ensure!((removed - 2.0).abs() < 0.1, "{removed} removals");
        ensure!(installation.agent_state(NODE).await?["ledger"] == 1, "more than `kept` in the ledger");
        Ok(())
    })
}

async fn until_removed(installation: &Installation, repository: &str) -> Result<()> {
    let node = installation.cluster.nodes.first().context("no node")?;
    let reference = format!("{REGISTRY}/{repository}:1");
    eventually(format!("{reference} is removed"), SOON, async || {
        let gc = installation.agent_state(NODE).await?["gc"].clone();
        ensure!(!node.containerd.crictl().has(&reference).await?, "{gc}");
        Ok(())
    })
    .await
}

#[test]
fn by_default_a_removal_is_only_said() -> Result<()> {
    scenario("disk-dry", LIMIT, async |run| {
        let gc = json!({ "gc": { "high": 50, "low": 40, "minAge": "500ms" } });
        let mut installation = installation(&run, gc).await?;
        // A node in no pool is told nothing, so something stays wanted.
        warm(&installation, "kept").await?;
        let images = [warm(&installation, "one").await?, warm(&installation, "two").await?];
        installation.undeploy("default", "one").await?;
        installation.undeploy("default", "two").await?;
        fill(&mut installation, 60).await?;
        let planned: Vec<String> = images.iter().map(|image| image.by_tag(REGISTRY)).collect();
        eventually("both are planned", SOON, async || {
            let gc = installation.agent_state(NODE).await?["gc"].clone();
            ensure!(gc["mode"] == "dryRun" && gc["planned"] == json!(planned), "{gc}");
            Ok(())
        })
        .await?;
        let crictl = installation.cluster.node(NODE)?.containerd.crictl().clone();
        for reference in &planned {
            ensure!(crictl.has(reference).await?, "{reference} was removed");
        }
        let log = installation.agent(NODE)?.process.log_text();
        ensure!(log.matches("would be removed").count() == 2, "each once:\n{log}");
        Ok(())
    })
}
