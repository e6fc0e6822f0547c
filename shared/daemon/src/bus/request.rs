//! Asking: a request, its answer, and everything that can come instead.
//!
//! Owns timeouts and refusals. Never asks twice.

use std::time::Duration;

use async_nats::Request;
use async_nats::client::RequestErrorKind;
use bytes::Bytes;
use serde_json::Value;

use super::{Bus, BusError, Headers, Message, headers};

/// A status line in the server's own answers.
pub(super) struct Answer {
    pub(super) status: Option<u16>,
    pub(super) description: String,
    pub(super) headers: Headers,
    pub(super) payload: Bytes,
}

impl From<async_nats::Message> for Answer {
    fn from(message: async_nats::Message) -> Self {
        Self {
            status: message.status.map(|status| status.as_u16()),
            description: message.description.unwrap_or_default(),
            headers: Headers::new(message.headers),
            payload: message.payload,
        }
    }
}

impl Bus {
    /// Asks whoever listens on `subject`.
    pub async fn request(&self, subject: &str, headers: &[(&str, String)], body: Bytes) -> Result<Message, BusError> {
        let map = headers::outgoing(subject, headers.iter().map(|(name, value)| (*name, value.as_str())))?;
        self.ask(subject, Request::new().headers(map).payload(body)).await.map(Message::from)
    }

    pub(super) async fn ask(&self, subject: &str, request: Request) -> Result<async_nats::Message, BusError> {
        self.connected(subject)?;
        let asked = self.inner.client.send_request(subject.to_owned(), request);
        let answer = self.unless_refused(subject, subject, async move { Ok(asked.await) }).await?;
        answer.map_err(|error| match error.kind() {
            RequestErrorKind::TimedOut => self.timed_out(subject),
            RequestErrorKind::NoResponders => BusError::NoResponders { what: subject.to_owned() },
            _ => BusError::invalid(subject, error),
        })
    }

    /// Asks the JetStream API; an error in the answer is an error.
    pub(super) async fn api(&self, what: &str, call: &str, body: &Value) -> Result<Value, BusError> {
        let subject = format!("$JS.API.{call}");
        let message = self.ask(&subject, Request::new().payload(body.to_string().into())).await?;
        let answer: Value = serde_json::from_slice(&message.payload).map_err(|error| BusError::invalid(what, error))?;
        let Some(error) = answer.get("error") else {
            return Ok(answer);
        };
        let number = |field: &str| error.get(field).and_then(Value::as_u64).unwrap_or_default();
        let text = error.get("description").and_then(Value::as_str).unwrap_or("no description").to_owned();
        Err(BusError::from_api(what, number("code"), number("err_code"), text))
    }

    /// Waits for `future`, or for the server to refuse a publish to `subject`, which it says only aside.
    pub(super) async fn unless_refused<T>(
        &self,
        what: &str,
        subject: &str,
        future: impl Future<Output = Result<T, BusError>>,
    ) -> Result<T, BusError> {
        let shared = &self.inner.shared;
        let so_far = shared.refusals_so_far();
        tokio::select! {
            biased;
            result = future => result,
            text = shared.refusal_of(subject, so_far) => Err(BusError::Forbidden { what: what.to_owned(), text }),
        }
    }

    /// Waits for `future` no longer than for an answer.
    pub(super) async fn in_time<T>(&self, what: &str, future: impl Future<Output = T>) -> Result<T, BusError> {
        tokio::time::timeout(self.inner.request_timeout, future).await.map_err(|_| self.timed_out(what))
    }

    pub(super) fn timed_out(&self, what: &str) -> BusError {
        let limit = self.inner.request_timeout.max(Duration::from_secs(1));
        BusError::Timeout { what: what.to_owned(), seconds: limit.as_secs() }
    }
}
