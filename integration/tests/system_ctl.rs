//! What people ask the controllers over NATS, and the pause switch in their hand.
//!
//! Shows: with the `nats` CLI, how things stand, why an image is on a node, why not, and when it is tried again; paused,
//! nothing new is pulled and nothing withdrawn, whoever restarts, and each of two controllers says so; resumed, everything
//! catches up.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::Image;
use integration::installation::{Installation, InstallationSpec, reader};
use integration::run::scenario;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(200);
const SOON: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(20);
const NODES: [&str; 2] = ["node-a", "node-b"];
const ADMIN: &str = "admin";

async fn explain(installation: &Installation, image: &str, node: &str) -> Result<Value> {
    installation.ask(reader(), "explain", &json!({ "image": image, "node": node }).to_string()).await
}

#[test]
fn people_see_how_things_stand_why_an_image_is_where_it_is_and_what_comes_next() -> Result<()> {
    scenario("ctl", LIMIT, async |run| {
        let select = json!({ "select": { "namespaces": { "exclude": ["kube-*", "other"] } } });
        let installation = Installation::start(&run, InstallationSpec::two_nodes().controller(select)).await?;
        let warm = installation.deploy_new("warm").await?;
        installation.until_warm(&NODES, &warm).await?;
        installation.create_namespace("other", &[]).await?;
        let unwanted = installation.cluster.registry.push(&Image::new("team/unwanted", "1").layer(2_000)).await?;
        let unwanted = unwanted.by_tag(REGISTRY);
        installation.deploy_with("other", "unwanted", &[&unwanted], json!({})).await?;
        let missing = format!("{REGISTRY}/team/missing:1");
        installation.deploy("missing", &[&missing]).await?;
        installation.until_state("node-a", &missing, "failed", Some("not-found")).await?;

        let reference = warm.by_tag(REGISTRY);
        eventually("warm and labelled is explained as such", SOON, async || {
            let said = explain(&installation, &reference, "node-a").await?;
            let label = installation.image_label("node-a", &reference).await?;
            ensure!(said["wanted"] == true && said["next"] == "nothing: warm", "{said:#}");
            ensure!(said["owners"][0]["name"] == "warm" && said["pools"][0]["pool"] == "all", "{said:#}");
            ensure!(said["label"]["shown"] == json!(label) && said["evidence"]["state"] == "warm", "{said:#}");
            Ok(())
        })
        .await?;
        let said = explain(&installation, &unwanted, "node-a").await?;
        let text = said["text"].as_str().unwrap_or_default();
        ensure!(said["wanted"] == false && text.contains("excluded by `other`"), "{said:#}");
        eventually("the next attempt is told with its time", SOON, async || {
            let said = explain(&installation, &missing, "node-a").await?;
            let next = said["next"].as_str().unwrap_or_default();
            ensure!(next.starts_with("the agent tries again (not-found) at 20"), "{said:#}");
            ensure!(said["evidence"]["tries"].as_u64() >= Some(1) && said["evidence"]["next"].is_string(), "{said:#}");
            Ok(())
        })
        .await?;

        let status = installation.ask(reader(), "status", "").await?;
        ensure!(status["ready"] == true && status["leadership"]["leading"] == true, "{status:#}");
        ensure!(status["images"]["warm"] == 2 && status["paused"]["paused"] == false, "{status:#}");
        let sources = status["sources"].as_array().cloned().unwrap_or_default();
        ensure!(sources.iter().all(|s| s["synced"] == true), "{status:#}");
        for name in ["deployments", "pods", "imagesets", "nodes", "inventories"] {
            ensure!(sources.iter().any(|source| source["name"] == name), "{name} is missing: {status:#}");
        }
        let wrong = installation.ask(reader(), "explain", "nginx").await?;
        ensure!(wrong["error"].is_string() && wrong["example"]["image"].is_string(), "{wrong}");
        let services = installation.nats(&["micro", "ls"]).await?;
        ensure!(services.contains("warm-controller"), "{services}");
        ensure!(installation.ask(reader(), "pause", r#"{"reason":"x","by":"y"}"#).await.is_err(), "a reader paused it");
        let state = installation.controller_state().await?;
        let of_node = &state["evidence"]["nodes"]["node-a"];
        ensure!(of_node["agent"] == "ready" && of_node["images"]["warm"] == 1, "{state:#}");
        Ok(())
    })
}

/// An image that vanished is not pulled again, and one that is new is not pulled at all.
#[test]
fn paused_nothing_is_pulled_whoever_restarts_and_resumed_everything_is() -> Result<()> {
    scenario("pause", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::two_nodes().controllers(2)).await?;
        let kept = installation.deploy_new("kept").await?;
        let first = installation.deploy_new("first").await?;
        let second = installation.deploy_new("second").await?;
        for image in [&kept, &first, &second] {
            installation.until_warm(&NODES, image).await?;
        }
        let said = installation.ask(ADMIN, "pause", r#"{"reason":"maintenance","by":"ops"}"#).await?;
        ensure!(said["paused"] == true && said["changed"] == true, "{said}");
        until_agents(&installation, true).await?;
        let reads = installation.blob_reads("node-a", "team/kept");

        let during = installation.deploy_new("during").await?;
        let crictl = installation.cluster.node("node-a")?.containerd.crictl();
        crictl.remove(&kept.by_tag(REGISTRY)).await?;
        installation.until_state("node-a", &kept.by_tag(REGISTRY), "waiting", Some("paused")).await?;
        // Labels go on: this one follows the Deployment, though nothing is withdrawn.
        installation.undeploy("default", "first").await?;
        installation.until_unlabelled("node-a", &first.by_tag(REGISTRY)).await?;
        still_paused(&installation, &during.by_tag(REGISTRY)).await?;

        for controller in std::iter::once(&mut installation.controller).chain(&mut installation.others) {
            controller.process.kill()?;
            controller.process.start_again()?;
        }
        for node in NODES {
            installation.agent(node)?.process.terminate(STOP).await?;
            installation.agent(node)?.process.start_again()?;
        }
        installation.until_ready().await?;
        installation.undeploy("default", "second").await?;
        installation.until_unlabelled("node-a", &second.by_tag(REGISTRY)).await?;
        until_agents(&installation, true).await?;
        still_paused(&installation, &during.by_tag(REGISTRY)).await?;
        ensure!(
            installation.kv_keys("intents").await?.iter().filter(|key| key.contains(".i.")).count() == 3,
            "withdrawn"
        );
        ensure!(installation.blob_reads("node-a", "team/kept") == reads, "pulled while paused");

        let said = installation.ask(ADMIN, "resume", r#"{"by":"ops"}"#).await?;
        ensure!(said["paused"] == false && said["changed"] == true, "{said}");
        installation.until_warm(&NODES, &during).await?;
        installation.until_warm(&["node-a"], &kept).await?;
        until_agents(&installation, false).await?;
        eventually("what is not wanted any more is withdrawn", SOON, async || {
            let keys = installation.kv_keys("intents").await?;
            ensure!(keys.iter().filter(|key| key.contains(".i.")).count() == 2, "{keys:?}");
            Ok(())
        })
        .await?;
        installation.pulled_once(&NODES, &[&during])
    })
}

async fn until_agents(installation: &Installation, paused: bool) -> Result<()> {
    eventually(format!("agents are paused: {paused}"), SOON, async || {
        for node in NODES {
            let state = installation.agent_state(node).await?;
            ensure!(state["paused"] == paused, "{node}: {}", state["assignment"]);
        }
        Ok(())
    })
    .await
}

/// Everybody says so, and what was deployed since was asked of no registry.
async fn still_paused(installation: &Installation, image: &str) -> Result<()> {
    let mut replicas = BTreeSet::new();
    // Which of them answers is chance.
    for _ in 0..100 {
        let status = installation.ask(reader(), "status", "").await?;
        ensure!(status["paused"]["paused"] == true && status["paused"]["by"] == "ops", "{status:#}");
        replicas.insert(status["instance"].to_string());
        if replicas.len() == 2 {
            break;
        }
    }
    ensure!(replicas.len() == 2, "only {replicas:?} answered");
    let said = explain(installation, image, "node-a").await?;
    ensure!(said["wanted"] == true && said["next"].as_str().is_some_and(|next| next.contains("paused")), "{said:#}");
    for node in NODES {
        ensure!(installation.reads(node, "team/during") == 0, "{}", installation.cluster.requests.show());
    }
    Ok(())
}
