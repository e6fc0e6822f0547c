//! What the machine is told once, at construction.
//!
//! Owns the form of `labels:` and `events:` in the configuration.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timing;
use crate::fact::Source;
use crate::input::WorkloadKind;

/// Settings of one controller.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// Every interval.
    pub timing: Timing,
    /// What is written to Node objects.
    pub labels: LabelSettings,
    /// What people are told on workloads.
    pub events: EventSettings,
    /// Kinds that are watched beside [`WorkloadKind::BUILT_IN`].
    pub kinds: BTreeSet<WorkloadKind>,
    /// Which nodes are warmed.
    pub target: TargetSettings,
    /// For how long an image that only Pods show outlasts the last that does.
    #[serde(with = "shared::duration")]
    pub linger: Duration,
    /// Whether sets of images are watched.
    pub sets: bool,
    /// What is written down for agents that have nothing.
    pub snapshots: SnapshotSettings,
    /// The pod: `by` in `_meta`.
    pub instance: String,
    /// The controller's version: `ctl.status` tells it.
    pub version: String,
}

impl Settings {
    /// Every source that is waited for.
    pub fn sources(&self) -> impl Iterator<Item = Source> {
        let sets = self.sets.then_some(Source::Sets);
        Source::FIXED.into_iter().chain(sets).chain(self.kinds.iter().cloned().map(Source::Workloads))
    }
}

/// Snapshots of pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SnapshotSettings {
    /// A pool of fewer intents gets none: its keys are read as fast.
    pub least: u64,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        Self { least: 128 }
    }
}

/// `labels:` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LabelSettings {
    /// What gets a label.
    pub mode: LabelMode,
    /// Most labels of ours a Node carries: those of sets first, then the highest priorities, then what most want. What is
    /// there stays against its equals.
    pub max_per_node: usize,
    /// Most patches a second over the whole cluster; 0 counts as 1.
    pub per_second: u32,
    /// A node without a heartbeat for this long loses its labels: at most 1 % of the nodes an hour, and at least one. Only
    /// time counts in which this controller was connected to NATS.
    #[serde(with = "shared::duration")]
    pub stale_after: Duration,
}

impl Default for LabelSettings {
    fn default() -> Self {
        Self { mode: LabelMode::All, max_per_node: 64, per_second: 20, stale_after: Duration::from_hours(24) }
    }
}

/// What gets a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LabelMode {
    /// Every set and every image that evidence says is warm.
    #[default]
    All,
    /// Sets, and every image that somebody wants who opted in by annotation.
    OptedIn,
    /// Sets alone.
    Sets,
    /// None: those that are there are removed.
    None,
}

/// `target:` of the configuration: which nodes are warmed, beside what workloads ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TargetSettings {
    /// Whether cordoned nodes are warmed.
    pub cordoned: Cordoned,
}

/// What becomes of a cordoned node. One that is being deleted is never warmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cordoned {
    /// It is warmed: it will be used again, or is about to.
    #[default]
    Warm,
    /// Only for pods that tolerate it, as those of a `DaemonSet` do. What nothing wants there any more is withdrawn.
    Skip,
}

/// `events:` of the configuration: Kubernetes Events on workloads whose images fail or are warm again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EventSettings {
    /// Whether there are any.
    pub enabled: bool,
    /// Most Events a minute over the whole cluster; others wait and are counted. At 0 there are none.
    pub per_minute: u32,
    /// How long an image must have failed.
    #[serde(with = "shared::duration")]
    pub settle: Duration,
    /// After so long a failure that goes on is told again: API servers forget Events after an hour. A sixth of it is the
    /// least between two failures of one image.
    #[serde(with = "shared::duration")]
    pub repeat: Duration,
}

impl EventSettings {
    /// The least between two failures of one image, whatever the reasons.
    pub(crate) fn again(&self) -> Duration {
        self.repeat / 6
    }
}

impl Default for EventSettings {
    fn default() -> Self {
        Self { enabled: true, per_minute: 30, settle: Duration::from_secs(10), repeat: Duration::from_mins(50) }
    }
}
