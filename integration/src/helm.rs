//! The product installed as people install it: owns a release of the chart in the hand of the real Helm, on a full cluster,
//! and the images it wants. What the chart renders to is looked at in `chart`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::chart::Chart;
use crate::cluster::REGISTRY;
use crate::eventually::eventually;
use crate::image::Image;
use crate::kubernetes::Kubernetes;
use crate::package::{Compiled, Component, Content, Packer, VERSION};
use crate::parts::{self, Parts, Tool};
use crate::process::{Invocation, output};
use crate::run::RunDir;

/// Helm waits for nothing but hooks.
const LIMIT: Duration = Duration::from_mins(3);

/// From nothing to ready: images are pulled, and agents start before NATS is there.
const READY: Duration = Duration::from_mins(3);

/// Which Helm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helm {
    /// The oldest supported one.
    Three,
    /// The pinned one.
    Four,
}

impl Helm {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Three, Self::Four];

    /// Its program; got once.
    pub fn program(self) -> Result<PathBuf> {
        match self {
            Self::Three => parts::helm3(),
            Self::Four => Parts::ensure(&[Tool::Helm])?.path(Tool::Helm),
        }
    }
}

/// A release of the chart.
pub struct HelmRelease<'a> {
    cluster: &'a Kubernetes,
    run: Arc<RunDir>,
    program: PathBuf,
    chart: String,
    name: String,
}

impl<'a> HelmRelease<'a> {
    /// Of the unmodified chart, under a name that is its namespace's too. Makes the namespace, labelled as the chart's notes
    /// say; installs nothing yet.
    pub async fn new(run: &Arc<RunDir>, cluster: &'a Kubernetes, helm: Helm, name: &str) -> Result<Self> {
        let program = helm.program()?;
        let chart = Chart::source().to_str().context("the path of the chart is no text")?.to_owned();
        let labels = json!({ "pod-security.kubernetes.io/enforce": "privileged" });
        let metadata = json!({ "name": name, "labels": labels });
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata });
        cluster.apply(&format!("namespace-{name}"), &namespace).await?;
        Ok(Self { cluster, run: Arc::clone(run), program, chart, name: name.to_owned() })
    }

    /// What the chart has to be told here: where its images are, and that nodes share a disk with whatever else this machine
    /// does, so that how full it is says nothing. Everything else is as users get it.
    pub fn values() -> Value {
        json!({ "global": { "imageRegistry": REGISTRY }, "config": { "disk": { "mark": 100, "resume": 99 } } })
    }

    /// Name of the release and of its namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `helm install` with these values.
    pub async fn install(&self, values: &Value) -> Result<String> {
        self.with_values("install", values).await
    }

    /// `helm upgrade` with these values, in place of all that were given before.
    pub async fn upgrade(&self, values: &Value) -> Result<String> {
        self.with_values("upgrade", values).await
    }

    /// `helm upgrade --install` with these values, as a person who does not look first.
    pub async fn upgrade_or_install(&self, values: &Value) -> Result<String> {
        let values = self.write(values)?;
        self.helm("upgrade", &["--install", &self.name, &self.chart, "--values", &values]).await
    }

    /// `helm rollback` to a revision, counted from 1.
    pub async fn rollback(&self, revision: u32) -> Result<String> {
        self.helm("rollback", &[&self.name, &revision.to_string()]).await
    }

    /// `helm uninstall`; returns when its hooks are through.
    pub async fn uninstall(&self) -> Result<String> {
        self.helm("uninstall", &[&self.name]).await
    }

    /// The revision that is installed.
    pub async fn revision(&self) -> Result<u32> {
        let status = self.helm("status", &[&self.name, "--output", "json"]).await?;
        let status: Value = serde_json::from_str(&status).context("what helm status says")?;
        let revision = status.get("version").and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
        revision.context("helm status tells no revision")
    }

    /// Any command of Helm in the release's namespace; an exit code other than 0 is an error with what it said.
    pub async fn helm(&self, verb: &str, args: &[&str]) -> Result<String> {
        let invocation = Invocation::new("helm", &self.program)
            .arg(verb)
            .args(args.iter().copied())
            .args(["--namespace", &self.name, "--kubeconfig"])
            .arg(self.cluster.api.admin_kubeconfig());
        output(&self.run, &invocation, LIMIT).await?.success().with_context(|| format!("helm {verb}"))
    }

    async fn with_values(&self, verb: &str, values: &Value) -> Result<String> {
        let values = self.write(values)?;
        self.helm(verb, &[&self.name, &self.chart, "--values", &values]).await
    }

    /// Writes values into a file.
    fn write(&self, values: &Value) -> Result<String> {
        let path = self.run.write(&format!("helm/{}.json", self.name), serde_json::to_vec_pretty(values)?)?;
        path.to_str().map(str::to_owned).context("the path of the run is no text")
    }

    /// Waits until NATS, every controller and an agent on each node are ready, all of the newest revision.
    pub async fn until_ready(&self) -> Result<()> {
        let what = format!("all pods of the release {} are ready", self.name);
        match eventually(what, READY, async || self.is_ready().await).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let shown = async |what| self.cluster.kubectl(&["get", what, "--namespace", &self.name]).await;
                let (pods, events) = (shown("pods").await, shown("events").await);
                Err(anyhow!("{error:#}\n{}\n{}", pods.unwrap_or_default(), events.unwrap_or_default()))
            }
        }
    }

    async fn is_ready(&self) -> Result<()> {
        let client = || self.cluster.client();
        for found in Api::<StatefulSet>::namespaced(client(), &self.name).list(&ListParams::default()).await? {
            let status = found.status.unwrap_or_default();
            let wanted = found.spec.replicas.unwrap_or(1);
            let seen = status.observed_generation == found.metadata.generation;
            let ready = status.ready_replicas.unwrap_or(0);
            let updated = status.updated_replicas.unwrap_or(0);
            ensure!(seen && ready == wanted && updated == wanted, "NATS: {ready} of {wanted} ready, {updated} updated");
        }
        for found in Api::<Deployment>::namespaced(client(), &self.name).list(&ListParams::default()).await? {
            let status = found.status.unwrap_or_default();
            let wanted = found.spec.replicas.unwrap_or(1);
            let seen = status.observed_generation == found.metadata.generation;
            let [ready, updated, all] =
                [status.ready_replicas, status.updated_replicas, status.replicas].map(|count| count.unwrap_or(0));
            let done = seen && [ready, updated, all] == [wanted; 3];
            ensure!(done, "controllers: {ready} of {wanted} ready, {updated} updated, {all} in all");
        }
        let nodes = i32::try_from(self.cluster.nodes.len()).context("the number of nodes")?;
        let daemons = Api::<DaemonSet>::namespaced(client(), &self.name).list(&ListParams::default()).await?;
        ensure!(!daemons.items.is_empty(), "there is no DaemonSet");
        for found in daemons {
            let status = found.status.unwrap_or_default();
            let seen = status.observed_generation == found.metadata.generation;
            let (ready, updated) = (status.number_ready, status.updated_number_scheduled.unwrap_or(0));
            ensure!(seen && ready == nodes && updated == nodes, "agents: {ready} of {nodes} ready, {updated} updated");
        }
        Ok(())
    }
}

/// What is in our images, but not optimised; takes minutes in a fresh work tree. Beside it everything is got that a full
/// cluster and Helm are made of. To be called before a run has a network of its own, from which nothing can be downloaded.
pub fn prepare(helm: Helm) -> Result<Vec<Content>> {
    Parts::all()?;
    helm.program()?;
    let source = crate::xtask::root();
    let one = |component| Content::of(&Compiled::local(component)?, &source);
    Component::ALL.into_iter().map(one).collect()
}

/// Pushes the images that the chart wants to the cluster's registry: ours, and NATS as the official image has it.
pub async fn push_images(cluster: &Kubernetes, contents: &[Content]) -> Result<()> {
    let contents = contents.to_vec();
    let packer = Packer::quick(cluster.parts(), cluster.registry.address())?;
    let push = move || contents.iter().try_for_each(|content| packer.push(content, VERSION).map(drop));
    tokio::task::spawn_blocking(push).await.context("packing images")??;
    cluster.registry.push(&nats_image(cluster.parts())?).await.map(drop)
}

/// The pinned server where the official image has it, under the name in the chart's values.
fn nats_image(parts: &Parts) -> Result<Image> {
    let values = Chart::default_values()?;
    let text = |key: &str| {
        let found = values.pointer(&format!("/nats/embedded/image/{key}")).and_then(Value::as_str);
        found.with_context(|| format!("the chart's values name no {key} of the NATS image"))
    };
    let program = std::fs::read(parts.path(Tool::NatsServer)?).context("reading nats-server")?;
    Ok(Image::new(text("repository")?, text("tag")?).file("/nats-server", program).entrypoint(&["/nats-server"]))
}
