//! A batch of compare-and-set writes to one bucket.
//!
//! Owns pipelining: sent one after the other, so that sequences follow the order of the batch, with a bounded number of
//! acknowledgements outstanding. Never retries.

use std::time::Duration;

use bytes::Bytes;
use daemon::bus::{Bus, BusError};
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;

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
pub(super) async fn write_all(bus: &Bus, puts: Vec<Put>) -> Vec<Result<u64, BusError>> {
    let mut results = Vec::new();
    let mut in_flight = FuturesOrdered::new();
    for put in puts {
        if in_flight.len() == IN_FLIGHT {
            results.extend(in_flight.next().await);
        }
        in_flight.push_back(match put.content {
            Content::Value(body) => bus.put(put.subject, &[], body, Some(put.expected)).await,
            Content::Purge(ttl) => bus.purge(put.subject, ttl, Some(put.expected)).await,
        });
    }
    while let Some(result) = in_flight.next().await {
        results.push(result);
    }
    results
}
