//! `Effect::PublishEvent`, `Effect::PublishHeartbeat`, `Effect::Reply` and `Effect::PutInventory`.

use daemon::metrics::{count, gauge};
use node_plan::Fact;
use serde_json::Value;
use shared::message::{Event, Heartbeat, Inventory};
use shared::metric;
use shared::reason::Reason;
use shared::state::ImageState;
use tracing::warn;

use super::outcome::done;
use crate::bus::Link;

/// What is said on core NATS, in the order in which it became true.
pub(super) enum Word {
    /// A transition.
    Event(Event),
    /// A pulse.
    Heartbeat(Heartbeat),
    /// An answer.
    Reply(u64, Value),
}

/// Says it. Nobody acknowledges it, so there is no fact.
pub(super) async fn say(link: &Link, word: Word) {
    // What is lost here is said again by the next inventory, or asked again.
    let _ = match word {
        Word::Event(event) => {
            if event.st == ImageState::Evicted {
                count(metric::EVICTIONS, &[], 1);
            }
            done("publish-event", link.publish_event(&event).await)
        }
        Word::Heartbeat(heartbeat) => done("publish-heartbeat", link.publish_heartbeat(&heartbeat).await),
        Word::Reply(number, body) => done("reply", link.reply(number, &body).await),
    };
}

/// Puts the inventory.
pub(super) async fn inventory(link: &Link, inventory: &Inventory) -> Fact {
    gauge(metric::INVENTORY_LEFT_OUT, &[], inventory.left_out as f64);
    if inventory.left_out > 0 {
        let reason = Reason::TooLarge.as_str();
        warn!(reason, left_out = inventory.left_out, "the inventory has no room for every image");
    }
    Fact::InventoryPut(done("put-inventory", link.put_inventory(inventory).await))
}
