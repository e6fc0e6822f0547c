//! What arrives on core NATS becomes a fact, or is refused.
//!
//! Owns the checks of form: who a message must come from, what it must carry. Knows nothing of connections.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use node_plan::Fact;
use shared::message::{Assignment, Beat, DecodeError, Delta, Message, SCHEMA, header};
use shared::metric;
use shared::name::{ClusterId, NodeName};
use shared::reason::Reason;
use shared::subject::Subject;
use tracing::{debug, warn};

/// A message as it arrived.
pub struct Incoming<'a> {
    /// The subject.
    pub subject: &'a str,
    /// Where an answer is to go.
    pub reply: Option<&'a str>,
    /// The value of a header.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
    /// The body.
    pub payload: &'a [u8],
}

/// Why a message is dropped.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Kind of the message.
    pub kind: &'static str,
    /// Forged or invalid.
    pub reason: Reason,
    /// For the log.
    pub text: String,
}

/// Checks and decodes. `keep` takes a reply subject and gives its number.
pub fn fact(
    message: &Incoming<'_>,
    cluster: &ClusterId,
    node: &NodeName,
    keep: impl FnOnce(&str) -> u64,
) -> Result<Fact, Refusal> {
    let Some(subject) = Subject::parse(cluster, message.subject) else {
        return Err(refused("unknown", Reason::Invalid, "the subject is none of ours"));
    };
    let kind = kind_of(&subject);
    if (message.header)(header::STREAM).is_some() {
        return Err(refused(kind, Reason::Forged, "a stream delivered it"));
    }
    match subject {
        Subject::Delta(pool) => {
            let delta = Delta::decode(&pool, message.header, message.payload);
            delta.map(Fact::Delta).map_err(|error| undecodable(kind, &error))
        }
        Subject::Beat(pool) => {
            let beat = Beat::decode(message.payload).map_err(|error| undecodable(kind, &error))?;
            if beat.pool != pool {
                return Err(refused(kind, Reason::Forged, format!("its pool is {}", beat.pool)));
            }
            Ok(Fact::Beat(beat))
        }
        Subject::Assign(of) => {
            mine(kind, &of, node)?;
            let epoch = assignment_headers(message).map_err(|error| undecodable(kind, &error))?;
            let assignment = Assignment::decode(message.payload).map_err(|error| undecodable(kind, &error))?;
            mine(kind, &assignment.node, node)?;
            Ok(Fact::AssignmentCopy { epoch, assignment })
        }
        Subject::Request(of, verb) => {
            mine(kind, &of, node)?;
            // A client may have NATS itself answer on any subject; such an answer has neither.
            if message.reply.is_none() && (message.header)(header::SCHEMA).is_none() {
                return Err(refused(kind, Reason::Forged, "it has neither a reply subject nor a controller's header"));
            }
            let body = String::from_utf8_lossy(message.payload).into_owned();
            Ok(Fact::Request { verb, body, reply: message.reply.map(keep) })
        }
        Subject::Event(..) | Subject::Heartbeat(_) => {
            Err(refused(kind, Reason::Invalid, "agents do not listen to each other"))
        }
        Subject::Control(_) => Err(refused(kind, Reason::Invalid, "it is for the controllers")),
    }
}

/// The epoch, once schema and term are there as well.
fn assignment_headers(message: &Incoming<'_>) -> Result<String, DecodeError> {
    let number = |name: &'static str| {
        (message.header)(name).and_then(|v| v.parse::<u64>().ok()).ok_or(DecodeError::Header { name })
    };
    let version = u32::try_from(number(header::SCHEMA)?).unwrap_or(u32::MAX);
    if version > SCHEMA {
        return Err(DecodeError::Newer { what: Assignment::KIND, version });
    }
    number(header::TERM)?;
    let epoch = (message.header)(header::EPOCH).ok_or(DecodeError::Header { name: header::EPOCH })?;
    Ok(epoch.to_owned())
}

fn mine(kind: &'static str, of: &NodeName, node: &NodeName) -> Result<(), Refusal> {
    if of == node { Ok(()) } else { Err(refused(kind, Reason::Forged, format!("it is for node {of}"))) }
}

fn kind_of(subject: &Subject) -> &'static str {
    match subject {
        Subject::Delta(_) => "delta",
        Subject::Beat(_) => Beat::KIND,
        Subject::Assign(_) => Assignment::KIND,
        Subject::Event(..) => "event",
        Subject::Heartbeat(_) => "heartbeat",
        Subject::Request(..) => "request",
        Subject::Control(_) => "control",
    }
}

fn refused(kind: &'static str, reason: Reason, text: impl Into<String>) -> Refusal {
    Refusal { kind, reason, text: text.into() }
}

fn undecodable(kind: &'static str, error: &DecodeError) -> Refusal {
    let reason = match error {
        DecodeError::Header { .. } => Reason::Forged,
        DecodeError::Newer { .. } => Reason::NewerSchema,
        DecodeError::Json { .. } => Reason::Invalid,
    };
    refused(kind, reason, error.to_string())
}

/// Counts what was refused, and says so without being floodable: the first of a kind, the second, the fourth …
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<(&'static str, Reason), u64>>);

impl Refusals {
    /// Takes note; gives the fact that the heartbeat's count is made of.
    pub fn note(&self, refusal: Refusal, subject: &str) -> Fact {
        let Refusal { kind, reason, text } = refusal;
        daemon::metrics::count(metric::MESSAGES_REFUSED, &[kind, reason.as_str()], 1);
        let count = {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry((kind, reason)).or_default();
            *count += 1;
            *count
        };
        if count.is_power_of_two() {
            warn!(kind, %reason, subject, count, "message dropped: {text}");
        } else {
            debug!(kind, %reason, subject, count, "message dropped: {text}");
        }
        Fact::Refused { kind, reason }
    }
}

#[cfg(test)]
mod tests;
