//! What comes in: a message, a stored message, a subscription.
//!
//! Owns their shape. Never decodes a body.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};

use super::{Bus, BusError, Headers};

/// A message on core NATS.
#[derive(Debug, Clone)]
pub struct Message {
    /// Where it was published.
    pub subject: String,
    /// Where an answer goes.
    pub reply: Option<String>,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
}

impl From<async_nats::Message> for Message {
    fn from(message: async_nats::Message) -> Self {
        Self {
            subject: message.subject.into_string(),
            reply: message.reply.map(async_nats::Subject::into_string),
            headers: Headers::new(message.headers),
            payload: message.payload,
        }
    }
}

/// What a stored message does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Gives it a value.
    Put,
    /// Takes its value away: a delete or purge marker, or one the server left after expiry.
    Remove,
}

/// A message of a bucket.
#[derive(Debug, Clone)]
pub struct Stored {
    /// `$KV.<bucket>.<key>`.
    pub subject: String,
    /// Its sequence in the stream.
    pub seq: u64,
    /// When the server stored it, RFC 3339. For people.
    pub time: String,
    /// Its headers, the writer's and the server's.
    pub headers: Headers,
    /// The value.
    pub payload: Bytes,
}

impl Stored {
    /// What it does to its key.
    pub fn operation(&self) -> Operation {
        let removes = matches!(self.headers.get("KV-Operation"), Some("DEL" | "PURGE"));
        if removes || self.headers.get("Nats-Marker-Reason").is_some() { Operation::Remove } else { Operation::Put }
    }
}

/// Messages of a subject, over every reconnect. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription(async_nats::Subscriber);

impl Subscription {
    /// The next message; `None` when the process ends.
    pub async fn recv(&mut self) -> Option<Message> {
        self.0.next().await.map(Message::from)
    }

    /// Asks for no more: what is on its way still comes, then the end.
    pub async fn drain(&mut self) {
        // It fails only when the process ends.
        let _ = self.0.drain().await;
    }
}

impl Stream for Subscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.0.poll_next_unpin(cx).map(|message| message.map(Message::from))
    }
}

impl Bus {
    /// Subscribes to `subject`, which may have wildcards. Also works before there is a connection.
    pub async fn subscribe(&self, subject: impl Into<String>) -> Result<Subscription, BusError> {
        self.subscriber(subject.into()).await.map(Subscription)
    }

    /// As [`Bus::subscribe`], and each message goes to one only of those who subscribe in `group`.
    pub async fn subscribe_in_group(
        &self,
        subject: impl Into<String>,
        group: impl Into<String>,
    ) -> Result<Subscription, BusError> {
        let subject = subject.into();
        let what = format!("subscribing to {subject}");
        let subscribed = self.in_time(&what, self.inner.client.queue_subscribe(subject, group.into())).await?;
        subscribed.map(Subscription).map_err(|error| BusError::invalid(&what, error))
    }

    pub(super) async fn subscriber(&self, subject: String) -> Result<async_nats::Subscriber, BusError> {
        let what = format!("subscribing to {subject}");
        self.in_time(&what, self.inner.client.subscribe(subject))
            .await?
            .map_err(|error| BusError::invalid(&what, error))
    }
}
