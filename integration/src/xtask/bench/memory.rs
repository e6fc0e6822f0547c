//! `bench memory`: what many Pods cost the controller (P5).
//!
//! Owns the measuring: Pods of 8 kB in the real API server, a controller that begins with them, and what the kernel says of
//! its memory at the peak of its first lists and after it.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};

use super::Run;
use crate::installation::{Installation, InstallationSpec};
use crate::node::NodeSpec;
use crate::xtask::say;

/// Bytes of a Pod as the API server shows it, about.
const SIZE: usize = 8_000;
/// Requests at once.
const AT_ONCE: usize = 32;
/// One Pod of so many shows an injected image.
const INJECTED: usize = 10;

/// Until the first lists of so many Pods have ended, at the latest.
const LISTED: Duration = Duration::from_mins(10);

/// How much to measure.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Pods.
    #[arg(long, default_value_t = 200_000)]
    pods: usize,
    /// Workloads that they belong to.
    #[arg(long, default_value_t = 2_000)]
    workloads: usize,
    /// `discover.pods`.
    #[arg(long, default_value = "all", value_parser = ["all", "unowned"])]
    mode: String,
    /// How long the controller rests before its steady memory is read.
    #[arg(long, default_value = "60s", value_parser = shared::duration::parse)]
    rest: Duration,
    /// The programs as the tests have them: no release build is made.
    #[arg(long)]
    test_programs: bool,
}

pub(super) async fn run(run: &Run, args: &Args) -> Result<()> {
    ensure!(args.workloads > 0 && args.pods >= args.workloads, "--pods must be --workloads or more, and those above 0");
    let mut spec = InstallationSpec::new(vec![NodeSpec::new("node-a")])
        .controller(json!({ "discover": { "pods": args.mode } }))
        .with_default_timings();
    if !args.test_programs {
        spec = spec.with_release_programs();
    }
    let mut installation = Installation::start(run, spec).await?;
    // Nobody is to pull what is not in the registry.
    installation.create_namespace("bench", &[("warm-images.dev/warm", "false")]).await?;
    let empty = memory(&installation)?;
    let client = installation.cluster.client();
    let account: ServiceAccount = serde_json::from_value(json!({ "metadata": { "name": "default" } }))?;
    Api::namespaced(client.clone(), "bench").create(&PostParams::default(), &account).await.context("account")?;
    let created = Instant::now();
    let owners = create_owners(&client, args.workloads).await?;
    let size = create_pods(&client, args.pods, &owners).await?;
    say(&format!("{} Pods of {size} bytes created in {:.0?}", args.pods, created.elapsed()));

    let raw = Instant::now();
    raw_list(&client).await?;
    let raw = raw.elapsed();
    let begun = Instant::now();
    installation.controller.process.restart()?;
    installation.until_controller_ready_within(LISTED).await?;
    let ready = begun.elapsed();
    let peak = memory(&installation)?;
    tokio::time::sleep(args.rest).await;
    let steady = memory(&installation)?;
    print(args, size, ready, raw, [empty, peak, steady])
}

/// One `ReplicaSet` a workload; its name and UID.
async fn create_owners(client: &Client, n: usize) -> Result<Vec<(String, String)>> {
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), "bench");
    let create = async |index: usize| {
        let name = format!("workload-{index:05}");
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "replicas": 0, "selector": { "matchLabels": { "app": name } }, "template": {
                "metadata": { "labels": { "app": name } }, "spec": { "containers": [container("app", index)] } } },
        }))?;
        let uid = sets.create(&PostParams::default(), &set).await?.metadata.uid.context("no UID")?;
        anyhow::Ok((name, uid))
    };
    stream::iter(0..n).map(create).buffered(AT_ONCE).try_collect().await
}

fn container(name: &str, workload: usize) -> Value {
    json!({ "name": name, "image": format!("registry.example/team/{name}:{workload}") })
}

/// Creates the Pods; the bytes of one as the API server shows it.
async fn create_pods(client: &Client, n: usize, owners: &[(String, String)]) -> Result<usize> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "bench");
    let create = async |index: usize| {
        let workload = index % owners.len();
        let (owner, uid) = owners.get(workload).context("no owner")?;
        let mut containers = vec![container("app", workload)];
        containers.extend(index.is_multiple_of(INJECTED).then(|| container("sidecar", 0)));
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": format!("{owner}-{index:06}"),
                "labels": { "app": owner },
                "annotations": { "example.com/padding": "x".repeat(SIZE - 2_300) },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": uid,
                    "controller": true, "blockOwnerDeletion": true }],
            },
            "spec": { "nodeName": format!("node-{}", index % 5_000), "containers": containers,
                "automountServiceAccountToken": false,
                "tolerations": [{ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute" }] },
        }))?;
        let created = pods.create(&PostParams::default(), &pod).await?;
        if index.is_multiple_of(10_000) {
            say(&format!("{index} of {n} Pods"));
            return Ok(serde_json::to_vec(&created)?.len());
        }
        anyhow::Ok(0)
    };
    let sizes: Vec<usize> = stream::iter(0..n).map(create).buffer_unordered(AT_ONCE).try_collect().await?;
    sizes.into_iter().max().context("no Pod")
}

/// A page, of which only what follows matters.
#[derive(serde::Deserialize)]
struct Page {
    metadata: kube::core::ListMeta,
}

/// The least that any controller could need: the bytes of every page, thrown away.
async fn raw_list(client: &Client) -> Result<()> {
    let mut next = String::new();
    loop {
        let params = ListParams {
            limit: Some(500),
            continue_token: Some(next).filter(|t| !t.is_empty()),
            ..ListParams::default()
        };
        let request = kube::core::Request::new("/api/v1/pods").list(&params)?;
        let text = client.request_text(request).await?;
        let page: Page = serde_json::from_str(&text)?;
        next = page.metadata.continue_.unwrap_or_default();
        if next.is_empty() {
            return Ok(());
        }
    }
}

/// What the kernel says of the controller.
#[derive(Clone, Copy)]
struct Memory {
    peak: f64,
    now: f64,
}

fn memory(installation: &Installation) -> Result<Memory> {
    let id = installation.controller.process.id().context("the controller does not run")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib: f64 = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN);
        kib / 1_024.0
    };
    Ok(Memory { peak: field("VmHWM:"), now: field("VmRSS:") })
}

fn print(args: &Args, size: usize, ready: Duration, raw: Duration, [empty, peak, steady]: [Memory; 3]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let round = |value: f64| (value * 10.0).round() / 10.0;
    writeln!(out, "\n{} Pods of {size} bytes, {} workloads, discover.pods: {}", args.pods, args.workloads, args.mode)?;
    writeln!(out, "before any Pod            {:>8.1} MiB", empty.now)?;
    writeln!(out, "peak of the first lists   {:>8.1} MiB   target <= 300", peak.peak)?;
    writeln!(out, "steady after {:<12.0?} {:>8.1} MiB", args.rest, steady.now)?;
    writeln!(out, "start to ready            {:>8.1} s", ready.as_secs_f64())?;
    writeln!(out, "the bytes alone           {:>8.1} s", raw.as_secs_f64())?;
    let line = json!({
        "bench": "memory", "pods": args.pods, "bytes": size, "workloads": args.workloads, "mode": args.mode,
        "empty_mib": round(empty.now), "peak_mib": round(peak.peak), "steady_mib": round(steady.now),
        "ready_s": round(ready.as_secs_f64()), "raw_list_s": round(raw.as_secs_f64()),
    });
    writeln!(out, "{line}")?;
    Ok(())
}
