//! One unbroken hold of the Lease, as those who write see it.
//!
//! Owns the deadline on the monotonic clock, which goes on while the process is stopped: whoever wakes after it writes
//! nothing. Never renews anything.

use std::pin::pin;
use std::task::Poll;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The Lease was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Lease was lost; nothing more is written")]
pub struct LeaseLost;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Until {
    /// There is no other controller.
    Always,
    /// Nothing may be sent from then on.
    Deadline(Instant),
    /// Given up or taken.
    Over,
}

impl Until {
    fn is_over(self) -> bool {
        match self {
            Self::Always => false,
            Self::Deadline(deadline) => Instant::now() >= deadline,
            Self::Over => true,
        }
    }
}

/// The right to write, until the Lease is lost. Cheap to clone. One that is over never comes back: a Lease that is
/// regained is another tenure.
#[derive(Debug, Clone)]
pub struct Tenure(watch::Receiver<Until>);

impl Tenure {
    /// Whether something may be sent now. To be asked immediately before each write.
    pub fn check(&self) -> Result<(), LeaseLost> {
        if self.0.borrow().is_over() { Err(LeaseLost) } else { Ok(()) }
    }

    /// Carries out a write, and asks again before each of its moves, so that it goes no further once the tenure is over;
    /// what it had sent by then has been sent.
    ///
    /// # Errors
    /// [`LeaseLost`] when it was not carried out to its end; whether it took effect is unknown.
    pub async fn guard<T>(&self, write: impl Future<Output = T>) -> Result<T, LeaseLost> {
        let (mut write, mut over) = (pin!(write), pin!(self.over()));
        std::future::poll_fn(|cx| {
            // The clock itself is asked too: after a stop of the process timers fire later than sockets wake.
            if over.as_mut().poll(cx).is_ready() || self.check().is_err() {
                return Poll::Ready(Err(LeaseLost));
            }
            write.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Waits for the end.
    pub async fn over(&self) {
        let mut until = self.0.clone();
        loop {
            let now = *until.borrow_and_update();
            let changed = match now {
                Until::Over => return,
                Until::Always => until.changed().await,
                Until::Deadline(deadline) => tokio::select! {
                    biased;
                    changed = until.changed() => changed,
                    () = sleep_until(deadline) => return,
                },
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

/// The other end of a [`Tenure`]: the elector's. Dropping it ends the tenure.
#[derive(Debug)]
pub(super) struct Hold(watch::Sender<Until>);

impl Hold {
    /// A tenure that ends at `deadline` unless it is extended.
    pub(super) fn until(deadline: Instant) -> Self {
        Self(watch::Sender::new(Until::Deadline(deadline)))
    }

    /// A tenure of the only controller.
    pub(super) fn always() -> Self {
        Self(watch::Sender::new(Until::Always))
    }

    /// A tenure that is over.
    pub(super) fn over() -> Self {
        Self(watch::Sender::new(Until::Over))
    }

    /// Goes on until `deadline`.
    pub(super) fn extend(&self, deadline: Instant) {
        let _ = self.0.send_replace(Until::Deadline(deadline));
    }

    /// Whether the deadline has passed.
    pub(super) fn is_over(&self) -> bool {
        self.0.borrow().is_over()
    }

    /// When it ends; `None` for never.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match *self.0.borrow() {
            Until::Deadline(deadline) => Some(deadline),
            Until::Always | Until::Over => None,
        }
    }

    /// What writers ask.
    pub(super) fn tenure(&self) -> Tenure {
        Tenure(self.0.subscribe())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = self.0.send_replace(Until::Over);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn nothing_begins_after_the_deadline_and_what_is_under_way_ends_at_it() {
        let start = Instant::now();
        let hold = Hold::until(start + TIME);
        let tenure = hold.tenure();
        assert_eq!(tenure.guard(ready(1)).await, Ok(1));
        assert_eq!(tenure.guard(pending::<()>()).await, Err(LeaseLost));
        assert_eq!(start.elapsed(), TIME);
        assert_eq!(tenure.guard(ready(1)).await, Err(LeaseLost));
        assert_eq!(tenure.check(), Err(LeaseLost));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_moves_the_deadline_of_what_is_under_way() {
        let start = Instant::now();
        let hold = Hold::until(start + TIME);
        let tenure = hold.tenure();
        let ended = tokio::join!(tenure.guard(pending::<()>()), async {
            tokio::time::sleep(TIME / 2).await;
            hold.extend(start + TIME * 2);
        });
        assert_eq!(ended.0, Err(LeaseLost));
        assert_eq!(start.elapsed(), TIME * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loss_ends_what_is_under_way_at_once_and_the_next_hold_does_not_revive_it() {
        let start = Instant::now();
        let hold = Hold::until(start + TIME);
        let tenure = hold.tenure();
        let ended = tokio::join!(tenure.guard(pending::<()>()), async move { drop(hold) });
        assert_eq!((ended.0, start.elapsed()), (Err(LeaseLost), Duration::ZERO));
        let _next = Hold::until(start + TIME);
        assert_eq!(tenure.check(), Err(LeaseLost));
        assert_eq!(Hold::over().tenure().check(), Err(LeaseLost));
    }

    /// As after SIGCONT: the clock has moved on, and a socket wakes the write before any timer has fired.
    #[tokio::test(start_paused = true)]
    async fn a_write_that_wakes_after_the_deadline_makes_no_further_move() {
        let hold = Hold::until(Instant::now() + TIME);
        let tenure = hold.tenure();
        let moves = AtomicU32::new(0);
        let mut guarded = pin!(tenure.guard(std::future::poll_fn(|_| {
            moves.fetch_add(1, Ordering::Relaxed);
            Poll::<()>::Pending
        })));
        assert!(futures::poll!(guarded.as_mut()).is_pending());
        tokio::time::advance(TIME).await;
        assert_eq!(futures::poll!(guarded.as_mut()), Poll::Ready(Err(LeaseLost)));
        assert_eq!(moves.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_only_controller_may_always_write() {
        let hold = Hold::always();
        tokio::time::advance(Duration::from_hours(1_000)).await;
        assert_eq!(hold.tenure().check(), Ok(()));
        assert!(!hold.is_over());
    }
}
