//! Effects that run beside all others.
//!
//! Owns their end: with their outcome, or with the process.

use std::future::Future;

use daemon::driver::Inbox;
use daemon::supervise::Tasks;
use node_plan::Fact;

/// Starts them.
pub(super) struct Beside {
    inbox: Inbox<Fact>,
    tasks: Tasks,
}

impl Beside {
    pub(super) fn new(inbox: Inbox<Fact>, tasks: Tasks) -> Self {
        Self { inbox, tasks }
    }

    /// Runs an effect; what it gives goes into the inbox.
    pub(super) fn start(&self, name: &'static str, act: impl Future<Output = Fact> + Send + 'static) {
        let (inbox, shutdown) = (self.inbox.clone(), self.tasks.shutdown());
        self.tasks.spawn_effect(name, async move {
            let fact = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                fact = act => fact,
            };
            inbox.send(fact).await;
        });
    }
}
