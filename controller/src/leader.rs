//! Election of the one controller that writes, on a `Lease`, in client-go's manner.
//!
//! Owns the Lease: taking, renewing, giving up, and the [`Tenure`] that every write asks. It only says who tries for the
//! term; what fences the buckets is the term itself. Never decides what is written.
//!
//! The identity is the Pod's name: a container that starts again in its Pod goes on at once, since its predecessor is dead.

mod record;
pub mod tenure;

use std::pin::pin;
use std::sync::Arc;

use cluster_plan::Fact;
use daemon::driver::Inbox;
use daemon::supervise::Shutdown;
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_for};
use kube::{Api, Client};
use shared::backoff::vary;
use shared::reason::Reason;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info, warn};

use self::record::{Candidate, Record};
use self::tenure::{Hold, Tenure};
use crate::api::failure;
use crate::config::LeaderSettings;

/// Percent by which retries vary, so that followers do not ask together.
const JITTER: u32 = 20;

/// What the rest of the process sees of the election. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Seat(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tenure: watch::Sender<Tenure>,
    give_up: Notify,
    _hold: Hold,
}

impl Seat {
    fn new(hold: Hold) -> Self {
        let tenure = watch::Sender::new(hold.tenure());
        Self(Arc::new(Shared { tenure, give_up: Notify::new(), _hold: hold }))
    }

    /// The right to write as it is now; one that is over if there is none.
    pub fn tenure(&self) -> Tenure {
        self.0.tenure.borrow().clone()
    }

    /// Asks the elector to give the Lease up and to leave it to others for a while.
    pub fn give_up(&self) {
        self.0.give_up.notify_one();
    }

    /// That of the only controller: its tenure does not end.
    pub fn of_the_only_controller() -> Self {
        Self::new(Hold::always())
    }
}

/// Stands for election in `namespace`, or in that of the client's credentials. Without an election this controller is the
/// only one, and may always write.
pub async fn stand(
    settings: &LeaderSettings,
    namespace: Option<&str>,
    identity: &str,
    client: &Client,
    inbox: &Inbox<Fact>,
) -> (Seat, Option<Arc<Elector>>) {
    if !settings.enabled {
        inbox.send(Fact::Lease(true)).await;
        return (Seat::of_the_only_controller(), None);
    }
    let namespace = namespace.unwrap_or(client.default_namespace());
    let elector = Elector::new(client.clone(), namespace, identity, settings, inbox.clone());
    (elector.seat(), Some(Arc::new(elector)))
}

/// Takes part in the election.
pub struct Elector {
    api: Api<Lease>,
    candidate: Candidate,
    settings: LeaderSettings,
    seat: Seat,
    inbox: Inbox<Fact>,
    state: Mutex<State>,
}

/// What only one of [`Elector::run`] and [`Elector::release`] has at a time.
struct State {
    record: Record,
    hold: Option<Hold>,
    /// The next attempt.
    next: Instant,
    /// After the Lease was given up: the others' turn until then.
    not_before: Instant,
    last_trouble: Option<String>,
    rng: fastrand::Rng,
}

/// What an attempt did not achieve.
enum Failure {
    /// Somebody wrote first.
    Conflict,
    /// There is no such object, or no such namespace.
    Gone(String),
    /// Anything else, with a text for people.
    Trouble(Reason, String),
}

impl Elector {
    /// An elector for the Lease `settings.lease_name` in `namespace`; [`Elector::run`] begins.
    pub fn new(client: Client, namespace: &str, identity: &str, settings: &LeaderSettings, inbox: Inbox<Fact>) -> Self {
        let now = Instant::now();
        Self {
            api: Api::namespaced(client, namespace),
            candidate: Candidate {
                lease: settings.lease_name.clone(),
                identity: identity.to_owned(),
                duration: settings.lease_duration,
            },
            settings: settings.clone(),
            seat: Seat::new(Hold::over()),
            inbox,
            state: Mutex::new(State {
                record: Record::unseen(),
                hold: None,
                next: now,
                not_before: now,
                last_trouble: None,
                rng: fastrand::Rng::new(),
            }),
        }
    }

    /// What the others see of it.
    pub fn seat(&self) -> Seat {
        self.seat.clone()
    }

    /// Takes part until the shutdown. Then nothing is renewed any more, and what was held lasts until its deadline:
    /// effects may end in it, and [`Elector::release`] hands over.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        let only_this = watcher::Config::default().fields(&format!("metadata.name={}", self.candidate.lease));
        // The watch only hastens: without it the retry period is what a change waits for.
        let mut changes = pin!(watch_for(self.api.clone(), only_this).default_backoff());
        loop {
            let due = state.due();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.seat.0.give_up.notified() => self.give_up(state).await,
                () = sleep_until(due) => {
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = self.turn(state) => {}
                    }
                }
                Some(change) = changes.next() => self.hear(state, change),
            }
        }
    }

    /// Gives the Lease up, if it is ours: the last thing before the process ends. Whoever writes must have ended.
    pub async fn release(&self) {
        let mut state = self.state.lock().await;
        state.hold = None;
        self.hand_over(&mut state).await;
    }

    /// One attempt, and what follows from the time.
    async fn turn(&self, state: &mut State) {
        if state.hold.as_ref().is_some_and(Hold::is_over) {
            self.lose(state, "it could not be renewed in time").await;
        }
        let now = Instant::now();
        if now < state.next || now < state.not_before {
            return;
        }
        let limit = now + self.settings.renew_deadline / 2;
        let limit = state.hold.as_ref().and_then(Hold::deadline).map_or(limit, |deadline| deadline.min(limit));
        let attempt =
            if state.hold.is_some() { self.renew(state, limit).await } else { self.try_to_take(state, limit).await };
        let is_known = attempt.is_ok();
        match attempt {
            Ok(()) | Err(Failure::Conflict) => {
                if state.last_trouble.take().is_some() {
                    info!(lease = self.candidate.lease, "the Lease can be used again");
                }
            }
            Err(Failure::Gone(text)) => self.complain(state, Reason::NotFound, text),
            Err(Failure::Trouble(reason, text)) => self.complain(state, reason, text),
        }
        let wait = match state.hold {
            Some(_) => self.settings.retry_period,
            None => vary(self.settings.retry_period, JITTER, &mut state.rng),
        };
        state.next = Instant::now() + wait;
        if is_known && state.hold.is_none() {
            state.next = state.next.min(state.record.free_at(&self.candidate));
        }
    }

    async fn renew(&self, state: &mut State, limit: Instant) -> Result<(), Failure> {
        match self.write(state, limit).await {
            Err(Failure::Conflict | Failure::Gone(_)) => {
                self.look(state, limit).await?;
                match state.record.holder() {
                    Some(holder) if holder != self.candidate.identity => {
                        let because = format!("{holder} has taken it");
                        self.lose(state, &because).await;
                        Ok(())
                    }
                    _ => match self.write(state, limit).await {
                        // Whoever is faster than this has it.
                        Err(Failure::Conflict | Failure::Gone(_)) => {
                            self.lose(state, "somebody else writes it").await;
                            Err(Failure::Conflict)
                        }
                        done => done,
                    },
                }
            }
            done => done,
        }
    }

    async fn try_to_take(&self, state: &mut State, limit: Instant) -> Result<(), Failure> {
        self.look(state, limit).await?;
        if state.record.free_at(&self.candidate) > Instant::now() {
            return Ok(());
        }
        self.write(state, limit).await
    }

    async fn look(&self, state: &mut State, limit: Instant) -> Result<(), Failure> {
        let lease = in_time(limit, self.api.get_opt(&self.candidate.lease)).await?;
        state.record.see(lease);
        Ok(())
    }

    /// Takes or renews, by compare-and-set on what was last seen. The tenure counts from before the request: the others
    /// count from after it.
    async fn write(&self, state: &mut State, limit: Instant) -> Result<(), Failure> {
        let sent = Instant::now();
        let deadline = sent + self.settings.renew_deadline;
        let lease = state.record.held_by(&self.candidate, Timestamp::now());
        let params = PostParams::default();
        let written = if state.record.exists() {
            in_time(limit, self.api.replace(&self.candidate.lease, &params, &lease)).await?
        } else {
            in_time(limit, self.api.create(&params, &lease)).await?
        };
        state.record.wrote(written);
        match &state.hold {
            Some(hold) if !hold.is_over() => hold.extend(deadline),
            None if Instant::now() < deadline => {
                let hold = Hold::until(deadline);
                let _ = self.seat.0.tenure.send_replace(hold.tenure());
                state.hold = Some(hold);
                info!(lease = self.candidate.lease, holder = self.candidate.identity, "the Lease is held");
                self.inbox.send(Fact::Lease(true)).await;
            }
            // The answer came too late.
            _ => {}
        }
        Ok(())
    }

    async fn lose(&self, state: &mut State, because: &str) {
        if state.hold.take().is_some() {
            warn!(lease = self.candidate.lease, because, "the Lease is lost; nothing more is written");
            self.inbox.send(Fact::Lease(false)).await;
        }
    }

    /// Another controller leads: the Lease is its, or is to be.
    async fn give_up(&self, state: &mut State) {
        if state.hold.is_none() {
            return;
        }
        self.lose(state, "another controller holds a higher term").await;
        self.hand_over(state).await;
        state.not_before = Instant::now() + self.settings.lease_duration;
    }

    /// Makes it nobody's, if it still says that it is ours.
    async fn hand_over(&self, state: &mut State) {
        let limit = Instant::now() + self.settings.renew_deadline / 2;
        let mut handed = self.hand_over_once(state, limit).await;
        if matches!(handed, Err(Failure::Conflict)) {
            // A renewal of ours that was under way.
            handed = self.hand_over_once(state, limit).await;
        }
        if let Err(Failure::Trouble(reason, error)) = handed {
            warn!(lease = self.candidate.lease, %reason, error, "the Lease cannot be released; it lapses by itself");
        }
    }

    async fn hand_over_once(&self, state: &mut State, limit: Instant) -> Result<(), Failure> {
        self.look(state, limit).await?;
        if state.record.holder() != Some(&self.candidate.identity) {
            return Ok(());
        }
        let lease = state.record.released(&self.candidate, Timestamp::now());
        let params = PostParams::default();
        let replaced = self.api.replace(&self.candidate.lease, &params, &lease);
        state.record.wrote(in_time(limit, replaced).await?);
        info!(lease = self.candidate.lease, "the Lease is released");
        Ok(())
    }

    /// The watch may be late, so it only moves the next look; a follower notes how fresh the holder is.
    fn hear(&self, state: &mut State, change: watcher::Result<Event<Lease>>) {
        let lease = match change {
            Ok(Event::Apply(lease) | Event::InitApply(lease)) => Some(lease),
            Ok(Event::Delete(_)) => None,
            Ok(Event::Init | Event::InitDone) => return,
            Err(error) => {
                debug!(lease = self.candidate.lease, %error, "watching the Lease fails; it is looked at now and then");
                return;
            }
        };
        let mut heard = state.record.clone();
        heard.see(lease);
        if state.hold.is_some() {
            if heard.holder() != Some(&self.candidate.identity) {
                state.next = Instant::now();
            }
            return;
        }
        state.record = heard;
        state.next = state.next.min(state.record.free_at(&self.candidate));
    }

    fn complain(&self, state: &mut State, reason: Reason, text: String) {
        let (lease, is_held) = (&self.candidate.lease, state.hold.is_some());
        if state.last_trouble.as_ref() == Some(&text) {
            debug!(lease, is_held, %reason, error = text, "the Lease still cannot be used");
        } else {
            warn!(lease, is_held, %reason, error = text, "the Lease cannot be used; trying again");
            state.last_trouble = Some(text);
        }
    }
}

impl State {
    /// When something is to be done though nothing happens.
    fn due(&self) -> Instant {
        let attempt = self.next.max(self.not_before);
        let deadline = self.hold.as_ref().and_then(Hold::deadline);
        deadline.map_or(attempt, |deadline| deadline.min(attempt))
    }
}

async fn in_time<T>(limit: Instant, request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match timeout_at(limit, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Failure::Conflict),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Failure::Gone(status.message)),
        Ok(Err(error)) => Err(Failure::Trouble(failure::reason(&error), error.to_string())),
        Err(_) => Err(Failure::Trouble(Reason::Timeout, "no answer in time".to_owned())),
    }
}
