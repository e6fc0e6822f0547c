//! Kubernetes to facts.
//!
//! Owns one source a kind over one generic watch. Never writes to Kubernetes, never decides.

pub mod namespace;
pub mod node;
pub mod source;
pub mod template;
pub mod workload;

use cluster_plan::Fact;
use daemon::driver::Inbox;
use daemon::supervise::Tasks;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::Client;

use source::{Watched, run};

/// Starts every source.
pub fn start(client: &Client, inbox: &Inbox<Fact>, tasks: &Tasks) {
    one::<Namespace>(client, inbox, tasks);
    one::<Node>(client, inbox, tasks);
    one::<Deployment>(client, inbox, tasks);
    one::<StatefulSet>(client, inbox, tasks);
    one::<DaemonSet>(client, inbox, tasks);
    one::<Pod>(client, inbox, tasks);
}

fn one<K: Watched>(client: &Client, inbox: &Inbox<Fact>, tasks: &Tasks) {
    tasks.spawn(K::SOURCE.as_str(), run::<K>(client.clone(), inbox.clone(), tasks.shutdown()));
}
