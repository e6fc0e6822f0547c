//! A whole test cluster of real parts: owns which parts there are, their start side by side and who is behind which proxy.
//! It starts nothing of the product; that is the test's next step, with `Process`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use kube::Client;

use crate::apiserver::ApiServer;
use crate::containerd::Containerd;
use crate::controller_manager::{self, ControllerManager};
use crate::nats::{Nats, NatsConfig};
use crate::node::{NodeSpec, Nodes};
use crate::parts::{Parts, Tool};
use crate::process::{Invocation, Process};
use crate::proxy::http::HttpProxy;
use crate::proxy::log::RequestLog;
use crate::proxy::tcp::TcpProxy;
use crate::registry::Registry;
use crate::run::RunDir;

/// The name under which nodes know the registry.
pub const REGISTRY: &str = "registry.test";

/// What a cluster is to have.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    nodes: Vec<NodeSpec>,
    registries: Vec<String>,
    nats: NatsConfig,
    controllers: Vec<&'static str>,
    disk: Option<u64>,
}

impl ClusterSpec {
    /// API server, NATS with one almighty user, registry; no node, no controllers.
    pub fn new() -> Self {
        Self {
            nodes: Vec::new(),
            registries: vec![REGISTRY.into()],
            nats: NatsConfig::open(),
            controllers: Vec::new(),
            disk: None,
        }
    }

    /// One more node: a Node object, a containerd, a registry proxy.
    #[must_use]
    pub fn node(mut self, node: NodeSpec) -> Self {
        self.nodes.push(node);
        self
    }

    /// Plain nodes of these names.
    #[must_use]
    pub fn nodes(mut self, names: &[&str]) -> Self {
        self.nodes.extend(names.iter().map(|name| NodeSpec::new(*name)));
        self
    }

    /// One more name that leads to the registry.
    #[must_use]
    pub fn registry_name(mut self, name: &str) -> Self {
        self.registries.push(name.into());
        self
    }

    /// Accounts, users and permissions of NATS.
    #[must_use]
    pub fn nats(mut self, config: NatsConfig) -> Self {
        self.nats = config;
        self
    }

    /// The usual Kubernetes controllers: Deployments become Pods, namespaces can go.
    #[must_use]
    pub fn controllers(self) -> Self {
        self.controllers_of(controller_manager::USUAL)
    }

    /// Every node's images are on a disk of its own of so many bytes.
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> Self {
        self.disk = Some(bytes);
        self
    }

    /// These Kubernetes controllers.
    #[must_use]
    pub fn controllers_of(mut self, names: &[&'static str]) -> Self {
        self.controllers = names.to_vec();
        self
    }
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self::new()
    }
}

/// A node: its runtime and its way to the registry.
pub struct ClusterNode {
    /// Name of the Node object.
    pub name: String,
    /// Its runtime.
    pub containerd: Containerd,
    /// What it sees of the registry.
    pub registry: HttpProxy,
}

/// Running parts. Fields drop in this order: what uses a part goes before it.
pub struct Cluster {
    /// The nodes, in the order asked for.
    pub nodes: Vec<ClusterNode>,
    /// Kubernetes' own controllers, if asked for.
    pub controllers: Option<ControllerManager>,
    /// The control plane.
    pub api: ApiServer,
    /// NATS.
    pub nats: Nats,
    /// The registry itself, behind all proxies.
    pub registry: Registry,
    /// What all nodes asked of the registry.
    pub requests: RequestLog,
    registries: Vec<String>,
    disk: Option<u64>,
    parts: Parts,
    run: Arc<RunDir>,
}

impl Cluster {
    /// Builds the parts if need be and starts them side by side.
    pub async fn start(run: &Arc<RunDir>, spec: ClusterSpec) -> Result<Self> {
        // It may compile for minutes; other tasks of the runtime go on.
        let parts =
            tokio::task::spawn_blocking(|| Parts::ensure(Tool::LIGHT)).await.context("building the parts")??;
        let requests = RequestLog::kept(run);
        let control_plane = async {
            let api = ApiServer::start(run, &parts).await?;
            let nodes = Nodes::new(api.client());
            for node in &spec.nodes {
                nodes.create(node).await?;
            }
            let controllers = if spec.controllers.is_empty() {
                None
            } else {
                Some(ControllerManager::start(run, &parts, &api, &spec.controllers).await?)
            };
            Ok((api, controllers))
        };
        let images = async {
            let registry = Registry::start(run, &parts).await?;
            let starts = spec.nodes.iter().map(|node| {
                start_node(run, &parts, node.name(), &spec.registries, registry.address(), &requests, spec.disk)
            });
            let nodes = futures::future::try_join_all(starts).await?;
            anyhow::Ok((registry, nodes))
        };
        let nats = Nats::start(run, &parts, spec.nats.clone());
        let ((api, controllers), (registry, nodes), nats) = tokio::try_join!(control_plane, images, nats)?;
        Ok(Self {
            nodes,
            controllers,
            api,
            nats,
            registry,
            requests,
            registries: spec.registries,
            disk: spec.disk,
            parts,
            run: Arc::clone(run),
        })
    }

    /// A Kubernetes client with all rights.
    pub fn client(&self) -> Client {
        self.api.client()
    }

    /// The Node objects.
    pub fn node_objects(&self) -> Nodes {
        Nodes::new(self.client())
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Result<&ClusterNode> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| format!("the cluster has no node {name}"))
    }

    /// The node of that name, to stop and restart its runtime.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut ClusterNode> {
        self.nodes.iter_mut().find(|node| node.name == name).with_context(|| format!("the cluster has no node {name}"))
    }

    /// Starts one more node: runtime, registry proxy, Node object.
    pub async fn add_node(&mut self, spec: &NodeSpec) -> Result<&ClusterNode> {
        let address = self.registry.address();
        let node =
            start_node(&self.run, &self.parts, spec.name(), &self.registries, address, &self.requests, self.disk)
                .await?;
        self.node_objects().create(spec).await?;
        self.nodes.push(node);
        self.node(spec.name())
    }

    /// A proxy in front of NATS for one client, who is cut off without disturbing the others.
    pub async fn nats_proxy(&self) -> Result<TcpProxy> {
        TcpProxy::start(self.nats.address()).await
    }

    /// A proxy in front of the registry for a client that is no node (the controller), logged under `name`.
    pub async fn registry_proxy(&self, name: &str) -> Result<HttpProxy> {
        HttpProxy::start(name, self.registry.address(), &self.requests).await
    }

    /// Starts a program of the product (or any other) in the run's folder, with its log beside the parts' logs.
    pub fn spawn(&self, invocation: Invocation) -> Result<Process> {
        Process::start(&self.run, invocation)
    }

    /// The folder of the run.
    pub fn run(&self) -> &Arc<RunDir> {
        &self.run
    }

    /// The built parts.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }
}

async fn start_node(
    run: &Arc<RunDir>,
    parts: &Parts,
    name: &str,
    registries: &[String],
    registry: SocketAddr,
    requests: &RequestLog,
    disk: Option<u64>,
) -> Result<ClusterNode> {
    let proxy = HttpProxy::start(name, registry, requests).await?;
    let routes: Vec<_> = registries.iter().map(|registry| (registry.as_str(), proxy.address())).collect();
    let containerd = Containerd::start_on(run, parts, name, &routes, disk).await?;
    Ok(ClusterNode { name: name.into(), containerd, registry: proxy })
}
