//! Answering the server: who is this client?
//!
//! Owns the subscription, which begins once keys and Pods are known, so that a replica that knows nothing refuses nobody;
//! how many questions are answered at once; the count and the log of refusals. Never lets anybody in by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use daemon::admin::Readiness;
use daemon::bus::{Bus, BusError, Message, NatsConfig, Probe, Status, Subscription};
use daemon::clock::Clock;
use daemon::metrics;
use daemon::supervise::{Shutdown, Tasks};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use nkeys::{KeyPair, KeyPairType, XKey};
use shared::metric;
use shared::name::ClusterId;
use shared::permission::{AUTH_REQUEST, callout_probe};
use shared::reason::Reason;
use shared::subject::callout_inbox;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::pods::AgentPods;
use super::request::{Request, RequestError, SERVER_XKEY};
use super::ring::KeyRing;
use super::settings::IdentitySettings;
use super::token::{Bearer, Expected, Token};
use super::user::Signer;

/// Questions that are answered at once; the others wait in the subscription.
const AT_ONCE: usize = 1_024;
/// Between two looks at what is missing at the start.
const RETRY: Duration = Duration::from_secs(1);
/// Between two log lines of the same reason.
const QUIET: Duration = Duration::from_secs(10);
/// At the end, for what is on its way.
const DRAIN: Duration = Duration::from_secs(3);
/// One replica of the group answers each question.
const GROUP: &str = "warm-controller";

/// Answers the server.
pub struct Callout {
    bus: Bus,
    status: Status,
    cluster: ClusterId,
    settings: IdentitySettings,
    /// The issuer is known with the keys.
    expected: Expected,
    keys: Arc<KeyRing>,
    pods: AgentPods,
    seeds: RwLock<Option<Arc<Seeds>>>,
    ready: watch::Sender<Readiness>,
    clock: Clock,
    said: RwLock<BTreeMap<Reason, Instant>>,
}

/// What is read of the secret files, at each connection.
struct Seeds {
    signer: Signer,
    xkey: XKey,
}

/// Where and as whom a callout answers.
pub struct Place<'a> {
    /// The connection whose user is replaced by that of `identity.nkeySeedFile`.
    pub nats: &'a NatsConfig,
    /// Of which cluster.
    pub cluster: &'a ClusterId,
    /// This replica.
    pub instance: &'a str,
    /// The controller's own namespace.
    pub namespace: Option<&'a str>,
}

impl Callout {
    /// Starts connecting and returns at once.
    pub async fn connect(
        place: Place<'_>,
        settings: &IdentitySettings,
        keys: Arc<KeyRing>,
        pods: AgentPods,
        tasks: &Tasks,
    ) -> Result<Self, BusError> {
        let nats = NatsConfig {
            user: None,
            password_file: None,
            creds_file: None,
            token_file: None,
            nkey_seed_file: settings.nkey_seed_file.clone(),
            ..place.nats.clone()
        };
        let (name, inbox) =
            (format!("warm-controller {} callout", place.instance), callout_inbox(place.cluster, place.instance));
        let probe = Probe::nobody(callout_probe(place.cluster));
        let (bus, status) = Bus::connect_beside(&nats, &name, &inbox, probe, tasks).await?;
        let expected = Expected {
            issuer: settings.issuer.clone().unwrap_or_default(),
            audience: settings.audience.clone(),
            namespace: settings.namespace.as_deref().or(place.namespace).unwrap_or_default().to_owned(),
            service_account: settings.service_account.clone(),
        };
        Ok(Self {
            bus,
            status,
            cluster: place.cluster.clone(),
            settings: settings.clone(),
            expected,
            keys,
            pods,
            seeds: RwLock::default(),
            ready: watch::Sender::new(Err("identity: starting".to_owned())),
            clock: Clock::new(),
            said: RwLock::default(),
        })
    }

    /// Whether questions are answered, or why not.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.ready.subscribe()
    }

    /// Answers until the shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        let subscription = tokio::select! {
            () = shutdown.cancelled() => return,
            subscription = self.begin() => subscription,
        };
        let fresh = self.keys.keep_fresh();
        tokio::select! {
            () = fresh => {}
            () = self.serve(subscription, &shutdown) => {}
        }
        self.bus.flush().await;
    }

    /// Waits for everything that is needed to judge, then asks for questions.
    async fn begin(&self) -> Subscription {
        loop {
            match self.prepare().await {
                Ok(subscription) => return subscription,
                Err(why) => self.say(Err(why)),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn prepare(&self) -> Result<Subscription, String> {
        self.read_seeds()?;
        self.keys.refresh().await?;
        if tokio::time::timeout(RETRY, self.pods.clone().synced()).await.is_err() {
            return Err("waiting for the list of the agents' Pods".to_owned());
        }
        self.bus.subscribe_in_group(AUTH_REQUEST, GROUP).await.map_err(|error| error.to_string())
    }

    fn read_seeds(&self) -> Result<(), String> {
        let IdentitySettings { issuer_seed_file, xkey_seed_file, account, session_ttl, .. } = &self.settings;
        let (Some(issuer), Some(xkey)) = (issuer_seed_file, xkey_seed_file) else {
            return Err("issuerSeedFile and xkeySeedFile are not both given".to_owned());
        };
        let text = issuer.read("identity.issuerSeedFile").map_err(|error| error.to_string())?;
        let key = KeyPair::from_seed(text.expose().trim()).ok();
        let key = key.filter(|key| key.key_pair_type() == KeyPairType::Account);
        let key = key.ok_or_else(|| format!("{} is no seed of an account", issuer.path().display()))?;
        let text = xkey.read("identity.xkeySeedFile").map_err(|error| error.to_string())?;
        let curve = XKey::from_seed(text.expose().trim())
            .map_err(|_| format!("{} is no seed of a curve key", xkey.path().display()))?;
        let signer = Signer::new(key, account, &self.cluster, *session_ttl);
        let seeds = Arc::new(Seeds { signer, xkey: curve });
        *self.seeds.write().unwrap_or_else(PoisonError::into_inner) = Some(seeds);
        Ok(())
    }

    async fn serve(&self, mut subscription: Subscription, shutdown: &Shutdown) {
        info!(
            namespace = self.expected.namespace,
            account = self.expected.service_account,
            "agents are let in by token"
        );
        let mut status = self.status.clone();
        let mut answers = FuturesUnordered::new();
        self.follow(&status);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                message = subscription.recv(), if answers.len() < AT_ONCE => match message {
                    Some(message) => answers.push(self.answer(message)),
                    None => break,
                },
                Some(()) = answers.next() => {}
                Ok(()) = status.changed() => self.follow(&status),
            }
        }
        // The others get the rest: what has come already is answered here.
        let rest = async {
            subscription.drain().await;
            while let Some(message) = subscription.recv().await {
                answers.push(self.answer(message));
            }
            while answers.next().await.is_some() {}
        };
        if tokio::time::timeout(DRAIN, rest).await.is_err() {
            debug!("logins that were asked for are left to others");
        }
    }

    /// With each connection the seeds are read again: the server may have others now.
    fn follow(&self, status: &Status) {
        let now = status.borrow().clone();
        let ready =
            if now.is_connected() { self.read_seeds().map(|()| String::new()) } else { Err(format!("NATS: {now}")) };
        self.say(ready);
    }

    fn say(&self, ready: Readiness) {
        let ready = ready.map_err(|why| format!("identity: {why}"));
        self.ready.send_if_modified(|said| {
            let is_news = *said != ready;
            *said = ready;
            is_news
        });
    }

    async fn answer(&self, message: Message) {
        let stopwatch = self.clock.stopwatch();
        let Some(reply) = &message.reply else { return self.unanswerable(RequestError::Unsigned) };
        let seeds = self.seeds.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Seeds { signer, xkey }) = seeds.as_deref() else { return };
        let request = match Request::open(&message.payload, message.headers.get(SERVER_XKEY), xkey) {
            Ok(request) => request,
            Err(why) => return self.unanswerable(why),
        };
        let now = self.now();
        if request.until > 0 && request.until < now {
            // The server has given up, and the client tries again: answering only keeps those waiting who come next.
            return count("late", None);
        }
        let judged = self.judge(&request).await;
        let answer = match &judged {
            Ok(bearer) => signer.grant(&request, &bearer.node, now, fastrand::f64()),
            Err(reason) => signer.refuse(&request, *reason, now),
        };
        let sealed = answer.map_err(|error| error.to_string()).and_then(|text| match &request.sealed_to {
            Some(server) => xkey.seal(text.as_bytes(), server).map_err(|_| "the answer cannot be sealed".to_owned()),
            None => Ok(text.into_bytes()),
        });
        let sent = match sealed {
            Ok(body) => {
                self.bus.publish(reply.clone(), &[], Bytes::from(body)).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            error!(%error, client = request.client, "a login cannot be answered");
            return count("unanswered", None);
        }
        metrics::observe(metric::LOGIN_SECONDS, &[], stopwatch.elapsed());
        match judged {
            Ok(bearer) => {
                count("granted", None);
                debug!(node = %bearer.node, pod = bearer.pod, "an agent is let in");
            }
            Err(reason) => self.refused(reason, &request),
        }
    }

    async fn judge(&self, request: &Request) -> Result<Bearer, Reason> {
        let token = Token::parse(request.token.expose())?;
        let published = self.keys.with_key(token.kid()).await?;
        let bearer = if self.expected.issuer.is_empty() {
            let expected = Expected { issuer: published.issuer.clone(), ..self.expected.clone() };
            token.judge(&published.keys, &expected, self.now())?
        } else {
            token.judge(&published.keys, &self.expected, self.now())?
        };
        self.pods.check(&bearer).await?;
        Ok(bearer)
    }

    fn now(&self) -> i64 {
        self.clock.now().wall.as_second()
    }

    fn unanswerable(&self, why: RequestError) {
        count("unanswered", Some(Reason::Invalid));
        if self.is_news(Reason::Invalid) {
            error!(error = %why, "the NATS server asks who a client is, and cannot be answered");
        }
    }

    fn refused(&self, reason: Reason, request: &Request) {
        count("refused", Some(reason));
        let client = &request.client;
        if self.is_news(reason) {
            warn!(%reason, client, "a client of NATS is not let in; more of the same reason are counted, not said");
        } else {
            debug!(%reason, client, "a client of NATS is not let in");
        }
    }

    /// Whether this reason was not said lately: a fleet that is refused must not flood the log.
    fn is_news(&self, reason: Reason) -> bool {
        let mut said = self.said.write().unwrap_or_else(PoisonError::into_inner);
        let is_news = said.get(&reason).is_none_or(|last| last.elapsed() >= QUIET);
        if is_news {
            said.insert(reason, Instant::now());
        }
        is_news
    }
}

fn count(outcome: &'static str, reason: Option<Reason>) {
    metrics::count(metric::LOGINS, &[outcome, reason.map_or("", Reason::as_str)], 1);
}
