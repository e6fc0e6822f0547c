//! NATS to facts.
//!
//! Owns what is read of the three buckets and heard from agents, and when the connection counts as up. Never decides,
//! and never writes but to create the buckets.

pub mod assignments;
pub mod buckets;
pub mod feed;
pub mod intents;
pub mod inventories;
pub mod questions;
pub mod receive;
pub mod session;

use daemon::metrics;
use shared::metric;
use shared::reason::Reason;

pub use assignments::Assignments;
pub use intents::Intents;
pub use inventories::Inventories;

/// Counts a message that is dropped.
fn refused(kind: &'static str, reason: Reason) {
    metrics::count(metric::MESSAGES_REFUSED, &[kind, reason.as_str()], 1);
}
