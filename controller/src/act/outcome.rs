//! How an effect ended, for metrics and logs.
//!
//! Owns the count and the log line of each effect, so that no executor forgets either. When to try again is the
//! machine's to decide.

use daemon::bus::BusError;
use daemon::metrics::{Outcome, effect_done};
use shared::reason::{Class, Reason};
use tracing::{debug, warn};

use crate::leader::tenure::LeaseLost;

/// How a write to Kubernetes ended that failed for this reason.
pub(super) fn of_kubernetes(reason: Reason) -> Outcome {
    match reason {
        Reason::Conflict => Outcome::Conflict,
        Reason::Throttled => Outcome::Throttled,
        Reason::Forbidden | Reason::Invalid => Outcome::Permanent,
        _ => Outcome::Transient,
    }
}

/// Why something over NATS was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotDone {
    /// NATS, or the way to it.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// This controller may write no more.
    #[error(transparent)]
    LeaseLost(#[from] LeaseLost),
}

impl NotDone {
    /// The bounded word.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Bus(error) => error.reason(),
            Self::LeaseLost(_) => Reason::LeaseLost,
        }
    }

    /// Whether another writer was first.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Bus(BusError::Conflict { .. }))
    }

    fn class(&self) -> Class {
        match self {
            Self::Bus(error) => error.class(),
            Self::LeaseLost(_) => Class::Transient,
        }
    }
}

/// What became of a guarded message.
pub(super) fn flat<T>(guarded: Result<Result<T, BusError>, LeaseLost>) -> Result<T, NotDone> {
    Ok(guarded??)
}

/// Counts one effect over NATS, logs its failure, and leaves what the machine is told.
pub(super) fn done<T>(kind: &'static str, result: Result<T, impl Into<NotDone>>) -> Result<T, Reason> {
    let result = result.map_err(Into::into);
    count(kind, result.as_ref().err());
    result.map_err(|error| said(kind, &error))
}

/// Counts a batch as one effect: as its first failure, if it has one.
pub(super) fn batch_done<'a>(kind: &'static str, failures: impl IntoIterator<Item = &'a NotDone>) {
    count(kind, failures.into_iter().next());
}

/// Logs a failure and gives its reason.
pub(super) fn said(kind: &'static str, error: &NotDone) -> Reason {
    let reason = error.reason();
    // Without a connection everything fails, and the bus has said so already, as the elector has of the Lease; a conflict
    // is read and decided again.
    if matches!(reason, Reason::Disconnected | Reason::LeaseLost | Reason::Conflict) {
        debug!(effect = kind, %reason, "{error}");
    } else {
        warn!(effect = kind, %reason, "{error}");
    }
    reason
}

fn count(kind: &'static str, error: Option<&NotDone>) {
    match error {
        None => effect_done(kind, Outcome::Ok, None),
        Some(error) => effect_done(kind, error.class().into(), Some(error.reason())),
    }
}
