//! What is shown of the machine after each step: gauges, readiness, `/state`.
//!
//! Owns what "ready" means: the server answers, and what this node is to hold is known. A runtime that is away or a
//! registry that refuses is reported, and is not the agent's ill health: restarting it would help nobody.

use daemon::admin::Readiness;
use daemon::bus::Status;
use daemon::inspect::Inspector;
use daemon::metrics::gauge;
use node_plan::NodeState;
use shared::machine::Now;
use shared::metric;
use shared::state::ImageState;
use tokio::sync::watch;

/// The show.
pub(super) struct Show {
    nats: Status,
    ready: watch::Sender<Readiness>,
    inspector: Inspector<NodeState>,
    /// Once synced the agent does its work; a new pool or epoch that is being read does not make it unready again.
    was_synced: bool,
}

impl Show {
    pub(super) fn new(nats: Status, ready: watch::Sender<Readiness>, inspector: Inspector<NodeState>) -> Self {
        Self { nats, ready, inspector, was_synced: false }
    }

    /// After a step.
    pub(super) fn show(&mut self, machine: &NodeState, now: Now) {
        let counts = machine.counts();
        for state in ImageState::ALL {
            let count = counts.get(&state).copied().unwrap_or(0);
            gauge(metric::IMAGES, &[state.as_str()], count as f64);
        }
        let disk = machine.disk();
        for (kind, bytes) in [("used", disk.used), ("free", disk.free), ("mark", disk.mark)] {
            gauge(metric::DISK, &[kind], bytes as f64);
        }
        let is_synced = machine.is_synced();
        gauge(metric::SYNCED, &[], if is_synced { 1.0 } else { 0.0 });
        self.was_synced |= is_synced;
        let ready = self.readiness();
        self.ready.send_if_modified(|shown| {
            let is_news = *shown != ready;
            *shown = ready;
            is_news
        });
        self.inspector.answer(machine, now);
    }

    fn readiness(&self) -> Readiness {
        let status = self.nats.borrow();
        if !status.is_connected() {
            Err(format!("NATS: {}", *status))
        } else if !self.was_synced {
            Err("this node's assignment and pools have not been read yet".to_owned())
        } else {
            Ok("ok".to_owned())
        }
    }
}
