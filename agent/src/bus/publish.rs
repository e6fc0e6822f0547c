//! What the agent says: events, heartbeats, its inventory, answers.
//!
//! Owns subjects and headers. Never repeats: what is lost is said again by the next inventory.

use bytes::Bytes;
use serde_json::Value;
use shared::message::inventory::INVENTORY_TTL;
use shared::message::{Event, Heartbeat, Inventory, Message, SCHEMA, header};
use shared::subject::{Bucket, Subject, inventory_key};

use super::link::{Failure, Link};

impl Link {
    /// A transition.
    pub async fn publish_event(&self, event: &Event) -> Result<(), Failure> {
        let subject = Subject::Event(self.node.clone(), event.st);
        self.say(&subject, event.encode()).await
    }

    /// A pulse.
    pub async fn publish_heartbeat(&self, heartbeat: &Heartbeat) -> Result<(), Failure> {
        self.say(&Subject::Heartbeat(self.node.clone()), heartbeat.encode()).await
    }

    /// The inventory, and waits until it is stored.
    pub async fn put_inventory(&self, inventory: &Inventory) -> Result<(), Failure> {
        let subject = Bucket::Nodes.subject(&self.cluster, &inventory_key(&self.node));
        // Whole seconds: what the server takes.
        let headers = [(header::TTL, format!("{}s", INVENTORY_TTL.as_secs()))];
        self.bus.put(subject, &headers, Bytes::from(inventory.encode()), None).await.await?;
        Ok(())
    }

    /// An answer, to whoever asked under this number.
    pub async fn reply(&self, number: u64, body: &Value) -> Result<(), Failure> {
        let subject = self.replies.take(number).ok_or(Failure::NoReply(number))?;
        self.bus.publish(subject, &[], Bytes::from(body.to_string())).await?;
        Ok(())
    }

    async fn say(&self, subject: &Subject, body: Vec<u8>) -> Result<(), Failure> {
        let headers = [(header::SCHEMA, SCHEMA.to_string())];
        self.bus.publish(subject.print(&self.cluster), &headers, Bytes::from(body)).await?;
        Ok(())
    }
}
