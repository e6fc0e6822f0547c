//! What a test wants installed, as data: owns what is usual, and merges what is said of configurations. Starting it is
//! `installation`'s.

use serde_json::{Value, json};

use super::between::ApiRoute;
use super::merge;
use crate::node::NodeSpec;

/// What is to be installed on what.
#[derive(Clone, Debug)]
pub struct InstallationSpec {
    pub(super) nodes: Vec<NodeSpec>,
    pub(super) late: Vec<String>,
    pub(super) intercepted: Vec<String>,
    pub(super) api: ApiRoute,
    pub(super) controllers: usize,
    pub(super) controller: Value,
    pub(super) agent: Value,
    pub(super) logins: Logins,
    pub(super) with_controllers: bool,
    pub(super) with_defaults: bool,
    pub(super) release: bool,
    pub(super) disk: Option<u64>,
}

/// How agents log in at NATS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logins {
    /// A user and password each, in the account of the controller.
    OneAccount,
    /// The same in an account of their own.
    TwoAccounts,
    /// By the token of their Pod, in an account of their own.
    Tokens,
}

impl InstallationSpec {
    /// Nodes `node-a` and `node-b`, every namespace but `kube-*`, test timings.
    pub fn two_nodes() -> Self {
        Self::new(vec![NodeSpec::new("node-a"), NodeSpec::new("node-b")])
    }

    /// These nodes, each with an agent.
    pub fn new(nodes: Vec<NodeSpec>) -> Self {
        Self {
            nodes,
            late: Vec::new(),
            intercepted: Vec::new(),
            api: ApiRoute::default(),
            controllers: 1,
            controller: json!({}),
            agent: json!({}),
            logins: Logins::OneAccount,
            with_controllers: false,
            with_defaults: false,
            release: false,
            disk: None,
        }
    }

    /// NATS knows a user for the agent of this node, which joins later.
    #[must_use]
    pub fn late(mut self, node: &str) -> Self {
        self.late.push(node.to_owned());
        self
    }

    /// The agent of this node reaches its runtime through a proxy, see [`Installation::runtime`](super::Installation::runtime).
    #[must_use]
    pub fn intercept_runtime(mut self, node: &str) -> Self {
        self.intercepted.push(node.to_owned());
        self
    }

    /// The controller reaches the API server through a proxy that does faults to requests; it speaks TLS in the
    /// controller's stead. See [`Installation::api_requests`](super::Installation::api_requests).
    #[must_use]
    pub fn api_by_requests(mut self) -> Self {
        self.api = ApiRoute::Http;
        self
    }

    /// The controller reaches the API server through a proxy that cuts and stalls connections, see
    /// [`Installation::api_connections`](super::Installation::api_connections).
    #[must_use]
    pub fn api_by_bytes(mut self) -> Self {
        self.api = ApiRoute::Tcp;
        self
    }

    /// So many controllers, started at once; which of them leads is open.
    #[must_use]
    pub fn controllers(mut self, count: usize) -> Self {
        self.controllers = count;
        self
    }

    /// Merged over the configuration of every controller.
    #[must_use]
    pub fn controller(mut self, config: Value) -> Self {
        merge(&mut self.controller, config);
        self
    }

    /// Merged over every agent's configuration.
    #[must_use]
    pub fn agent(mut self, config: Value) -> Self {
        merge(&mut self.agent, config);
        self
    }

    /// Every node's images are on a disk of its own of so many bytes, which its agent sees.
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> Self {
        self.disk = Some(bytes);
        self
    }

    /// Agents are in an account of their own on NATS.
    #[must_use]
    pub fn with_two_accounts(mut self) -> Self {
        self.logins = Logins::TwoAccounts;
        self
    }

    /// The same, and agents log in by the token of their Pod: NATS asks the controllers who they are.
    #[must_use]
    pub fn with_callout(mut self) -> Self {
        self.logins = Logins::Tokens;
        self
    }

    /// The usual Kubernetes controllers run too.
    #[must_use]
    pub fn with_kubernetes_controllers(mut self) -> Self {
        self.with_controllers = true;
        self
    }

    /// The intervals that users get, in place of the tests'.
    #[must_use]
    pub fn with_default_timings(mut self) -> Self {
        self.with_defaults = true;
        self
    }

    /// Release builds of our programs: what a benchmark measures.
    #[must_use]
    pub fn with_release_programs(mut self) -> Self {
        self.release = true;
        self
    }
}
