//! The connection to NATS: one for the process, for ever reconnecting, and what is done over it.
//!
//! Owns every use of `async-nats`, the JetStream API and the shape of our buckets. Never knows what a message means.

mod bucket;
mod connect;
mod error;
mod headers;
mod login;
mod message;
mod monitor;
mod publish;
mod read;
mod request;
mod service;
mod settings;
mod status;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as latest;

pub use bucket::{BucketInfo, BucketSpec, StorageKind};
pub use connect::Probe;
pub use error::BusError;
pub use headers::Headers;
pub use message::{Message, Operation, Stored, Subscription};
pub use publish::PutAck;
pub use read::{Batch, ByApiSubject, ByBody, MAX_PAGE, Style};
pub use service::{Service, ServiceRequest, ServiceSpec};
pub use settings::{NatsConfig, TlsConfig};
pub use status::{BusStatus, Status};
pub use watch::{BucketEvent, BucketWatch};

use status::Shared;

/// The connection. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    client: async_nats::Client,
    jetstream: async_nats::jetstream::Context,
    request_timeout: Duration,
    shared: Arc<Shared>,
}

impl Bus {
    /// Whether there is a connection, now and on every change.
    pub fn status(&self) -> Status {
        self.inner.shared.status.subscribe()
    }

    /// Counts what may have cost us a message: a slow consumer, or a refused subscription. A change means: read again.
    pub fn gaps(&self) -> latest::Receiver<u64> {
        self.inner.shared.gaps.subscribe()
    }

    /// Refuses at once what would otherwise wait in a queue for a connection.
    fn connected(&self, what: &str) -> Result<(), BusError> {
        let status = self.inner.shared.status.borrow();
        if status.is_connected() {
            return Ok(());
        }
        Err(BusError::Disconnected { what: what.to_owned(), status: status.to_string() })
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("status", &*self.inner.shared.status.borrow()).finish_non_exhaustive()
    }
}
