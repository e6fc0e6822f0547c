//! Asking an agent for its inventory; the answer is the inventory in its bucket.

use bytes::Bytes;
use shared::message::{SCHEMA, header};
use shared::name::NodeName;
use shared::subject::{RequestVerb, Subject};

use super::Peers;
use super::outcome::{done, flat};
use crate::leader::tenure::Tenure;

/// Publishes the request.
pub(super) async fn inventory(peers: Peers, tenure: Tenure, kind: &'static str, node: NodeName) {
    let subject = Subject::Request(node, RequestVerb::Inventory).print(&peers.cluster);
    // It wants no answer but the inventory itself; the header says that somebody asks.
    let headers = [(header::SCHEMA, SCHEMA.to_string())];
    let sent = tenure.guard(peers.bus.publish(subject, &headers, Bytes::new())).await;
    let _ = done(kind, flat(sent));
}
