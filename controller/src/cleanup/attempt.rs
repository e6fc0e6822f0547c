//! Trying until it is done or the time is up.
//!
//! Owns the pauses between attempts. The API server and NATS may be away for a moment, and rights that were just granted
//! take a moment to hold.

use std::time::Duration;

use daemon::bus::BusError;
use shared::backoff::Backoff;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::api::failure;

const PAUSES: Backoff = Backoff { base: Duration::from_millis(200), ceiling: Duration::from_secs(5) };

/// An error as people are told it: the bounded reason, then what the peer said.
pub(super) trait InWords {
    fn in_words(&self) -> String;
}

impl InWords for kube::Error {
    fn in_words(&self) -> String {
        failure::in_words(self)
    }
}

impl InWords for BusError {
    fn in_words(&self) -> String {
        format!("{}: {self}", self.reason())
    }
}

/// The result of the first attempt that succeeds; after `deadline` a line that says what is left and why.
pub(super) async fn until_done<T, E: InWords>(
    deadline: Instant,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, String> {
    let mut why = "there was no answer".to_owned();
    let mut failures = 0;
    loop {
        match timeout_at(deadline, attempt()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => why = error.in_words(),
            Err(_) => return Err(format!("{what}: {why}")),
        }
        failures += 1;
        let next = Instant::now() + PAUSES.equal_jitter(failures, &mut fastrand::Rng::new());
        if next >= deadline {
            return Err(format!("{what}: {why}"));
        }
        sleep_until(next).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl InWords for &str {
        fn in_words(&self) -> String {
            (*self).to_owned()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_for_a_while_is_done_and_what_always_fails_says_why_in_time() {
        let start = Instant::now();
        let deadline = start + Duration::from_mins(1);
        let mut attempts = 0;
        let done = until_done(deadline, "it", async || {
            attempts += 1;
            if attempts < 4 { Err("not yet") } else { Ok(attempts) }
        });
        assert_eq!(done.await, Ok(4));
        let never = until_done(deadline, "it", async || Err::<(), _>("forbidden")).await;
        assert_eq!(never, Err("it: forbidden".to_owned()));
        let silent = until_done(deadline, "it", async || std::future::pending::<Result<(), &str>>().await).await;
        assert_eq!(silent, Err("it: there was no answer".to_owned()));
        assert_eq!(start.elapsed().as_secs(), 60);
    }
}
