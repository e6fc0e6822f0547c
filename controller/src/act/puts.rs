//! A batch of compare-and-set writes to one bucket.
//!
//! Owns pipelining: sent one after the other, so that sequences follow the order of the batch, with a bounded number of
//! acknowledgements outstanding; none is sent once the tenure is over, and what was sent is awaited. Never retries.

use std::time::Duration;

use bytes::Bytes;
use daemon::bus::{Bus, PutAck};
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;

use super::outcome::NotDone;
use crate::leader::tenure::{LeaseLost, Tenure};

/// Acknowledgements outstanding at most.
const IN_FLIGHT: usize = 256;

/// One write.
pub(super) struct Put {
    /// `$KV.<bucket>.<key>`.
    pub(super) subject: String,
    /// Sequence that the subject must have; 0 if it must not exist.
    pub(super) expected: u64,
    /// What is written.
    pub(super) content: Content,
}

/// What is written.
pub(super) enum Content {
    /// A value.
    Value(Bytes),
    /// A purge; its marker lives that long.
    Purge(Duration),
}

/// Writes all, in order. The results, in the same order.
pub(super) async fn write_all(bus: &Bus, tenure: &Tenure, puts: Vec<Put>) -> Vec<Result<u64, NotDone>> {
    let mut results = Vec::new();
    let mut in_flight = FuturesOrdered::new();
    for put in puts {
        if in_flight.len() == IN_FLIGHT {
            results.extend(in_flight.next().await);
        }
        let Put { subject, expected, content } = put;
        in_flight.push_back(acknowledged(tenure.guard(send(bus, subject, Some(expected), content)).await));
    }
    while let Some(result) = in_flight.next().await {
        results.push(result);
    }
    results
}

/// Sends one write; `expected` is the sequence that the subject must have, if that matters.
pub(super) async fn send(bus: &Bus, subject: String, expected: Option<u64>, content: Content) -> PutAck {
    match content {
        Content::Value(body) => bus.put(subject, &[], body, expected).await,
        Content::Purge(ttl) => bus.purge(subject, ttl, expected).await,
    }
}

async fn acknowledged(sent: Result<PutAck, LeaseLost>) -> Result<u64, NotDone> {
    Ok(sent?.await?)
}
