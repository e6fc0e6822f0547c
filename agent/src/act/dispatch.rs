//! From an effect to its executor.
//!
//! Owns which effects keep their order (each such kind has a lane) and which run beside each other. Never waits.

use std::future::Future;

use daemon::clock::Clock;
use daemon::driver::{Dispatch, Inbox};
use daemon::supervise::Tasks;
use node_plan::{Effect, Fact, Persisted};
use shared::machine::Kind;

use super::beside::Beside;
use super::lane::Lane;
use super::over_nats::OverNats;
use super::pull::Pulls;
use super::{look, remove, save};
use crate::begun::Covered;
use crate::bus::Link;
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
    beside: Beside,
    nats: OverNats,
    saves: Lane<(Box<Persisted>, Covered)>,
    pulls: Pulls,
}

impl Dispatcher {
    /// Starts the lanes.
    pub fn new(world: World, inbox: Inbox<Fact>, clock: Clock, tasks: Tasks) -> Self {
        let World { runtime, link, state } = world.clone();
        let saves = {
            let inbox = inbox.clone();
            Lane::start(&tasks, "persist", move |(persisted, covered): (Box<Persisted>, Covered)| {
                let (state, inbox) = (state.clone(), inbox.clone());
                async move { inbox.send(save::save(&state, &persisted, covered).await).await }
            })
        };
        let nats = OverNats::new(link, inbox.clone(), tasks.clone());
        let pulls = Pulls::new(runtime, world.state.begun().clone(), inbox.clone(), clock, tasks.clone());
        Self { world, beside: Beside::new(inbox, tasks), nats, saves, pulls }
    }

    fn beside<F>(&self, name: &'static str, act: impl FnOnce(World) -> F)
    where
        F: Future<Output = Fact> + Send + 'static,
    {
        self.beside.start(name, act(self.world.clone()));
    }
}

impl Dispatch<Effect> for Dispatcher {
    fn dispatch(&mut self, effect: Effect) {
        let Some(effect) = self.nats.take(effect) else { return };
        let kind = effect.kind();
        match effect {
            Effect::ListImages => self.beside(kind, |world| async move { look::list(&world.runtime).await }),
            Effect::Observe => {
                self.beside(kind, |world| async move { look::observe(&world.runtime, world.state.folder()).await });
            }
            Effect::ListContainers => {
                self.beside(kind, |world| async move { remove::containers(&world.runtime).await });
            }
            Effect::RemoveImage { image, held, is_dry_run } => {
                self.beside(
                    kind,
                    |world| async move { remove::remove(&world.runtime, image, &held, is_dry_run).await },
                );
            }
            Effect::Pull { id, image, deadline, is_refresh } => self.pulls.start(id, image, deadline, is_refresh),
            Effect::CancelPull(id) => self.pulls.cancel(&id),
            Effect::Persist(persisted) => self.saves.push((persisted, self.world.state.begun().cover())),
            // Over NATS: taken already.
            Effect::ReadMeta
            | Effect::ReadAssignment
            | Effect::Subscribe(_)
            | Effect::ReadPool { .. }
            | Effect::PublishEvent(_)
            | Effect::PublishHeartbeat(_)
            | Effect::PutInventory(_)
            | Effect::Reply { .. } => {}
        }
    }
}
