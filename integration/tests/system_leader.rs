//! Two controllers: one writes, and the other goes on.
//!
//! Shows: both are ready and one leads; a clean stop hands over within two seconds, SIGKILL within the lease time; work goes
//! on under the next term and the epoch stays; who was stopped past its lease writes nothing when it goes on, follows, and
//! can lead again; a Lease that is deleted under the leader changes nothing that matters.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::http::Http;
use integration::image::Published;
use integration::installation::{Installation, InstallationSpec, LEASE as NAME, Member, NAMESPACE};
use integration::run::scenario;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(200);
const SOON: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(20);

/// What the issue asks of a clean stop.
const CLEAN: Duration = Duration::from_secs(2);
/// A short lease, and who waits for it looks often.
const LEASE: Duration = Duration::from_secs(4);

fn two_controllers() -> InstallationSpec {
    let leader = json!({ "leaseDuration": "4s", "renewDeadline": "3s", "retryPeriod": "500ms" });
    InstallationSpec::two_nodes().controllers(2).controller(json!({ "leader": leader }))
}

/// Both controllers, by who leads.
struct Pair {
    leader: usize,
    term: u64,
}

fn member(installation: &Installation, number: usize) -> &Member {
    if number == 0 { &installation.controller } else { &installation.others[number - 1] }
}

fn member_mut(installation: &mut Installation, number: usize) -> &mut Member {
    if number == 0 { &mut installation.controller } else { &mut installation.others[number - 1] }
}

fn pod(number: usize) -> String {
    format!("warm-images-controller-{number}")
}

/// What `/readyz` says of one that is ready.
async fn standing(installation: &Installation, number: usize) -> Result<String> {
    let body = Http::new().get(&format!("{}/readyz", member(installation, number).admin())).await?.success()?;
    Ok(String::from_utf8_lossy(&body).trim().to_owned())
}

async fn term_of(installation: &Installation, number: usize) -> Result<u64> {
    let text = standing(installation, number).await?;
    let term = text.strip_prefix("leads term ").with_context(|| format!("{} {text}", pod(number)))?;
    Ok(term.parse()?)
}

/// Waits until one leads; the term.
async fn until_leads(installation: &Installation, number: usize, limit: Duration) -> Result<u64> {
    eventually(format!("{} leads", pod(number)), limit, async || term_of(installation, number).await.map(Some)).await
}

async fn until_follows(installation: &Installation, number: usize, leader: usize) -> Result<()> {
    let expected = format!("follows {}", pod(leader));
    eventually(format!("{} {expected}", pod(number)), SOON, async || {
        let text = standing(installation, number).await?;
        if text == expected { Ok(()) } else { Err(anyhow!("it {text}")) }
    })
    .await
}

/// Waits until one leads and the other follows it.
async fn until_settled(installation: &Installation) -> Result<Pair> {
    eventually("one of them leads and the other follows it", SOON, async || {
        let said = [standing(installation, 0).await?, standing(installation, 1).await?];
        for leader in 0..2 {
            let term = said[leader].strip_prefix("leads term ");
            if let Some(term) = term.filter(|_| said[1 - leader] == format!("follows {}", pod(leader))) {
                return Ok(Some(Pair { leader, term: term.parse()? }));
            }
        }
        Err(anyhow!("{said:?}"))
    })
    .await
}

async fn meta(installation: &Installation) -> Result<Value> {
    installation.kv("intents", "_meta").await
}

/// A change is carried out to the labels of both nodes.
async fn works(installation: &Installation, name: &str) -> Result<Published> {
    let image = installation.deploy_new(name).await?;
    installation.until_warm(&["node-a", "node-b"], &image).await?;
    Ok(image)
}

#[test]
fn a_clean_stop_hands_over_within_two_seconds_and_a_kill_within_the_lease_time() -> Result<()> {
    scenario("handover", LIMIT, async |run| {
        let mut installation = Installation::start(&run, two_controllers()).await?;
        let Pair { leader, term } = until_settled(&installation).await?;
        let epoch = meta(&installation).await?["epoch"].clone();
        ensure!(term == 1, "two controllers that start together take one term, not {term}");
        let before = works(&installation, "before").await?;

        let start = Instant::now();
        let (stopped, took_over) = {
            let (old, new) = (leader, 1 - leader);
            let url = format!("{}/readyz", member(&installation, new).admin());
            let old = member_mut(&mut installation, old);
            let http = Http::new();
            tokio::join!(old.process.terminate(STOP), async {
                let leads = async || {
                    let body = http.get(&url).await?.success()?;
                    let text = String::from_utf8_lossy(&body).into_owned();
                    if text.starts_with("leads") { Ok(Some(start.elapsed())) } else { Err(anyhow!("{text}")) }
                };
                eventually("the other leads after a clean stop", SOON, leads).await
            })
        };
        let (stopped, took_over) = (stopped?, took_over?);
        println!("clean stop: the other leads after {took_over:?}");
        ensure!(stopped.success(), "{stopped}");
        ensure!(took_over < CLEAN, "{took_over:?}");
        let after = works(&installation, "after").await?;
        let now = meta(&installation).await?;
        ensure!(now["epoch"] == epoch && now["term"] == 2, "{now}");

        // Both again; now the one that leads is killed.
        member_mut(&mut installation, leader).process.start_again()?;
        installation.until_ready().await?;
        let Pair { leader, term } = until_settled(&installation).await?;
        ensure!(term == 2, "a follower that comes back leaves the leader alone: {term}");
        let start = Instant::now();
        member_mut(&mut installation, leader).process.kill()?;
        until_leads(&installation, 1 - leader, SOON).await?;
        let took_over = start.elapsed();
        println!("SIGKILL: the other leads after {took_over:?}, the lease is {LEASE:?}");
        ensure!(took_over < LEASE + CLEAN, "{took_over:?}");
        let killed = works(&installation, "killed").await?;
        installation.pulled_once(&["node-a", "node-b"], &[&before, &after, &killed])
    })
}

/// What would show a write: the last sequence of the intents bucket, and the version of each Node.
async fn traces(installation: &Installation) -> Result<(Value, Vec<Option<String>>)> {
    let info = installation.nats(&["stream", "info", "KV_warm-default-intents", "--json"]).await?;
    let info: Value = serde_json::from_str(&info).context("stream info")?;
    let mut versions = Vec::new();
    for node in ["node-a", "node-b"] {
        versions.push(installation.cluster.node_objects().get(node).await?.metadata.resource_version);
    }
    Ok((info["state"]["last_seq"].clone(), versions))
}

#[test]
fn a_leader_that_was_stopped_past_its_lease_writes_nothing_follows_and_can_lead_again() -> Result<()> {
    scenario("stopped", LIMIT, async |run| {
        let mut installation = Installation::start(&run, two_controllers()).await?;
        let Pair { leader, .. } = until_settled(&installation).await?;
        let other = 1 - leader;
        let before = works(&installation, "before").await?;

        // It has work under way, and more comes while it is stopped.
        let early = installation.deploy_new("early").await?;
        member(&installation, leader).process.pause()?;
        let start = Instant::now();
        until_leads(&installation, other, SOON).await?;
        println!("SIGSTOP: the other leads after {:?}, the lease is {LEASE:?}", start.elapsed());
        installation.until_warm(&["node-a", "node-b"], &early).await?;
        let meanwhile = works(&installation, "meanwhile").await?;
        installation.undeploy("default", "before").await?;
        installation.until_unlabelled("node-a", &before.by_tag(REGISTRY)).await?;
        installation.until_unlabelled("node-b", &before.by_tag(REGISTRY)).await?;

        let shown = traces(&installation).await?;
        member(&installation, leader).process.resume()?;
        until_follows(&installation, leader, other).await?;
        let now = traces(&installation).await?;
        ensure!(now == shown, "somebody wrote: {shown:?}, then {now:?}");
        let sentinel = works(&installation, "sentinel").await?;
        for id in installation.kv_keys("intents").await?.iter().filter(|key| key.contains(".i.")) {
            let intent = installation.kv("intents", id).await?;
            let image = intent["image"].as_str().unwrap_or_default();
            ensure!(image.contains("early") || intent["term"] == 2, "the old leader wrote {intent}");
        }
        ensure!(installation.image_label("node-a", &before.by_tag(REGISTRY)).await?.is_none(), "labelled again");

        // It goes on when it is its turn.
        member_mut(&mut installation, other).process.terminate(STOP).await?;
        ensure!(until_leads(&installation, leader, SOON).await? == 3);
        let again = works(&installation, "again").await?;
        installation.pulled_once(&["node-a", "node-b"], &[&early, &meanwhile, &sentinel, &again])
    })
}

#[test]
fn a_lease_that_is_deleted_under_the_leader_leaves_one_leader_and_the_epoch() -> Result<()> {
    scenario("deleted", LIMIT, async |run| {
        let installation = Installation::start(&run, two_controllers()).await?;
        until_settled(&installation).await?;
        let epoch = meta(&installation).await?["epoch"].clone();
        let leases: Api<Lease> = Api::namespaced(installation.cluster.client(), NAMESPACE);
        for round in 0..3 {
            let before = leases.get(NAME).await?.metadata.uid;
            leases.delete(NAME, &DeleteParams::default()).await?;
            eventually("there is a Lease again", SOON, async || {
                let there = leases.get_opt(NAME).await?;
                Ok::<_, anyhow::Error>(there.is_some_and(|lease| lease.metadata.uid != before))
            })
            .await?;
            until_settled(&installation).await?;
            works(&installation, &format!("round-{round}")).await?;
        }
        ensure!(meta(&installation).await?["epoch"] == epoch, "the epoch is another");
        Ok(())
    })
}
