//! What agents say on core NATS: heartbeats and events.
//!
//! Owns the judgement whether a message comes from whom its subject says: NATS binds the subject to the sender, nothing
//! binds the body. What is forged, newer or not decodable is dropped, counted and told. Never trusts a reply subject.

use cluster_plan::Fact;
use daemon::bus::{Bus, BusError, Message, Subscription};
use daemon::driver::Inbox;
use daemon::supervise::Shutdown;
use futures::StreamExt as _;
use futures::stream::{self, SelectAll};
use shared::message::{DecodeError, Event, Heartbeat, Message as _};
use shared::name::ClusterId;
use shared::reason::Reason;
use shared::subject::Subject;
use tracing::debug;

use super::refused;

/// Listens to every agent.
pub struct Receiver {
    cluster: ClusterId,
    inbox: Inbox<Fact>,
    messages: SelectAll<Subscription>,
}

impl Receiver {
    /// Subscribes; also works before there is a connection. Without a queue group: every replica observes.
    pub async fn subscribe(bus: &Bus, cluster: &ClusterId, inbox: Inbox<Fact>) -> Result<Self, BusError> {
        let heartbeats = bus.subscribe(Subject::all_heartbeats(cluster)).await?;
        let events = bus.subscribe(Subject::all_events(cluster)).await?;
        Ok(Self { cluster: cluster.clone(), inbox, messages: stream::select_all([heartbeats, events]) })
    }

    /// Turns messages into facts until the shutdown.
    pub async fn run(mut self, shutdown: Shutdown) {
        loop {
            let message = tokio::select! {
                () = shutdown.cancelled() => return,
                message = self.messages.next() => message,
            };
            let Some(message) = message else { return };
            self.inbox.send(self.judge(&message)).await;
        }
    }

    fn judge(&self, message: &Message) -> Fact {
        let from_stream = message.headers.has_stream_header();
        fact(&self.cluster, &message.subject, from_stream, &message.payload).unwrap_or_else(|refusal| {
            let Refusal { kind, reason } = refusal;
            refused(kind, reason);
            // Anybody may publish here, so it is no more than a debug line; the metric shows it.
            debug!(subject = message.subject, kind, %reason, "a message is dropped");
            Fact::Refused { kind, reason }
        })
    }
}

/// A message that is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What it claims to be.
    pub kind: &'static str,
    /// Forged or invalid.
    pub reason: Reason,
}

/// The fact that a message on `subject` states. `from_stream`: it has the header that only a stream's delivery has, so
/// somebody made the server send a stored message here.
pub fn fact(cluster: &ClusterId, subject: &str, from_stream: bool, body: &[u8]) -> Result<Fact, Refusal> {
    match Subject::parse(cluster, subject) {
        Some(Subject::Heartbeat(node)) => {
            let refuse = |reason| Refusal { kind: Heartbeat::KIND, reason };
            let heartbeat = Heartbeat::decode(body).map_err(|error| refuse(unreadable(from_stream, &error)))?;
            if from_stream || heartbeat.node != node {
                return Err(refuse(Reason::Forged));
            }
            Ok(Fact::Heartbeat(heartbeat))
        }
        Some(Subject::Event(node, state)) => {
            let refuse = |reason| Refusal { kind: Event::KIND, reason };
            let event = Event::decode(body).map_err(|error| refuse(unreadable(from_stream, &error)))?;
            if from_stream || event.node != node || event.st != state {
                return Err(refuse(Reason::Forged));
            }
            Ok(Fact::Event(Box::new(event)))
        }
        _ => Err(Refusal { kind: "unknown", reason: Reason::Invalid }),
    }
}

fn unreadable(from_stream: bool, error: &DecodeError) -> Reason {
    match error {
        _ if from_stream => Reason::Forged,
        DecodeError::Newer { .. } => Reason::NewerSchema,
        _ => Reason::Invalid,
    }
}

#[cfg(test)]
mod tests;
