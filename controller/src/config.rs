//! What can be configured.
//!
//! Owns the keys, their defaults and what makes a value wrong. Reading the file is `daemon::config`'s, watching it
//! [`reload`]'s.

mod discover;
mod leader;
pub mod reload;
mod select;

use std::path::PathBuf;
use std::time::Duration;

use cluster_plan::input::Selection;
use cluster_plan::{EventSettings, LabelSettings, TargetSettings, Timing};
use daemon::bus::NatsConfig;
use daemon::config::{EnvKey, Problems, Validate};
use daemon::record::RecordSettings;
use daemon::telemetry::LogSettings;
use serde::{Deserialize, Serialize};
use shared::name::{ClusterId, NodeName};

pub use self::discover::{DiscoverSettings, KindSettings, PRESETS, PodsMode};
pub use self::leader::LeaderSettings;
use self::select::Select;

use crate::identity::IdentitySettings;

/// The environment variables that are read, and the keys they set.
pub const ENVIRONMENT: &[EnvKey] =
    &[("WARM_POD_NAME", "podName"), ("WARM_POD_NAMESPACE", "podNamespace"), ("WARM_LOG", "log.filter")];

/// Shortest and longest watch: below, the API server is asked for nothing; above, it ends watches by itself.
const WATCH_TIMEOUT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// The configuration file of `warm-controller`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ControllerConfig {
    /// Names the buckets and subjects of this cluster: a DNS label. Two clusters on one NATS need two.
    pub cluster_id: ClusterId,
    /// This pod's name, written into `_meta`; random if absent. From `WARM_POD_NAME`.
    pub pod_name: Option<String>,
    /// This pod's namespace, excluded from selection. From `WARM_POD_NAMESPACE`.
    pub pod_namespace: Option<String>,
    /// The connection to NATS.
    pub nats: NatsConfig,
    /// The three buckets.
    pub buckets: BucketSettings,
    /// Letting agents into NATS by their service-account tokens.
    pub identity: IdentitySettings,
    /// The connection to Kubernetes.
    pub kube: KubeSettings,
    /// The election of the one controller that writes.
    pub leader: LeaderSettings,
    /// Which objects are workloads.
    pub discover: DiscoverSettings,
    /// Whose images are wanted. Reloaded without a restart.
    pub select: Selection,
    /// Which nodes are warmed, beside what workloads ask for.
    pub target: TargetSettings,
    /// What is written to Node objects.
    pub labels: LabelSettings,
    /// Sets of images that are named by hand.
    pub sets: SetSettings,
    /// Kubernetes Events on workloads whose images fail.
    pub events: EventSettings,
    /// Admin HTTP.
    pub admin: AdminSettings,
    /// Logs.
    pub log: LogSettings,
    /// Facts and effects written to a file, for bug reports. Off unless a path is given.
    pub record: RecordSettings,
    /// Every interval of the protocol.
    pub timing: Timing,
    /// At most one step of deciding in this time; the first after a rest comes at once.
    #[serde(with = "shared::duration")]
    pub step_window: Duration,
    /// How often this file is looked at for another `select`.
    #[serde(with = "shared::duration")]
    pub reload: Duration,
    /// How long effects may take to finish after SIGTERM.
    #[serde(with = "shared::duration")]
    pub shutdown_grace: Duration,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            cluster_id: ClusterId::default(),
            pod_name: None,
            pod_namespace: None,
            nats: NatsConfig::default(),
            buckets: BucketSettings::default(),
            identity: IdentitySettings::default(),
            kube: KubeSettings::default(),
            leader: LeaderSettings::default(),
            discover: DiscoverSettings::default(),
            select: Selection::default(),
            target: TargetSettings::default(),
            labels: LabelSettings::default(),
            sets: SetSettings::default(),
            events: EventSettings::default(),
            admin: AdminSettings::default(),
            log: LogSettings::default(),
            record: RecordSettings::default(),
            timing: Timing::default(),
            step_window: Duration::from_millis(50),
            reload: Duration::from_secs(2),
            shutdown_grace: Duration::from_secs(20),
        }
    }
}

/// `buckets:`: how the three buckets are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BucketSettings {
    /// Create absent buckets and update compatible settings. Otherwise somebody else does, and they are only checked.
    pub manage: bool,
    /// Copies of each bucket: 1, 3 or 5.
    pub replicas: u32,
    /// Most bytes of each bucket.
    pub max_bytes: u64,
}

impl Default for BucketSettings {
    fn default() -> Self {
        Self { manage: true, replicas: 1, max_bytes: 256 * 1024 * 1024 }
    }
}

/// `sets:`: sets of images that are named by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SetSettings {
    /// Whether they are looked at. A cluster without their definition needs no `false` here.
    pub enabled: bool,
}

impl Default for SetSettings {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// `kube:`: the Kubernetes API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubeSettings {
    /// A kubeconfig. Absent: the Pod's service account, or the usual kubeconfig of a person.
    pub kubeconfig: Option<PathBuf>,
    /// A watch ends after this time, in whole seconds, and is taken up where it ended. A connection on which nothing has
    /// come for 5 s more is dead and is given up.
    #[serde(with = "shared::duration")]
    pub watch_timeout: Duration,
}

impl Default for KubeSettings {
    fn default() -> Self {
        Self { kubeconfig: None, watch_timeout: Duration::from_secs(30) }
    }
}

impl KubeSettings {
    /// Of a request without an answer, or an answer that pauses, for this long the connection is taken for dead. Longer
    /// than a watch may be silent, whose end kube watches over itself.
    pub fn silence(&self) -> Duration {
        self.watch_timeout + Duration::from_secs(10)
    }
}

/// `admin:`: `/livez`, `/readyz`, `/metrics`, `/state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AdminSettings {
    /// `address:port`.
    pub listen: String,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { listen: "0.0.0.0:9180".to_owned() }
    }
}

impl Validate for ControllerConfig {
    fn problems(&self, found: &mut Problems) {
        for (key, name) in [("podName", &self.pod_name), ("podNamespace", &self.pod_namespace)] {
            // A Pod's name obeys the rule of a Node's (RFC 1123 subdomain), a namespace's a narrower one.
            if let Some(name) = name
                && NodeName::parse(name).is_err()
            {
                found.add(key, format!("`{name}` is no name of a Kubernetes object; leave the key to the chart"));
            }
        }
        found.section("nats", &self.nats);
        found.section("log", &self.log);
        found.section("record", &self.record);
        found.section("buckets", &self.buckets);
        found.section("identity", &self.identity);
        if self.identity.is_on() && self.identity.namespace.is_none() && self.pod_namespace.is_none() {
            found.add("identity.namespace", "is missing, and so is podNamespace: name the namespace of the agents");
        }
        found.section("leader", &self.leader);
        found.section("discover", &self.discover);
        found.section("select", &Select(&self.select));
        found.within("timing", |found| self.timing_problems(found));
        // As many missed heartbeats as make a node unknown are no reason yet.
        if self.labels.stale_after <= self.timing.heartbeat * 3 {
            found.add("labels.staleAfter", "is not above three timing.heartbeat; raise it, or labels come and go");
        }
        // Six times in it an image may fail anew for another reason.
        if self.events.repeat < Duration::from_secs(6) {
            found.add("events.repeat", "is below 6s; raise it, 50m is usual");
        }
        positive(found, "reload", self.reload);
        found.listen("admin.listen", &self.admin.listen);
        if let Some(path) = &self.kube.kubeconfig
            && path.as_os_str().is_empty()
        {
            found.add("kube.kubeconfig", "is empty; remove the key to use the Pod's service account");
        }
        if !(WATCH_TIMEOUT.0..=WATCH_TIMEOUT.1).contains(&self.kube.watch_timeout) {
            let (least, most) = WATCH_TIMEOUT;
            found.add("kube.watchTimeout", format!("is not within {least:?} and {most:?}"));
        }
    }
}

impl ControllerConfig {
    /// What the machine is told to select: the configured, and never our own namespace.
    pub fn selection(&self) -> Selection {
        let mut select = self.select.clone();
        if let Some(own) = &self.pod_namespace
            && !select.namespaces.exclude.contains(own)
        {
            select.namespaces.exclude.push(own.clone());
        }
        select
    }

    fn timing_problems(&self, found: &mut Problems) {
        let Timing { beat, heartbeat, judge, write_backoff, write_backoff_max, marker_ttl, .. } = &self.timing;
        positive(found, "beat", *beat);
        positive(found, "heartbeat", *heartbeat);
        positive(found, "judge", *judge);
        positive(found, "writeBackoff", *write_backoff);
        if write_backoff_max < write_backoff {
            found.add("writeBackoffMax", "is below writeBackoff; raise it");
        }
        // NATS refuses a shorter TTL (ADR-43).
        if *marker_ttl < Duration::from_secs(1) {
            found.add("markerTtl", "is below 1s, which is the least NATS takes");
        }
    }
}

impl Validate for BucketSettings {
    fn problems(&self, found: &mut Problems) {
        if ![1, 3, 5].contains(&self.replicas) {
            found.add(
                "replicas",
                format!("{} is not a number of copies that keeps a majority; use 1, 3 or 5", self.replicas),
            );
        }
        let least = 1024 * 1024;
        if self.max_bytes < least || i64::try_from(self.max_bytes).is_err() {
            found.add("maxBytes", format!("{} is not from {least} (1 MiB) to {}", self.max_bytes, i64::MAX));
        }
    }
}

fn positive(found: &mut Problems, key: &str, value: Duration) {
    if value.is_zero() {
        found.add(key, "is 0s; give a time such as 2s");
    }
}

#[cfg(test)]
mod tests;
