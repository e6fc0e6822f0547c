//! A whole fleet of agents that logs in at once by the tokens of its Pods (nothing spreads it). Owns the Pods, the tokens and
//! the logins; what is measured or required of it is for the benchmark and the test.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use async_nats::{Client, ConnectOptions};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::sync::Barrier;

use super::Installation;
use super::identity::{AGENT_ACCOUNT, AUDIENCE, AgentPods, pod_of};

/// Requests to the API server at once, before the fleet comes.
const MAKING: usize = 32;
/// As the agents' own: above the server's `authorization.timeout`.
const ATTEMPT: Duration = Duration::from_secs(35);
const META: &str = r#"{"last_by_subj":"$KV.warm-default-intents._meta"}"#;
const LIMIT: Duration = Duration::from_mins(5);

/// How it went. The connections stay until this is dropped.
pub struct Storm {
    /// From the first login to the last that was let in.
    pub took: Duration,
    /// How long each took, from its first attempt until an answer came over NATS.
    pub each: Vec<Duration>,
    /// Attempts of all together.
    pub attempts: u64,
    _connected: Vec<Client>,
}

/// Nodes of so many agents, each with the token of its Pod.
pub async fn fleet(installation: &Installation, agents: usize) -> Result<Vec<(String, String)>> {
    let pods = AgentPods::new(installation.cluster.client());
    stream::iter(0..agents).map(|n| member(&pods, n)).buffer_unordered(MAKING).try_collect().await
}

/// All of them at the same instant, without any jitter; who is refused tries again within two seconds.
pub async fn storm(installation: &Installation, fleet: Vec<(String, String)>) -> Result<Storm> {
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
    let (mut each, mut attempts, mut connected) = (Vec::new(), 0, Vec::new());
    for task in tasks {
        let (client, took, tries) = tokio::time::timeout(LIMIT, task).await.context("a login that never ends")???;
        each.push(took);
        attempts += tries;
        connected.push(client);
    }
    Ok(Storm { took: start.elapsed(), each, attempts, _connected: connected })
}

/// The Pod of one more agent: its node, and its token.
async fn member(pods: &AgentPods, number: usize) -> Result<(String, String)> {
    let node = format!("node-{number}");
    let uid = pods.create(&pod_of(&node), AGENT_ACCOUNT, &node).await?;
    let token = pods.token(&pod_of(&node), &uid, AGENT_ACCOUNT, AUDIENCE).await?;
    Ok((node, token))
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
