//! The agent's state file is truncated, full of garbage, old, of another node, unreadable, or cannot be written.
//!
//! Shows: whatever the file holds, the agent starts, says what is wrong with it and keeps it aside for people, pulls nothing
//! that is there, takes no label away, warms what is new, and writes a good file again as soon as it can.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::Published;
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::run::scenario;
use integration::witness::Witness;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(5);
const SOON: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(20);
const NODE: &str = "node-a";

fn folder(installation: &Installation) -> PathBuf {
    installation.cluster.run().path().join(NODE).join("state")
}

fn file(installation: &Installation) -> PathBuf {
    folder(installation).join("state.json")
}

/// Waits until the file tells of all of these images, and gives its bytes.
async fn until_saved(installation: &Installation, images: &[Published]) -> Result<Vec<u8>> {
    let path = file(installation);
    eventually("the state file tells of every image", SOON, async || {
        let bytes = std::fs::read(&path)?;
        let state: Value = serde_json::from_slice(&bytes)?;
        let pools = state["pools"].to_string();
        for image in images {
            ensure!(pools.contains(&image.by_tag(REGISTRY)), "{}: {pools}", image.repository);
        }
        Ok(Some(bytes))
    })
    .await
}

/// One more image, warm.
async fn one_more(installation: &Installation, name: &str, images: &mut Vec<Published>) -> Result<()> {
    let image = installation.deploy_new(name).await?;
    installation.until_warm(&[NODE], &image).await?;
    images.push(image);
    Ok(())
}

/// Starts the agent on what `damage` left, and looks whether it works; gives what its log says of this start.
async fn start_on(
    installation: &mut Installation,
    name: &str,
    images: &mut Vec<Published>,
    damage: impl FnOnce(&Path) -> Result<()>,
) -> Result<String> {
    installation.agent(NODE)?.process.terminate(STOP).await?;
    let told = installation.agent(NODE)?.process.log_text().len();
    damage(&file(installation)).with_context(|| format!("damage: {name}"))?;
    installation.agent(NODE)?.process.start_again()?;
    installation.until_agent_ready(NODE).await.with_context(|| format!("after {name}"))?;
    one_more(installation, name, images).await.with_context(|| format!("after {name}"))?;
    let all: Vec<&Published> = images.iter().collect();
    installation.pulled_once(&[NODE], &all).with_context(|| format!("after {name}"))?;
    Ok(installation.agent(NODE)?.process.log_text().get(told..).unwrap_or_default().to_owned())
}

/// What the folder holds beside the state itself.
fn beside(installation: &Installation) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder(installation))?;
    let names =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    Ok(names.into_iter().filter(|name| name != "state.json").collect())
}

async fn installed(run: &std::sync::Arc<integration::run::RunDir>) -> Result<(Installation, Witness, Vec<Published>)> {
    let installation = Installation::start(run, InstallationSpec::new(vec![NodeSpec::new(NODE)])).await?;
    let witness = Witness::start(installation.cluster.client()).await?;
    let mut images = Vec::new();
    for name in ["one", "two"] {
        one_more(&installation, name, &mut images).await?;
    }
    Ok((installation, witness, images))
}

#[test]
fn a_damaged_file_is_kept_aside_and_everything_is_learned_anew() -> Result<()> {
    scenario("state-damaged", LIMIT, async |run| {
        let (mut installation, witness, mut images) = Box::pin(installed(&run)).await?;
        let garbage: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(3_000).collect();
        let cut = |whole: &[u8], keep: usize| whole[..keep.min(whole.len())].to_vec();
        for name in ["nothing", "one-byte", "half", "all-but-one", "garbage", "zeros"] {
            let whole = until_saved(&installation, images.get(images.len() - 1..).unwrap_or_default()).await?;
            let damaged = match name {
                "nothing" => Vec::new(),
                "one-byte" => cut(&whole, 1),
                "half" => cut(&whole, whole.len() / 2),
                "all-but-one" => cut(&whole, whole.len() - 1),
                "garbage" => garbage.clone(),
                _ => vec![0; whole.len()],
            };
            let log =
                start_on(&mut installation, name, &mut images, |file| Ok(std::fs::write(file, &damaged)?)).await?;
            ensure!(log.contains("cannot be used") && log.contains("state.json"), "{name}: {log}");
            let kept = beside(&installation)?;
            let is_kept = |name: &String| std::fs::read(folder(&installation).join(name)).is_ok_and(|b| b == damaged);
            ensure!(kept.iter().any(is_kept), "{name}: the damaged file is not among {kept:?}");
        }
        let all: Vec<&Published> = images.iter().collect();
        witness.none_lost(&[NODE], &all).await
    })
}

#[test]
fn an_old_file_or_another_nodes_is_caught_up_with() -> Result<()> {
    scenario("state-old", LIMIT, async |run| {
        let (mut installation, witness, mut images) = Box::pin(installed(&run)).await?;
        let old = until_saved(&installation, &images).await?;
        let withdrawn = installation.deploy_new("withdrawn").await?;
        installation.until_warm(&[NODE], &withdrawn).await?;
        let older = until_saved(&installation, std::slice::from_ref(&withdrawn)).await?;
        installation.undeploy("default", "withdrawn").await?;
        installation.until_unlabelled(NODE, &withdrawn.by_tag(REGISTRY)).await?;

        // Before and amid changes that have happened since.
        start_on(&mut installation, "old", &mut images, |file| Ok(std::fs::write(file, &old)?)).await?;
        start_on(&mut installation, "older", &mut images, |file| Ok(std::fs::write(file, &older)?)).await?;
        installation.until_unlabelled(NODE, &withdrawn.by_tag(REGISTRY)).await?;
        ensure!(installation.image_label(NODE, &withdrawn.by_tag(REGISTRY)).await?.is_none(), "wanted again");

        // Of a Node that was another one, with a head far ahead and an epoch that never was.
        let mut foreign: Value = serde_json::from_slice(&old)?;
        foreign["assignment"]["uid"] = json!("00000000-0000-4000-8000-000000000000");
        for pool in foreign["pools"].as_object_mut().context("no pools")?.values_mut() {
            pool["head"] = json!(1_000_000);
        }
        let bytes = serde_json::to_vec(&foreign)?;
        start_on(&mut installation, "foreign", &mut images, |file| Ok(std::fs::write(file, &bytes)?)).await?;
        foreign["epoch"] = json!("00000000-0000-4000-8000-000000000001");
        foreign["term"] = json!(77);
        let bytes = serde_json::to_vec(&foreign)?;
        start_on(&mut installation, "epoch", &mut images, |file| Ok(std::fs::write(file, &bytes)?)).await?;
        until_saved(&installation, images.get(images.len() - 1..).unwrap_or_default()).await?;
        let all: Vec<&Published> = images.iter().collect();
        witness.none_lost(&[NODE], &all).await
    })
}

#[test]
fn a_file_that_cannot_be_read_or_written_stops_nothing() -> Result<()> {
    scenario("state-unwritable", LIMIT, async |run| {
        let (mut installation, witness, mut images) = Box::pin(installed(&run)).await?;
        until_saved(&installation, &images).await?;

        // No file at all, and something that is none.
        start_on(&mut installation, "gone", &mut images, |file| Ok(std::fs::remove_file(file)?)).await?;
        until_saved(&installation, images.get(images.len() - 1..).unwrap_or_default()).await?;
        let folder_instead = |file: &Path| -> Result<()> {
            std::fs::remove_file(file)?;
            Ok(std::fs::create_dir(file)?)
        };
        let log = start_on(&mut installation, "folder", &mut images, folder_instead).await?;
        ensure!(log.contains("state.json"), "{log}");
        until_saved(&installation, images.get(images.len() - 1..).unwrap_or_default()).await?;

        // The disk is full: the kernel says so of every write.
        let full = folder(&installation).join("state.json.partial");
        let mut before = Vec::new();
        let no_room = |file: &Path| {
            before = std::fs::read(file)?;
            Ok(std::os::unix::fs::symlink("/dev/full", &full)?)
        };
        start_on(&mut installation, "full", &mut images, no_room).await?;
        let admin = installation.agent(NODE)?.admin();
        let failed = async |reason: &str| {
            let labels = format!("kind=\"persist\",outcome=\"transient\",reason=\"{reason}\"");
            installation.metric(&admin, "warm_effects_total", &labels).await
        };
        eventually("two writes have failed", SOON, async || anyhow::Ok(failed("no-space").await? >= 2.0)).await?;
        ensure!(std::fs::read(file(&installation))? == before, "the old file is not what it was");
        std::fs::remove_file(&full)?;
        until_saved(&installation, images.get(images.len() - 1..).unwrap_or_default()).await?;

        // There is no such place: nothing is ever written there, and the next start has nothing.
        let config = installation.agent(NODE)?.config.clone();
        let mut changed: Value = serde_json::from_slice(&std::fs::read(&config)?)?;
        changed["stateDir"] = json!("/proc/warm-images");
        std::fs::write(&config, serde_json::to_vec_pretty(&changed)?)?;
        for name in ["nowhere", "nowhere-again"] {
            let log = start_on(&mut installation, name, &mut images, |_| Ok(())).await?;
            ensure!(log.contains("/proc/warm-images") && log.contains("writable"), "{log}");
        }
        let all: Vec<&Published> = images.iter().collect();
        witness.none_lost(&[NODE], &all).await
    })
}
