//! Reading buckets by direct get: the last value of one key, or every key of a filter in pages. The server keeps nothing.
//!
//! Owns paging and the shape of the server's answers. Never knows whether what it read is new enough: a follower may answer.

use async_nats::Request;
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::json;

use super::request::Answer;
use super::{Bus, BusError, Headers, Stored};

pub use Style::{ByApiSubject, ByBody};

/// Largest page: the server queues a whole one in memory.
pub const MAX_PAGE: u32 = 500;

const OK: u16 = 204;
const NOT_FOUND: u16 = 404;
const NO_RESPONDERS: u16 = 503;

/// How the subject to be read is given; permissions differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// In the API subject, `$JS.API.DIRECT.GET.<stream>.<subject>`: can be permitted for one key.
    ByApiSubject,
    /// In the body, to `$JS.API.DIRECT.GET.<stream>`.
    ByBody,
}

/// What a batched read found.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// In order of their sequences; one a subject unless one was rewritten while reading: then the later counts.
    pub messages: Vec<Stored>,
    /// Highest sequence read; `from_seq - 1` if nothing was.
    pub last_seq: u64,
}

impl Bus {
    /// The last message of `subject` in `stream`, markers included; `None` if there is none.
    pub async fn direct_get_last(&self, stream: &str, subject: &str, style: Style) -> Result<Option<Stored>, BusError> {
        let (api, body) = match style {
            ByApiSubject => (format!("$JS.API.DIRECT.GET.{stream}.{subject}"), Bytes::new()),
            ByBody => (format!("$JS.API.DIRECT.GET.{stream}"), json!({ "last_by_subj": subject }).to_string().into()),
        };
        let answer = Answer::from(self.ask(&api, Request::new().payload(body)).await?);
        match answer.status {
            Some(NOT_FOUND) => Ok(None),
            Some(status) => Err(refusal(subject, status, &answer.description)),
            None => stored(stream, answer).map(Some).ok_or_else(|| not_stored(subject)),
        }
    }

    /// Every key of `stream` that matches `filter` and was written at `from_seq` or later, in pages of `page`
    /// (1 to [`MAX_PAGE`]). No such key gives an empty batch.
    pub async fn direct_get_batch(
        &self,
        stream: &str,
        filter: &str,
        from_seq: u64,
        page: u32,
    ) -> Result<Batch, BusError> {
        self.connected(filter)?;
        let inbox = self.inner.client.new_inbox();
        let mut answers = self.subscriber(inbox.clone()).await?;
        let mut batch = Batch { messages: Vec::new(), last_seq: from_seq.saturating_sub(1) };
        let page = page.clamp(1, MAX_PAGE);
        loop {
            let before = batch.last_seq;
            let pending = self.page(stream, filter, page, &inbox, &mut answers, &mut batch).await?;
            if pending == 0 {
                return Ok(batch);
            }
            if batch.last_seq == before {
                return Err(BusError::invalid(filter, format!("{pending} messages are pending, none came")));
            }
        }
    }

    /// Reads one page into `batch` and says how many messages are left.
    async fn page(
        &self,
        stream: &str,
        filter: &str,
        page: u32,
        inbox: &str,
        answers: &mut async_nats::Subscriber,
        batch: &mut Batch,
    ) -> Result<u64, BusError> {
        let api = format!("$JS.API.DIRECT.GET.{stream}");
        let body = json!({ "batch": page, "seq": batch.last_seq + 1, "next_by_subj": filter }).to_string();
        let sent = self.inner.client.publish_with_reply(api.clone(), inbox.to_owned(), body.into());
        let received = async {
            self.in_time(filter, sent).await?.map_err(|error| BusError::invalid(filter, error))?;
            let mut previous = 0;
            loop {
                let next = self.in_time(filter, answers.next()).await?;
                let answer = Answer::from(next.ok_or_else(|| self.timed_out(filter))?);
                match answer.status {
                    Some(OK) => {
                        let last = answer.headers.number("Nats-Last-Sequence");
                        unbroken(filter, previous, last)?;
                        return Ok(answer.headers.number("Nats-Num-Pending").unwrap_or_default());
                    }
                    Some(NOT_FOUND) => return Ok(0),
                    Some(status) => return Err(refusal(filter, status, &answer.description)),
                    None => {
                        let last = answer.headers.number("Nats-Last-Sequence");
                        let message = stored(stream, answer).ok_or_else(|| not_stored(filter))?;
                        unbroken(filter, previous, last)?;
                        previous = message.seq;
                        batch.last_seq = batch.last_seq.max(message.seq);
                        batch.messages.push(message);
                    }
                }
            }
        };
        self.unless_refused(filter, &api, received).await
    }
}

/// Each message of a page names the one before it, so that a dropped one is noticed.
fn unbroken(filter: &str, previous: u64, named: Option<u64>) -> Result<(), BusError> {
    if named.is_none_or(|named| named == previous) {
        return Ok(());
    }
    Err(BusError::Timeout { what: format!("{filter}: a message of the page got lost"), seconds: 0 })
}

fn refusal(what: &str, status: u16, description: &str) -> BusError {
    match status {
        NO_RESPONDERS => BusError::NoResponders { what: what.to_owned() },
        _ => BusError::Server { what: what.to_owned(), code: status.into(), err_code: 0, text: description.to_owned() },
    }
}

fn not_stored(what: &str) -> BusError {
    BusError::invalid(what, "the answer is not a message of the stream asked for")
}

/// A message as direct get gives it: the server's headers come after the writer's.
fn stored(stream: &str, answer: Answer) -> Option<Stored> {
    let headers: &Headers = &answer.headers;
    if headers.last("Nats-Stream") != Some(stream) {
        return None;
    }
    let subject = headers.last("Nats-Subject")?.to_owned();
    let seq = headers.number("Nats-Sequence")?;
    let time = headers.last("Nats-Time-Stamp").unwrap_or_default().to_owned();
    Some(Stored { subject, seq, time, headers: answer.headers, payload: answer.payload })
}
