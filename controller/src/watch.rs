//! Kubernetes to facts.
//!
//! Owns one source a kind over one generic watch. Never writes to Kubernetes, never decides.

pub mod agent_pods;
pub mod namespace;
pub mod node;
mod quantity;
pub mod runtime_class;
pub mod source;
pub mod template;
pub mod whole;
pub mod workload;

use std::sync::Arc;
use std::time::Duration;

use cluster_plan::Fact;
use daemon::driver::Inbox;
use daemon::supervise::Tasks;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ReplicationController};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Client;

use source::{Watched, run};
use tokio::sync::watch;

use crate::expression::Expressions;

/// The expressions that are to be evaluated.
pub type Evaluated = watch::Receiver<Arc<Expressions>>;

/// Starts every source; each of its watches ends after `timeout` and is taken up again. Workloads are listed again when
/// `expressions` has others.
pub fn start(client: &Client, timeout: Duration, expressions: &Evaluated, inbox: &Inbox<Fact>, tasks: &Tasks) {
    one::<Namespace>(client, timeout, expressions, inbox, tasks);
    one::<Node>(client, timeout, expressions, inbox, tasks);
    one::<RuntimeClass>(client, timeout, expressions, inbox, tasks);
    one::<Deployment>(client, timeout, expressions, inbox, tasks);
    one::<StatefulSet>(client, timeout, expressions, inbox, tasks);
    one::<DaemonSet>(client, timeout, expressions, inbox, tasks);
    one::<ReplicaSet>(client, timeout, expressions, inbox, tasks);
    one::<ReplicationController>(client, timeout, expressions, inbox, tasks);
    one::<Job>(client, timeout, expressions, inbox, tasks);
    one::<CronJob>(client, timeout, expressions, inbox, tasks);
    one::<Pod>(client, timeout, expressions, inbox, tasks);
}

fn one<K: Watched>(client: &Client, timeout: Duration, expressions: &Evaluated, inbox: &Inbox<Fact>, tasks: &Tasks) {
    tasks.spawn("kubernetes", run::<K>(client.clone(), timeout, expressions.clone(), inbox.clone(), tasks.shutdown()));
}
