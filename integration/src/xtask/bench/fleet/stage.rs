//! Where a fleet is measured: owns the installation, its Nodes and workloads, and the process with the agents.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fleet::board::{Arrivals, Glance};
use fleet::control::{Answer, Client, Command};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shared::image::Reference;
use shared::name::ImageKey;

use super::super::Run;
use super::Args;
use crate::cluster::REGISTRY;
use crate::eventually::eventually;
use crate::installation::{Installation, InstallationSpec, agent_user};
use crate::node::NodeSpec;
use crate::process::{Invocation, Process};
use crate::xtask::say;

/// Requests to the API server at once, before anything is measured.
const MAKING: usize = 32;
/// Images of one Deployment.
const EACH: usize = 20;
const LIMIT: Duration = Duration::from_mins(5);

/// The stage.
pub(super) struct Stage {
    pub(super) installation: Installation,
    pub(super) process: Process,
    client: Client,
    /// Nodes that exist.
    pub(super) nodes: usize,
    /// Images wanted everywhere.
    pub(super) intents: usize,
}

impl Stage {
    /// Installation, Nodes, workloads and their intents; the process of the fleet, in which nobody lives yet.
    pub(super) async fn set(run: &Run, args: &Args) -> Result<Self> {
        // One user for all agents.
        let spec = InstallationSpec::new(Vec::new())
            .late("*")
            .with_default_timings()
            .controller(json!({ "labels": { "perSecond": args.labels_per_second } }));
        let spec = if args.one_account { spec } else { spec.with_two_accounts() };
        let spec = if args.debug { spec } else { spec.with_release_programs() };
        let installation = Installation::start(run, spec).await?;
        let program = {
            let programs = installation.programs().clone();
            tokio::task::spawn_blocking(move || programs.fleet()).await.context("building the fleet")??
        };
        let (process, socket) = start(run, &installation, program, args)?;
        let mut process = process;
        let client = process
            .until_ready(Duration::from_secs(30), async || Client::connect(&socket).await.map(Some))
            .await
            .context("starting the fleet")?;
        let mut stage = Self { installation, process, client, nodes: 0, intents: 0 };
        say(&format!("creating {} Nodes", args.agents));
        stage.nodes(args.agents).await?;
        let (objects, kind) = match args.sets {
            0 => (args.workloads.unwrap_or_else(|| args.intents.div_ceil(EACH)), "Deployments"),
            sets => (sets, "ImageSets"),
        };
        let objects = objects.clamp(1, args.intents);
        say(&format!("creating {objects} {kind} with {} images", args.intents));
        stage.wanted(objects, args.intents, args.sets > 0).await?;
        Ok(stage)
    }

    /// So many more Node objects.
    pub(super) async fn nodes(&mut self, count: usize) -> Result<()> {
        let api = self.installation.cluster.node_objects();
        stream::iter(self.nodes..self.nodes + count)
            .map(Ok)
            .try_for_each_concurrent(MAKING, |number| {
                let api = api.clone();
                async move { api.create(&NodeSpec::new(fleet::node(number))).await.map(drop) }
            })
            .await?;
        self.nodes += count;
        Ok(())
    }

    /// So many images, named by so many objects.
    async fn wanted(&mut self, objects: usize, images: usize, by_sets: bool) -> Result<()> {
        let all: Vec<String> = (0..images).map(|i| image(&format!("i-{i}"))).collect();
        let installation = &self.installation;
        stream::iter(all.chunks(images.div_ceil(objects)).enumerate())
            .map(Ok)
            .try_for_each_concurrent(MAKING, |(number, images)| async move {
                if by_sets {
                    return installation
                        .apply_set("default", &format!("s-{number}"), &json!({ "images": images }))
                        .await;
                }
                let images: Vec<&str> = images.iter().map(String::as_str).collect();
                installation.deploy(&format!("w-{number}"), &images).await
            })
            .await?;
        self.intents = images;
        eventually(format!("{images} intents are stored"), LIMIT, async || {
            let stored = self.stored().await?;
            ensure!(stored >= images as u64, "{stored} are");
            anyhow::Ok(())
        })
        .await
    }

    /// Keys of the intents bucket, without `_meta` and the pools' definitions.
    async fn stored(&self) -> Result<u64> {
        let call = "STREAM.INFO.KV_warm-default-intents";
        let ask = json!({ "subjects_filter": "$KV.warm-default-intents.*.i.*" });
        let info = self.installation.cluster.nats.jetstream("admin", call, &ask).await?;
        let subjects = info.pointer("/state/subjects").and_then(Value::as_object);
        Ok(subjects.map_or(0, serde_json::Map::len) as u64)
    }

    /// Starts so many more agents.
    pub(super) async fn agents(&mut self, count: usize) -> Result<()> {
        self.client.ask(&Command::Start(count)).await.map(drop)
    }

    /// All agents at a glance.
    pub(super) async fn glance(&mut self) -> Result<Glance> {
        match self.client.ask(&Command::Glance).await? {
            Answer::Glance(glance) => Ok(glance),
            other => bail!("the fleet answers {other:?}"),
        }
    }

    /// Begins to wait for an intent at all agents.
    pub(super) async fn expect(&mut self, key: ImageKey) -> Result<()> {
        self.client.ask(&Command::Await(key)).await.map(drop)
    }

    /// Waits until what is expected is everywhere.
    pub(super) async fn until_arrived(&mut self, limit: Duration) -> Result<Arrivals> {
        let nodes = self.nodes;
        eventually(format!("{nodes} agents have the intent"), limit, async || {
            let Answer::Arrivals(arrivals) = self.client.ask(&Command::Arrivals).await? else {
                bail!("the fleet answers something else");
            };
            ensure!(arrivals.arrived >= nodes, "{} have it", arrivals.arrived);
            Ok(Some(arrivals))
        })
        .await
    }

    /// Waits until every agent is connected and knows the same set of so many intents; when that was, in microseconds of
    /// the wall clock.
    pub(super) async fn until_current(&mut self, limit: Duration) -> Result<i64> {
        let (nodes, intents) = (self.nodes, self.intents as u64);
        eventually(format!("{nodes} agents know {intents} intents"), limit, async || {
            let glance = self.glance().await?;
            let is_there = glance.current == nodes && glance.connected == nodes && glance.same;
            if is_there && glance.least == intents { Ok(Some(glance.changed)) } else { Err(anyhow!("{glance:?}")) }
        })
        .await
    }

    /// Creates a Deployment of one new image; gives the image's key.
    pub(super) async fn deploy(&self, name: &str) -> Result<()> {
        self.installation.deploy(name, &[&image(name)]).await
    }
}

/// The reference of a name. It says its digest: what the intent says no inventory has to.
fn image(name: &str) -> String {
    format!("{REGISTRY}/fleet/{name}@sha256:{}", hex::encode(Sha256::digest(name)))
}

/// The key of its intent.
pub(super) fn key(name: &str) -> Result<ImageKey> {
    Ok(Reference::parse(&image(name))?.key())
}

fn start(run: &Run, installation: &Installation, program: PathBuf, args: &Args) -> Result<(Process, PathBuf)> {
    let user = agent_user("*");
    let password = run.write("fleet/nats-password", &user)?;
    let config = json!({
        "nats": { "urls": [installation.cluster.nats.url()], "user": user, "passwordFile": password,
            "requestTimeout": format!("{}ms", args.request_timeout.as_millis()) },
        "cluster": "default",
    });
    let config = run.write("fleet/fleet.json", serde_json::to_vec_pretty(&config)?)?;
    let socket = run.path().join("fleet/socket");
    let invocation = Invocation::new("warm-fleet", program).arg("--config").arg(&config).arg("--socket").arg(&socket);
    Ok((installation.cluster.spawn(invocation)?, socket))
}
