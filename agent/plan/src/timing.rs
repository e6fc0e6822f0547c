//! Every interval of the agent, as keys under `timing:`.
//!
//! Owns the defaults; one test pins them. Tests shorten them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Intervals of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timing {
    /// Between heartbeats, ± 20 %.
    #[serde(with = "shared::duration")]
    pub heartbeat: Duration,
    /// Shortest time between two looks at the runtime's images.
    #[serde(with = "shared::duration")]
    pub verify_min: Duration,
    /// Longest time between two looks at the runtime's images.
    #[serde(with = "shared::duration")]
    pub verify_max: Duration,
    /// From a change of what the inventory says to its put.
    #[serde(with = "shared::duration")]
    pub inventory_delay: Duration,
    /// Shortest time between two puts of the inventory.
    #[serde(with = "shared::duration")]
    pub inventory_gap: Duration,
    /// A put of the inventory in any case, ± 20 %.
    #[serde(with = "shared::duration")]
    pub inventory_every: Duration,
    /// Longest wait after failed puts of the inventory.
    #[serde(with = "shared::duration")]
    pub inventory_backoff_max: Duration,
    /// Without a beat for this long the bucket is polled.
    #[serde(with = "shared::duration")]
    pub beat_lost: Duration,
    /// Between polls while beats are missing, plus up to a quarter.
    #[serde(with = "shared::duration")]
    pub poll: Duration,
    /// Longest random delay of the first reads after a start or a reconnect, before a beat has told the spread.
    #[serde(with = "shared::duration")]
    pub start_spread: Duration,
    /// Wait before a failed read is tried again: base of the backoff.
    #[serde(with = "shared::duration")]
    pub read_retry: Duration,
    /// Shortest time between two writes of the state file.
    #[serde(with = "shared::duration")]
    pub persist: Duration,
    /// Deadline of a pull of unknown size.
    #[serde(with = "shared::duration")]
    pub pull_deadline: Duration,
    /// Wait after the first failed pull; doubles.
    #[serde(with = "shared::duration")]
    pub pull_backoff: Duration,
    /// Ceiling of that.
    #[serde(with = "shared::duration")]
    pub pull_backoff_max: Duration,
    /// Between attempts once an image is final `failed` or `refused`.
    #[serde(with = "shared::duration")]
    pub pull_final: Duration,
    /// After disk or PID pressure of the Node has gone, no pull starts for so long.
    #[serde(with = "shared::duration")]
    pub pressure_hold: Duration,
    /// Before an image whose removal failed, or was found to be in use, is considered again.
    #[serde(with = "shared::duration")]
    pub gc_retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            heartbeat: s(30),
            verify_min: s(30),
            verify_max: s(60),
            inventory_delay: s(5),
            inventory_gap: s(10),
            inventory_every: s(600),
            inventory_backoff_max: s(60),
            beat_lost: s(90),
            poll: s(60),
            start_spread: s(10),
            read_retry: s(1),
            persist: s(5),
            pull_deadline: s(1800),
            pull_backoff: s(5),
            pull_backoff_max: s(600),
            pull_final: s(3600),
            pressure_hold: s(30),
            gc_retry: s(60),
        }
    }
}
