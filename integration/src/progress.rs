//! How far an installation has come, as seen from outside: owns counting bucket writes, events and registry requests, so
//! that a test can act at a moment of the run instead of a moment of the clock. It changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::installation::{Installation, reader};
use crate::proxy::log::RequestLog;

/// Time between two looks: short beside what is counted.
const PAUSE: Duration = Duration::from_millis(1);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A publish to one of the three buckets.
    Write,
    /// A transition that an agent tells.
    Event,
    /// A request to the registry.
    Request,
}

impl Sign {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Write, Self::Event, Self::Request];
}

/// Counts until it is dropped.
pub struct Progress {
    writes: Arc<AtomicUsize>,
    events: Arc<AtomicUsize>,
    requests: RequestLog,
    counters: [JoinHandle<()>; 2],
}

impl Progress {
    /// Begins to count.
    pub async fn start(installation: &Installation) -> Result<Self> {
        let nats = async_nats::ConnectOptions::with_user_and_password(reader().into(), reader().into())
            .connect(installation.cluster.nats.url())
            .await
            .context("connecting as a reader")?;
        let mut buckets = Vec::new();
        for bucket in ["intents", "assign", "nodes"] {
            buckets.push(nats.subscribe(format!("$KV.warm-default-{bucket}.>")).await?);
        }
        let events_of = nats.subscribe("warm.v1.default.node.*.ev.>").await?;
        nats.flush().await.context("subscribing")?;
        let (writes, events): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let counters = [
            tokio::spawn(count(futures::stream::select_all(buckets).boxed(), Arc::clone(&writes))),
            tokio::spawn(count(events_of.boxed(), Arc::clone(&events))),
        ];
        Ok(Self { writes, events, requests: installation.cluster.requests.clone(), counters })
    }

    /// How many so far.
    pub fn count(&self, sign: Sign) -> usize {
        match sign {
            Sign::Write => self.writes.load(Ordering::Relaxed),
            Sign::Event => self.events.load(Ordering::Relaxed),
            Sign::Request => self.requests.len(),
        }
    }

    /// Returns once there are `count` of them; says whether that was before `limit`.
    pub async fn reaches(&self, sign: Sign, count: usize, limit: Duration) -> bool {
        let start = Instant::now();
        while self.count(sign) < count {
            if start.elapsed() > limit {
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
        true
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.counters.iter().for_each(JoinHandle::abort);
    }
}

async fn count(mut messages: futures::stream::BoxStream<'static, async_nats::Message>, so_far: Arc<AtomicUsize>) {
    while messages.next().await.is_some() {
        so_far.fetch_add(1, Ordering::Relaxed);
    }
}
