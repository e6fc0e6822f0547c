//! Kubernetes to facts.
//!
//! Owns one source a kind over one generic watch. Never writes to Kubernetes, never decides.

mod absent;
pub mod agent_pods;
pub mod configured;
mod form;
pub mod image_set;
pub mod namespace;
pub mod node;
pub mod object;
pub mod pods;
mod quantity;
pub mod runtime_class;
pub mod source;
pub mod template;
pub mod workload;

use std::sync::Arc;
use std::time::Duration;

use cluster_plan::Fact;
use daemon::driver::Inbox;
use daemon::supervise::Tasks;
use kube::Client;
use tokio::sync::watch;

use crate::config::{DiscoverSettings, PodsMode};
use crate::expression::Expressions;
use configured::Configured;
use image_set::ImageSets;
use namespace::Namespaces;
use node::Nodes;
use pods::{Kinds, Pods};
use runtime_class::RuntimeClasses;
use source::{Manner, Reduce, Reducer, run};
use workload::TEMPLATED;

/// The expressions that are to be evaluated.
pub type Evaluated = watch::Receiver<Arc<Expressions>>;

/// Starts every source, that of sets of images if `with_sets`; each of its watches ends after `timeout` and is taken up again. Workloads are listed again when
/// `expressions` has others.
pub fn start(
    client: &Client,
    discover: &DiscoverSettings,
    timeout: Duration,
    with_sets: bool,
    expressions: &Evaluated,
    inbox: &Inbox<Fact>,
    tasks: &Tasks,
) {
    let always = Manner { timeout, look_again: None };
    let perhaps = Manner { timeout, look_again: Some(discover.look_again) };
    let kinds = discover.kinds();
    one(Reducer::new(Namespaces), client, always, expressions, inbox, tasks);
    one(Reducer::new(Nodes), client, always, expressions, inbox, tasks);
    one(Reducer::new(RuntimeClasses), client, always, expressions, inbox, tasks);
    for kind in TEMPLATED {
        one(Reducer::new(kind), client, always, expressions, inbox, tasks);
    }
    for kind in kinds.values() {
        one(Reducer::new(Configured::new(kind)), client, perhaps, expressions, inbox, tasks);
    }
    let kinds = Kinds(Arc::new(kinds.into_keys().collect()));
    one(Pods::new(kinds, discover.pods == PodsMode::All), client, always, expressions, inbox, tasks);
    if with_sets {
        one(Reducer::new(ImageSets), client, perhaps, expressions, inbox, tasks);
    }
}

fn one<R: Reduce + 'static>(
    reducer: R,
    client: &Client,
    manner: Manner,
    expressions: &Evaluated,
    inbox: &Inbox<Fact>,
    tasks: &Tasks,
) {
    let watching = run(reducer, client.clone(), manner, expressions.clone(), inbox.clone(), tasks.shutdown());
    tasks.spawn("kubernetes", watching);
}
