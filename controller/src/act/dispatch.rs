//! From an effect to its executor.
//!
//! Owns the one ordered lane: intents and beats go out in the order decided, since a beat that overtook the delta before
//! it would make every agent of the pool read. Everything else runs beside it. Each effect gets the tenure in which it was
//! decided: none goes on in a later one.

use std::sync::Arc;

use cluster_plan::effect::IntentBatch;
use cluster_plan::{Effect, Fact};
use daemon::driver::Dispatch;
use daemon::metrics::{Outcome, effect_done};
use daemon::supervise::Tasks;
use shared::machine::Kind as _;
use shared::message::Beat;
use shared::reason::Reason;
use tokio::sync::{Semaphore, mpsc};
use tracing::error;

use super::{
    Peers, assignments, beat, control, intents, node_label, reply, request, set_status, snapshot, term, workload_event,
};
use crate::leader::tenure::Tenure;

/// Effects that may wait in the lane. While NATS is slow beats are dropped beyond it: the next ones say the same.
const LANE: usize = 8_192;
/// Label patches under way at once; how many a second is the machine's to decide.
const PATCHES: usize = 16;

enum Ordered {
    Intents(IntentBatch),
    Beat(Beat),
}

/// Starts effects.
pub struct Dispatcher {
    peers: Peers,
    tasks: Tasks,
    lane: mpsc::Sender<(&'static str, Tenure, Ordered)>,
    patches: Arc<Semaphore>,
}

impl Dispatcher {
    /// Starts the lane. It ends when this is dropped and everything in it is done.
    pub fn new(peers: Peers, tasks: &Tasks) -> Self {
        let (lane, mut queue) = mpsc::channel(LANE);
        let ordered = peers.clone();
        tasks.spawn("intents-and-beats", async move {
            while let Some((kind, tenure, effect)) = queue.recv().await {
                match effect {
                    Ordered::Intents(batch) => intents::write(&ordered, &tenure, kind, batch).await,
                    Ordered::Beat(beat) => beat::publish(&ordered, &tenure, kind, beat).await,
                }
            }
        });
        Self { peers, tasks: tasks.clone(), lane, patches: Arc::new(Semaphore::new(PATCHES)) }
    }

    fn in_order(&self, kind: &'static str, effect: Ordered) {
        let Err(refused) = self.lane.try_send((kind, self.peers.seat.tenure(), effect)) else {
            return;
        };
        effect_done(kind, Outcome::Transient, Some(Reason::Timeout));
        if let (_, _, Ordered::Intents(batch)) = refused.into_inner() {
            error!("the lane of intents and beats is full: NATS takes nothing");
            self.tell(kind, intents::untried(&batch, Reason::Timeout));
        }
    }

    fn tell(&self, kind: &'static str, fact: Fact) {
        let inbox = self.peers.inbox.clone();
        self.tasks.spawn_effect(kind, async move { inbox.send(fact).await });
    }
}

impl Dispatch<Effect> for Dispatcher {
    fn dispatch(&mut self, effect: Effect) {
        let kind = effect.kind();
        let peers = self.peers.clone();
        let tenure = peers.seat.tenure();
        match effect {
            Effect::WriteIntents(batch) => self.in_order(kind, Ordered::Intents(batch)),
            Effect::PublishBeat(beat) => self.in_order(kind, Ordered::Beat(beat)),
            Effect::TakeTerm { meta, expected } => {
                self.tasks.spawn_effect(kind, term::take(peers, tenure, kind, meta, expected));
            }
            Effect::WriteControl { control, expected } => {
                self.tasks.spawn_effect(kind, control::turn(peers, kind, control, expected));
            }
            Effect::Reply { reply, body } => self.tasks.spawn_effect(kind, reply::send(peers, kind, reply, body)),
            Effect::WriteAssignments { epoch, term, writes } => {
                self.tasks.spawn_effect(kind, assignments::write(peers, tenure, kind, epoch, term, writes));
            }
            Effect::LabelNode { node, uid, labels } => {
                let patches = Arc::clone(&self.patches);
                self.tasks.spawn_effect(kind, async move {
                    // An error would mean that the semaphore is closed, which nobody does.
                    let _permit = patches.acquire().await;
                    let result = node_label::apply(&peers.kube, &tenure, &node, &uid, &labels).await;
                    let retry_after = result.as_ref().err().and_then(|refusal| refusal.retry_after);
                    let result = result.map_err(|refusal| refusal.reason);
                    peers.inbox.send(Fact::NodeLabelled { node, result, retry_after }).await;
                });
            }
            Effect::WriteSetStatus(write) => {
                let patches = Arc::clone(&self.patches);
                self.tasks.spawn_effect(kind, async move {
                    let _permit = patches.acquire().await;
                    let result = set_status::write(&peers.kube, &tenure, &write).await;
                    let retry_after = result.as_ref().err().and_then(|refusal| refusal.retry_after);
                    let result = result.map_err(|refusal| refusal.reason);
                    peers.inbox.send(Fact::SetStatusWritten { set: write.set, result, retry_after }).await;
                });
            }
            Effect::ReleaseLease => {
                peers.seat.give_up();
                effect_done(kind, Outcome::Ok, None);
            }
            Effect::PostEvent(event) => {
                self.tasks.spawn_effect(kind, workload_event::post(peers, tenure, kind, *event));
            }
            Effect::WriteSnapshot { snapshot, before, marker_ttl } => {
                // Some 5 ms for a thousand intents, at most twice a minute for a pool: in the task, not in the loop.
                self.tasks.spawn_effect(kind, async move {
                    let changes = snapshot::writes(&snapshot, before);
                    snapshot::carry_out(peers, tenure, kind, changes, marker_ttl).await;
                });
            }
            Effect::PurgeSnapshot { pool, chunks, marker_ttl } => {
                let changes = snapshot::purges(&pool, chunks);
                self.tasks.spawn_effect(kind, snapshot::carry_out(peers, tenure, kind, changes, marker_ttl));
            }
            Effect::RequestInventory(node) => {
                self.tasks.spawn_effect(kind, request::inventory(peers, tenure, kind, node));
            }
        }
    }
}
