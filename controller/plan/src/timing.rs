//! Every interval of the controller, as keys under `timing:`.
//!
//! Owns the defaults; one test pins them. Tests shorten them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Intervals of the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timing {
    /// Between two beats of a pool, ± 20 %.
    #[serde(with = "shared::duration")]
    pub beat: Duration,
    /// What agents spread reads over, as told by beats and deltas.
    #[serde(with = "shared::duration")]
    pub spread: Duration,
    /// How often agents send heartbeats: three missed make a node unknown.
    #[serde(with = "shared::duration")]
    pub heartbeat: Duration,
    /// How often lateness is judged.
    #[serde(with = "shared::duration")]
    pub judge: Duration,
    /// Shortest time between two label patches of one node; the first change after a rest goes at once.
    #[serde(with = "shared::duration")]
    pub label_window: Duration,
    /// Shortest time between two writes of the status of one set; the first after a rest goes at once.
    #[serde(with = "shared::duration")]
    pub set_status: Duration,
    /// Wait after a failed write; doubles.
    #[serde(with = "shared::duration")]
    pub write_backoff: Duration,
    /// Ceiling of that.
    #[serde(with = "shared::duration")]
    pub write_backoff_max: Duration,
    /// Time to live of the marker that a withdrawn intent leaves.
    #[serde(with = "shared::duration")]
    pub marker_ttl: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            beat: s(15),
            spread: s(10),
            heartbeat: s(30),
            judge: s(5),
            label_window: s(30),
            set_status: s(5),
            write_backoff: s(1),
            write_backoff_max: s(60),
            marker_ttl: s(72 * 3600),
        }
    }
}
