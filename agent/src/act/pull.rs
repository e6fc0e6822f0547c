//! `Effect::Pull` and `Effect::CancelPull`.
//!
//! Owns the handle of each pull in flight. How many there are and when they are tried again is the machine's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use daemon::clock::Clock;
use daemon::driver::Inbox;
use daemon::metrics::{Outcome, count, effect_done, gauge, observe};
use daemon::supervise::{Shutdown, Tasks};
use node_plan::Fact;
use node_plan::fact::{PullFailure, PulledImage};
use shared::metric;
use shared::name::ImageKey;
use shared::reason::Reason;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use crate::begun::Begun;
use crate::cri::{Client, CriError, Pulled};

const KIND: &str = "pull";

/// The pulls in flight.
pub(super) struct Pulls {
    client: Client,
    begun: Begun,
    inbox: Inbox<Fact>,
    clock: Clock,
    tasks: Tasks,
    /// Dropping a handle drops the call. A closed one is of a pull that has ended.
    handles: BTreeMap<ImageKey, oneshot::Sender<()>>,
    in_flight: Arc<AtomicUsize>,
}

/// How a pull ended without an answer of the runtime.
enum Dropped {
    /// The machine wanted it so.
    Cancelled,
    /// The agent stops.
    Stopping,
}

impl Pulls {
    pub(super) fn new(client: Client, begun: Begun, inbox: Inbox<Fact>, clock: Clock, tasks: Tasks) -> Self {
        Self { client, begun, inbox, clock, tasks, handles: BTreeMap::new(), in_flight: Arc::default() }
    }

    /// Starts one.
    pub(super) fn start(&mut self, id: ImageKey, image: String, deadline: Duration, is_refresh: bool) {
        self.handles.retain(|_, handle| !handle.is_closed());
        let (handle, cancelled) = oneshot::channel();
        self.handles.insert(id.clone(), handle);
        let (client, inbox, stopwatch) = (self.client.clone(), self.inbox.clone(), self.clock.stopwatch());
        let shutdown = self.tasks.shutdown();
        let present = Present::enter(&self.in_flight);
        let note = self.begun.note(&image);
        self.tasks.spawn_effect(KIND, async move {
            debug!(%image, ?deadline, is_refresh, "pulling");
            if let Err(error) = note.write().await {
                // It matters only if this process is killed at the wrong moment, and less than the image does.
                warn!(%image, %error, "it is not noted that this pull begins");
            }
            let ended = pull(&client, &image, deadline, cancelled, &shutdown).await;
            let took = stopwatch.elapsed();
            drop(present);
            let result = conclude(&image, is_refresh, ended, took);
            inbox.send(Fact::Pulled { id, result }).await;
        });
    }

    /// Drops the call of one.
    pub(super) fn cancel(&mut self, id: &ImageKey) {
        self.handles.remove(id);
        effect_done("cancel-pull", Outcome::Ok, None);
    }
}

async fn pull(
    client: &Client,
    image: &str,
    deadline: Duration,
    cancelled: oneshot::Receiver<()>,
    shutdown: &Shutdown,
) -> Result<Result<Pulled, CriError>, Dropped> {
    tokio::select! {
        biased;
        pulled = client.pull(image, deadline) => Ok(pulled),
        // Our pulls are not shared with the kubelet's: CRI-O joins pulls of one cgroup and namespace only, containerd
        // none. So nobody else's pull ends with these.
        () = shutdown.cancelled() => Err(Dropped::Stopping),
        _ = cancelled => Err(Dropped::Cancelled),
    }
}

fn conclude(
    image: &str,
    is_refresh: bool,
    ended: Result<Result<Pulled, CriError>, Dropped>,
    took: Duration,
) -> Result<PulledImage, PullFailure> {
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    // No runtime passes the registry's Retry-After on.
    let failed = |reason| Err(PullFailure { reason, retry_after: None, took });
    let counted = |outcome: &str, reason: &str| {
        count(if is_refresh { metric::REFRESHES } else { metric::PULLS }, &[outcome, reason], 1);
    };
    match ended {
        Ok(Ok(Pulled { image: held, before })) if is_refresh && before.as_ref() == Some(&held.runtime_id) => {
            counted("same", "");
            effect_done(KIND, Outcome::Ok, None);
            debug!(%image, ms, "refreshed: its tag has not moved");
            Ok(PulledImage { image: held, before, took })
        }
        Ok(Ok(Pulled { image: held, before })) => {
            counted(if is_refresh { "moved" } else { Outcome::Ok.as_str() }, "");
            effect_done(KIND, Outcome::Ok, None);
            observe(metric::PULL_SECONDS, &[], took);
            count(metric::PULL_BYTES, &[], held.bytes);
            info!(%image, ms, bytes = held.bytes, "pulled");
            Ok(PulledImage { image: held, before, took })
        }
        Ok(Err(error)) => {
            let (reason, outcome) = (error.reason(), Outcome::from(error.class()));
            counted(outcome.as_str(), reason.as_str());
            effect_done(KIND, outcome, Some(reason));
            warn!(%image, ms, %reason, "not pulled: {error}");
            failed(reason)
        }
        Err(dropped) => {
            counted("cancelled", "");
            effect_done(KIND, Outcome::Transient, None);
            let why = match dropped {
                Dropped::Cancelled => "nobody wants it any more",
                Dropped::Stopping => "the agent stops",
            };
            info!(%image, ms, "pull dropped: {why}");
            failed(Reason::DeadlineExceeded)
        }
    }
}

/// Counts a pull in flight for as long as it lives.
struct Present(Arc<AtomicUsize>);

impl Present {
    fn enter(in_flight: &Arc<AtomicUsize>) -> Self {
        show(in_flight.fetch_add(1, Ordering::Relaxed) + 1);
        Self(Arc::clone(in_flight))
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        show(self.0.fetch_sub(1, Ordering::Relaxed).saturating_sub(1));
    }
}

fn show(in_flight: usize) {
    gauge(metric::PULLS_IN_FLIGHT, &[], in_flight as f64);
}
