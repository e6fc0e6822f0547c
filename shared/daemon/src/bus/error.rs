//! What can go wrong on the bus, with the subject or bucket it went wrong for.
//!
//! Owns the translation of the server's error codes into reasons and classes. Never retries.

use shared::reason::{Class, Reason};

/// JetStream: `wrong last sequence`.
pub(super) const WRONG_LAST_SEQUENCE: u64 = 10_071;
/// JetStream: `stream not found`.
pub(super) const STREAM_NOT_FOUND: u64 = 10_059;
/// JetStream: `stream name already in use`.
pub(super) const STREAM_NAME_IN_USE: u64 = 10_058;
/// JetStream: storing failed, for example at `max_bytes`.
const STREAM_STORE_FAILED: u64 = 10_077;
const THROTTLED: u64 = 429;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(String),
    /// There is no connection.
    #[error("{what}: not connected to NATS: {status}")]
    Disconnected {
        /// What was to be done.
        what: String,
        /// Why there is none.
        status: String,
    },
    /// No answer in time.
    #[error("{what}: no answer within {seconds} s")]
    Timeout {
        /// What was asked.
        what: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Nobody listens: JetStream is off, or the stream does not exist, or has no direct access.
    #[error("{what}: nobody answers; is JetStream on, and does the bucket exist?")]
    NoResponders {
        /// What was asked.
        what: String,
    },
    /// The user may not do this.
    #[error("{what}: NATS refuses: {text}")]
    Forbidden {
        /// What was to be done.
        what: String,
        /// What the server said.
        text: String,
    },
    /// Another writer was first.
    #[error("{subject}: another writer was first: {text}")]
    Conflict {
        /// The subject.
        subject: String,
        /// What the server said.
        text: String,
    },
    /// The server answered with an error.
    #[error("{what}: NATS answers {code}: {text} ({err_code})")]
    Server {
        /// What was to be done.
        what: String,
        /// As in HTTP.
        code: u64,
        /// JetStream's own.
        err_code: u64,
        /// What the server said.
        text: String,
    },
    /// A stream of that name exists and cannot be used.
    #[error(
        "bucket {bucket} cannot be used as it is: {}; change the stream KV_{bucket}, or remove it so that it is made anew \
         (nothing is ever removed by itself)",
        differences.join("; ")
    )]
    Incompatible {
        /// The bucket.
        bucket: String,
        /// A text per field.
        differences: Vec<String>,
    },
    /// What came back, or was to be sent, cannot be used.
    #[error("{what}: {text}")]
    Invalid {
        /// What it was about.
        what: String,
        /// Why.
        text: String,
    },
}

impl BusError {
    /// The bounded word for logs, metrics and facts.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Disconnected { .. } => Reason::Disconnected,
            Self::Timeout { .. } | Self::NoResponders { .. } => Reason::Timeout,
            Self::Forbidden { .. } => Reason::Forbidden,
            Self::Conflict { .. } => Reason::Conflict,
            Self::Server { code, err_code, .. } => match (*code, *err_code) {
                (_, STREAM_STORE_FAILED) => Reason::NoSpace,
                (THROTTLED, _) => Reason::Throttled,
                (408 | 503 | 504, _) => Reason::Timeout,
                _ => Reason::Unknown,
            },
            Self::Settings(_) | Self::Incompatible { .. } | Self::Invalid { .. } => Reason::Invalid,
        }
    }

    /// Whether trying again can help.
    pub fn class(&self) -> Class {
        match self {
            Self::Conflict { .. } => Class::Conflict,
            Self::Disconnected { .. } | Self::Timeout { .. } | Self::NoResponders { .. } => Class::Transient,
            Self::Server { code, err_code, .. } => match (*code, *err_code) {
                (THROTTLED, _) => Class::Throttled,
                // A full bucket empties when markers expire, a server's error passes; a refused request does not.
                (_, STREAM_STORE_FAILED) | (500.., _) => Class::Transient,
                _ => Class::Permanent,
            },
            Self::Settings(_) | Self::Forbidden { .. } | Self::Incompatible { .. } | Self::Invalid { .. } => {
                Class::Permanent
            }
        }
    }

    /// The error of a JetStream answer.
    pub(super) fn from_api(what: &str, code: u64, err_code: u64, text: String) -> Self {
        let what = what.to_owned();
        match err_code {
            WRONG_LAST_SEQUENCE => Self::Conflict { subject: what, text },
            _ => Self::Server { what, code, err_code, text },
        }
    }

    pub(super) fn invalid(what: &str, why: impl std::fmt::Display) -> Self {
        Self::Invalid { what: what.to_owned(), text: why.to_string() }
    }
}
