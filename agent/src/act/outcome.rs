//! How an effect ended.
//!
//! Owns the count and the log line of each effect, so that no executor forgets either.

use std::fmt::Display;

use daemon::metrics::{Outcome, effect_done};
use shared::reason::{Class, Reason};
use tracing::{debug, warn};

use crate::bus::Failure;
use crate::cri::CriError;
use crate::state_file::StateError;

/// An error of an executor.
pub(super) trait Ended: Display {
    /// The bounded reason.
    fn reason(&self) -> Reason;
    /// Whether trying again can help.
    fn class(&self) -> Class;
}

impl Ended for CriError {
    fn reason(&self) -> Reason {
        CriError::reason(self)
    }
    fn class(&self) -> Class {
        CriError::class(self)
    }
}

impl Ended for StateError {
    fn reason(&self) -> Reason {
        StateError::reason(self)
    }
    fn class(&self) -> Class {
        Class::Transient
    }
}

impl Ended for Failure {
    fn reason(&self) -> Reason {
        Failure::reason(self)
    }
    fn class(&self) -> Class {
        Failure::class(self)
    }
}

/// Counts, logs, and leaves what the machine is told.
pub(super) fn done<T, E: Ended>(kind: &'static str, result: Result<T, E>) -> Result<T, Reason> {
    match result {
        Ok(value) => {
            effect_done(kind, Outcome::Ok, None);
            Ok(value)
        }
        Err(error) => {
            let reason = error.reason();
            effect_done(kind, error.class().into(), Some(reason));
            // Without a connection everything fails, and the bus has said so already; what `list-images` says of a
            // runtime that is away need not be said by its twin.
            let is_said = reason == Reason::Disconnected || kind == "observe";
            if is_said {
                debug!(effect = kind, %reason, "{error}");
            } else {
                warn!(effect = kind, %reason, "{error}");
            }
            Err(reason)
        }
    }
}
