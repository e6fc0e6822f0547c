//! A node holds more images than its inventory can name in one message.
//!
//! Shows: the inventory stays below the limit of its bucket, says that it is not complete and how much it leaves out, and so do
//! log and metric; no image is taken for gone by that: each is still warm to the controller, also when the controller is
//! another that has only this inventory and the labels to go by; an image that really goes is told among so many.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::Image;
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::run::{measured, scenario};
use serde_json::{Value, json};
use shared::subject::Bucket;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_mins(6);
const NODE: &str = "node-a";
const REPOSITORY: &str = "many/images";
/// That share their layer. Some 2,400 fit.
const IMAGES: usize = 2_500;
/// Containers of one Deployment.
const EACH: usize = 100;
const SOON: Duration = Duration::from_secs(30);

fn inventory_says(inventory: &Value) -> Result<u64> {
    let bytes = serde_json::to_vec(inventory)?.len();
    let most = Bucket::Nodes.max_message_bytes() as usize;
    ensure!(bytes < most, "{bytes} bytes of {most}");
    ensure!(inventory["complete"] == false, "it is complete: {bytes} bytes");
    let left_out = inventory["leftOut"].as_u64().unwrap_or_default();
    let named = inventory["warmIds"].as_array().map_or(0, Vec::len);
    ensure!(left_out > 0 && named + usize::try_from(left_out)? == IMAGES, "{named} named, {left_out} left out");
    Ok(left_out)
}

/// Fails unless every image is warm to the controller.
async fn all_are_warm(installation: &Installation) -> Result<()> {
    let table = installation.table().await?;
    let warm = table.iter().filter(|row| row.state.as_deref() == Some("warm")).count();
    ensure!(warm == IMAGES && table.len() == IMAGES, "{warm} of {} are warm", table.len());
    Ok(())
}

#[test]
fn an_inventory_that_is_too_large_is_cut_and_takes_nothing_for_gone() -> Result<()> {
    scenario("large-inventory", LIMIT, async |run| {
        let spec = InstallationSpec::new(vec![NodeSpec::new(NODE)]).agent(json!({ "pull": { "maxInFlight": 16 } }));
        let mut installation = Installation::start(&run, spec).await?;
        let image = |number: usize| {
            let tag = number.to_string();
            Image::new(REPOSITORY, &tag).layer_of(1, 1_000).entrypoint(&[&tag])
        };
        let registry = &installation.cluster.registry;
        let names: Vec<String> = stream::iter(0..IMAGES)
            .map(|number| async move { anyhow::Ok(registry.push(&image(number)).await?.by_tag(REGISTRY)) })
            .buffer_unordered(16)
            .try_collect()
            .await?;
        let start = Instant::now();
        for (number, some) in names.chunks(EACH).enumerate() {
            let some: Vec<&str> = some.iter().map(String::as_str).collect();
            installation.deploy(&format!("d-{number}"), &some).await?;
        }
        eventually("every image is warm", Duration::from_mins(4), async || all_are_warm(&installation).await).await?;
        measured("2,500 small images, deployed to warm", start.elapsed());

        let key = format!("{NODE}.inv");
        let left_out = eventually("the inventory is cut", SOON, async || {
            inventory_says(&installation.kv("nodes", &key).await?).map(Some)
        })
        .await?;
        let agent = installation.agent(NODE)?;
        ensure!(agent.process.log_text().contains("too-large"), "the log of the agent does not say it");
        let admin = agent.admin();
        let counted = installation.metric(&admin, "warm_inventory_left_out_objects", "").await?;
        ensure!((counted - left_out as f64).abs() < 0.5, "{counted} counted, {left_out} left out");
        let labels = installation.our_labels(NODE).await?;

        installation.controller.process.restart()?;
        installation.until_controller_ready().await?;
        eventually("the new controller has read the inventory", SOON, async || {
            let table = installation.table().await?;
            let warm = table.iter().filter(|row| row.state.as_deref() == Some("warm")).count() as u64;
            let open = table.iter().filter(|row| row.state.is_none()).count() as u64;
            ensure!(warm + open == IMAGES as u64 && open == left_out, "{warm} warm, {open} not known");
            Ok(())
        })
        .await?;
        ensure!(installation.our_labels(NODE).await? == labels, "labels have changed");

        let gone = names.first().cloned().unwrap_or_default();
        installation.cluster.registry.delete(REPOSITORY, gone.rsplit(':').next().unwrap_or_default()).await?;
        installation.cluster.node(NODE)?.containerd.crictl().remove(&gone).await?;
        installation.until_state(NODE, &gone, "failed", Some("not-found")).await?;
        Ok(())
    })
}
