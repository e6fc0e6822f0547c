//! What `kubectl describe` shows of a workload whose image fails.
//!
//! Shows, against the real API server and a registry that refuses: one Warning with the reason on the workload, no second
//! one while it goes on or after the controller was restarted, a series that is counted on instead, and one Event when the
//! image is warm; none for workloads that are well.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::Image;
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::proxy::fault::{Fault, Rule};
use integration::run::scenario;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

const LIMIT: Duration = Duration::from_mins(5);
const PATIENCE: Duration = Duration::from_secs(30);
const NODE: &str = "node-a";

fn spec() -> InstallationSpec {
    InstallationSpec::new(vec![NodeSpec::new(NODE)])
}

/// Our Events about a Deployment, as `kubectl describe` finds them: by name and UID.
async fn events(installation: &Installation, name: &str) -> Result<Vec<Event>> {
    let client = installation.cluster.client();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let uid = deployments.get(name).await?.metadata.uid.context("a Deployment without a UID")?;
    // What describe asks the core API is asked of this one by `regarding`.
    let about = format!("regarding.kind=Deployment,regarding.name={name},regarding.uid={uid}");
    let all: Api<Event> = Api::namespaced(client, "default");
    Ok(all.list(&ListParams::default().fields(&about)).await?.items)
}

async fn of_reason(installation: &Installation, name: &str, reason: &str) -> Result<Vec<Event>> {
    let all = events(installation, name).await?;
    Ok(all.into_iter().filter(|event| event.reason.as_deref() == Some(reason)).collect())
}

/// The only Event of a reason.
async fn one(installation: &Installation, name: &str, reason: &str) -> Result<Event> {
    let [event] = <[Event; 1]>::try_from(of_reason(installation, name, reason).await?)
        .map_err(|all| anyhow::anyhow!("not one {reason} on {name}: {all:?}"))?;
    Ok(event)
}

async fn until_told(installation: &Installation, name: &str, reason: &str) -> Result<Event> {
    eventually(format!("{reason} on {name}"), PATIENCE, async || one(installation, name, reason).await.map(Some)).await
}

/// How often this is tried on the node.
async fn attempts(installation: &mut Installation) -> Result<f64> {
    let admin = installation.agent(NODE)?.admin();
    installation.metric(&admin, "warm_pulls_total", "unauthorized").await
}

async fn until_attempts(installation: &mut Installation, more: f64) -> Result<()> {
    let before = attempts(installation).await?;
    let admin = installation.agent(NODE)?.admin();
    let installation = &*installation;
    eventually("more attempts", Duration::from_mins(1), async || {
        let now = installation.metric(&admin, "warm_pulls_total", "unauthorized").await?;
        ensure!(now >= before + more, "{now} attempts, {before} before");
        Ok(())
    })
    .await
}

#[test]
fn a_refused_image_is_told_once_on_its_workload_and_so_is_its_recovery() -> Result<()> {
    scenario("events", LIMIT, async |run| {
        let config = json!({ "events": { "settle": "300ms" } });
        let mut installation = Installation::start(&run, spec().controller(config)).await?;
        let registry = &installation.cluster.registry;
        let image = registry.push(&Image::new("team/private", "1").layer(1_000)).await?;
        let fault = Fault::status_with(401, "WWW-Authenticate", "Basic realm=\"registry\"");
        installation.cluster.node(NODE)?.registry.add(Rule::new("^/v2/team/private/", fault)?);
        let well = installation.deploy_new("well").await?;
        installation.deploy("private", &[&image.by_tag(REGISTRY), &well.by_tag(REGISTRY)]).await?;
        let warning = until_told(&installation, "private", "WarmImageFailed").await?;
        ensure!(warning.type_.as_deref() == Some("Warning"), "{warning:?}");
        ensure!(warning.reporting_controller.as_deref() == Some("warm-images.dev/controller"), "{warning:?}");
        let note = warning.note.clone().unwrap_or_default();
        for part in [image.by_tag(REGISTRY).as_str(), "1 of 1 nodes", NODE, "unauthorized", "pull-policy.md"] {
            ensure!(note.contains(part), "{part} is missing in: {note}");
        }
        // It goes on.
        until_attempts(&mut installation, 3.0).await?;
        let same = one(&installation, "private", "WarmImageFailed").await?;
        ensure!(same == warning, "told again: {same:?}");
        // The next controller knows of it only what the buckets and the agents say.
        installation.controller.process.restart()?;
        installation.until_ready().await?;
        until_attempts(&mut installation, 3.0).await?;
        let same = one(&installation, "private", "WarmImageFailed").await?;
        ensure!(same.series == warning.series, "old news: {same:?}");
        installation.cluster.node(NODE)?.registry.heal();
        installation.until_labelled(NODE, &image.by_tag(REGISTRY), &image.digest).await?;
        let recovery = until_told(&installation, "private", "WarmImageRecovered").await?;
        ensure!(recovery.type_.as_deref() == Some("Normal"), "{recovery:?}");
        ensure!(events(&installation, "private").await?.len() == 2, "{:?}", events(&installation, "private").await?);
        ensure!(events(&installation, "well").await?.is_empty(), "{:?}", events(&installation, "well").await?);
        Ok(())
    })
}

#[test]
fn a_failure_that_goes_on_counts_on_the_same_event() -> Result<()> {
    scenario("events-series", LIMIT, async |run| {
        let config = json!({ "events": { "settle": "300ms", "repeat": "6s" } });
        let installation = Installation::start(&run, spec().controller(config)).await?;
        let missing = format!("{REGISTRY}/team/never:1");
        installation.deploy("missing", &[&missing]).await?;
        until_told(&installation, "missing", "WarmImageFailed").await?;
        eventually("the third time", PATIENCE, async || {
            let event = one(&installation, "missing", "WarmImageFailed").await?;
            ensure!(event.series.as_ref().is_some_and(|series| series.count >= 3), "{event:?}");
            Ok(())
        })
        .await?;
        one(&installation, "missing", "WarmImageFailed").await.map(drop)
    })
}
