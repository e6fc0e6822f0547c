//! `warm-controller cleanup`: takes away what the system leaves on Nodes and hosts, in its namespace and, if asked to, in
//! NATS.
//!
//! Owns what that is and the limit of time. Each thing is tried by itself, again and again until the limit; one that cannot
//! be removed keeps no other. Runs when the release is gone and no controller has any right to write (the chart's
//! post-delete hook). Never waits for anybody: an uninstall must end.

mod agents;
mod attempt;
mod buckets;
mod nodes;
mod objects;

use std::fmt;
use std::time::Duration;

use kube::core::DynamicObject;
use tokio::time::Instant;

use self::attempt::until_done;
use crate::api::client::{ConnectError, connect};
use crate::config::ControllerConfig;

pub use self::nodes::Cleared;

/// What is removed beside labels and taints of Nodes and the Lease of the election.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extent {
    /// The `DaemonSet` that takes the agents' state away on each node, as it was written.
    pub agents: Option<DynamicObject>,
    /// Names of Secrets in our namespace: what `init-nats` made.
    pub secrets: Vec<String>,
    /// The three buckets, with everything in them.
    pub buckets: bool,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// From Nodes.
    pub nodes: Cleared,
    /// Hosts without an agent's state now.
    pub hosts: usize,
    /// Leases.
    pub leases: usize,
    /// Secrets.
    pub secrets: usize,
    /// Buckets.
    pub buckets: usize,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes: Cleared { nodes, labels, taints }, hosts, leases, secrets, buckets } = self;
        write!(
            f,
            "removed {labels} labels and {taints} taints from {nodes} nodes, state from {hosts} hosts, {leases} leases, {secrets} secrets, \
             {buckets} buckets"
        )
    }
}

/// Why not everything is gone.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// No client for Kubernetes.
    #[error(transparent)]
    Kube(#[from] ConnectError),
    /// Something is left.
    #[error("{removed}; after {limit:?} there is still:\n{}", left.join("\n"))]
    Left {
        /// What was removed.
        removed: Removed,
        /// The limit.
        limit: Duration,
        /// A line for each thing that is left, with the reason.
        left: Vec<String>,
    },
}

/// Removes everything within `limit`.
pub async fn run(config: &ControllerConfig, extent: &Extent, limit: Duration) -> Result<Removed, CleanupError> {
    let deadline = Instant::now() + limit;
    let client = connect(config.kube.kubeconfig.as_deref(), config.kube.silence()).await?;
    let namespace = config.pod_namespace.as_deref().unwrap_or_else(|| client.default_namespace());
    let (nodes, hosts, lease, secrets, buckets) = tokio::join!(
        until_done(deadline, "labels and taints of nodes", || nodes::clear(&client)),
        async {
            match &extent.agents {
                Some(set) => agents::clear(&client, namespace, set, deadline).await,
                None => Ok(0),
            }
        },
        until_done(deadline, "the lease", || objects::delete_lease(&client, namespace, &config.leader.lease_name)),
        until_done(deadline, "secrets", || objects::delete_secrets(&client, namespace, &extent.secrets)),
        async { if extent.buckets { buckets::delete(config, deadline).await } else { Ok(0) } },
    );
    let mut left = Vec::new();
    let mut or_left = |count: Result<usize, String>| count.map_err(|why| left.push(why)).unwrap_or_default();
    let (hosts, leases) = (or_left(hosts), or_left(lease));
    let (secrets, buckets) = (or_left(secrets), or_left(buckets));
    let nodes = nodes.map_err(|why| left.push(why)).unwrap_or_default();
    let removed = Removed { nodes, hosts, leases, secrets, buckets };
    if left.is_empty() { Ok(removed) } else { Err(CleanupError::Left { removed, limit, left }) }
}
