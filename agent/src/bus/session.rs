//! The connection as the machine sees it, and the subscriptions that last as long as the process.
//!
//! Owns the order: subscribed first, connected then, so that nothing published after `Connected` is missed.

use daemon::bus::{BusError, Status, Subscription};
use daemon::driver::Inbox;
use daemon::supervise::{Shutdown, Tasks};
use node_plan::Fact;
use shared::subject::Subject;

use super::link::Link;

impl Link {
    /// Subscribes to what is for this node, then reports the connection, now and whenever it changes.
    ///
    /// # Errors
    /// The client does not even queue a subscription.
    pub async fn start(&self, inbox: &Inbox<Fact>, tasks: &Tasks) -> Result<(), BusError> {
        // Subscriptions are made anew by the client at each reconnect, before anything else is sent.
        for subject in
            [Subject::Assign(self.node.clone()).print(&self.cluster), Subject::requests_of(&self.cluster, &self.node)]
        {
            let subscription = self.bus.subscribe(subject).await?;
            let listen = self.clone().listen(subscription, inbox.clone(), tasks.shutdown());
            tasks.spawn("listen", listen);
        }
        tasks.spawn("nats-session", self.clone().report(inbox.clone(), tasks.shutdown()));
        Ok(())
    }

    /// The connection, for readiness.
    pub fn status(&self) -> Status {
        self.bus.status()
    }

    pub(super) async fn listen(self, mut subscription: Subscription, inbox: Inbox<Fact>, shutdown: Shutdown) {
        loop {
            let message = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                message = subscription.recv() => message,
            };
            match message {
                Some(message) => inbox.send(self.take(&message)).await,
                None => return,
            }
        }
    }

    async fn report(self, inbox: Inbox<Fact>, shutdown: Shutdown) {
        let (mut status, mut gaps) = (self.bus.status(), self.bus.gaps());
        let mut reported = None;
        gaps.mark_unchanged();
        loop {
            let generation = status.borrow_and_update().generation();
            if generation != reported {
                // A connection that was lost and made again between two looks is another one: messages may be missing.
                inbox.send(if generation.is_some() { Fact::Connected } else { Fact::Disconnected }).await;
                reported = generation;
            }
            let is_gap = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                changed = status.changed() => if changed.is_err() { return } else { false },
                changed = gaps.changed() => if changed.is_err() { return } else { true },
            };
            if is_gap {
                inbox.send(Fact::Gap).await;
            }
        }
    }
}
