//! The nodes bucket as facts.

use cluster_plan::Fact;
use cluster_plan::fact::Stored;
use shared::message::{Inventory, Message as _};
use shared::name::NodeName;
use shared::subject::{self, Bucket};

use super::feed::{Feed, Undecodable};

/// `<n>.inv`.
#[derive(Debug)]
pub struct Inventories;

impl Feed for Inventories {
    const BUCKET: Bucket = Bucket::Nodes;
    const KIND: &'static str = Inventory::KIND;
    type Key = NodeName;
    type Doc = Box<Inventory>;

    fn key(key: &str) -> Option<NodeName> {
        subject::parse_inventory_key(key)
    }

    /// NATS lets an agent write its own key only, so the key says whose report it is.
    fn decode(key: &NodeName, body: &[u8]) -> Result<Box<Inventory>, Undecodable> {
        let inventory = Inventory::decode(body)?;
        if inventory.node == *key {
            Ok(Box::new(inventory))
        } else {
            Err(Undecodable::Foreign(format!("node {}", inventory.node)))
        }
    }

    fn read(_created: String, _head: u64, entries: Vec<Stored<NodeName, Box<Inventory>>>) -> Fact {
        Fact::Inventories(entries)
    }

    fn changed(entry: Stored<NodeName, Box<Inventory>>) -> Fact {
        Fact::InventoryChanged(entry)
    }
}
