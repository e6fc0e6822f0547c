//! Connecting: at once in the background, for ever, with jitter.
//!
//! Owns the client's options and its callbacks. Never waits for a connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{ConnectOptions, Event, Server, ServerAddr};
use bytes::Bytes;
use shared::backoff::Backoff;
use tokio::sync::mpsc;

use super::login::{Login, humanise};
use super::monitor::{Gauged, Monitor, Signal};
use super::settings::{NatsConfig, address};
use super::status::{Shared, Status};
use super::{Bus, BusError, Inner};
use crate::config::Problems;
use crate::supervise::Tasks;
use crate::tls;

/// Messages that wait for a subscriber; a whole fleet's heartbeats fit.
const SUBSCRIPTION_ROOM: usize = 65_536;
/// One attempt, TCP, TLS and login together. Above the server's `authorization.timeout` of 30 s for large fleets.
const ATTEMPT: Duration = Duration::from_secs(35);
const ACKS_IN_FLIGHT: usize = 4_096;
const SHORTEST_BASE: Duration = Duration::from_millis(10);

/// A request whose answer, of whatever kind, shows that the server has let us in. Choose one the user may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    pub(super) subject: String,
    pub(super) body: Bytes,
}

impl Probe {
    /// Reads the last message of `subject` from `stream`: what an agent may do.
    pub fn direct_get(stream: &str, subject: &str) -> Self {
        let body = serde_json::json!({ "last_by_subj": subject }).to_string();
        Self { subject: format!("$JS.API.DIRECT.GET.{stream}"), body: body.into() }
    }
}

impl Probe {
    /// Asks on a subject where nobody listens: what a user may do that may do hardly anything.
    pub fn nobody(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), body: Bytes::new() }
    }
}

impl Default for Probe {
    /// Asks for the account's limits: what a controller may do.
    fn default() -> Self {
        Self { subject: "$JS.API.INFO".to_owned(), body: Bytes::new() }
    }
}

impl Bus {
    /// Starts connecting and returns at once. `name` is shown by the server's monitoring; answers come to subjects below
    /// `inbox_prefix`. Retries for ever, refused credentials included: [`Bus::status`] says why.
    ///
    /// # Errors
    /// Settings that no attempt could use.
    pub async fn connect(
        config: &NatsConfig,
        name: &str,
        inbox_prefix: &str,
        tasks: &Tasks,
    ) -> Result<(Self, Status), BusError> {
        Self::connect_with_probe(config, name, inbox_prefix, Probe::default(), tasks).await
    }

    /// As [`Bus::connect`], for a user that may not send the default probe.
    pub async fn connect_with_probe(
        config: &NatsConfig,
        name: &str,
        inbox_prefix: &str,
        probe: Probe,
        tasks: &Tasks,
    ) -> Result<(Self, Status), BusError> {
        Self::start(config, name, inbox_prefix, probe, Gauged::Yes, tasks).await
    }

    /// A second connection of the process, of another user: `warm_nats_connected` is the first one's.
    pub async fn connect_beside(
        config: &NatsConfig,
        name: &str,
        inbox_prefix: &str,
        probe: Probe,
        tasks: &Tasks,
    ) -> Result<(Self, Status), BusError> {
        Self::start(config, name, inbox_prefix, probe, Gauged::No, tasks).await
    }

    async fn start(
        config: &NatsConfig,
        name: &str,
        inbox_prefix: &str,
        probe: Probe,
        gauged: Gauged,
        tasks: &Tasks,
    ) -> Result<(Self, Status), BusError> {
        tls::install_crypto_provider();
        let servers = servers(config)?;
        let shared = Arc::new(Shared::new());
        let (signals, heard) = mpsc::unbounded_channel();
        let options = options(config, servers.len(), &shared, &signals).name(name).custom_inbox_prefix(inbox_prefix);
        let client =
            options.connect(servers).await.map_err(|error| BusError::Settings(format!("nats.urls: {error}")))?;
        let jetstream = async_nats::jetstream::context::ContextBuilder::new()
            .timeout(config.request_timeout)
            .max_ack_inflight(ACKS_IN_FLIGHT)
            .build(client.clone());
        let monitor = Monitor::new(client.clone(), Arc::clone(&shared), probe, config.request_timeout, gauged);
        tasks.spawn("nats-monitor", monitor.run(heard, tasks.shutdown()));
        let inner = Inner { client, jetstream, request_timeout: config.request_timeout, shared };
        let bus = Self { inner: Arc::new(inner) };
        let status = bus.status();
        Ok((bus, status))
    }

    /// Whether the TCP connection stands, though the server may not have let us in.
    pub(super) fn is_open(client: &async_nats::Client) -> bool {
        client.connection_state() == State::Connected
    }
}

fn servers(config: &NatsConfig) -> Result<Vec<ServerAddr>, BusError> {
    let mut problems = Problems::default();
    problems.section("nats", config);
    if !problems.is_empty() {
        return Err(BusError::Settings(problems.messages().join("\n")));
    }
    config.urls.iter().map(|url| address(url).map_err(|why| BusError::Settings(format!("nats.urls: {why}")))).collect()
}

fn options(
    config: &NatsConfig,
    servers: usize,
    shared: &Arc<Shared>,
    signals: &mpsc::UnboundedSender<Signal>,
) -> ConnectOptions {
    let login = Login::new(config);
    let auth = login.clone();
    let mut options = ConnectOptions::with_auth_callback(move |nonce| std::future::ready(auth.auth(&nonce)))
        .retry_on_initial_connect()
        .max_reconnects(None)
        .connection_timeout(ATTEMPT)
        .ping_interval(config.ping_interval)
        .request_timeout(Some(config.request_timeout))
        .subscription_capacity(SUBSCRIPTION_ROOM)
        .require_tls(config.tls.required)
        .event_callback(events(signals.clone()))
        .reconnect_delay_callback(delays(config.reconnect_max, servers, Arc::clone(shared)));
    let (shared, signals) = (Arc::clone(shared), signals.clone());
    // Chooses no server: it is the one callback that is shown why the last attempt failed.
    options = options.reconnect_to_server_callback(move |servers, _| {
        let (shared, signals, login) = (Arc::clone(&shared), signals.clone(), login.clone());
        async move {
            if shared.tried.load(Ordering::Relaxed) {
                let _ = signals.send(Signal::Failed(why(&servers, &login).await));
            }
            None
        }
    });
    if let Some(file) = &config.tls.ca_file {
        options = options.add_root_certificates(file.clone());
    }
    if let (Some(cert), Some(key)) = (&config.tls.cert_file, &config.tls.key_file) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    options
}

fn events(signals: mpsc::UnboundedSender<Signal>) -> impl Fn(Event) -> std::future::Ready<()> + Send + Sync {
    move |event| {
        let signal = match event {
            Event::Connected | Event::Disconnected => Some(Signal::Changed),
            Event::SlowConsumer(_) => Some(Signal::SlowConsumer),
            Event::ServerError(error) => Some(Signal::ServerError(error.to_string())),
            Event::LameDuckMode => Some(Signal::LameDuck),
            // Failed attempts are heard of with their cause; the rest happens only on our own order.
            Event::ClientError(_) | Event::Draining | Event::Closed => None,
        };
        if let Some(signal) = signal {
            // The monitor is gone only when the process ends.
            let _ = signals.send(signal);
        }
        std::future::ready(())
    }
}

/// Full jitter over a doubling wait. The client's own count restarts when a connection opens, ours when the server has let
/// us in: otherwise a login that is refused late would be retried without a pause.
fn delays(max: Duration, servers: usize, shared: Arc<Shared>) -> impl Fn(usize) -> Duration + Send + Sync {
    let backoff = Backoff { base: (max / 16).max(SHORTEST_BASE).min(max), ceiling: max };
    let servers = u32::try_from(servers).unwrap_or(u32::MAX).max(1);
    move |_| {
        shared.tried.store(true, Ordering::Relaxed);
        let failures = shared.failures.fetch_add(1, Ordering::Relaxed);
        backoff.full_jitter(1 + failures / servers, &mut fastrand::Rng::new())
    }
}

async fn why(servers: &[Server], login: &Login) -> String {
    let mut causes = Vec::new();
    for server in servers {
        let (url, addr) = (server.addr.as_url_str(), &server.addr);
        if let Some(error) = &server.last_error {
            causes.push(format!("{url}: {}", humanise(error, login)));
        } else if let Err(error) = tokio::net::lookup_host((addr.host(), addr.port())).await {
            // The client keeps no error when a name cannot be resolved.
            causes.push(format!("{url}: the name cannot be resolved: {error}"));
        }
    }
    if causes.is_empty() { "no server could be reached".to_owned() } else { causes.join("; ") }
}
