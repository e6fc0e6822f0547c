//! Watches the connection: what it says is true only after a round trip.
//!
//! Owns the status, the count of gaps, and the log lines and metrics about both. Never connects itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::Request;
use async_nats::client::RequestErrorKind;
use futures::future::BoxFuture;
use shared::metric;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::Bus;
use super::connect::Probe;
use super::status::{BusStatus, Shared};
use crate::metrics;
use crate::supervise::Shutdown;

/// The client drops events when too many come at once, so its state is looked at as well.
const LOOK: Duration = Duration::from_secs(1);

/// What the client's callbacks say.
#[derive(Debug)]
pub(super) enum Signal {
    /// Connected or disconnected.
    Changed,
    /// An attempt failed, with its cause.
    Failed(String),
    SlowConsumer,
    LameDuck,
    ServerError(String),
}

/// Whether the process's gauge shows this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gauged {
    Yes,
    No,
}

pub(super) struct Monitor {
    gauged: Gauged,
    client: async_nats::Client,
    shared: Arc<Shared>,
    probe: Probe,
    timeout: Duration,
    /// Connections opened, as last seen.
    opened: u64,
    generation: u64,
    /// The round trip under way.
    probing: Option<BoxFuture<'static, bool>>,
}

impl Monitor {
    pub(super) fn new(
        client: async_nats::Client,
        shared: Arc<Shared>,
        probe: Probe,
        timeout: Duration,
        gauged: Gauged,
    ) -> Self {
        Self { gauged, client, shared, probe, timeout, opened: 0, generation: 0, probing: None }
    }

    fn gauge(&self, value: f64) {
        if self.gauged == Gauged::Yes {
            metrics::gauge(metric::NATS_CONNECTED, &[], value);
        }
    }

    pub(super) async fn run(mut self, mut signals: mpsc::UnboundedReceiver<Signal>, shutdown: Shutdown) {
        self.gauge(0.0);
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(signal) = signals.recv() => self.hear(signal),
                answered = round_trip(&mut self.probing) => {
                    self.probing = None;
                    if answered {
                        self.connected();
                    } else if Bus::is_open(&self.client) {
                        debug!("no answer to the round trip yet");
                        self.start_probe();
                    }
                }
                _ = look.tick() => {}
            }
            self.look();
        }
    }

    fn hear(&mut self, signal: Signal) {
        match signal {
            Signal::Changed => {}
            Signal::Failed(error) => self.failed(&error),
            Signal::SlowConsumer => {
                count("slow-consumer");
                self.gap("messages were dropped, since this process was too slow");
            }
            Signal::LameDuck => {
                count("lame-duck");
                info!("the NATS server is about to stop");
            }
            Signal::ServerError(text) => self.server_error(&text),
        }
    }

    fn server_error(&mut self, text: &str) {
        let text = text.strip_prefix("nats: ").unwrap_or(text);
        if !text.to_lowercase().contains("permissions violation") {
            count("server-error");
            return self.failed(&format!("the server says: {text}"));
        }
        count("permission");
        if self.probing.is_some() && text.contains(&self.probe.subject) {
            // A refusal is an answer.
            self.probing = None;
            return self.connected();
        }
        warn!(error = text, "NATS refuses; check this user's permissions");
        // Only a refused subscription loses messages; a refused publish is its sender's affair.
        if text.to_lowercase().contains("subscription") {
            self.gap("a subscription was refused");
        }
        self.shared.refuse(text.to_owned());
    }

    fn gap(&self, why: &str) {
        debug!(why, "messages may be missing");
        self.shared.gaps.send_modify(|gaps| *gaps += 1);
    }

    /// Compares what the client is with what we say it is.
    fn look(&mut self) {
        let opened = self.client.statistics().connects.load(Ordering::Relaxed);
        let is_open = Bus::is_open(&self.client);
        if !is_open || opened != self.opened {
            self.disconnected();
        }
        if is_open && opened != self.opened {
            self.opened = opened;
            self.start_probe();
        }
    }

    fn start_probe(&mut self) {
        let (client, probe, timeout) = (self.client.clone(), self.probe.clone(), self.timeout);
        self.probing = Some(Box::pin(async move {
            let request = Request::new().payload(probe.body).timeout(Some(timeout));
            match client.send_request(probe.subject, request).await {
                Ok(_) => true,
                Err(error) => error.kind() == RequestErrorKind::NoResponders,
            }
        }));
    }

    fn connected(&mut self) {
        self.generation += 1;
        self.shared.failures.store(0, Ordering::Relaxed);
        self.shared.tried.store(false, Ordering::Relaxed);
        self.shared.status.send_replace(BusStatus::Connected { generation: self.generation });
        count("connected");
        self.gauge(1.0);
        let server = self.client.server_info();
        info!(server = server.server_name, version = server.version, "connected to NATS");
    }

    fn disconnected(&mut self) {
        self.probing = None;
        if self.shared.status.borrow().is_connected() {
            self.shared.status.send_replace(BusStatus::Disconnected { last_error: None });
            count("disconnected");
            self.gauge(0.0);
            warn!("the connection to NATS is lost");
        }
    }

    fn failed(&self, error: &str) {
        let changed = self.shared.status.send_if_modified(|status| match status {
            BusStatus::Connecting { last_error } | BusStatus::Disconnected { last_error }
                if last_error.as_deref() != Some(error) =>
            {
                *last_error = Some(error.to_owned());
                true
            }
            _ => false,
        });
        if changed {
            warn!(error, "cannot connect to NATS; trying again for ever");
        } else {
            debug!(error, "NATS");
        }
    }
}

async fn round_trip(probing: &mut Option<BoxFuture<'static, bool>>) -> bool {
    match probing {
        Some(probe) => probe.await,
        None => std::future::pending().await,
    }
}

fn count(event: &'static str) {
    metrics::count(metric::NATS_EVENTS, &[event], 1);
}
