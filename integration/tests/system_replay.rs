//! A recording of each process plays again, step by step, with the same decisions.
//!
//! Shows: a controller and an agent with `record.path` set go through a Deployment, a pull and a label and stop; both files
//! replay with every step equal, hold none of the secrets planted in the objects they saw, and say that they are
//! complete. With `WARM_RECORD` set, they become the files in `tests/recordings`.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use daemon::record::End;
use integration::cluster::REGISTRY;
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::replay::{Telling, replay};
use integration::run::scenario;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(150);
const STOP: Duration = Duration::from_secs(20);
const SECRET: &str = "hunter2-planted";
const NODE: &str = "node-a";

#[test]
fn what_both_processes_recorded_plays_again_and_holds_no_secret() -> Result<()> {
    scenario("replay", LIMIT, async |run| {
        let (controller, agent) = (run.path().join("controller.jsonl"), run.path().join("agent.jsonl"));
        let spec = InstallationSpec::new(vec![NodeSpec::new(NODE)])
            .controller(json!({ "record": { "path": controller } }))
            .agent(json!({ "record": { "path": agent } }));
        let mut installation = Installation::start(&run, spec).await?;
        plant(&installation).await?;
        let image = installation.deploy_new("web").await?;
        installation.until_warm(&[NODE], &image).await?;
        installation.undeploy("default", "web").await?;
        installation.until_unlabelled(NODE, &image.by_tag(REGISTRY)).await?;
        // Questions with a secret in them, answered before the end.
        let question = json!({ "image": format!("user:{SECRET}@{REGISTRY}/app:1"), "node": NODE }).to_string();
        for asked in [&format!("warm.v1.default.node.{NODE}.req.explain"), "warm.v1.default.ctl.explain"] {
            installation.nats(&["request", asked, &question]).await?;
        }
        installation.agent(NODE)?.process.terminate(STOP).await?;
        installation.controller.process.terminate(STOP).await?;
        for (file, process) in [(&controller, "controller"), (&agent, "agent")] {
            plays_again(file, process)?;
            if std::env::var_os("WARM_RECORD").is_some() {
                let kept =
                    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(format!("{process}.jsonl"));
                std::fs::copy(file, &kept).with_context(|| format!("writing {}", kept.display()))?;
            }
        }
        Ok(())
    })
}

/// An object with a secret wherever one could stand, and an image of it that the controller has seen before it goes on.
async fn plant(installation: &Installation) -> Result<()> {
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "planted",
            "annotations": { "warm-images.dev/warm": SECRET, "warm-images.dev/priority": SECRET, "note": SECRET },
        },
        "spec": {
            "selector": { "matchLabels": { "app": "planted" } },
            "template": {
                "metadata": { "labels": { "app": "planted" }, "annotations": { "warm-images.dev/warm": SECRET } },
                "spec": { "containers": [
                    { "name": "a", "image": format!("user:{SECRET}@{REGISTRY}/app:1"), "args": [SECRET] },
                    { "name": "b", "image": format!("https://user:{SECRET}@{REGISTRY}/app:1"),
                      "env": [{ "name": "TOKEN", "value": SECRET }] },
                ] },
            },
        },
    });
    installation.apply("default", object).await
}

fn plays_again(file: &Path, process: &str) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{process} recorded nothing"))?;
    ensure!(!text.contains("hunter2"), "{process}: the secret is in {}", file.display());
    ensure!(process == "agent" || text.contains("Deployment") && text.contains("planted"), "the plant was not seen");
    let mut told = Vec::new();
    let replayed = replay(BufReader::new(File::open(file)?), &Telling::default(), &mut told)?;
    let told = String::from_utf8(told)?;
    ensure!(replayed.differs.is_none() && replayed.damaged.is_none(), "{process}: {told}");
    ensure!(replayed.end == Some(End::Stopped), "{process} did not end its recording: {replayed:?}");
    ensure!(
        replayed.steps > 5 && replayed.facts > 5 && replayed.effects > 5,
        "{process} did next to nothing: {replayed:?}"
    );
    let words = if process == "agent" { "> pull " } else { "> label node-a" };
    ensure!(told.contains(words), "{process}: no `{words}` in {told}");
    Ok(())
}
