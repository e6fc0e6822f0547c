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
    /// What 10,000 agents spread their reads over. Beats and deltas tell the fleet its share of it: the more agents, the
    /// longer, from a tenth of this (1,000 nodes and fewer) to six times this (60,000 and more).
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

/// How many agents [`Timing::spread`] is meant for.
const FLEET: u32 = 10_000;

impl Timing {
    /// What this many agents are told to spread reads over, so that NATS meets as many readers a second whatever the size of
    /// the fleet: 1,000 at the default. It counts the nodes of the cluster, not those of a pool: an agent obeys the last word
    /// it heard, of whichever of its pools.
    pub(crate) fn spread_of(&self, agents: usize) -> Duration {
        let agents = u32::try_from(agents).unwrap_or(u32::MAX);
        self.spread.saturating_mul(agents.clamp(FLEET / 10, FLEET * 6)) / FLEET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_spread_over_longer_the_more_agents_there_are_within_bounds() {
        let told = |agents| Timing::default().spread_of(agents).as_millis();
        let agents = [0, 1, 1_000, 1_001, 5_000, 10_000, 59_999, 60_000, usize::MAX];
        assert_eq!(agents.map(told), [1_000, 1_000, 1_000, 1_001, 5_000, 10_000, 59_999, 60_000, 60_000]);
        let still = Timing { spread: Duration::ZERO, ..Timing::default() };
        assert_eq!(still.spread_of(10_000), Duration::ZERO);
        let long = Timing { spread: Duration::from_hours(24), ..Timing::default() };
        assert_eq!(long.spread_of(usize::MAX), Duration::from_hours(6 * 24));
    }
}
