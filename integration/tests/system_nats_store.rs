//! What NATS stored is lost, replaced by an old copy, removed under a running server, or does not fit.
//!
//! Shows: a store restored from an old copy, with the controller running and with the controller away; a stream removed
//! and a bucket purged by a foreign client while everything runs; a bucket too small for what is to be written. After each:
//! buckets, inventories and labels are right again, no label of a wanted image went meanwhile, nothing that a node held was
//! asked of the registry again, and an agent never let go of a wanted image.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::Published;
use integration::installation::{Installation, InstallationSpec};
use integration::run::{measured, scenario};
use integration::witness::Witness;
use serde_json::json;
use shared::image::Reference;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(200);
/// Longest from the end of a fault until everything is where it would have been (`quality.md` section 2).
const SETTLED: Duration = Duration::from_secs(30);
const NODES: [&str; 2] = ["node-a", "node-b"];

fn key(image: &Published) -> Result<String> {
    Ok(Reference::parse(&image.by_tag(REGISTRY))?.key().to_string())
}

/// Waits until the buckets hold what is wanted and nothing else, every agent has taken that in, says so in its inventory
/// of this epoch, and lets go of nothing.
async fn until_settled(installation: &Installation, wanted: &[&Published]) -> Result<()> {
    let ids: BTreeSet<String> = wanted.iter().map(|image| key(image)).collect::<Result<_>>()?;
    let start = Instant::now();
    eventually("buckets, inventories and agents agree", SETTLED, async || {
        let keys: BTreeSet<String> = installation.kv_keys("intents").await?.into_iter().collect();
        let expected: BTreeSet<String> =
            ids.iter().map(|id| format!("all.i.{id}")).chain(["_meta".to_owned(), "all.def".to_owned()]).collect();
        ensure!(keys == expected, "intents {keys:?}, not {expected:?}");
        let epoch = installation.kv("intents", "_meta").await?["epoch"].clone();
        let set = installation.controller_state().await?["pools"]["pools"]["all"]["set"].clone();
        for node in NODES {
            let assignment = installation.kv("assign", node).await?;
            ensure!(assignment["pools"] == json!(["all"]), "{assignment}");
            let inventory = installation.kv("nodes", &format!("{node}.inv")).await?;
            ensure!(inventory["epoch"] == epoch && inventory["except"] == json!([]), "{inventory}");
            ensure!(inventory["pools"]["all"]["count"] == wanted.len(), "{inventory}");
            let pool = installation.agent_state(node).await?["pools"]["all"].clone();
            ensure!(pool["digest"] == set["digest"] && pool["count"] == set["count"], "{node} has {pool}, not {set}");
        }
        for image in wanted {
            holds(installation, image).await?;
        }
        Ok(())
    })
    .await?;
    measured("settled after the end of the fault", start.elapsed());
    Ok(())
}

/// Fails unless each agent wants the image and has it.
async fn holds(installation: &Installation, image: &Published) -> Result<()> {
    for node in NODES {
        let state = installation.agent_state(node).await?["images"][key(image)?].clone();
        ensure!(state["state"] == "warm" && state["retained"] == false, "{node} says {state} of {}", image.repository);
    }
    Ok(())
}

#[test]
fn a_store_restored_from_an_old_copy_is_brought_up_to_date() -> Result<()> {
    scenario("nats-restored", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let witness = Witness::start(installation.cluster.client()).await?;
        let (kept, gone) = (installation.deploy_new("kept").await?, installation.deploy_new("gone").await?);
        installation.until_warm(&NODES, &kept).await?;
        installation.until_warm(&NODES, &gone).await?;
        until_settled(&installation, &[&kept, &gone]).await?;
        installation.cluster.nats.stop().await?;
        installation.cluster.nats.keep_store("old")?;
        installation.cluster.nats.start_again().await?;
        installation.undeploy("default", "gone").await?;
        let (late, later) = (installation.deploy_new("late").await?, installation.deploy_new("later").await?);
        installation.until_warm(&NODES, &late).await?;
        installation.until_warm(&NODES, &later).await?;
        for node in NODES {
            installation.until_unlabelled(node, &gone.by_tag(REGISTRY)).await?;
        }
        until_settled(&installation, &[&kept, &late, &later]).await?;

        // The end of the log is lost under a running controller, which has seen it.
        installation.cluster.nats.kill()?;
        installation.cluster.nats.put_back_store("old")?;
        installation.cluster.nats.start_again().await?;
        until_settled(&installation, &[&kept, &late, &later]).await?;

        // And while there is none: the next knows only Kubernetes and what the copy says.
        installation.controller.process.kill()?;
        installation.cluster.nats.kill()?;
        installation.cluster.nats.put_back_store("old")?;
        installation.cluster.nats.start_again().await?;
        installation.controller.process.start_again()?;
        until_settled(&installation, &[&kept, &late, &later]).await?;
        let last = installation.deploy_new("last").await?;
        installation.until_warm(&NODES, &last).await?;
        for node in NODES {
            installation.until_unlabelled(node, &gone.by_tag(REGISTRY)).await?;
        }
        witness.none_lost(&NODES, &[&kept, &late, &later, &last]).await?;
        witness.none_asked_for_again(&installation.cluster.requests, &[&kept, &gone, &late, &later, &last]).await?;
        installation.labels_are_true().await?;
        installation.pulled_once(&NODES, &[&kept, &gone, &late, &later, &last])
    })
}

#[test]
fn what_a_foreign_client_removes_under_a_running_server_is_written_again() -> Result<()> {
    scenario("nats-removed", LIMIT, async |run| {
        let installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let witness = Witness::start(installation.cluster.client()).await?;
        let (one, two) = (installation.deploy_new("one").await?, installation.deploy_new("two").await?);
        installation.until_warm(&NODES, &one).await?;
        installation.until_warm(&NODES, &two).await?;
        until_settled(&installation, &[&one, &two]).await?;
        let nats = &installation.cluster.nats;
        for call in ["DELETE", "PURGE"] {
            for bucket in ["intents", "assign", "nodes"] {
                nats.jetstream("admin", &format!("STREAM.{call}.KV_warm-default-{bucket}"), &json!({})).await?;
            }
            until_settled(&installation, &[&one, &two]).await?;
        }
        for key in ["_meta", "all.def", &format!("all.i.{}", key(&one)?)] {
            nats.cli("admin", &["kv", "purge", "--force", "warm-default-intents", key]).await?;
            until_settled(&installation, &[&one, &two]).await?;
        }
        witness.none_lost(&NODES, &[&one, &two]).await?;
        witness.none_asked_for_again(&installation.cluster.requests, &[&one, &two]).await?;
        installation.pulled_once(&NODES, &[&one, &two])
    })
}

#[test]
fn a_bucket_that_is_full_says_so_and_recovers_when_it_has_room() -> Result<()> {
    scenario("nats-full", LIMIT, async |run| {
        let installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let witness = Witness::start(installation.cluster.client()).await?;
        let one = installation.deploy_new("one").await?;
        installation.until_warm(&NODES, &one).await?;
        let limit = async |bucket: &str, bytes: u64| {
            let nats = &installation.cluster.nats;
            let stream = format!("KV_warm-default-{bucket}");
            let mut config =
                nats.jetstream("admin", &format!("STREAM.INFO.{stream}"), &json!({})).await?["config"].take();
            config["max_bytes"] = json!(bytes);
            nats.jetstream("admin", &format!("STREAM.UPDATE.{stream}"), &config).await
        };
        limit("intents", 1024).await?;
        let two = installation.deploy_new("two").await?;
        let admin = installation.controller.admin();
        eventually("the controller counts refused writes for lack of space, more than once", SETTLED, async || {
            let refused = installation.metric(&admin, "warm_effects_total", "reason=\"no-space\"").await?;
            ensure!(refused >= 2.0, "{refused}");
            Ok(())
        })
        .await?;
        for node in NODES {
            installation.until_unlabelled(node, &two.by_tag(REGISTRY)).await?;
        }
        limit("intents", 1_048_576).await?;
        installation.until_warm(&NODES, &two).await?;

        // No room for reports: events still tell, and the inventories come as soon as they can.
        limit("nodes", 64).await?;
        let three = installation.deploy_new("three").await?;
        installation.until_warm(&NODES, &three).await?;
        limit("nodes", 1_048_576).await?;
        until_settled(&installation, &[&one, &two, &three]).await?;
        witness.none_lost(&NODES, &[&one, &two, &three]).await?;
        installation.pulled_once(&NODES, &[&one, &two, &three])
    })
}
