//! Two controllers: one writes, and the other goes on.
//!
//! Shows: both are ready and one leads; a clean stop hands over within two seconds, SIGKILL within the lease time; work goes
//! on under the next term and the epoch stays; who was stopped past its lease writes nothing when it goes on, follows, and
//! can lead again; a Lease that is deleted under the leader changes nothing that matters.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use integration::eventually::eventually;
use integration::http::Http;
use integration::image::Published;
use integration::installation::{Installation, InstallationSpec, Member};
use integration::run::scenario;
use serde_json::{Value, json};
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(200);
const SOON: Duration = Duration::from_secs(30);

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

/// Starts, and waits until one leads and the other follows it.
async fn until_settled(installation: &Installation) -> Result<Pair> {
    let leader = eventually("one of them leads", SOON, async || {
        for number in 0..2 {
            if term_of(installation, number).await.is_ok() {
                return Ok(Some(number));
            }
        }
        Err(anyhow!("{} and {}", standing(installation, 0).await?, standing(installation, 1).await?))
    })
    .await?;
    until_follows(installation, 1 - leader, leader).await?;
    Ok(Pair { leader, term: term_of(installation, leader).await? })
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
        let stop = Duration::from_secs(20);
        let (stopped, took_over) = {
            let (old, new) = (leader, 1 - leader);
            let url = format!("{}/readyz", member(&installation, new).admin());
            let old = member_mut(&mut installation, old);
            let http = Http::new();
            tokio::join!(old.process.terminate(stop), async {
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
