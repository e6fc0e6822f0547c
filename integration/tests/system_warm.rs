//! A Deployment appears, is scaled to zero, is deleted.
//!
//! Shows: its images become warm on both nodes; intent, inventory and event are readable JSON through the `nats` CLI; the
//! nodes carry the label with the right digest; `crictl images` agrees; zero replicas stay warm; a deleted Deployment's
//! intent is withdrawn, its label goes, its image stays.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::Image;
use integration::installation::{Installation, InstallationSpec};
use integration::run::scenario;
use serde_json::{Value, json};
use shared::image::Reference;

const LIMIT: Duration = Duration::from_secs(150);
const NODES: [&str; 2] = ["node-a", "node-b"];

#[test]
fn a_deployments_images_become_warm_and_everybody_can_see_it() -> Result<()> {
    scenario("warm", LIMIT, async |run| {
        let installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let events = installation.listen("warm.v1.default.node.*.ev.>")?;
        let web = installation.cluster.registry.push(&Image::new("shop/web", "1.0").layer(200_000)).await?;
        let side = installation.cluster.registry.push(&Image::new("shop/side", "2").layer(1_000).layer(5_000)).await?;
        let (web_ref, side_ref) = (web.by_tag(REGISTRY), side.by_digest(REGISTRY));
        installation.deploy("web", &[&web_ref, &side_ref]).await?;
        for node in NODES {
            installation.until_labelled(node, &web_ref, &web.digest).await?;
            installation.until_labelled(node, &side_ref, &side.digest).await?;
            let crictl = installation.cluster.node(node)?.containerd.crictl();
            ensure!(crictl.has(&web_ref).await? && crictl.has(&side_ref).await?, "crictl on {node} does not agree");
        }
        readable_intent(&installation, &web_ref).await?;
        readable_inventories(&installation).await?;
        eventually("an event `warm` of each image and node is printed", Duration::from_secs(10), async || {
            let log = events.log_text();
            let warm = log.lines().filter(|l| l.contains("\"st\":\"warm\"") && l.contains("\"v\":1")).count();
            ensure!(warm >= 4, "{warm} events");
            Ok(())
        })
        .await
    })
}

async fn readable_intent(installation: &Installation, reference: &str) -> Result<()> {
    let parsed = Reference::parse(reference)?;
    let intent = installation.kv("intents", &format!("all.i.{}", parsed.key())).await?;
    ensure!(intent["v"] == 1 && intent["image"] == parsed.canonical().as_str(), "{intent}");
    ensure!(intent["owners"] == json!(["Deployment/default/web"]) && intent["ownersTotal"] == 1, "{intent}");
    let meta = installation.kv("intents", "_meta").await?;
    ensure!(meta["term"] == 1 && meta["epoch"].as_str().is_some_and(|e| !e.is_empty()), "{meta}");
    let definition = installation.kv("intents", "all.def").await?;
    ensure!(definition["v"] == 1 && definition["pool"] == "all", "{definition}");
    Ok(())
}

async fn readable_inventories(installation: &Installation) -> Result<()> {
    for node in NODES {
        let assignment = installation.kv("assign", node).await?;
        ensure!(assignment["pools"] == json!(["all"]), "{assignment}");
        eventually(format!("{node}'s inventory says that nothing is missing"), Duration::from_secs(10), async || {
            let inventory: Value = installation.kv("nodes", &format!("{node}.inv")).await?;
            let is_full = inventory["complete"] == true && inventory["pools"]["all"]["count"] == 2;
            // Nothing is missing: the shorter list is that of exceptions, and it is empty.
            ensure!(is_full && inventory["except"] == json!([]), "{inventory}");
            ensure!(inventory["runtime"]["name"] == "containerd", "{inventory}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[test]
fn scaled_to_zero_stays_warm_and_deleted_is_withdrawn_without_removing_the_image() -> Result<()> {
    scenario("withdraw", LIMIT, async |run| {
        let installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let image = installation.cluster.registry.push(&Image::new("shop/web", "1.0").layer(50_000)).await?;
        let other = installation.cluster.registry.push(&Image::new("shop/sentinel", "1").layer(10)).await?;
        let (reference, sentinel) = (image.by_tag(REGISTRY), other.by_tag(REGISTRY));
        installation.deploy("web", &[&reference]).await?;
        for node in NODES {
            installation.until_labelled(node, &reference, &image.digest).await?;
        }
        let reads = installation.cluster.requests.len();
        installation.change("default", "web", json!({ "spec": { "replicas": 0 } })).await?;
        // The sentinel: a later change has taken effect on the same nodes, so the earlier one has had its chance.
        installation.deploy("sentinel", &[&sentinel]).await?;
        for node in NODES {
            installation.until_labelled(node, &sentinel, &other.digest).await?;
            installation.until_labelled(node, &reference, &image.digest).await?;
        }
        let again = installation.cluster.requests.since(reads).into_iter().filter(|r| r.is_of("shop/web")).count();
        ensure!(again == 0, "scaling pulled again: {}", installation.cluster.requests.show());

        installation.undeploy("default", "web").await?;
        let key = format!("all.i.{}", Reference::parse(&reference)?.key());
        for node in NODES {
            installation.until_unlabelled(node, &reference).await?;
            let crictl = installation.cluster.node(node)?.containerd.crictl();
            ensure!(crictl.has(&reference).await?, "the image went with its Deployment");
        }
        let keys = installation.kv_keys("intents").await?;
        ensure!(!keys.contains(&key), "the intent stays: {keys:?}");
        installation.until_labelled("node-a", &sentinel, &other.digest).await
    })
}
