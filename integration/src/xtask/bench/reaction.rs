//! `bench reaction`: how soon a new Deployment reaches the registry (P1) and a present image its Node's label (P3).
//!
//! Owns the measuring. Beside each run of ours goes a raw one: a bare watch on Deployments in this process that calls
//! `PullImage` of the same runtime at once, which is the least that any watcher of Deployments could need.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, WatchEvent, WatchParams};
use serde_json::json;
use shared::image::Reference;
use shared::label;

use super::{Measured, Run, Sample, next_warm, print};
use crate::cluster::REGISTRY;
use crate::eventually::eventually;
use crate::image::{Image, Published};
use crate::installation::{Installation, InstallationSpec, deployment};
use crate::node::NodeSpec;
use crate::xtask::say;

const NODE: &str = "node-a";
const LIMIT: Duration = Duration::from_secs(20);
/// Longer than the controller's step window of 50 ms.
const REST: Duration = Duration::from_millis(150);

/// How much to measure.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Deployments to create, one at a time; the first ten are dropped.
    #[arg(long, default_value_t = 210)]
    runs: usize,
}

pub(super) async fn run(run: &Run, args: &Args) -> Result<()> {
    ensure!(args.runs > 10, "--runs must be above 10: the first ten are dropped");
    let spec = InstallationSpec::new(vec![NodeSpec::new(NODE)])
        // Every image of the run is to be labelled, one after the other on one node.
        .controller(json!({ "timing": { "labelWindow": "0s" }, "labels": { "maxPerNode": 10_000 } }))
        .with_default_timings()
        .with_release_programs();
    let installation = Installation::start(run, spec).await?;
    let runtime = super::pull::runtime_of(&installation, NODE)?;
    installation.create_namespace("kube-public-raw", &[("warm-images.dev/warm", "false")]).await?;
    let mut labels = node_watch(&installation).await?;
    let nats = async_nats::ConnectOptions::with_user_and_password("reader".into(), "reader".into())
        .connect(installation.cluster.nats.url())
        .await?;
    let mut events = nats.subscribe("warm.v1.default.node.*.ev.warm").await?;
    nats.flush().await?;
    let (mut ours, mut raw, mut to_label) = (Sample::default(), Sample::default(), Sample::default());
    for i in 0..args.runs {
        let image = installation.cluster.registry.push(&Image::new(format!("bench/ours-{i}"), "1").layer(512)).await?;
        // One change at a time on a system at rest: within a step window of another change a step waits for its end.
        tokio::time::sleep(REST).await;
        let created = deploy(&installation, "default", &format!("ours-{i}"), &image).await?;
        let first = first_request(&installation, &image).await?;
        // The time the agent's event carries: when the runtime had just confirmed the image.
        let key = Reference::parse(&image.by_tag(REGISTRY))?.key();
        let present = SystemTime::from(next_warm(&mut events, &key, LIMIT).await?.ts);
        let labelled = until_labelled(&mut labels, &image).await?;
        let image = installation.cluster.registry.push(&Image::new(format!("bench/raw-{i}"), "1").layer(512)).await?;
        tokio::time::sleep(REST).await;
        let raw_first = Box::pin(raw_run(&installation, &runtime, i, &image)).await?;
        if i >= 10 {
            ours.add(first.saturating_duration_since(created));
            raw.add(raw_first);
            to_label.add(labelled.duration_since(present).unwrap_or_default());
        }
        if i % 50 == 0 {
            say(&format!("{i} of {}", args.runs));
        }
    }
    print(
        "reaction",
        &[
            Measured {
                what: "P1 created -> registry",
                sample: &ours,
                over: Some(("bare watch + PullImage -> registry", &raw)),
                target: "p50 <= 30, p99 <= 100",
            },
            Measured { what: "bare watch + PullImage -> registry", sample: &raw, over: None, target: "" },
            Measured { what: "P3 present -> labelled", sample: &to_label, over: None, target: "p50 <= 50, p99 <= 200" },
        ],
    )
}

/// Creates a Deployment; the moment its call returned.
async fn deploy(installation: &Installation, namespace: &str, name: &str, image: &Published) -> Result<Instant> {
    installation.apply(namespace, deployment(name, &[&image.by_tag(REGISTRY)])).await?;
    Ok(Instant::now())
}

/// When the node first asked the registry for a manifest of the image.
async fn first_request(installation: &Installation, image: &Published) -> Result<Instant> {
    eventually(format!("{NODE} asks for {}", image.repository), LIMIT, async || {
        installation
            .cluster
            .requests
            .select(|r| r.node == NODE && r.is_manifest() && r.is_of(&image.repository))
            .first()
            .map(|r| r.at)
    })
    .await
}

type NodeEvents = std::pin::Pin<Box<dyn futures::Stream<Item = kube::Result<WatchEvent<Node>>> + Send>>;

async fn node_watch(installation: &Installation) -> Result<NodeEvents> {
    let api = installation.cluster.node_objects();
    let version = api.get(NODE).await?.metadata.resource_version.unwrap_or_default();
    Ok(api.api().watch(&WatchParams::default().timeout(290), &version).await?.boxed())
}

/// When the Node was first seen with the label.
async fn until_labelled(nodes: &mut NodeEvents, image: &Published) -> Result<SystemTime> {
    let key = label::image_label(&Reference::parse(&image.by_tag(REGISTRY))?.key());
    loop {
        let event = tokio::time::timeout(LIMIT, nodes.next()).await?.context("the watch ended; use fewer --runs")??;
        if let WatchEvent::Modified(node) = event
            && node.metadata.labels.is_some_and(|labels| labels.contains_key(&key))
        {
            return Ok(SystemTime::now());
        }
    }
}

/// The same with a bare watch in place of warm-images.
async fn raw_run(
    installation: &Installation,
    runtime: &agent::cri::Client,
    i: usize,
    image: &Published,
) -> Result<Duration> {
    let deployments: Api<Deployment> = Api::namespaced(installation.cluster.client(), "kube-public-raw");
    let version = deployments.list(&kube::api::ListParams::default().limit(1)).await?.metadata.resource_version;
    let watch = deployments.watch(&WatchParams::default(), &version.unwrap_or_default()).await?;
    let reference = image.by_tag(REGISTRY);
    let puller = async {
        let mut watch = std::pin::pin!(watch);
        while let Some(event) = watch.next().await {
            if let WatchEvent::Added(_) = event? {
                runtime.pull(&reference, LIMIT).await?;
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    let name = format!("raw-{i}");
    let creator = deploy(installation, "kube-public-raw", &name, image);
    let ((), created) = tokio::try_join!(puller, creator)?;
    Ok(first_request(installation, image).await?.saturating_duration_since(created))
}
