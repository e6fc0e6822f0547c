//! What is stored after another writer was first.
//!
//! Owns the one read that a conflict causes. Its fact goes ahead of the outcome, so that the next step already decides on
//! what is there; the watch says the same, maybe later.

use cluster_plan::fact::{Stored, StoredValue};
use daemon::bus::{Bus, ByApiSubject, Operation};
use shared::name::ClusterId;
use tracing::debug;

use crate::bus::feed::{Feed, stored};

/// The key as it is now. One that does not exist, not even as a marker, has sequence 0. `None` if it cannot be read: the
/// watch will tell.
pub(super) async fn reread<F: Feed>(
    bus: &Bus,
    cluster: &ClusterId,
    key: F::Key,
    printed: &str,
) -> Option<Stored<F::Key, F::Doc>> {
    let subject = F::BUCKET.subject(cluster, printed);
    match bus.direct_get_last(&F::BUCKET.stream(cluster), &subject, ByApiSubject).await {
        Ok(Some(message)) => {
            let body = (message.operation() == Operation::Put).then_some(&message.payload[..]);
            stored::<F>(printed, message.seq, body)
        }
        Ok(None) => Some(Stored { key, seq: 0, value: StoredValue::Marker }),
        Err(error) => {
            debug!(%error, "a key cannot be read again after a conflict");
            None
        }
    }
}
