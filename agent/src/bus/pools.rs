//! Deltas and beats of the pools this node is in.
//!
//! Owns one subscription each. It needs no round trip: the server takes a connection's lines in order, so a read that is
//! sent after `Subscribed` finds the subscription made.

use std::collections::BTreeMap;

use daemon::bus::Subscription;
use daemon::driver::Inbox;
use daemon::supervise::{Shutdown, Tasks, Trigger};
use node_plan::Fact;
use shared::name::PoolId;
use shared::subject::Subject;

use super::link::{Failure, Link};

/// The subscriptions.
pub struct Pools {
    link: Link,
    inbox: Inbox<Fact>,
    tasks: Tasks,
    /// Each with what ends its listeners.
    standing: BTreeMap<PoolId, Trigger>,
}

impl Pools {
    /// None yet.
    pub fn new(link: Link, inbox: Inbox<Fact>, tasks: Tasks) -> Self {
        Self { link, inbox, tasks, standing: BTreeMap::new() }
    }

    /// Makes it exactly these; an error of one leaves the others.
    pub async fn subscribe(&mut self, wanted: &[PoolId]) -> Result<(), Failure> {
        self.standing.retain(|pool, ends| {
            let stays = wanted.contains(pool);
            if !stays {
                ends.trigger();
            }
            stays
        });
        let mut failed = Ok(());
        for pool in wanted {
            if !self.standing.contains_key(pool)
                && let Err(error) = self.add(pool).await
            {
                failed = Err(error);
            }
        }
        failed
    }

    async fn add(&mut self, pool: &PoolId) -> Result<(), Failure> {
        let (bus, cluster) = (&self.link.bus, &self.link.cluster);
        let delta = bus.subscribe(Subject::Delta(pool.clone()).print(cluster)).await?;
        let beat = bus.subscribe(Subject::Beat(pool.clone()).print(cluster)).await?;
        let (trigger, ended) = Shutdown::manual();
        for subscription in [delta, beat] {
            self.listen(subscription, ended.clone());
        }
        self.standing.insert(pool.clone(), trigger);
        Ok(())
    }

    fn listen(&self, subscription: Subscription, ended: Shutdown) {
        let (shutdown, listening) =
            (self.tasks.shutdown(), self.link.clone().listen(subscription, self.inbox.clone(), ended));
        self.tasks.spawn_effect("listen-pool", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = listening => {}
            }
        });
    }

    /// The pools whose delta and beat are subscribed to.
    pub fn standing(&self) -> Vec<PoolId> {
        self.standing.keys().cloned().collect()
    }
}
