//! Whether there is a connection, and what the server refused.
//!
//! Owns what callbacks, monitor and callers share. Never decides when to reconnect.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

const REMEMBERED: usize = 64;

/// The connection now, and on every change.
pub type Status = watch::Receiver<BusStatus>;

/// The connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusStatus {
    /// Not yet connected.
    Connecting {
        /// Why not, with the server and what to check.
        last_error: Option<String>,
    },
    /// The server answers.
    Connected {
        /// Counts the connections.
        generation: u64,
    },
    /// Was connected, and tries again.
    Disconnected {
        /// Why not, with the server and what to check.
        last_error: Option<String>,
    },
}

impl BusStatus {
    /// Whether the server answers.
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }

    /// The connection's number while there is one.
    pub fn generation(&self) -> Option<u64> {
        match self {
            Self::Connected { generation } => Some(*generation),
            _ => None,
        }
    }
}

impl fmt::Display for BusStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { .. } => f.write_str("connected"),
            Self::Connecting { last_error: Some(error) } | Self::Disconnected { last_error: Some(error) } => {
                f.write_str(error)
            }
            Self::Connecting { last_error: None } => f.write_str("connecting"),
            Self::Disconnected { last_error: None } => f.write_str("the connection was lost"),
        }
    }
}

/// What callbacks, monitor and callers share.
pub(super) struct Shared {
    pub(super) status: watch::Sender<BusStatus>,
    pub(super) gaps: watch::Sender<u64>,
    /// Failed attempts in a row, for the backoff.
    pub(super) failures: AtomicU32,
    /// An attempt was made since the last connection.
    pub(super) tried: AtomicBool,
    /// Counts refusals, so that waiters look again.
    refused: watch::Sender<u64>,
    refusals: Mutex<VecDeque<(u64, String)>>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            status: watch::Sender::new(BusStatus::Connecting { last_error: None }),
            gaps: watch::Sender::new(0),
            failures: AtomicU32::new(0),
            tried: AtomicBool::new(false),
            refused: watch::Sender::new(0),
            refusals: Mutex::default(),
        }
    }

    /// Remembers that the server refused something.
    pub(super) fn refuse(&self, text: String) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *self.refused.borrow() + 1;
        refusals.push_back((number, text));
        if refusals.len() > REMEMBERED {
            refusals.pop_front();
        }
        drop(refusals);
        self.refused.send_replace(number);
    }

    /// Where to start waiting for refusals; take it before sending.
    pub(super) fn refusals_so_far(&self) -> u64 {
        *self.refused.borrow()
    }

    /// Waits until the server refuses something about `subject`, and gives its words.
    pub(super) async fn refusal_of(&self, subject: &str, after: u64) -> String {
        let mut refused = self.refused.subscribe();
        let quoted = format!("\"{subject}\"");
        loop {
            refused.mark_unchanged();
            let found = {
                let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
                refusals.iter().find(|(number, text)| *number > after && text.contains(&quoted)).cloned()
            };
            if let Some((_, text)) = found {
                return text;
            }
            if refused.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
