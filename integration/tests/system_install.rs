//! The unmodified chart, installed by the real Helm on a full cluster of two nodes, with the images of `cargo xtask images`.
//!
//! Shows: `helm install` with the defaults makes an image warm on both nodes, and a Deployment's pods start with the event
//! "already present on machine", without a pull of the kubelet's.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::helm::{Helm, HelmRelease, compile_images, push_images};
use integration::image::Published;
use integration::kubernetes::{Kubernetes, busybox};
use integration::run::{RunDir, measured, scenario_in_network};
use serde_json::{Value, json};
use shared::image::Reference;
use shared::label;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_mins(8);
const NODES: [&str; 2] = ["node-a", "node-b"];
/// A label may wait for its window of 30 s.
const WARM: Duration = Duration::from_mins(2);

/// A cluster with the release installed and ready.
async fn install<'a>(run: &Arc<RunDir>, cluster: &'a Kubernetes, helm: Helm) -> Result<HelmRelease<'a>> {
    let release = HelmRelease::new(run, cluster, helm, "warm-images").await?;
    let start = Instant::now();
    release.install(&HelmRelease::values()).await?;
    release.until_ready().await?;
    measured("helm install until everything is ready", start.elapsed());
    Ok(release)
}

async fn cluster(run: &Arc<RunDir>) -> Result<Kubernetes> {
    let start = Instant::now();
    let cluster = Kubernetes::start(run, &NODES).await?;
    measured("a full cluster", start.elapsed());
    let start = Instant::now();
    push_images(&cluster, compile_images().await?).await?;
    measured("building and pushing the images", start.elapsed());
    Ok(cluster)
}

/// A Deployment of an image, of so many pods.
fn deployment(name: &str, image: &str, replicas: u32) -> Value {
    let labels = json!({ "app": name });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                        "labelSelector": { "matchLabels": labels },
                    }],
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{ "name": "it", "image": image, "args": ["sleep", "100000"] }],
                },
            },
        },
    })
}

/// Waits until every node carries the image's label.
async fn until_warm(cluster: &Kubernetes, image: &Published) -> Result<()> {
    let key = label::image_label(&Reference::parse(&image.by_tag(REGISTRY))?.key());
    let seen = eventually(format!("{} is warm on every node", image.repository), WARM, async || {
        let nodes: Value = serde_json::from_str(&cluster.kubectl(&["get", "nodes", "-o", "json"]).await?)?;
        for node in nodes["items"].as_array().context("a list of nodes")? {
            let labels = &node["metadata"]["labels"];
            ensure!(!labels[&key].is_null(), "{} has the labels {labels}", node["metadata"]["name"]);
        }
        anyhow::Ok(())
    });
    match seen.await {
        Ok(()) => Ok(()),
        Err(error) => Err(anyhow!("{error:#}\n{}", controllers_view(cluster).await)),
    }
}

/// What the controller thinks, by the command that the chart's notes give.
async fn controllers_view(cluster: &Kubernetes) -> String {
    let path = "/api/v1/namespaces/warm-images/services/warm-images-controller:admin/proxy/state";
    let (state, table) = (
        cluster.kubectl(&["get", "--raw", path]).await,
        cluster.kubectl(&["get", "--raw", &format!("{path}/table")]).await,
    );
    let shown = |answer: Result<String>| answer.unwrap_or_else(|error| format!("{error:#}"));
    format!("{}\n{}", shown(state), shown(table))
}

/// Scales a Deployment whose image is warm, and looks at how its pods started.
async fn pods_find_the_image_present(cluster: &Kubernetes, name: &str, replicas: u32) -> Result<()> {
    let start = Instant::now();
    cluster.kubectl(&["scale", &format!("deployment/{name}"), &format!("--replicas={replicas}")]).await?;
    cluster.until_available("default", name).await?;
    measured(&format!("{replicas} pods of a warm image"), start.elapsed());
    let events = ["get", "events", "--namespace", "default", "-o", "json"];
    let events: Value = serde_json::from_str(&cluster.kubectl(&events).await?)?;
    let mut present = 0;
    for event in events["items"].as_array().context("a list of events")? {
        let of = event["involvedObject"]["name"].as_str().unwrap_or_default();
        if !of.starts_with(&format!("{name}-")) {
            continue;
        }
        ensure!(event["reason"] != "Pulling", "the kubelet pulls: {event}");
        if event["reason"] == "Pulled" {
            let said = event["message"].as_str().unwrap_or_default();
            ensure!(said.contains("already present on machine"), "{said}");
            present += 1;
        }
    }
    ensure!(present == replicas, "{present} of {replicas} pods found the image");
    Ok(())
}

#[test]
fn pods_of_a_deployment_start_with_their_image_already_present() -> Result<()> {
    scenario_in_network("install", LIMIT, async |run| {
        let cluster = cluster(&run).await?;
        install(&run, &cluster, Helm::Four).await?;
        let image = cluster.registry.push(&busybox("shop/web")?).await?;
        let start = Instant::now();
        cluster.apply("web", &deployment("web", &image.by_tag(REGISTRY), 0)).await?;
        until_warm(&cluster, &image).await?;
        measured("Deployment applied to warm and labelled on both nodes", start.elapsed());
        pods_find_the_image_present(&cluster, "web", 4).await
    })
}
