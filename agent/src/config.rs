//! The agent's configuration.
//!
//! Owns keys, defaults and what makes a value wrong. Reading is `daemon::config`'s; what the values do is their users'.

use std::os::unix::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use daemon::bus::NatsConfig;
use daemon::config::{EnvKey, Problems, Validate};
use daemon::record::RecordSettings;
use daemon::telemetry::LogSettings;
use node_plan::{DiskSettings, GcSettings, Timing};
use serde::{Deserialize, Serialize};
use shared::name::{ClusterId, NodeName};

/// Variables and the keys they set.
pub const ENVIRONMENT: [EnvKey; 3] =
    [("WARM_NODE_NAME", "node"), ("WARM_POD_NAMESPACE", "runtime.sandboxNamespace"), ("WARM_LOG", "log.filter")];

/// A path of a Unix socket has at most so many bytes.
const SOCKET_BYTES: usize = 107;
/// More pulls at once only compete with each other, and with the kubelet's.
const MOST_PULLS: usize = 16;

/// The configuration file of `warm-agent`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AgentConfig {
    /// Name of the Node this agent runs on; in a pod from the environment variable `WARM_NODE_NAME`.
    pub node: Option<NodeName>,
    /// Which cluster's subjects and buckets are used, on a NATS that may serve several.
    pub cluster_id: ClusterId,
    /// The connection to NATS.
    pub nats: NatsConfig,
    /// The container runtime.
    pub runtime: RuntimeConfig,
    /// Directory on the host for what survives a restart.
    pub state_dir: PathBuf,
    /// Pulls.
    pub pull: PullConfig,
    /// How full the image file system may be for a pull.
    pub disk: DiskSettings,
    /// Own garbage collection: removal of images that this agent pulled and nobody wants any more.
    pub gc: GcSettings,
    /// Intervals.
    pub timing: Timing,
    /// The admin HTTP server.
    pub admin: AdminConfig,
    /// Logs.
    pub log: LogSettings,
    /// Facts and effects written to a file, for bug reports. Off unless a path is given.
    pub record: RecordSettings,
    /// After SIGTERM, how long effects may take to end.
    #[serde(with = "shared::duration")]
    pub shutdown_grace: Duration,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            node: None,
            cluster_id: ClusterId::default(),
            nats: NatsConfig::default(),
            runtime: RuntimeConfig::default(),
            state_dir: PathBuf::from("/var/lib/warm-images"),
            pull: PullConfig::default(),
            disk: DiskSettings::default(),
            gc: GcSettings::default(),
            timing: Timing::default(),
            admin: AdminConfig::default(),
            log: LogSettings::default(),
            record: RecordSettings::default(),
            shutdown_grace: Duration::from_secs(20),
        }
    }
}

/// The container runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RuntimeConfig {
    /// Path of the runtime's CRI socket. Without it the usual paths of containerd, k3s, k0s, microk8s and CRI-O are tried.
    pub socket: Option<String>,
    /// Namespace a pull is made in the name of; CRI-O chooses signature policy by it. In a pod from the environment
    /// variable `WARM_POD_NAMESPACE`.
    pub sandbox_namespace: String,
    /// Longest wait for an answer of the runtime, pulls aside.
    #[serde(with = "shared::duration")]
    pub request_timeout: Duration,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self { socket: None, sandbox_namespace: "warm-images".to_owned(), request_timeout: Duration::from_secs(30) }
    }
}

/// Pulls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PullConfig {
    /// How many images are pulled at once.
    pub max_in_flight: usize,
    /// After so many failed attempts an image is final and tried rarely.
    pub final_after: u32,
}

impl Default for PullConfig {
    fn default() -> Self {
        Self { max_in_flight: 1, final_after: 5 }
    }
}

/// The admin HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address and port.
    pub listen: String,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: "0.0.0.0:9180".to_owned() }
    }
}

impl Validate for AgentConfig {
    fn problems(&self, found: &mut Problems) {
        if self.node.is_none() {
            found.add(
                "node",
                "is missing: give the name of the Node, in a pod by the environment variable WARM_NODE_NAME from \
                 fieldRef spec.nodeName",
            );
        }
        if !self.state_dir.is_absolute() {
            found.add("stateDir", format!("`{}` is not an absolute path", self.state_dir.display()));
        }
        found.section("nats", &self.nats);
        found.section("runtime", &self.runtime);
        found.section("pull", &self.pull);
        found.section("admin", &self.admin);
        found.section("log", &self.log);
        marks(self.disk, &self.gc, found);
        found.section("record", &self.record);
        found.within("timing", |found| timing(&self.timing, found));
    }
}

impl Validate for RuntimeConfig {
    fn problems(&self, found: &mut Problems) {
        if let Some(socket) = &self.socket {
            let path = socket.strip_prefix("unix://").unwrap_or(socket);
            if !path.starts_with('/') {
                found.add(
                    "socket",
                    format!("`{socket}` is not an absolute path, such as /run/containerd/containerd.sock"),
                );
            } else if path.len() > SOCKET_BYTES {
                found
                    .add("socket", format!("`{socket}` is too long: a socket's path has at most {SOCKET_BYTES} bytes"));
            } else if let Err(error) = SocketAddr::from_pathname(path) {
                found.add("socket", format!("`{socket}` cannot be the path of a socket: {error}"));
            }
        }
        // A namespace is a DNS label, and so is a cluster id.
        if ClusterId::parse(&self.sandbox_namespace).is_err() {
            let namespace = &self.sandbox_namespace;
            found.add("sandboxNamespace", format!("`{namespace}` is not the name of a namespace: a DNS label"));
        }
        positive("requestTimeout", self.request_timeout, found);
    }
}

impl Validate for PullConfig {
    fn problems(&self, found: &mut Problems) {
        if !(1..=MOST_PULLS).contains(&self.max_in_flight) {
            found.add("maxInFlight", format!("{} is not in 1-{MOST_PULLS}", self.max_in_flight));
        }
        if self.final_after == 0 {
            found.add("finalAfter", "must be at least 1");
        }
    }
}

impl Validate for AdminConfig {
    fn problems(&self, found: &mut Problems) {
        found.listen("listen", &self.listen);
    }
}

/// `gc.low` < `gc.high` < `disk.mark`, and `disk.resume` < `disk.mark`: otherwise what one frees the other fills.
fn marks(disk: DiskSettings, gc: &GcSettings, found: &mut Problems) {
    for (section, key, percent) in
        [("disk", "mark", disk.mark), ("disk", "resume", disk.resume), ("gc", "high", gc.high), ("gc", "low", gc.low)]
    {
        if !(1..=100).contains(&percent) {
            found.within(section, |found| found.add(key, format!("{percent} is no percentage: 1-100")));
        }
    }
    for (section, key, value, than, limit) in [
        ("disk", "resume", disk.resume, "disk.mark", disk.mark),
        ("gc", "high", gc.high, "disk.mark", disk.mark),
        ("gc", "low", gc.low, "gc.high", gc.high),
    ] {
        if value >= limit {
            found
                .within(section, |found| found.add(key, format!("{value} must be less than {than}, which is {limit}")));
        }
    }
}

fn timing(timing: &Timing, found: &mut Problems) {
    for (key, value) in [
        ("heartbeat", timing.heartbeat),
        ("verifyMin", timing.verify_min),
        ("verifyMax", timing.verify_max),
        ("inventoryEvery", timing.inventory_every),
        ("inventoryBackoffMax", timing.inventory_backoff_max),
        ("beatLost", timing.beat_lost),
        ("poll", timing.poll),
        ("readRetry", timing.read_retry),
        ("pullDeadline", timing.pull_deadline),
        ("pullBackoff", timing.pull_backoff),
        ("pullBackoffMax", timing.pull_backoff_max),
        ("pullFinal", timing.pull_final),
        ("gcRetry", timing.gc_retry),
    ] {
        positive(key, value, found);
    }
    for (low, high, least, most) in [
        ("verifyMin", "verifyMax", timing.verify_min, timing.verify_max),
        ("inventoryGap", "inventoryEvery", timing.inventory_gap, timing.inventory_every),
        ("pullBackoff", "pullBackoffMax", timing.pull_backoff, timing.pull_backoff_max),
    ] {
        if least > most {
            found.add(high, format!("must not be less than timing.{low}"));
        }
    }
}

fn positive(key: &str, value: Duration, found: &mut Problems) {
    if value.is_zero() {
        found.add(key, "must be more than zero");
    }
}

#[cfg(test)]
mod tests;
