//! The container runtime is slow, errs, hangs, lies and dies.
//!
//! Shows: slow answers delay and nothing piles up; a list that fails, or breaks off, takes nothing away; a pull that hangs
//! meets its deadline, is tried again, and holds up no other image beyond its own place; an image that the runtime says is
//! absent is evicted, one that it says is there is warm, one under another digest than the wanted is not, and each is right
//! again one report after the lie ends; a containerd that is killed idle, while it lists and in the middle of a pull is
//! waited for, and everything is warm without a restart of the agent.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::{Image, Published};
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::proxy::cri::fault::{CriFault, CriRule};
use integration::proxy::cri::lie::{Held, Lie};
use integration::proxy::fault::{Fault, Rule};
use integration::run::scenario;
use integration::witness::Witness;
use serde_json::json;
use tonic::Code;

const LIMIT: Duration = Duration::from_mins(5);
const SOON: Duration = Duration::from_secs(30);
const NODE: &str = "node-a";

fn spec() -> InstallationSpec {
    InstallationSpec::new(vec![NodeSpec::new(NODE)]).intercept_runtime(NODE)
}

fn unavailable() -> CriFault {
    CriFault::Status(Code::Unavailable, "the store is locked".to_owned())
}

/// So many more calls of `method` have come, faulty ones included: time enough for a wrong conclusion.
async fn more_calls(installation: &Installation, method: &str, more: usize) -> Result<()> {
    let runtime = installation.runtime(NODE)?;
    let before = runtime.count(method);
    eventually(format!("{more} more calls of {method}"), SOON, async || runtime.count(method) >= before + more).await
}

/// Never more than so many calls of `method` at one moment.
fn at_most_at_once(installation: &Installation, method: &str, most: usize) -> Result<()> {
    let log = installation.runtime(NODE)?.log();
    let at_once = log.most_at_once(|call| call.path == method);
    ensure!(at_once <= most, "{at_once} calls of {method} at once:\n{}", log.show());
    Ok(())
}

#[test]
fn slow_answers_delay_and_nothing_piles_up() -> Result<()> {
    scenario("runtime-slow", LIMIT, async |run| {
        // Answers take longer than the time between two looks, and then longer than the agent waits.
        let config = json!({ "runtime": { "requestTimeout": "1s" }, "pull": { "maxInFlight": 2 } });
        let installation = Installation::start(&run, spec().agent(config)).await?;
        let runtime = installation.runtime(NODE)?;
        for method in ["ListImages", "ImageStatus", "PullImage", "Version", "ImageFsInfo"] {
            runtime.add(CriRule::new(method, CriFault::Delay(Duration::from_millis(700))));
        }
        let mut images = Vec::new();
        for name in ["one", "two", "three"] {
            images.push(installation.deploy_new(name).await?);
        }
        for image in &images {
            installation.until_warm(&[NODE], image).await?;
        }
        runtime.heal();

        let witness = Witness::start(installation.cluster.client()).await?;
        runtime.add(CriRule::new("ListImages", CriFault::Delay(Duration::from_secs(30))));
        more_calls(&installation, "ListImages", 3).await?;
        let late = installation.deploy_new("late").await?;
        installation.until_state(NODE, &late.by_tag(REGISTRY), "deferred", Some("runtime-unavailable")).await?;
        runtime.heal();
        installation.until_warm(&[NODE], &late).await?;
        let all: Vec<&Published> = images.iter().collect();
        witness.none_lost(&[NODE], &all).await?;
        at_most_at_once(&installation, "ListImages", 1)?;
        at_most_at_once(&installation, "PullImage", 2)?;
        installation.pulled_once(&[NODE], &[all, vec![&late]].concat())
    })
}

#[test]
fn a_list_that_fails_takes_nothing_away() -> Result<()> {
    scenario("runtime-list", LIMIT, async |run| {
        let installation = Installation::start(&run, spec()).await?;
        let runtime = installation.runtime(NODE)?;
        let there = installation.deploy_new("there").await?;
        installation.until_warm(&[NODE], &there).await?;
        let witness = Witness::start(installation.cluster.client()).await?;
        for (name, fault) in [
            ("unavailable", unavailable()),
            ("unknown", CriFault::Status(Code::Unknown, "metadata store: i/o error".to_owned())),
            ("broken", CriFault::TruncateAfter(20)),
            ("silent", CriFault::TruncateAfter(0)),
        ] {
            let rule = runtime.add(CriRule::new("ListImages", fault));
            more_calls(&installation, "ListImages", 2).await?;
            // What is wanted meanwhile waits for the runtime; it is no image's fault.
            let image = installation.deploy_new(name).await?;
            installation.until_state(NODE, &image.by_tag(REGISTRY), "deferred", Some("runtime-unavailable")).await?;
            runtime.remove(rule);
            installation.until_warm(&[NODE], &image).await?;
        }
        witness.none_lost(&[NODE], &[&there]).await?;
        let state = installation.row(NODE, &there.by_tag(REGISTRY)).await?;
        ensure!(state.as_ref().and_then(|row| row.state.as_deref()) == Some("warm"), "{state:?}");
        installation.pulled_once(&[NODE], &[&there])
    })
}

#[test]
fn a_pull_that_hangs_meets_its_deadline_and_holds_up_no_other() -> Result<()> {
    scenario("runtime-hang", LIMIT, async |run| {
        let config = json!({ "timing": { "pullDeadline": "3s" }, "pull": { "maxInFlight": 2 } });
        let installation = Installation::start(&run, spec().agent(config)).await?;
        let runtime = installation.runtime(NODE)?;
        let registry = &installation.cluster.registry;
        let hanging = registry.push(&Image::new("team/hanging", "1").layer(1_000)).await?;
        let name = hanging.by_tag(REGISTRY);
        runtime.add(CriRule::new("PullImage", CriFault::Hang).image(&name));
        installation.deploy("hanging", &[&name]).await?;
        let pulls = || runtime.log().select(|call| call.path == "PullImage" && call.query == name);
        eventually("the pull hangs", SOON, async || pulls().len() == 1).await?;
        for other in ["one", "two", "three", "four"] {
            let image = installation.deploy_new(other).await?;
            installation.until_warm(&[NODE], &image).await?;
        }
        installation.until_state(NODE, &name, "failed", Some("deadline-exceeded")).await?;
        eventually("it is tried again", SOON, async || pulls().len() >= 3).await?;
        // The runtime is told that nobody waits any more.
        let over = pulls().into_iter().filter_map(|call| call.took).max().unwrap_or_default();
        ensure!(over >= Duration::from_secs(3) && over < Duration::from_secs(6), "given up after {over:?}");
        at_most_at_once(&installation, "PullImage", 2)?;
        runtime.heal();
        installation.until_warm(&[NODE], &hanging).await?;
        installation.pulled_once(&[NODE], &[&hanging])
    })
}

#[test]
fn a_lie_about_presence_is_believed_until_the_next_report() -> Result<()> {
    scenario("runtime-lies", LIMIT, async |run| {
        let installation = Installation::start(&run, spec()).await?;
        let runtime = installation.runtime(NODE)?;
        let image = installation.deploy_new("absent").await?;
        let name = image.by_tag(REGISTRY);
        installation.until_warm(&[NODE], &image).await?;
        let events = installation.listen("warm.v1.default.node.node-a.ev.evicted")?;
        eventually("somebody listens", SOON, async || events.log_text().contains("Subscribing")).await?;

        // Absent though present: evicted, unlabelled, pulled again; and a pull that leaves nothing is no success.
        let pulls = runtime.count("PullImage");
        runtime.add(CriRule::lie(Lie::Absent(name.clone())));
        installation.until_unlabelled(NODE, &name).await?;
        eventually("the event is printed", SOON, async || events.log_text().contains("\"st\":\"evicted\"")).await?;
        eventually("it is pulled again", SOON, async || runtime.count("PullImage") > pulls).await?;
        installation.until_state(NODE, &name, "failed", Some("unknown")).await?;
        runtime.heal();
        installation.until_warm(&[NODE], &image).await?;

        // Present though never pulled: warm means that the runtime said so. Nothing is pulled before it takes it back.
        let made = installation.cluster.registry.push(&Image::new("team/made", "1").layer(1_000)).await?;
        let held = Held { tag: made.by_tag(REGISTRY), digest: made.by_digest(REGISTRY) };
        runtime.add(CriRule::lie(Lie::Present(held)));
        // The agent has been told before it learns that the image is wanted.
        more_calls(&installation, "ListImages", 2).await?;
        installation.deploy("made", &[&made.by_tag(REGISTRY)]).await?;
        installation.until_warm(&[NODE], &made).await?;
        ensure!(installation.reads(NODE, "team/made") == 0, "{}", installation.cluster.requests.show());
        let witness = Witness::start(installation.cluster.client()).await?;
        runtime.heal();
        eventually("it is pulled", SOON, async || installation.blob_reads(NODE, "team/made") > 0).await?;
        installation.until_state(NODE, &made.by_tag(REGISTRY), "warm", None).await?;
        installation.until_warm(&[NODE], &made).await?;
        let versions = witness.versions(NODE).await?;
        ensure!(versions.len() <= 2, "one label goes and comes once: {versions:?}");
        witness.none_lost(&[NODE], &[&image]).await
    })
}

#[test]
fn another_digest_than_the_wanted_one_is_never_warm() -> Result<()> {
    scenario("runtime-digest", LIMIT, async |run| {
        let installation = Installation::start(&run, spec()).await?;
        let runtime = installation.runtime(NODE)?;
        let wrong = format!("sha256:{}", "5".repeat(64));

        // The digest that a workload names is the wanted one.
        let image = installation.cluster.registry.push(&Image::new("team/named", "1").layer(1_000)).await?;
        let named = image.by_digest(REGISTRY);
        installation.deploy("named", &[&named]).await?;
        installation.until_labelled(NODE, &named, &image.digest).await?;
        let rule = runtime.add(CriRule::lie(Lie::Digest(named.clone(), wrong.clone())));
        installation.until_unlabelled(NODE, &named).await?;
        let witness = Witness::start(installation.cluster.client()).await?;
        more_calls(&installation, "PullImage", 2).await?;
        more_calls(&installation, "ListImages", 2).await?;
        ensure!(witness.versions(NODE).await?.iter().all(BTreeMap::is_empty), "labelled");
        runtime.remove(rule);
        installation.until_labelled(NODE, &named, &image.digest).await?;

        // A tag has no digest of its own: the label tells the one that the runtime tells, and follows it.
        let tagged = installation.deploy_new("tagged").await?;
        installation.until_warm(&[NODE], &tagged).await?;
        let rule = runtime.add(CriRule::lie(Lie::Digest(tagged.by_tag(REGISTRY), wrong.clone())));
        installation.until_labelled(NODE, &tagged.by_tag(REGISTRY), &wrong).await?;
        runtime.remove(rule);
        installation.until_warm(&[NODE], &tagged).await?;
        installation.pulled_once(&[NODE], &[&image, &tagged])
    })
}

#[test]
fn a_containerd_that_is_killed_is_waited_for() -> Result<()> {
    scenario("runtime-killed", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::new(vec![NodeSpec::new(NODE)])).await?;
        let there = installation.deploy_new("there").await?;
        installation.until_warm(&[NODE], &there).await?;
        let witness = Witness::start(installation.cluster.client()).await?;
        let agent = installation.agent(NODE)?.process.id();

        // Idle.
        installation.cluster.node_mut(NODE)?.containerd.process().kill()?;
        let during = installation.deploy_new("during").await?;
        installation.until_state(NODE, &during.by_tag(REGISTRY), "deferred", Some("runtime-unavailable")).await?;
        start(&mut installation).await?;
        installation.until_warm(&[NODE], &during).await?;

        // In the middle of a pull: the registry has sent a part of the layer.
        let big = installation.cluster.registry.push(&Image::new("team/big", "1").layer(400_000)).await?;
        let registry = &installation.cluster.node(NODE)?.registry;
        registry.add(Rule::new("^/v2/team/big/blobs/", Fault::StallAfter(50_000))?);
        installation.deploy("big", &[&big.by_tag(REGISTRY)]).await?;
        let reading = |requests: &integration::proxy::log::RequestLog| {
            requests.count(|request| request.is_of("team/big") && request.is_blob() && request.took.is_none()) > 0
        };
        eventually("the download stalls", SOON, async || reading(&installation.cluster.requests)).await?;
        installation.cluster.node_mut(NODE)?.containerd.process().kill()?;
        installation.until_state(NODE, &big.by_tag(REGISTRY), "deferred", Some("runtime-unavailable")).await?;
        installation.cluster.node(NODE)?.registry.heal();
        start(&mut installation).await?;
        installation.until_warm(&[NODE], &big).await?;

        witness.none_lost(&[NODE], &[&there]).await?;
        ensure!(installation.agent(NODE)?.process.id() == agent, "the agent was restarted");
        let restarts = installation.metric(&installation.agents[NODE].admin(), "warm_pulls_total", "unknown").await?;
        ensure!(restarts.abs() < f64::EPSILON, "a dead runtime was taken for an image's fault");
        installation.pulled_once(&[NODE], &[&there, &during])
    })
}

async fn start(installation: &mut Installation) -> Result<()> {
    let containerd = &mut installation.cluster.node_mut(NODE)?.containerd;
    containerd.process().start_again()?;
    containerd.until_ready().await
}

#[test]
fn a_containerd_that_is_killed_while_it_lists_proves_nothing() -> Result<()> {
    scenario("runtime-killed-list", LIMIT, async |run| {
        let mut installation = Installation::start(&run, spec()).await?;
        let there = installation.deploy_new("there").await?;
        installation.until_warm(&[NODE], &there).await?;
        let witness = Witness::start(installation.cluster.client()).await?;
        for _ in 0..3 {
            let runtime = installation.runtime(NODE)?;
            let rule = runtime.add(CriRule::new("ListImages", CriFault::Hang));
            let listing = async || runtime.log().count(|call| call.path == "ListImages" && call.took.is_none()) > 0;
            eventually("a list is under way", SOON, listing).await?;
            let lists = runtime.count("ListImages");
            installation.cluster.node_mut(NODE)?.containerd.process().kill()?;
            let runtime = installation.runtime(NODE)?;
            runtime.remove(rule);
            start(&mut installation).await?;
            let runtime = installation.runtime(NODE)?;
            eventually("it lists again", SOON, async || runtime.count("ListImages") > lists).await?;
        }
        let sentinel = installation.deploy_new("sentinel").await?;
        installation.until_warm(&[NODE], &sentinel).await?;
        witness.none_lost(&[NODE], &[&there]).await?;
        at_most_at_once(&installation, "ListImages", 1)?;
        installation.pulled_once(&[NODE], &[&there, &sentinel])
    })
}
