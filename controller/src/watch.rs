//! Kubernetes to facts.
//!
//! Owns one source a kind over one generic watch. Never writes to Kubernetes, never decides.

pub mod agent_pods;
pub mod namespace;
pub mod node;
pub mod source;
pub mod template;
pub mod workload;

use std::time::Duration;

use cluster_plan::Fact;
use daemon::driver::Inbox;
use daemon::supervise::Tasks;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ReplicationController};
use kube::Client;

use source::{Watched, run};

/// Starts every source; each of its watches ends after `timeout` and is taken up again.
pub fn start(client: &Client, timeout: Duration, inbox: &Inbox<Fact>, tasks: &Tasks) {
    one::<Namespace>(client, timeout, inbox, tasks);
    one::<Node>(client, timeout, inbox, tasks);
    one::<Deployment>(client, timeout, inbox, tasks);
    one::<StatefulSet>(client, timeout, inbox, tasks);
    one::<DaemonSet>(client, timeout, inbox, tasks);
    one::<ReplicaSet>(client, timeout, inbox, tasks);
    one::<ReplicationController>(client, timeout, inbox, tasks);
    one::<Job>(client, timeout, inbox, tasks);
    one::<CronJob>(client, timeout, inbox, tasks);
    one::<Pod>(client, timeout, inbox, tasks);
}

fn one<K: Watched>(client: &Client, timeout: Duration, inbox: &Inbox<Fact>, tasks: &Tasks) {
    tasks.spawn("kubernetes", run::<K>(client.clone(), timeout, inbox.clone(), tasks.shutdown()));
}
