//! The one loop: facts go into the machine, its effects go out.
//!
//! Owns when a step is taken: at once after quiet, at most once in a window, and when the machine says it is due. Never
//! knows what the facts and effects are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shared::machine::{Changed, Kind, Machine, Moment, Now};
use shared::metric;
use tokio::sync::{Notify, mpsc};
use tracing::debug;

use crate::clock::Clock;
use crate::metrics;
use crate::supervise::Shutdown;

/// Facts taken in with one reading of the clock.
const BATCH: usize = 4_096;
/// A machine whose due time stays in the past does not keep the loop spinning.
const LEAST_GAP: Duration = Duration::from_millis(1);
/// The loop has not begun.
const NOT_STARTED: u64 = u64::MAX;

/// Room for facts by default.
pub const DEFAULT_INBOX: usize = 65_536;

/// Carries an effect out of the loop. Must not block: executors spawn through [`crate::supervise::Tasks`] or queue.
pub trait Dispatch<E>: Send + 'static {
    /// Starts `effect`; its outcome comes back as a fact.
    fn dispatch(&mut self, effect: E);
}

/// How the loop turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverSettings {
    /// At most one step in this; the first after quiet at once. Zero: a step after each drain of the inbox.
    pub window: Duration,
    /// How many facts may wait before senders do; for [`channel`].
    pub inbox: usize,
    /// The loop turns at least this often, so that `/livez` can tell rest from standstill.
    pub turn: Duration,
}

impl Default for DriverSettings {
    fn default() -> Self {
        Self { window: Duration::ZERO, inbox: DEFAULT_INBOX, turn: Duration::from_secs(1) }
    }
}

#[derive(Debug)]
struct Shared {
    wake: Notify,
    last_turn: AtomicU64,
}

/// The sending end: one for every source and executor.
#[derive(Debug)]
pub struct Inbox<F> {
    facts: mpsc::Sender<F>,
    shared: Arc<Shared>,
}

impl<F> Clone for Inbox<F> {
    fn clone(&self) -> Self {
        Self { facts: self.facts.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<F> Inbox<F> {
    /// Hands a fact over, waiting for room. When the loop has ended the fact is dropped: nobody is left to learn it.
    pub async fn send(&self, fact: F) {
        let _ = self.facts.send(fact).await;
    }

    /// Hands a fact over if there is room now.
    ///
    /// # Errors
    /// Gives the fact back when the inbox is full or the loop has ended.
    pub fn try_send(&self, fact: F) -> Result<(), F> {
        self.facts.try_send(fact).map_err(|error| match error {
            mpsc::error::TrySendError::Full(fact) | mpsc::error::TrySendError::Closed(fact) => fact,
        })
    }

    /// Makes the loop turn, and `watch` be called, without a fact.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.shared))
    }

    /// Whether the loop turns, for `/livez`.
    pub fn liveness(&self, clock: &Clock) -> Liveness {
        Liveness { shared: Arc::clone(&self.shared), clock: *clock }
    }
}

/// Makes the loop turn.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Shared>);

impl Waker {
    /// One turn, soon.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }
}

/// Tells whether the loop turns.
#[derive(Debug, Clone)]
pub struct Liveness {
    shared: Arc<Shared>,
    clock: Clock,
}

impl Liveness {
    /// How long ago the last turn was; `None` before the first.
    pub fn since_turn(&self) -> Option<Duration> {
        match self.shared.last_turn.load(Ordering::Relaxed) {
            NOT_STARTED => None,
            last => Some(self.clock.mono().since(Moment(last))),
        }
    }
}

/// The receiving end, for [`run`].
#[derive(Debug)]
pub struct Receiver<F> {
    facts: mpsc::Receiver<F>,
    shared: Arc<Shared>,
}

/// An inbox with room for `capacity` facts.
pub fn channel<F>(capacity: usize) -> (Inbox<F>, Receiver<F>) {
    let (sender, receiver) = mpsc::channel(capacity.max(1));
    let shared = Arc::new(Shared { wake: Notify::new(), last_turn: AtomicU64::new(NOT_STARTED) });
    (Inbox { facts: sender, shared: Arc::clone(&shared) }, Receiver { facts: receiver, shared })
}

/// Drives `machine` until `shutdown`, then gives it back.
///
/// `watch` is called after each step, and after each turn that a [`Waker`] asked for: it updates the readiness, gauges
/// and answers of [`crate::inspect`]. Facts that wait at the shutdown are not taken in.
pub async fn run<M>(
    machine: M,
    facts: Receiver<M::Fact>,
    dispatch: impl Dispatch<M::Effect>,
    settings: DriverSettings,
    clock: Clock,
    watch: impl FnMut(&M, Now) + Send,
    shutdown: Shutdown,
) -> M
where
    M: Machine + Send,
{
    let mut driver = Driver { machine, dispatch, watch, clock, pace: Pace::new(settings.window) };
    let Receiver { mut facts, shared } = facts;
    let mut batch = Vec::new();
    let mut open = true;
    driver.step_if_due();
    loop {
        shared.last_turn.store(clock.mono().0, Ordering::Relaxed);
        let deadline = driver.deadline(clock.mono() + settings.turn);
        let mut woken = false;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            taken = facts.recv_many(&mut batch, BATCH), if open => open = taken > 0,
            () = shared.wake.notified() => woken = true,
            () = tokio::time::sleep_until(clock.instant(deadline)) => {}
        }
        driver.take_in(&mut batch, facts.len());
        let stepped = driver.step_if_due();
        if woken && !stepped {
            driver.show();
        }
    }
    debug!("the loop has ended");
    driver.machine
}

/// When the next step may be taken.
struct Pace {
    window: Duration,
    /// Something changed since the last step.
    pending: bool,
    last: Option<Moment>,
}

impl Pace {
    /// The first step needs no fact: what was read from disk may be due.
    fn new(window: Duration) -> Self {
        Self { window, pending: true, last: None }
    }

    /// When the next step is to be taken, given when the machine says it is due.
    fn next(&self, due: Option<Moment>) -> Option<Moment> {
        let wanted = if self.pending { Some(Moment::default()) } else { due }?;
        let gap = if self.pending { self.window } else { self.window.max(LEAST_GAP) };
        Some(self.last.map_or(wanted, |last| wanted.max(last + gap)))
    }
}

struct Driver<M, D, W> {
    machine: M,
    dispatch: D,
    watch: W,
    clock: Clock,
    pace: Pace,
}

impl<M: Machine, D: Dispatch<M::Effect>, W: FnMut(&M, Now)> Driver<M, D, W> {
    fn deadline(&self, latest: Moment) -> Moment {
        self.pace.next(self.machine.next_due()).map_or(latest, |next| next.min(latest))
    }

    fn take_in(&mut self, batch: &mut Vec<M::Fact>, waiting: usize) {
        metrics::gauge(metric::INBOX_DEPTH, &[], waiting as f64);
        if batch.is_empty() {
            return;
        }
        let now = self.clock.now();
        let mut kinds: Vec<(&'static str, u64)> = Vec::new();
        for fact in batch.drain(..) {
            let kind = fact.kind();
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, count)) => *count += 1,
                None => kinds.push((kind, 1)),
            }
            if self.machine.apply(fact, now) == Changed::Yes {
                self.pace.pending = true;
            }
        }
        for (kind, count) in kinds {
            metrics::count(metric::FACTS, &[kind], count);
        }
    }

    fn step_if_due(&mut self) -> bool {
        let now = self.clock.now();
        let is_due = self.pace.next(self.machine.next_due()).is_some_and(|next| next <= now.mono);
        if is_due {
            let stopwatch = self.clock.stopwatch();
            let effects = self.machine.step(now);
            metrics::observe(metric::STEP_SECONDS, &[], stopwatch.elapsed());
            self.pace.pending = false;
            self.pace.last = Some(now.mono);
            for effect in effects {
                self.dispatch.dispatch(effect);
            }
            (self.watch)(&self.machine, now);
        }
        is_due
    }

    fn show(&mut self) {
        let now = self.clock.now();
        (self.watch)(&self.machine, now);
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
