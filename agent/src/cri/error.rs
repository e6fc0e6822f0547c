//! Why the runtime did not do what was asked.
//!
//! Owns the way from a gRPC status and its text to one bounded reason: runtimes tell almost everything in text, most of
//! it under the code `Unknown`.

use std::error::Error as _;
use std::time::Duration;

use shared::reason::{Class, Reason};
use shared::text::shown;
use tonic::{Code, Status};

use super::socket::Unreachable;

/// The most characters of a runtime's own words: what a registry answers may stand in them whole.
const LONGEST: usize = 800;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// No socket answers.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke during the call.
    #[error("{call}: the connection to the container runtime broke: {text}")]
    Broken {
        /// The RPC.
        call: &'static str,
        /// Why.
        text: String,
    },
    /// The socket answers, yet no CRI v1 is behind it.
    #[error(
        "{call}: what listens on the socket does not speak CRI v1 ({text}); name the socket of the kubelet's runtime in \
         `runtime.socket`"
    )]
    NoCri {
        /// The RPC.
        call: &'static str,
        /// What it says.
        text: String,
    },
    /// No answer in time; the call was dropped.
    #[error("{call}: no answer within {}", humane(.after))]
    Deadline {
        /// The RPC.
        call: &'static str,
        /// After how long.
        after: Duration,
    },
    /// The runtime says no.
    #[error("{call}: {text}")]
    Refused {
        /// The RPC.
        call: &'static str,
        /// What the text means.
        reason: Reason,
        /// The runtime's own words.
        text: String,
    },
    /// The runtime says that a pull succeeded and knows no such image.
    #[error("the runtime has no image {image} although it has just reported its pull as done")]
    Absent {
        /// The reference.
        image: String,
    },
}

impl CriError {
    /// From the status of `call`, made on behalf of `image` if it names one.
    pub fn new(call: &'static str, image: &str, status: &Status) -> Self {
        if let Some(unreachable) = in_chain(status) {
            return Self::Unreachable(unreachable.to_string());
        }
        let text = status.message();
        // Only a status made on this side has a source: a peer's answer is code and text alone.
        if status.source().is_some() {
            return Self::Broken { call, text: chain(status) };
        }
        // The reason is of the whole text; shown is what a log can bear.
        let said = shown(text, LONGEST);
        match status.code() {
            Code::Unimplemented if text.contains("unknown service") => Self::NoCri { call, text: said },
            code => Self::Refused { call, reason: reason_of(code, text, image), text: said },
        }
    }

    /// The bounded reason.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreachable(_) | Self::Broken { .. } | Self::NoCri { .. } => Reason::RuntimeUnavailable,
            Self::Deadline { .. } => Reason::DeadlineExceeded,
            Self::Refused { reason, .. } => *reason,
            Self::Absent { .. } => Reason::Unknown,
        }
    }

    /// Whether trying again can help.
    pub fn class(&self) -> Class {
        match self.reason() {
            Reason::Throttled => Class::Throttled,
            Reason::NotFound
            | Reason::Unauthorized
            | Reason::NoPlatform
            | Reason::Policy
            | Reason::ShortName
            | Reason::Invalid => Class::Permanent,
            _ => Class::Transient,
        }
    }
}

fn humane(duration: &Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn in_chain(status: &Status) -> Option<&Unreachable> {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<Unreachable>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// The innermost cause beside the status's own words.
fn chain(status: &Status) -> String {
    let mut innermost = None;
    let mut source = status.source();
    while let Some(error) = source {
        innermost = Some(error);
        source = error.source();
    }
    innermost.map_or_else(|| status.message().to_owned(), |cause| format!("{} ({cause})", status.message()))
}

/// What a runtime's refusal means. `image` is taken out of the text first: a repository may be called `unauthorized`.
pub fn reason_of(code: Code, text: &str, image: &str) -> Reason {
    let text = bare(text, image);
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    // The order matters: what is specific stands before what wraps it. "failed to authorize" wraps DNS errors, "not
    // found" ends a missing platform, "context canceled" follows a failed layer in its siblings.
    if let Some((_, reason)) = TELLING.iter().find(|(phrases, _)| says(phrases)) {
        return *reason;
    }
    if let Some(reason) = http_status(&text).and_then(reason_of_http) {
        return reason;
    }
    if let Some((_, reason)) = GENERAL.iter().find(|(phrases, _)| says(phrases)) {
        return *reason;
    }
    match code {
        Code::NotFound => Reason::NotFound,
        Code::Unauthenticated | Code::PermissionDenied => Reason::Unauthorized,
        Code::DeadlineExceeded | Code::Cancelled => Reason::DeadlineExceeded,
        Code::Unavailable | Code::Unimplemented => Reason::RuntimeUnavailable,
        Code::InvalidArgument => Reason::Invalid,
        Code::DataLoss => Reason::Corrupt,
        _ => Reason::Unknown,
    }
}

/// Phrases that mean one thing wherever they stand, in lower case.
const TELLING: &[(&[&str], Reason)] = &[
    (&["no space left on device", "disk quota exceeded"], Reason::NoSpace),
    (
        &[
            "no match for platform in manifest",
            "no image found in manifest list for architecture",
            "no image found in image index for architecture",
        ],
        Reason::NoPlatform,
    ),
    (&["short-name", "short name"], Reason::ShortName),
    (
        &["signaturevalidationfailed", "rejected by policy", "image verifier", "due to configured policy"],
        Reason::Policy,
    ),
    (
        &[
            "unexpected commit digest",
            "failed size validation",
            "digest mismatch",
            "does not match the digest",
            "digest did not match",
            "read past expected size",
            "invalid tar header",
            "gzip: invalid",
        ],
        Reason::Corrupt,
    ),
    (&["toomanyrequests", "too many requests"], Reason::Throttled),
    (&["failed to parse image reference", "invalid reference format"], Reason::Invalid),
];

/// Phrases that count once no HTTP status is named.
const GENERAL: &[(&[&str], Reason)] = &[
    (
        &[
            "no such host",
            "connection refused",
            "connection reset",
            "connection timed out",
            "broken pipe",
            "i/o timeout",
            "tls handshake",
            "tls: ",
            "x509:",
            "network is unreachable",
            "no route to host",
            "dial tcp",
            "temporary failure in name resolution",
            "server gave http response to https client",
            "client.timeout exceeded",
            "unexpected eof",
            ": eof",
        ],
        Reason::Network,
    ),
    (&["registryunavailable"], Reason::RegistryUnavailable),
    (
        &[
            "pull access denied",
            "insufficient_scope",
            "authorization failed",
            "no basic auth credentials",
            "requested access to the resource is denied",
            "authentication required",
            "unauthorized:",
            "denied:",
            "failed to authorize",
            "failed to handle basic auth",
            "invalid username/password",
        ],
        Reason::Unauthorized,
    ),
    (&["manifest unknown", "name unknown", ": not found", "repository not found"], Reason::NotFound),
    (&["context deadline exceeded", "context canceled"], Reason::DeadlineExceeded),
];

fn reason_of_http(status: u16) -> Option<Reason> {
    Some(match status {
        401 | 403 | 407 => Reason::Unauthorized,
        404 | 410 => Reason::NotFound,
        408 => Reason::Network,
        // 412 is Harbor's word for an image its policy holds back; 451 is a legal one.
        412 | 451 => Reason::Policy,
        429 => Reason::Throttled,
        500..=599 => Reason::RegistryUnavailable,
        _ => return None,
    })
}

/// The HTTP status a text names, as in `unexpected status from HEAD request to …: 500 Internal Server Error`.
fn http_status(text: &str) -> Option<u16> {
    let mut before = "";
    for word in text.split_whitespace() {
        let number = word.trim_end_matches([',', ':', ';', '.', ')']);
        let announced = before.ends_with(':') || before == "status" || before == "code";
        if announced
            && number.len() == 3
            && let Some(status) = number.parse().ok().filter(|s| (400..=599).contains(s))
        {
            return Some(status);
        }
        before = word;
    }
    None
}

/// The text in lower case without what others chose: the reference, URLs, and whatever stands in quotes.
fn bare(text: &str, image: &str) -> String {
    let unescaped = text.replace("\\\"", "\"");
    let without_image = if image.is_empty() { unescaped } else { unescaped.replace(image, "_") };
    let mut bare = String::with_capacity(without_image.len());
    for (at, part) in without_image.split('"').enumerate() {
        if at % 2 == 1 {
            bare.push('_');
            continue;
        }
        for word in part.split_inclusive(char::is_whitespace) {
            if word.starts_with("http://") || word.starts_with("https://") || word.starts_with("docker://") {
                let end = word.trim_end();
                let colon = if end.ends_with(':') { ":" } else { "" };
                bare.push('_');
                bare.push_str(colon);
                bare.push_str(word.get(end.len()..).unwrap_or_default());
            } else {
                bare.push_str(word);
            }
        }
    }
    bare.make_ascii_lowercase();
    bare
}

#[cfg(test)]
mod tests;
