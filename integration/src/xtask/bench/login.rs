//! `bench login`: a whole fleet of agents logs in at once by the tokens of its Pods (`../reference/nats.md` section 2.5).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_nats::ConnectOptions;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::json;
use tokio::sync::Barrier;

use super::{Measured, Run, Sample, print};
use crate::installation::identity::{AGENT_ACCOUNT, AUDIENCE, AgentPods, pod_of};
use crate::installation::{Installation, InstallationSpec};
use crate::run::said;

const LOGINS: &str = "warm_logins_total";
/// Requests to the API server at once, before the fleet comes.
const MAKING: usize = 32;
/// As the agents' own: above the server's `authorization.timeout`.
const ATTEMPT: Duration = Duration::from_secs(35);
const META: &str = r#"{"last_by_subj":"$KV.warm-default-intents._meta"}"#;
const LIMIT: Duration = Duration::from_mins(5);

/// How much to measure.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Agents that log in at once.
    #[arg(long, default_value_t = 5_000)]
    agents: usize,
    /// Controllers.
    #[arg(long, default_value_t = 2)]
    controllers: usize,
    /// Measure debug builds of the programs.
    #[arg(long)]
    debug: bool,
}

pub(super) async fn run(run: &Run, args: &Args) -> Result<()> {
    let spec = InstallationSpec::new(Vec::new()).controllers(args.controllers).with_callout().with_default_timings();
    let spec = if args.debug { spec } else { spec.with_release_programs() };
    let mut installation = Installation::start(run, spec).await?;
    let start = Instant::now();
    let pods = AgentPods::new(installation.cluster.client());
    let fleet: Vec<(String, String)> =
        stream::iter(0..args.agents).map(|n| member(&pods, n)).buffer_unordered(MAKING).try_collect().await?;
    said(&format!("{} Pods with tokens after {:.1} s", fleet.len(), start.elapsed().as_secs_f64()));
    let mut sample = Sample::default();
    let (took, tries) = storm(&installation, fleet, &mut sample).await?;
    let granted = installation.over_controllers(LOGINS, "outcome=\"granted\"").await;
    let other = installation.over_controllers(LOGINS, "").await - granted;
    let bytes = installation.cluster.nats.process().resident_bytes()?;
    let mut each = Vec::new();
    for member in std::iter::once(&installation.controller).chain(&installation.others) {
        let count = installation.metric(&member.admin(), LOGINS, "outcome=\"granted\"").await?;
        each.push(json!({ "granted": count, "residentBytes": member.process.resident_bytes()? }));
    }
    let rows = [Measured { what: "login until let in", sample: &sample, over: None, target: "all of them" }];
    print("login", &rows)?;
    let sum = json!({
        "agents": args.agents, "seconds": took.as_secs_f64(), "attempts": tries, "granted": granted, "notGranted": other,
        "natsResidentBytes": bytes, "controllers": each,
    });
    said(&sum.to_string());
    ensure!(granted >= args.agents as f64, "fewer were let in than there are: {sum}");
    Ok(())
}

/// The Pod of one more agent: its node, and its token.
async fn member(pods: &AgentPods, number: usize) -> Result<(String, String)> {
    let node = format!("node-{number}");
    let uid = pods.create(&pod_of(&node), AGENT_ACCOUNT, &node).await?;
    let token = pods.token(&pod_of(&node), &uid, AGENT_ACCOUNT, AUDIENCE).await?;
    Ok((node, token))
}

/// All at the same instant, without any jitter; who is refused tries again within two seconds.
async fn storm(
    installation: &Installation,
    fleet: Vec<(String, String)>,
    sample: &mut Sample,
) -> Result<(Duration, u64)> {
    let barrier = Arc::new(Barrier::new(fleet.len() + 1));
    let url = installation.cluster.nats.url();
    let tasks: Vec<_> = fleet
        .into_iter()
        .map(|(node, token)| {
            let (barrier, url) = (Arc::clone(&barrier), url.clone());
            tokio::spawn(async move {
                barrier.wait().await;
                login(&url, &node, &token).await
            })
        })
        .collect();
    barrier.wait().await;
    let start = Instant::now();
    let mut tries = 0;
    let mut connected = Vec::new();
    for task in tasks {
        let (client, took, attempts) =
            tokio::time::timeout(LIMIT, task).await.context("a login that never ends")???;
        sample.add(took);
        tries += attempts;
        connected.push(client);
    }
    Ok((start.elapsed(), tries))
}

async fn login(url: &str, node: &str, token: &str) -> Result<(async_nats::Client, Duration, u64)> {
    let start = Instant::now();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let options = ConnectOptions::with_token(token.to_owned())
            .custom_inbox_prefix(format!("_WI.default.agent.{node}"))
            .request_timeout(Some(ATTEMPT))
            .connection_timeout(ATTEMPT);
        // Connected is who gets an answer: what an agent asks first.
        if let Ok(client) = options.connect(url).await
            && client.request("$JS.API.DIRECT.GET.KV_warm-default-intents", META.into()).await.is_ok()
        {
            return Ok((client, start.elapsed(), attempts));
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..2_000))).await;
    }
}
