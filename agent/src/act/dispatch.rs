//! From an effect to its executor.
//!
//! Owns which effects keep their order (each such kind has a lane) and which run beside each other. Never waits.

use std::future::Future;
use std::sync::Arc;

use daemon::clock::Clock;
use daemon::driver::{Dispatch, Inbox};
use daemon::supervise::Tasks;
use node_plan::{Effect, Fact, Persisted};
use shared::machine::Kind;
use shared::message::Inventory;
use shared::name::PoolId;
use tokio::sync::Mutex;

use super::lane::Lane;
use super::pull::Pulls;
use super::report::Word;
use super::{look, read, remove, report, save, subscribe};
use crate::bus::Link;
use crate::bus::pools::Pools;
use crate::cri::Client;
use crate::state_file::StateFile;

/// What effects act on.
#[derive(Clone)]
pub struct World {
    /// The runtime.
    pub runtime: Client,
    /// NATS.
    pub link: Link,
    /// The state file.
    pub state: StateFile,
}

/// The dispatcher. When it is dropped its lanes empty themselves and end.
pub struct Dispatcher {
    world: World,
    inbox: Inbox<Fact>,
    tasks: Tasks,
    words: Lane<Word>,
    inventories: Lane<Box<Inventory>>,
    subscriptions: Lane<Vec<PoolId>>,
    saves: Lane<Box<Persisted>>,
    pulls: Pulls,
}

impl Dispatcher {
    /// Starts the lanes.
    pub fn new(world: World, inbox: Inbox<Fact>, clock: Clock, tasks: Tasks) -> Self {
        let World { runtime, link, state } = world.clone();
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
            let pools = Arc::new(Mutex::new(Pools::new(link, inbox.clone(), tasks.clone())));
            let inbox = inbox.clone();
            Lane::start(&tasks, "subscribe", move |wanted: Vec<PoolId>| {
                let (pools, inbox) = (Arc::clone(&pools), inbox.clone());
                async move {
                    let fact = subscribe::subscribe(&mut *pools.lock().await, &wanted).await;
                    inbox.send(fact).await;
                }
            })
        };
        let saves = {
            let inbox = inbox.clone();
            Lane::start(&tasks, "persist", move |persisted: Box<Persisted>| {
                let (state, inbox) = (state.clone(), inbox.clone());
                async move { inbox.send(save::save(&state, &persisted).await).await }
            })
        };
        let pulls = Pulls::new(runtime, inbox.clone(), clock, tasks.clone());
        Self { world, inbox, tasks, words, inventories, subscriptions, saves, pulls }
    }

    /// Runs an effect beside all others; what it gives goes into the inbox.
    fn beside<F>(&self, name: &'static str, act: impl FnOnce(World) -> F)
    where
        F: Future<Output = Option<Fact>> + Send + 'static,
    {
        let (inbox, act) = (self.inbox.clone(), act(self.world.clone()));
        let shutdown = self.tasks.shutdown();
        self.tasks.spawn_effect(name, async move {
            let fact = tokio::select! {
                biased;
                () = shutdown.cancelled() => None,
                fact = act => fact,
            };
            if let Some(fact) = fact {
                inbox.send(fact).await;
            }
        });
    }
}

impl Dispatch<Effect> for Dispatcher {
    fn dispatch(&mut self, effect: Effect) {
        let kind = effect.kind();
        match effect {
            Effect::ReadMeta => self.beside(kind, |world| async move { Some(read::meta(&world.link).await) }),
            Effect::ReadAssignment => {
                self.beside(kind, |world| async move { Some(read::assignment(&world.link).await) });
            }
            Effect::ReadPool { pool, from, read } => {
                self.beside(kind, |world| async move { Some(read::pool(&world.link, pool, from, read).await) });
            }
            Effect::ListImages => self.beside(kind, |world| async move { Some(look::list(&world.runtime).await) }),
            Effect::Observe => {
                self.beside(
                    kind,
                    |world| async move { Some(look::observe(&world.runtime, world.state.folder()).await) },
                );
            }
            Effect::ListContainers => {
                self.beside(kind, |world| async move { Some(remove::containers(&world.runtime).await) });
            }
            Effect::RemoveImage { image, held, is_dry_run } => self.beside(kind, move |world| async move {
                Some(remove::remove(&world.runtime, image, &held, is_dry_run).await)
            }),
            Effect::Subscribe(pools) => self.subscriptions.push(pools),
            Effect::Pull { id, image, deadline } => self.pulls.start(id, image, deadline),
            Effect::CancelPull(id) => self.pulls.cancel(&id),
            Effect::PublishEvent(event) => self.words.push(Word::Event(event)),
            Effect::PublishHeartbeat(heartbeat) => self.words.push(Word::Heartbeat(heartbeat)),
            Effect::Reply { reply, body } => self.words.push(Word::Reply(reply, body)),
            Effect::PutInventory(inventory) => self.inventories.push(inventory),
            Effect::Persist(persisted) => self.saves.push(persisted),
        }
    }
}
