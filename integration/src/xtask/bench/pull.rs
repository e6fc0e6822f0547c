//! `bench pull`: from the intent to warm, against the same pull straight through CRI (P2), alternating in one run.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use shared::image::Reference;

use super::{Measured, Run, Sample, next_warm, print};
use crate::cluster::REGISTRY;
use crate::image::Image;
use crate::installation::{Installation, InstallationSpec};
use crate::node::NodeSpec;
use crate::xtask::say;

const NODE: &str = "node-a";
const LIMIT: Duration = Duration::from_mins(1);

/// How much to measure.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Pairs of pulls.
    #[arg(long, default_value_t = 40)]
    runs: usize,
    /// Size of each image in MB, in four layers.
    #[arg(long, default_value_t = 20)]
    megabytes: usize,
}

/// A CRI client of our own on a node's runtime.
pub(super) fn runtime_of(installation: &Installation, node: &str) -> Result<agent::cri::Client> {
    let socket = installation.cluster.node(node)?.containerd.socket().display().to_string();
    Ok(agent::cri::Client::new(agent::cri::Settings {
        sockets: agent::cri::Sockets::new(Some(&socket)),
        request_timeout: Duration::from_secs(10),
        sandbox_namespace: "bench".to_owned(),
        sandbox_uid: "bench".to_owned(),
    }))
}

pub(super) async fn run(run: &Run, args: &Args) -> Result<()> {
    let spec = InstallationSpec::new(vec![NodeSpec::new(NODE)]).with_default_timings().with_release_programs();
    let installation = Installation::start(run, spec).await?;
    let runtime = runtime_of(&installation, NODE)?;
    let nats = async_nats::ConnectOptions::with_user_and_password("admin".into(), "admin".into())
        .connect(installation.cluster.nats.url())
        .await?;
    let mut intents = nats.subscribe("$KV.warm-default-intents.all.i.*").await?;
    let mut events = nats.subscribe("warm.v1.default.node.*.ev.warm").await?;
    nats.flush().await?;
    let (mut ours, mut raw) = (Sample::default(), Sample::default());
    for i in 0..args.runs.saturating_add(2) {
        let ours_took = ours_once(&installation, &mut intents, &mut events, i, args.megabytes).await?;
        let image = image(&format!("bench/raw-{i}"), args.megabytes);
        let reference = installation.cluster.registry.push(&image).await?.by_tag(REGISTRY);
        let start = Instant::now();
        runtime.pull(&reference, LIMIT).await?;
        let raw_took = start.elapsed();
        // The first two warm up caches of registry and runtime.
        if i >= 2 {
            ours.add(ours_took);
            raw.add(raw_took);
        }
        if i % 10 == 0 {
            say(&format!("{i} of {}", args.runs));
        }
    }
    print(
        "pull",
        &[
            Measured {
                what: "P2 intent -> warm",
                sample: &ours,
                over: Some(("PullImage straight through CRI", &raw)),
                target: "ratio <= 1.05",
            },
            Measured { what: "PullImage straight through CRI", sample: &raw, over: None, target: "" },
        ],
    )
}

fn image(repository: &str, megabytes: usize) -> Image {
    let layer = megabytes * 1_000_000 / 4;
    Image::new(repository, "1").layer(layer).layer(layer).layer(layer).layer(layer)
}

async fn ours_once(
    installation: &Installation,
    intents: &mut async_nats::Subscriber,
    events: &mut async_nats::Subscriber,
    i: usize,
    megabytes: usize,
) -> Result<Duration> {
    let image = installation.cluster.registry.push(&image(&format!("bench/ours-{i}"), megabytes)).await?;
    let reference = image.by_tag(REGISTRY);
    let wanted = Reference::parse(&reference)?.key();
    installation.deploy(&format!("ours-{i}"), &[&reference]).await?;
    let start = loop {
        let intent = tokio::time::timeout(LIMIT, intents.next()).await?.context("the subscription ended")?;
        if intent.subject.ends_with(wanted.as_str()) {
            break Instant::now();
        }
    };
    next_warm(events, &wanted, LIMIT).await?;
    Ok(start.elapsed())
}
