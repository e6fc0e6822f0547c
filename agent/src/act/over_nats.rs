//! Effects over NATS.
//!
//! Owns which of them keep their order. All that an agent asks and says there goes through here; it needs neither a
//! runtime nor a state file.

use std::sync::Arc;

use daemon::driver::Inbox;
use daemon::supervise::Tasks;
use node_plan::{Effect, Fact};
use shared::machine::Kind;
use shared::message::Inventory;
use shared::name::PoolId;
use tokio::sync::Mutex;

use super::beside::Beside;
use super::lane::Lane;
use super::report::Word;
use super::{read, report, subscribe};
use crate::bus::Link;
use crate::bus::pools::Pools;

/// Carries them out. When it is dropped its lanes empty themselves and end.
pub struct OverNats {
    link: Link,
    beside: Beside,
    words: Lane<Word>,
    inventories: Lane<Box<Inventory>>,
    subscriptions: Lane<Vec<PoolId>>,
}

impl OverNats {
    /// Starts the lanes; outcomes go into `inbox`.
    pub fn new(link: Link, inbox: Inbox<Fact>, tasks: Tasks) -> Self {
        let words = {
            let link = link.clone();
            Lane::start(&tasks, "report", move |word| {
                let link = link.clone();
                async move { report::say(&link, word).await }
            })
        };
        let inventories = {
            let (link, inbox) = (link.clone(), inbox.clone());
            Lane::start(&tasks, "put-inventory", move |inventory: Box<Inventory>| {
                let (link, inbox) = (link.clone(), inbox.clone());
                async move { inbox.send(report::inventory(&link, &inventory).await).await }
            })
        };
        let subscriptions = {
            // One at a time by the lane; the lock is never waited for.
            let pools = Arc::new(Mutex::new(Pools::new(link.clone(), inbox.clone(), tasks.clone())));
            let inbox = inbox.clone();
            Lane::start(&tasks, "subscribe", move |wanted: Vec<PoolId>| {
                let (pools, inbox) = (Arc::clone(&pools), inbox.clone());
                async move {
                    let fact = subscribe::subscribe(&mut *pools.lock().await, &wanted).await;
                    inbox.send(fact).await;
                }
            })
        };
        Self { link, beside: Beside::new(inbox, tasks), words, inventories, subscriptions }
    }

    /// Starts an effect; gives back one that has nothing to do with NATS.
    pub fn take(&mut self, effect: Effect) -> Option<Effect> {
        let (kind, link) = (effect.kind(), self.link.clone());
        match effect {
            Effect::ReadMeta => self.beside.start(kind, async move { read::meta(&link).await }),
            Effect::ReadAssignment => self.beside.start(kind, async move { read::assignment(&link).await }),
            Effect::ReadPool { pool, from, read, plain } => {
                self.beside.start(kind, async move { read::pool(&link, pool, from, read, plain).await });
            }
            Effect::Subscribe(pools) => self.subscriptions.push(pools),
            Effect::PublishEvent(event) => self.words.push(Word::Event(event)),
            Effect::PublishHeartbeat(heartbeat) => self.words.push(Word::Heartbeat(heartbeat)),
            Effect::Reply { reply, body } => self.words.push(Word::Reply(reply, body)),
            Effect::PutInventory(inventory) => self.inventories.push(inventory),
            other => return Some(other),
        }
        None
    }
}
