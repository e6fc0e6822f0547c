//! Sending: core messages, and puts into buckets with their acknowledgement.
//!
//! Owns compare-and-set and the two phases of a put. Never queues for a connection that is not there.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use shared::message::header;
use tracing::debug;

use super::{Bus, BusError, headers};

const EXPECT: &str = "Nats-Expected-Last-Subject-Sequence";

/// The second phase of a put: resolves to the sequence stored. Dropping it does not undo the put.
#[must_use = "a put is known to be stored only when this resolves"]
pub struct PutAck(BoxFuture<'static, Result<u64, BusError>>);

impl Future for PutAck {
    type Output = Result<u64, BusError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_unpin(cx)
    }
}

impl std::fmt::Debug for PutAck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PutAck")
    }
}

impl Bus {
    /// Publishes on core NATS: sent, not known to be received. Messages of one caller keep their order.
    pub async fn publish(
        &self,
        subject: impl Into<String>,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Result<(), BusError> {
        let subject = subject.into();
        self.connected(&subject)?;
        let map = headers::outgoing(&subject, headers.iter().map(|(name, value)| (*name, value.as_str())))?;
        let sent = async {
            if map.is_empty() {
                self.inner.client.publish(subject.clone(), body).await
            } else {
                self.inner.client.publish_with_headers(subject.clone(), map, body).await
            }
        };
        self.in_time(&subject, sent).await?.map_err(|error| BusError::invalid(&subject, error))
    }

    /// Waits until everything published so far is handed to the system, but not long.
    pub async fn flush(&self) {
        let flushed = tokio::time::timeout(self.inner.request_timeout, self.inner.client.flush()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            debug!("NATS could not be flushed");
        }
    }

    /// Puts `body` under `subject` (`$KV.<bucket>.<key>`). With `expect` only if the subject's last sequence is that, 0 for
    /// none; else [`BusError::Conflict`].
    ///
    /// Resolves when it is sent, in order with the caller's other puts; what it resolves to waits for the acknowledgement, so
    /// that puts can be pipelined. Errors of either phase come from the second.
    pub async fn put(
        &self,
        subject: impl Into<String>,
        headers: &[(&str, String)],
        body: Bytes,
        expect: Option<u64>,
    ) -> PutAck {
        let subject = subject.into();
        let so_far = self.inner.shared.refusals_so_far();
        let sent = match self.send_put(&subject, headers, body, expect).await {
            Ok(sent) => sent,
            Err(error) => return PutAck(std::future::ready(Err(error)).boxed()),
        };
        let bus = self.clone();
        let ack = async move {
            let refused = bus.inner.shared.refusal_of(&subject, so_far);
            tokio::select! {
                biased;
                ack = sent.into_future() => ack.map(|ack| ack.sequence).map_err(|error| bus.put_error(&subject, &error)),
                text = refused => Err(BusError::Forbidden { what: subject.clone(), text }),
            }
        };
        PutAck(ack.boxed())
    }

    /// Removes the value under `subject`, leaving a marker for `ttl`; compare-and-set and two phases as [`Bus::put`]. The
    /// bucket must allow roll-ups.
    pub async fn purge(&self, subject: impl Into<String>, ttl: Duration, expect: Option<u64>) -> PutAck {
        let headers = [
            ("KV-Operation", "PURGE".to_owned()),
            ("Nats-Rollup", "sub".to_owned()),
            // Whole seconds, at least one: what the server takes.
            (header::TTL, format!("{}s", ttl.as_secs().max(1))),
        ];
        self.put(subject, &headers, Bytes::new(), expect).await
    }

    async fn send_put(
        &self,
        subject: &str,
        headers: &[(&str, String)],
        body: Bytes,
        expect: Option<u64>,
    ) -> Result<async_nats::jetstream::context::PublishAckFuture, BusError> {
        self.connected(subject)?;
        let expect = expect.map(|seq| seq.to_string());
        let expect = expect.iter().map(|seq| (EXPECT, seq.as_str()));
        let given = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let map = headers::outgoing(subject, given.chain(expect))?;
        let message = PublishMessage::build().headers(map).payload(body);
        let sent = self.inner.jetstream.send_publish(subject.to_owned(), message).await;
        sent.map_err(|error| self.put_error(subject, &error))
    }

    fn put_error(&self, subject: &str, error: &PublishError) -> BusError {
        let api =
            std::error::Error::source(error).and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>());
        if let Some(api) = api {
            let text = api.to_string();
            let code = u64::try_from(api.code()).unwrap_or_default();
            return BusError::from_api(subject, code, api.error_code().0, text);
        }
        match error.kind() {
            PublishErrorKind::TimedOut => self.timed_out(subject),
            PublishErrorKind::StreamNotFound => BusError::NoResponders { what: subject.to_owned() },
            PublishErrorKind::BrokenPipe => self.connected(subject).err().unwrap_or_else(|| self.timed_out(subject)),
            _ => BusError::invalid(subject, error),
        }
    }
}
