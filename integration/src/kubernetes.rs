//! A full cluster: real nodes on one machine, each with a runtime, a kubelet and a kube-proxy in namespaces of its own, and
//! Services and DNS that work. Owns the order of the start and what belongs to a node. The cluster without kubelets is
//! `cluster`'s; it starts quicker and is what most tests want.
//!
//! All of it is in networks of the run ([`crate::run::scenario_in_network`]): nothing listens where anybody else is, and
//! everything is gone with the processes, however the test ends, but the cgroups of a test that was killed.

mod address;
mod cgroup;
mod dns;
mod kubelet;
mod machine;
mod runtime;
pub mod scheduler;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client};

use crate::apiserver::ApiServer;
use crate::cluster::REGISTRY;
use crate::controller_manager::ControllerManager;
use crate::eventually::eventually;
use crate::image::Image;
use crate::network::{Door, Network};
use crate::parts::{Parts, Tool};
use crate::process::{Invocation, Process, output};
use crate::registry::Registry;
use crate::run::RunDir;
use crate::system_program;

use machine::Machine;
use scheduler::Scheduler;

pub use address::CONTROL_PLANE;
pub use runtime::Runtime;

/// Everything that Kubernetes' own controllers do.
const CONTROLLERS: &[&str] = &["*", "serviceaccount-controller"];

/// For cluster DNS to be ready.
const READY: Duration = Duration::from_mins(1);

/// `kubectl` takes no longer.
const LIMIT: Duration = Duration::from_mins(1);

/// A node. Fields drop in this order: the machine ends whatever is still on it.
pub struct Node {
    /// Name of the Node object.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its kube-proxy.
    pub proxy: Process,
    /// Its kubelet.
    pub kubelet: Process,
    /// Its container runtime.
    pub runtime: Runtime,
    _machine: Machine,
}

/// A running cluster. Fields drop in this order: what uses a part goes before it.
pub struct Kubernetes {
    /// The nodes, in the order asked for.
    pub nodes: Vec<Node>,
    _scheduler: Scheduler,
    /// Kubernetes' own controllers.
    pub controllers: ControllerManager,
    /// The registry, which nodes and pods know as [`REGISTRY`].
    pub registry: Registry,
    /// The control plane.
    pub api: ApiServer,
    parts: Parts,
    run: Arc<RunDir>,
}

impl Kubernetes {
    /// Builds the parts if need be, starts a cluster with nodes of these names and waits until its DNS answers.
    pub async fn start(run: &Arc<RunDir>, names: &[&str]) -> Result<Self> {
        let parts = tokio::task::spawn_blocking(Parts::all).await.context("building the parts")??;
        let machines = start_machines(run, &parts, names).await?;
        let control_plane = async {
            let api = ApiServer::start_for(run, &parts, CONTROL_PLANE).await?;
            let managers = ControllerManager::start(run, &parts, &api, CONTROLLERS);
            let (controllers, scheduler) = tokio::try_join!(managers, Scheduler::start(run, &parts, &api, &[]))?;
            anyhow::Ok((api, controllers, scheduler))
        };
        let images = async {
            // The port that a name without one means.
            let registry = Registry::start_at(run, &parts, (CONTROL_PLANE, 80).into()).await?;
            for image in [busybox("pause")?.entrypoint(&["/bin/busybox", "sleep", "2147483647"]), dns::image(&parts)?] {
                registry.push(&image).await?;
            }
            anyhow::Ok(registry)
        };
        let ((api, controllers, scheduler), registry) = tokio::try_join!(control_plane, images)?;
        let starts = machines
            .into_iter()
            .zip(1..)
            .zip(names)
            .map(|((machine, number), name)| start_node(run, &parts, &api, &registry, machine, name, number));
        let nodes = futures::future::try_join_all(starts).await?;
        let run = Arc::clone(run);
        let cluster = Self { nodes, _scheduler: scheduler, controllers, registry, api, parts, run };
        cluster.apply("dns", &dns::objects()).await?;
        cluster.until_available("kube-system", "coredns").await?;
        Ok(cluster)
    }

    /// A Kubernetes client with all rights.
    pub fn client(&self) -> Client {
        self.api.client()
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| format!("the cluster has no node {name}"))
    }

    /// The built parts.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// A door to an address inside, on a loopback port of the machine.
    pub fn door(&self, inside: SocketAddr) -> Result<Door> {
        Door::open(self.run.network().context("the run has no network of its own")?, inside)
    }

    /// A door to the API server, and the kubeconfig with all rights that leads through it.
    pub fn api_door(&self) -> Result<(Door, PathBuf)> {
        let door = self.door(self.api.address())?;
        let kubeconfig = self.api.admin_kubeconfig_by(door.address())?;
        Ok((door, kubeconfig))
    }

    /// Runs `kubectl` with all rights; an exit code other than 0 is an error with what it said.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let invocation = Invocation::new("kubectl", self.parts.path(Tool::Kubectl)?)
            .arg("--kubeconfig")
            .arg(self.api.admin_kubeconfig())
            .args(args.iter().copied());
        output(&self.run, &invocation, LIMIT).await?.success()
    }

    /// Applies an object, or a `List` of them; `name` is the name of the file that is kept.
    pub async fn apply(&self, name: &str, objects: &serde_json::Value) -> Result<()> {
        let file = self.run.write(&format!("manifests/{name}.json"), serde_json::to_vec_pretty(objects)?)?;
        let file = file.to_str().context("the path of the run is no text")?;
        self.kubectl(&["apply", "--server-side", "-f", file]).await.map(drop)
    }

    /// Has the API server judge a new object without keeping it.
    pub async fn dry_run(&self, name: &str, object: &serde_json::Value) -> Result<()> {
        let file = self.run.write(&format!("manifests/{name}.json"), serde_json::to_vec_pretty(object)?)?;
        let file = file.to_str().context("the path of the run is no text")?;
        self.kubectl(&["create", "--dry-run=server", "-f", file]).await.map(drop)
    }

    /// Waits until all pods of a Deployment are ready.
    pub async fn until_available(&self, namespace: &str, deployment: &str) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.client(), namespace);
        let what = format!("all pods of {namespace}/{deployment} are ready");
        let seen = eventually(what, READY, async || {
            let found = deployments.get(deployment).await?;
            let wanted = found.spec.replicas.unwrap_or(1);
            let ready = found.status.and_then(|status| status.ready_replicas).unwrap_or(0);
            ensure!(ready == wanted, "{ready} of {wanted} pods are ready");
            anyhow::Ok(())
        });
        match seen.await {
            Ok(()) => Ok(()),
            Err(error) => {
                let events = self.kubectl(&["get", "events", "--namespace", namespace]).await;
                Err(anyhow!("{error:#}\n{}", events.unwrap_or_else(|error| format!("{error:#}"))))
            }
        }
    }
}

async fn start_machines(run: &Arc<RunDir>, parts: &Parts, names: &[&str]) -> Result<Vec<Machine>> {
    let here = run.network().context("a full cluster wants a network of its own: scenario_in_network")?;
    for program in ["runc", "nft", "ip", "busybox"] {
        system_program::find(program)?;
    }
    let all = u8::try_from(names.len()).context("the number of nodes")?;
    let networks: Vec<Network> = names.iter().map(|_| Network::new()).collect::<Result<_>>()?;
    let numbered: Vec<_> = (1..).zip(&networks).collect();
    here.configure(run, "control-plane", &address::control_plane(&numbered)).await?;
    let mut machines = Vec::new();
    for ((number, network), name) in (1..).zip(networks).zip(names) {
        network.configure(run, name, &address::node(number, all)).await?;
        machines.push(Machine::start(run, parts, name, network).await?);
    }
    Ok(machines)
}

async fn start_node(
    run: &Arc<RunDir>,
    parts: &Parts,
    api: &ApiServer,
    registry: &Registry,
    machine: Machine,
    name: &str,
    number: u8,
) -> Result<Node> {
    let (address, pods) = (address::of_node(number), address::pods_of(number));
    let sandbox = format!("{REGISTRY}/pause:1");
    let route = (REGISTRY, registry.address());
    let runtime = Runtime::start(run, parts, &machine, name, &pods, route, &sandbox).await?;
    let kubelet = kubelet::start_kubelet(run, parts, api, &machine, name, address).await?;
    let proxy = kubelet::start_proxy(run, parts, api, &machine, name)?;
    Ok(Node { name: name.to_owned(), address, proxy, kubelet, runtime, _machine: machine })
}

/// An image with Debian's static busybox: something small that can sleep, serve, look up and fetch.
pub fn busybox(repository: &str) -> Result<Image> {
    let program = std::fs::read(system_program::find("busybox")?).context("reading busybox")?;
    Ok(Image::new(repository, "1").file("/bin/busybox", program).entrypoint(&["/bin/busybox"]))
}
