//! Tasks: who runs, who ended, when everybody is to stop.
//!
//! Owns spawning (nothing else may) and the shutdown. A long-lived task that ends by itself, or any that panics, stops the
//! process with its name. Never restarts a task: what can fail for a while retries inside.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// Why the process stops though nobody asked it to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoppedBecause {
    /// A long-lived task returned.
    #[error("task `{task}` ended, and nothing had asked it to; this is a defect, please report it with the log above")]
    Returned {
        /// Its name.
        task: &'static str,
    },
    /// A task panicked.
    #[error("task `{task}` panicked: {message}; this is a defect, please report it with the log above")]
    Panicked {
        /// Its name.
        task: &'static str,
        /// What it said.
        message: String,
    },
    /// A task found that going on makes no sense.
    #[error("task `{task}`: {message}")]
    Failed {
        /// Its name.
        task: &'static str,
        /// What it said.
        message: String,
    },
    /// The process cannot learn when it is to stop.
    #[error("signals cannot be received: {0}")]
    Signals(String),
}

/// Tells when to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Waits for it.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }

    /// Whether it has begun.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// One that nobody triggers but who holds the [`Trigger`]: for tests and for parts that stop before the rest.
    pub fn manual() -> (Trigger, Self) {
        let token = CancellationToken::new();
        (Trigger(token.clone()), Self(token))
    }
}

/// Begins a [`Shutdown::manual`].
#[derive(Debug)]
pub struct Trigger(CancellationToken);

impl Trigger {
    /// Begins it.
    pub fn trigger(&self) {
        self.0.cancel();
    }
}

/// Spawns and watches. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    tracker: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
    ended: mpsc::UnboundedSender<StoppedBecause>,
    reports: Mutex<Option<mpsc::UnboundedReceiver<StoppedBecause>>>,
    running: Mutex<BTreeMap<&'static str, usize>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    /// Ends at the shutdown only.
    Long,
    /// Ends when its work is done.
    Short,
}

impl Tasks {
    /// No task yet.
    pub fn new() -> (Self, Shutdown) {
        let (ended, reports) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let inner = Inner {
            tracker: TaskTracker::new(),
            stop: stop.clone(),
            abort: CancellationToken::new(),
            ended,
            reports: Mutex::new(Some(reports)),
            running: Mutex::default(),
        };
        (Self { inner: Arc::new(inner) }, Shutdown(stop))
    }

    /// The shutdown of these tasks.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.inner.stop.clone())
    }

    /// Runs a task that lives as long as the process. Its end before the shutdown stops the process.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.start(name, Life::Long, future);
    }

    /// Runs a task that ends when its work is done. A panic in it stops the process.
    pub fn spawn_effect(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.start(name, Life::Short, future);
    }

    /// Stops the process, because going on makes no sense: `message` says why and what to do.
    pub fn fail(&self, task: &'static str, message: impl Into<String>) {
        self.inner.report(StoppedBecause::Failed { task, message: message.into() });
    }

    /// Begins the shutdown as SIGTERM does.
    pub fn stop(&self) {
        self.inner.stop.cancel();
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    fn start(&self, name: &'static str, life: Life, future: impl Future<Output = ()> + Send + 'static) {
        let inner = Arc::clone(&self.inner);
        let present = Present::enter(&self.inner, name);
        let task = async move {
            let _present = present;
            tokio::select! {
                biased;
                () = inner.abort.cancelled() => {}
                ended = AssertUnwindSafe(future).catch_unwind() => match ended {
                    Err(panic) => {
                        inner.report(StoppedBecause::Panicked { task: name, message: message_of(panic.as_ref()) });
                    }
                    Ok(()) if life == Life::Long && !inner.stop.is_cancelled() => {
                        inner.report(StoppedBecause::Returned { task: name });
                    }
                    Ok(()) => {}
                },
            }
        };
        tokio::spawn(self.inner.tracker.track_future(task));
    }

    /// Waits for SIGTERM, SIGINT, [`Tasks::stop`], or a task that ends; then gives every task `grace` to end, then aborts
    /// those left. A second signal aborts at once.
    ///
    /// # Errors
    /// Names the task whose end stopped the process.
    pub async fn run_until_signal(&self, grace: Duration) -> Result<(), StoppedBecause> {
        let signals = |kind| signal(kind).map_err(|error| StoppedBecause::Signals(error.to_string()));
        let (mut terminate, mut interrupt) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
        let mut reports = self.inner.lock_reports();
        let result = tokio::select! {
            _ = terminate.recv() => Ok("SIGTERM"),
            _ = interrupt.recv() => Ok("SIGINT"),
            () = self.inner.stop.cancelled() => Ok("the shutdown of the process itself"),
            Some(because) = next(&mut reports) => Err(because),
        };
        match &result {
            Ok(cause) => info!(cause, "stopping"),
            Err(because) => error!("stopping: {because}"),
        }
        self.inner.stop.cancel();
        self.inner.tracker.close();
        let early = tokio::select! {
            () = self.inner.tracker.wait() => None,
            () = tokio::time::sleep(grace) => Some("the grace period is over"),
            _ = terminate.recv() => Some("a second signal came"),
            _ = interrupt.recv() => Some("a second signal came"),
        };
        if let Some(cause) = early {
            warn!(cause, tasks = self.inner.names(), "aborting the tasks that are left");
            self.inner.abort.cancel();
            self.inner.tracker.wait().await;
        }
        match result {
            Err(because) => Err(because),
            // A panic while stopping is a defect as well.
            Ok(_) => reports.and_then(|mut reports| reports.try_recv().ok()).map_or(Ok(()), Err),
        }
    }
}

async fn next(reports: &mut Option<mpsc::UnboundedReceiver<StoppedBecause>>) -> Option<StoppedBecause> {
    match reports {
        Some(reports) => reports.recv().await,
        None => None,
    }
}

impl Inner {
    fn report(&self, because: StoppedBecause) {
        // The receiver is gone only when the process is ending anyway.
        let _ = self.ended.send(because);
    }

    fn lock_reports(&self) -> Option<mpsc::UnboundedReceiver<StoppedBecause>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn names(&self) -> String {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<String> = running.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        names.join(", ")
    }
}

/// Counts a running task by name, for the log line about those that would not end.
struct Present {
    inner: Arc<Inner>,
    name: &'static str,
}

impl Present {
    fn enter(inner: &Arc<Inner>, name: &'static str) -> Self {
        *inner.running.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        Self { inner: Arc::clone(inner), name }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;
