//! Effects to the world.
//!
//! Owns one file a kind of effect. Each is tried once, with a timeout; its outcome goes back as a fact. Never watches,
//! never decides, never retries.

mod assignments;
mod beat;
pub mod delta;
pub mod dispatch;
mod intents;
pub mod node_label;
mod outcome;
mod puts;
mod request;
mod reread;
mod term;

use std::time::Duration;

use cluster_plan::Fact;
use daemon::bus::Bus;
use daemon::driver::Inbox;
use shared::name::ClusterId;

/// Whom executors talk to. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    /// NATS.
    pub bus: Bus,
    /// Names subjects and buckets.
    pub cluster: ClusterId,
    /// Kubernetes.
    pub kube: kube::Client,
    /// Where outcomes go.
    pub inbox: Inbox<Fact>,
    /// Time to live of the markers of purged assignments.
    pub marker_ttl: Duration,
}
