//! How an effect ended, for metrics and logs.
//!
//! Owns the count and the log line of each effect, so that no executor forgets either. When to try again is the
//! machine's to decide.

use daemon::bus::BusError;
use daemon::metrics::{Outcome, effect_done};
use shared::reason::Reason;
use tracing::{debug, warn};

/// Counts one effect over NATS, logs its failure, and leaves what the machine is told.
pub(super) fn done<T>(kind: &'static str, result: Result<T, BusError>) -> Result<T, Reason> {
    count(kind, result.as_ref().err());
    result.map_err(|error| said(kind, &error))
}

/// Counts a batch as one effect: as its first failure, if it has one.
pub(super) fn batch_done<'a>(kind: &'static str, failures: impl IntoIterator<Item = &'a BusError>) {
    count(kind, failures.into_iter().next());
}

/// Logs a failure and gives its reason.
pub(super) fn said(kind: &'static str, error: &BusError) -> Reason {
    let reason = error.reason();
    // Without a connection everything fails, and the bus has said so already; a conflict is read and decided again.
    if matches!(reason, Reason::Disconnected | Reason::Conflict) {
        debug!(effect = kind, %reason, "{error}");
    } else {
        warn!(effect = kind, %reason, "{error}");
    }
    reason
}

fn count(kind: &'static str, error: Option<&BusError>) {
    match error {
        None => effect_done(kind, Outcome::Ok, None),
        Some(error) => effect_done(kind, error.class().into(), Some(error.reason())),
    }
}
