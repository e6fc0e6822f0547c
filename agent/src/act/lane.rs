//! An ordered lane: one effect after the other.
//!
//! Owns the queue. It ends when the loop has ended and the queue is empty.

use std::future::Future;

use daemon::supervise::Tasks;
use tokio::sync::mpsc;

/// The entrance.
pub(super) struct Lane<T>(mpsc::UnboundedSender<T>);

impl<T: Send + 'static> Lane<T> {
    /// Starts a lane that does `act` to each.
    pub(super) fn start<F>(tasks: &Tasks, name: &'static str, mut act: impl FnMut(T) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let (entrance, mut queue) = mpsc::unbounded_channel();
        tasks.spawn(name, async move {
            while let Some(next) = queue.recv().await {
                act(next).await;
            }
        });
        Self(entrance)
    }

    /// Queues one. The machine bounds how many there are: it emits an effect of a kind again only after its outcome, and
    /// reports only while connected.
    pub(super) fn push(&self, next: T) {
        // The other end is gone only when the process is ending anyway.
        let _ = self.0.send(next);
    }
}
