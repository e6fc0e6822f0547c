//! What is done to a fleet, and what it costs: owns the phases. Each gives its figures.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cluster_plan::set::SetStatus;
use controller::api::image_set::ImageSet;
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::meter::{self, Reading};
use super::stage::{Stage, key};
use crate::xtask::say;

/// No fleet that works takes longer, on a busy machine.
const LIMIT: Duration = Duration::from_mins(10);
/// One intent.
const ONE: Duration = Duration::from_mins(2);
/// Longer than the window of a step: each change is one on a system at rest.
const REST: Duration = Duration::from_millis(500);
/// Nothing was labelled for so long: it is done.
const QUIET: Duration = Duration::from_secs(10);
/// Two heartbeats: by then each agent has confirmed what it reported, and is at rest.
const CONFIRMED: Duration = Duration::from_mins(1);
/// How long workloads come and go.
const CHURN: u32 = 30;
const PATCHES: &str = "patch nodes";
const STATUSES: &str = "patch imagesets/status";

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Victim {
    /// The NATS server, on its store.
    Nats,
    /// The controller.
    Controller,
}

/// The phases, one after the other.
pub(super) struct Phases<'a> {
    stage: &'a mut Stage,
}

fn now() -> i64 {
    Timestamp::now().as_microsecond()
}

fn between(from: i64, to: i64) -> Duration {
    Duration::from_micros(u64::try_from(to - from).unwrap_or_default())
}

fn seconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1_000.0).round() / 1_000.0
}

impl<'a> Phases<'a> {
    pub(super) fn new(stage: &'a mut Stage) -> Self {
        Self { stage }
    }

    async fn read(&mut self) -> Result<Reading> {
        meter::read(&mut self.stage.installation, &self.stage.process).await
    }

    fn memory(&mut self) -> Result<Value> {
        meter::memory(&mut self.stage.installation, &self.stage.process)
    }

    fn patches(&self) -> Result<u64> {
        Ok(meter::requests(&self.stage.installation)?.get(PATCHES).copied().unwrap_or_default())
    }

    /// All agents start at once, with nothing on disk: connecting and the reads of their pools are spread by themselves.
    pub(super) async fn cold(&mut self, agents: usize) -> Result<Value> {
        say(&format!("{agents} agents start"));
        let (before, start) = (self.read().await?, now());
        self.stage.agents(agents).await?;
        let all_started = now();
        let current = self.stage.until_current(LIMIT).await?;
        let effects = self.stage.glance().await?.effects;
        let cost = self.read().await?.since(&before);
        Ok(json!({
            "seconds": seconds(between(start, current)), "starting": seconds(between(start, all_started)),
            "cost": cost, "megabytes": self.memory()?, "effects": effects,
        }))
    }

    /// Until the Nodes carry their labels.
    pub(super) async fn labelled(&mut self) -> Result<Value> {
        say("waiting until the Nodes are labelled");
        let (before, start) = (self.read().await?, Instant::now());
        let (mut seen, mut changed) = (0, Instant::now());
        loop {
            let patches = self.patches()?;
            if patches != seen {
                (seen, changed) = (patches, Instant::now());
            }
            if seen >= self.stage.nodes as u64 && changed.elapsed() > QUIET {
                break;
            }
            ensure!(start.elapsed() < LIMIT, "{seen} patches for {} nodes", self.stage.nodes);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let took = seconds(changed.duration_since(start));
        let cost = self.read().await?.since(&before);
        let per_node = seen as f64 / self.stage.nodes as f64;
        Ok(json!({ "seconds": took, "patches": seen, "patchesPerNode": per_node, "cost": cost }))
    }

    /// Until every set says that it is ready.
    pub(super) async fn sets(&mut self) -> Result<Value> {
        say("waiting until the sets are ready");
        let (before, start) = (self.read().await?, Instant::now());
        let sets = self.stage.installation.sets("default");
        let (total, took) = loop {
            let all = sets.list(&ListParams::default()).await?.items;
            let is_ready = |set: &&ImageSet| set.status.as_ref().is_some_and(SetStatus::is_ready);
            let ready = all.iter().filter(is_ready).count();
            if ready == all.len() {
                break (ready, start.elapsed());
            }
            ensure!(start.elapsed() < LIMIT, "{ready} of {} sets are ready", all.len());
            tokio::time::sleep(QUIET / 10).await;
        };
        let written = meter::requests(&self.stage.installation)?.get(STATUSES).copied().unwrap_or_default();
        let per_set = written as f64 / total.max(1) as f64;
        let cost = self.read().await?.since(&before);
        Ok(json!({
            "sets": total, "seconds": seconds(took), "statusWrites": written, "statusWritesPerSet": per_set, "cost": cost,
        }))
    }

    /// Nothing happens.
    pub(super) async fn idle(&mut self, for_seconds: u64) -> Result<Value> {
        say(&format!("{for_seconds} s at rest, after {CONFIRMED:?}"));
        tokio::time::sleep(CONFIRMED).await;
        let before = self.read().await?;
        tokio::time::sleep(Duration::from_secs(for_seconds)).await;
        let after = self.read().await?;
        let percent = |name| (after.cpu_since(&before, name) / after.seconds_since(&before) * 1_000.0).round() / 10.0;
        Ok(json!({
            "controllerPercent": percent("controller"), "natsPercent": percent("nats"), "fleetPercent": percent("fleet"),
            "cost": after.since(&before), "megabytes": self.memory()?,
        }))
    }

    /// One new image: from the end of the create call, and from its storing, to the last agent that knows it.
    pub(super) async fn round(&mut self, number: usize) -> Result<(Duration, Duration)> {
        tokio::time::sleep(REST).await;
        let name = format!("round-{number}");
        let key = key(&name)?;
        let nats = async_nats::ConnectOptions::with_user_and_password("admin".into(), "admin".into())
            .connect(self.stage.installation.cluster.nats.url())
            .await?;
        let mut stored = nats.subscribe(format!("$KV.warm-default-intents.*.i.{key}")).await?;
        nats.flush().await?;
        self.stage.expect(key).await?;
        self.stage.deploy(&name).await?;
        let created = now();
        tokio::time::timeout(ONE, stored.next()).await?.context("the subscription ended")?;
        let stored = now();
        let last = self.stage.until_arrived(ONE).await?.last;
        self.stage.intents += 1;
        Ok((between(created, last), between(stored, last)))
    }

    /// So many agents more, of Nodes that are new as well.
    pub(super) async fn late(&mut self, agents: usize) -> Result<Value> {
        say(&format!("{agents} agents join"));
        self.stage.nodes(agents).await?;
        let (before, start) = (self.read().await?, now());
        self.stage.agents(agents).await?;
        let current = self.stage.until_current(LIMIT).await?;
        let cost = self.read().await?.since(&before);
        Ok(json!({ "seconds": seconds(between(start, current)), "cost": cost }))
    }

    /// Workloads come and go: in each second as many are created as have been before, and as many deleted.
    pub(super) async fn churn(&mut self, per_second: u32) -> Result<Value> {
        say(&format!("{per_second} workloads a second, {CHURN} s"));
        let before = self.read().await?;
        let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
        let total = per_second.saturating_mul(CHURN);
        for number in 0..total {
            pace.tick().await;
            // Every other one deletes what the one before has created.
            if number % 2 == 0 {
                self.stage.deploy(&format!("churn-{number}")).await?;
            } else {
                self.stage.installation.undeploy("default", &format!("churn-{}", number - 1)).await?;
            }
        }
        let end = now();
        self.stage.intents += usize::try_from(total % 2).unwrap_or_default();
        let current = self.stage.until_current(LIMIT).await?;
        let cost = self.read().await?.since(&before);
        Ok(json!({ "changes": total, "secondsAfterTheLast": seconds(between(end, current)), "cost": cost }))
    }

    /// SIGKILL, a change meanwhile, and a new start.
    pub(super) async fn kill(&mut self, victim: Victim) -> Result<Value> {
        say(&format!("killing {victim:?}"));
        let name = format!("after-{victim:?}").to_lowercase();
        self.stage.expect(key(&name)?).await?;
        let before = self.read().await?;
        let installation = &mut self.stage.installation;
        match victim {
            Victim::Nats => installation.cluster.nats.kill()?,
            Victim::Controller => installation.controller.process.kill()?,
        }
        self.stage.deploy(&name).await?;
        let installation = &mut self.stage.installation;
        let start = now();
        match victim {
            Victim::Nats => installation.cluster.nats.start_again().await?,
            Victim::Controller => installation.controller.process.start_again()?,
        }
        let arrivals = self.stage.until_arrived(LIMIT).await?;
        self.stage.intents += 1;
        let current = self.stage.until_current(LIMIT).await?;
        let cost = self.read().await?.since(&before);
        Ok(json!({
            "secondsUntilLast": seconds(between(start, arrivals.last)),
            "secondsUntilCurrent": seconds(between(start, current.max(arrivals.last))), "cost": cost,
        }))
    }

    /// Everything together.
    pub(super) async fn end(&mut self) -> Result<Value> {
        let requests = meter::requests(&self.stage.installation)?;
        Ok(json!({
            "requests": requests, "megabytes": self.memory()?, "effects": self.stage.glance().await?.effects,
        }))
    }
}
