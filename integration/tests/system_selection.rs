//! Whose images are wanted, changed while running.
//!
//! Shows, with the real controller: rules over images, labels of namespaces and of workloads, and CEL over real objects decide
//! what is pulled and labelled; each is reloaded without a restart; an expression that fails on one object is a problem of
//! that object alone; a file that is wrong changes nothing, is said with its key, and is seen in the metrics; `ctl.explain`
//! names the rule.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::{Image, Published};
use integration::installation::{Installation, InstallationSpec, deployment, reader};
use integration::node::NodeSpec;
use integration::run::scenario;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(200);
const SOON: Duration = Duration::from_secs(30);
const NODE: &str = "node-a";

async fn push(installation: &Installation, name: &str) -> Result<Published> {
    installation.cluster.registry.push(&Image::new(format!("team/{name}"), "1").layer(2_000)).await
}

async fn deploy(installation: &Installation, name: &str, labels: Value) -> Result<Published> {
    let image = push(installation, name).await?;
    let mut object = deployment(name, &[&image.by_tag(REGISTRY)]);
    object["metadata"]["labels"] = labels;
    installation.apply("default", object).await?;
    Ok(image)
}

async fn until_warm(installation: &Installation, image: &Published) -> Result<()> {
    installation.until_labelled(NODE, &image.by_tag(REGISTRY), &image.digest).await
}

async fn until_gone(installation: &Installation, image: &Published) -> Result<()> {
    installation.until_unlabelled(NODE, &image.by_tag(REGISTRY)).await
}

async fn explained(installation: &Installation, image: &Published) -> Result<Value> {
    let body = json!({ "image": image.by_tag(REGISTRY) }).to_string();
    installation.ask(reader(), "explain", &body).await
}

async fn label_namespace(installation: &Installation, name: &str, labels: Value) -> Result<()> {
    let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
    Api::<Namespace>::all(installation.cluster.client()).patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn until_current(installation: &Installation, expected: f64) -> Result<()> {
    eventually(format!("warm_config_current is {expected}"), SOON, async || {
        let found = installation.metric(&installation.controller.admin(), "warm_config_current", "").await?;
        ensure!((found - expected).abs() < f64::EPSILON, "it is {found}");
        Ok(())
    })
    .await
}

#[test]
fn images_and_labels_of_namespaces_decide_and_are_reloaded() -> Result<()> {
    scenario("selection", LIMIT, async |run| {
        let no_debug = json!([{ "name": "no-debug", "images": [{ "contains": "-debug" }] }]);
        let spec =
            InstallationSpec::new(vec![NodeSpec::new(NODE)]).controller(json!({ "select": { "exclude": no_debug } }));
        let installation = Installation::start(&run, spec).await?;
        let (app, debug) = (push(&installation, "app").await?, push(&installation, "app-debug").await?);
        installation.deploy("app", &[&app.by_tag(REGISTRY), &debug.by_tag(REGISTRY)]).await?;
        until_warm(&installation, &app).await?;
        let said = explained(&installation, &debug).await?;
        let why = said["notCounted"][0]["why"].as_str().unwrap_or_default();
        ensure!(why == "the image is excluded by select.exclude[0] \"no-debug\"", "{said:#}");
        ensure!(installation.reads(NODE, "team/app-debug") == 0, "{}", installation.cluster.requests.show());

        // The label of a namespace, before and after it is there.
        let team = json!([{ "name": "team", "namespaceSelector": { "matchLabels": { "team": "a" } } }]);
        let urgent = json!([{ "name": "urgent", "kinds": ["Deployment"], "priority": 90 }]);
        installation.reconfigure(json!({ "select": { "exclude": [], "include": team, "priorities": urgent } }))?;
        until_gone(&installation, &app).await?;
        until_current(&installation, 1.0).await?;
        let said = explained(&installation, &app).await?;
        ensure!(said["text"].as_str().unwrap_or_default().contains("no rule of select.include matches it"), "{said:#}");
        label_namespace(&installation, "default", json!({ "team": "a" })).await?;
        until_warm(&installation, &app).await?;
        until_warm(&installation, &debug).await?;
        let owner = explained(&installation, &app).await?["owners"][0].clone();
        ensure!(owner["rule"].as_str().unwrap_or_default().contains("select.include[0] \"team\""), "{owner:#}");
        ensure!(owner["priority"] == 90 && owner["priorityFrom"] == "select.priorities[0] \"urgent\"", "{owner:#}");
        label_namespace(&installation, "default", json!({ "team": null })).await?;
        until_gone(&installation, &app).await?;
        until_gone(&installation, &debug).await
    })
}

#[test]
fn expressions_over_real_objects_decide_fail_alone_and_are_reloaded_and_a_wrong_file_changes_nothing() -> Result<()> {
    scenario("selection-cel", LIMIT, async |run| {
        let installation = Installation::start(&run, InstallationSpec::new(vec![NodeSpec::new(NODE)])).await?;
        let stable = deploy(&installation, "stable", json!({ "track": "stable" })).await?;
        let canary = deploy(&installation, "canary", json!({ "track": "canary" })).await?;
        let bare = deploy(&installation, "bare", json!(null)).await?;
        for image in [&stable, &canary, &bare] {
            until_warm(&installation, image).await?;
        }

        // From no expression to one: everything is listed again, and only what it means is let go of.
        let canaries = "object.kind == 'Deployment' && object.metadata.labels.track == 'canary'";
        let rule = json!([{ "name": "canaries", "expression": canaries }]);
        installation.reconfigure(json!({ "select": { "exclude": rule } }))?;
        until_gone(&installation, &canary).await?;
        until_current(&installation, 1.0).await?;
        let said = explained(&installation, &canary).await?;
        ensure!(said["text"].as_str().unwrap_or_default().contains("select.exclude[0] \"canaries\""), "{said:#}");
        let status = installation.ask(reader(), "status", "").await?;
        ensure!(status["invalidTotal"] == 1 && status["selectionWaitsFor"].is_null(), "{status:#}");
        let invalid = &status["invalid"][0];
        ensure!(invalid["name"] == "Deployment/default/bare", "{invalid:#}");
        let problem = "select.exclude[0] \"canaries\": expression: no such key: labels";
        ensure!(invalid["problems"] == json!([problem]), "{invalid:#}");

        // A file that is wrong.
        installation.reconfigure(json!({ "select": { "exclude": [{ "expression": "object." }] } }))?;
        until_current(&installation, 0.0).await?;
        let log = installation.controller.process.log_text();
        ensure!(log.contains("select.exclude[0].expression: is no CEL"), "the key is not said:\n{log}");
        let said = explained(&installation, &canary).await?;
        ensure!(said["wanted"] == false, "{said:#}");

        // Mended, with another expression; an object that changes is evaluated anew.
        let scaled = json!([{ "expression": "object.spec.replicas > 1" }]);
        installation.reconfigure(json!({ "select": { "exclude": scaled } }))?;
        until_warm(&installation, &canary).await?;
        until_current(&installation, 1.0).await?;
        installation.change("default", "stable", json!({ "spec": { "replicas": 2 } })).await?;
        until_gone(&installation, &stable).await?;
        installation.change("default", "stable", json!({ "spec": { "replicas": 1 } })).await?;
        until_warm(&installation, &stable).await?;
        let status = installation.ask(reader(), "status", "").await?;
        ensure!(status["invalidTotal"] == 0, "{status:#}");
        let gone = explained(&installation, &bare).await?;
        ensure!(gone["nodes"]["states"]["warm"] == 1, "what every selection wanted stayed: {gone:#}");
        let pulls = installation.blob_reads(NODE, "team/bare");
        ensure!(pulls <= 2, "{pulls} reads of blobs: it was pulled once, its configuration and its layer");
        Ok(())
    })
}
