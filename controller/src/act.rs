//! Effects to the world.
//!
//! Owns one file a kind of effect. Each is tried once, with a timeout; its outcome goes back as a fact. Never watches,
//! never decides, never retries.

pub mod apply;
mod assignments;
mod beat;
mod control;
pub mod delta;
pub mod dispatch;
mod document;
mod intents;
pub mod node_label;
mod outcome;
mod puts;
mod reply;
mod request;
mod reread;
pub mod set_status;
pub mod snapshot;
mod term;
mod workload_event;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster_plan::Fact;
use cluster_plan::input::WorkloadKind;
use daemon::bus::{Bus, ServiceRequest};
use daemon::driver::Inbox;
use daemon::replies::Replies;
use shared::name::ClusterId;

use crate::leader::Seat;

/// Whom executors talk to. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    /// NATS.
    pub bus: Bus,
    /// Names subjects and buckets.
    pub cluster: ClusterId,
    /// Kubernetes.
    pub kube: kube::Client,
    /// Whether this controller may write.
    pub seat: Seat,
    /// Where outcomes go.
    pub inbox: Inbox<Fact>,
    /// Questions that wait for an answer.
    pub questions: Arc<Replies<ServiceRequest>>,
    /// This pod.
    pub instance: String,
    /// Time to live of the markers of purged assignments.
    pub marker_ttl: Duration,
    /// `apiVersion` of configured kinds.
    pub api_versions: Arc<BTreeMap<WorkloadKind, String>>,
}
