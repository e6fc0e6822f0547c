//! Why something failed, was refused or is held back: a bounded set of words.
//!
//! Owns the one table behind metric labels, log fields, message fields and `docs/reference/reasons.md`.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($variant:ident $word:literal $meaning:literal),* $(,)?) => {
        /// A bounded reason. The same word in logs, metrics, messages, status and docs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Reason {
            $(#[doc = $meaning] $variant,)*
            /// A word this version does not know, from a newer peer.
            #[serde(other)]
            Unknown,
        }

        impl Reason {
            /// Every reason with its meaning, in the order of the docs.
            pub const ALL: &'static [(Self, &'static str)] = &[
                $((Self::$variant, $meaning),)*
                (Self::Unknown, "Anything else; the log line beside it has the text."),
            ];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* Self::Unknown => "unknown" }
            }
        }
    };
}

reasons! {
    Unauthorized "unauthorized" "The registry wants credentials, or refuses those given (401, 403).",
    NotFound "not-found" "The registry has no such repository, tag or digest (404).",
    Throttled "throttled" "The registry asks to slow down (429).",
    RegistryUnavailable "registry-unavailable" "The registry answers with a server error (5xx).",
    Network "network" "The registry cannot be reached: DNS, connection, TLS.",
    NoSpace "no-space" "The disk is full, or the image would not fit below the mark.",
    NoPlatform "no-platform" "The image has no variant for this node's operating system and architecture.",
    Policy "policy" "A policy of the runtime or of the registry forbids the image.",
    Corrupt "corrupt" "What was received does not match its digest, or the runtime has another digest than was resolved.",
    DeadlineExceeded "deadline-exceeded" "The pull did not end in the time given.",
    RuntimeUnavailable "runtime-unavailable" "The container runtime does not answer.",
    ShortName "short-name" "The runtime cannot resolve an unqualified name.",
    Identity "identity" "Credentials may not be served, because the connection is not bound to the node.",
    DiskPressure "disk-pressure" "The node reports disk pressure, or its disk is at the mark above which nothing is pulled.",
    PidPressure "pid-pressure" "The node reports pid pressure.",
    Wave "wave" "The image's wave has not opened for this node.",
    Permit "permit" "The registry's budget has no room now.",
    Paused "paused" "A person has paused warm-images (`ctl.pause`): no pull starts until `ctl.resume`.",
    Conflict "conflict" "Another writer was first; what it wrote is read and the step decides again.",
    Timeout "timeout" "A request got no answer in time.",
    Forbidden "forbidden" "The peer refuses the request for lack of rights.",
    Invalid "invalid" "What was received cannot be decoded.",
    NewerSchema "newer-schema" "What was received is of a newer major of the protocol; it is left alone.",
    Forged "forged" "A message does not come from whom its subject says, or lacks the headers it must have.",
    Disconnected "disconnected" "There is no connection to NATS.",
    KubernetesUnavailable "kubernetes-unavailable" "The Kubernetes API cannot be reached or answers with a server error (5xx).",
    LeaseLost "lease-lost" "This controller holds the Lease no more: what was to be written was not sent, or is not awaited.",
    Superseded "superseded" "A controller with a higher term has taken over.",
    ForeignCluster "foreign-cluster" "The buckets belong to another cluster.",
    TokenMissing "token-missing" "A client of NATS gives no service-account token.",
    TokenMalformed "token-malformed" "What a client of NATS gives is no service-account token.",
    TokenKey "token-key" "The token is signed with a key that the API server does not publish.",
    TokenSignature "token-signature" "The signature of the token is wrong.",
    TokenIssuer "token-issuer" "The token is of another issuer than this cluster's API server.",
    TokenExpired "token-expired" "The token has expired.",
    TokenEarly "token-early" "The token is not valid yet: clocks differ by more than a minute.",
    TokenAudience "token-audience" "The token is for somebody else: it has not the audience of `identity.audience`.",
    TokenAccount "token-account" "The token is of another service account than the agents'.",
    TokenUnbound "token-unbound" "The token is bound to no Pod, or to no Node.",
    PodGone "pod-gone" "The Pod that the token is bound to is not there any more.",
    PodElsewhere "pod-elsewhere" "The Pod that the token is bound to runs on another node than the token says.",
    TooLarge "too-large" "An inventory has more to say than a message holds; of the images it leaves out nothing is said.",
    Storage "storage" "The state directory cannot be read or written.",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether trying again can help, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Later, with backoff.
    Transient,
    /// The peer asks for patience.
    Throttled,
    /// Read again, decide again.
    Conflict,
    /// Not before something else changes.
    Permanent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_serde_writes_and_are_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for (reason, meaning) in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
            assert!(seen.insert(reason.as_str()), "{reason} twice");
            assert!(meaning.ends_with('.'));
        }
    }

    #[test]
    fn a_word_of_a_newer_peer_is_unknown_and_not_an_error() {
        assert_eq!(serde_json::from_str::<Reason>("\"brand-new\"").unwrap(), Reason::Unknown);
    }
}
