//! The machine as others see it: `/state`, gauges, readiness.
//!
//! Owns how often that is worked out. Never changes the machine.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_plan::World;
use cluster_plan::input::Selection;
use daemon::admin::Readiness;
use daemon::driver::Waker;
use daemon::inspect::{Inspector, MAIN, View};
use daemon::metrics;
use daemon::supervise::Shutdown;
use serde_json::Value;
use shared::machine::{Moment, Now};
use tokio::sync::watch;

/// Counting every pair of node and image is dear in a large cluster, so it is done at most this often, …
const GAUGES: Duration = Duration::from_secs(2);
/// … nor more often than this for each node: every ten seconds with 10,000, which is soon enough for any scrape.
const GAUGES_OF_NODE: Duration = Duration::from_millis(1);
/// The machine is shown at least this often, so that the last change does not wait for the next one.
const REFRESH: Duration = Duration::from_secs(5);

/// `/state` and `/state/table`.
pub fn views() -> BTreeMap<&'static str, View<World>> {
    [(MAIN, summary as View<World>), ("table", table)].into()
}

fn summary(world: &World, now: Now) -> Value {
    world.summary(now)
}

fn table(world: &World, _: Now) -> Value {
    serde_json::to_value(world.table()).unwrap_or_default()
}

/// Shows the machine after its steps: the `watch` of the driver.
pub struct Show {
    /// Answers `/state`.
    pub inspector: Inspector<World>,
    /// What the machine says of its readiness.
    pub ready: watch::Sender<Readiness>,
    /// By what the machine judges.
    pub judged_by: watch::Sender<Option<Selection>>,
    /// When the gauges were last set.
    pub gauged: Option<Moment>,
}

impl Show {
    /// Shows the machine as it is now.
    pub fn show(&mut self, world: &World, now: Now) {
        self.inspector.answer(world, now);
        let ready = world.readiness();
        self.ready.send_if_modified(|known| {
            let changed = *known != ready;
            *known = ready;
            changed
        });
        self.judged_by.send_if_modified(|known| {
            let changed = known.as_ref() != world.selection();
            if changed {
                *known = world.selection().cloned();
            }
            changed
        });
        let every = GAUGES.max(GAUGES_OF_NODE.saturating_mul(u32::try_from(world.nodes()).unwrap_or(u32::MAX)));
        if self.gauged.is_none_or(|at| now.mono.since(at) >= every) {
            self.gauged = Some(now.mono);
            for (metric, labels, value) in world.gauges() {
                let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
                metrics::gauge(metric, &labels, value);
            }
            for (metric, n) in world.totals() {
                metrics::total(metric, &[], n);
            }
        }
    }
}

/// Makes the loop show the machine now and then though nothing happens.
pub async fn refresh(waker: Waker, shutdown: Shutdown) {
    let mut tick = tokio::time::interval(REFRESH);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => waker.wake(),
        }
    }
}
