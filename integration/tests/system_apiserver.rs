//! The Kubernetes API is away, forgets, refuses, or is silent.
//!
//! Shows: an API server killed and started while things change; a watch that cannot be taken up because etcd was compacted
//! while the controller was cut off (410); 429 with `Retry-After` and 500 on label patches, on the lists of a start and on
//! running watches; connections that died without a word: what was proven stays, nothing is retracted that is wanted, no
//! request is repeated in a storm, and everything that changed meanwhile is there in the end. "Not retracted" is read in
//! the bucket of intents: a retraction is a purge.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::http::Http;
use integration::image::{Image, Published};
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::process::Process;
use integration::proxy::fault::{Fault, Rule};
use integration::proxy::log::Request;
use integration::run::scenario;
use integration::witness::Witness;
use serde_json::json;

const LIMIT: Duration = Duration::from_mins(5);
const SOON: Duration = Duration::from_secs(40);
const STOP: Duration = Duration::from_secs(20);
const NODE: &str = "node-a";

fn spec() -> InstallationSpec {
    // Short, so that running watches are started again within the test.
    let config = json!({ "kube": { "watchTimeout": "2s" } });
    InstallationSpec::new(vec![NodeSpec::new(NODE)]).controller(config)
}

/// Everything that is written to the bucket of intents from now on.
struct Writes(Process);

impl Writes {
    async fn follow(installation: &Installation) -> Result<Self> {
        let process = installation.listen("$KV.warm-default-intents.>")?;
        eventually("somebody listens", SOON, async || process.log_text().contains("Subscribing")).await?;
        Ok(Self(process))
    }

    /// Fails unless so many intents were withdrawn.
    async fn purged(&self, wanted: usize) -> Result<()> {
        let purges = || self.0.log_text().matches("KV-Operation: PURGE").count();
        eventually(format!("{wanted} purges are printed"), SOON, async || purges() >= wanted).await?;
        ensure!(purges() == wanted, "{} purges in place of {wanted}:\n{}", purges(), self.0.log_text());
        Ok(())
    }
}

async fn warm(installation: &Installation, images: &[&Published]) -> Result<()> {
    for image in images {
        installation.until_warm(&[NODE], image).await?;
    }
    Ok(())
}

#[test]
fn an_api_server_killed_and_started_while_things_change() -> Result<()> {
    scenario("api-killed", LIMIT, async |run| {
        let mut installation = Installation::start(&run, spec()).await?;
        let (kept, evicted) = (installation.deploy_new("kept").await?, installation.deploy_new("evicted").await?);
        let withdrawn = installation.deploy_new("withdrawn").await?;
        warm(&installation, &[&kept, &evicted, &withdrawn]).await?;
        let writes = Writes::follow(&installation).await?;
        let controller = installation.controller.process.id();

        // Killed right after changes that nobody may have seen yet.
        let before = installation.deploy_new("before").await?;
        installation.undeploy("default", "withdrawn").await?;
        installation.cluster.api.server().kill()?;
        // The rest of the world goes on: an image vanishes while its label cannot be taken away, and comes back.
        installation.cluster.node(NODE)?.containerd.crictl().remove(&evicted.by_tag(REGISTRY)).await?;
        eventually("it is pulled again", SOON, async || installation.blob_reads(NODE, "team/evicted") >= 4).await?;
        installation.cluster.api.server().start_again()?;
        installation.cluster.api.until_ready().await?;
        let after = installation.deploy_new("after").await?;
        warm(&installation, &[&kept, &evicted, &before, &after]).await?;
        installation.until_unlabelled(NODE, &withdrawn.by_tag(REGISTRY)).await?;

        // Once more, idle.
        installation.cluster.api.restart().await?;
        let last = installation.deploy_new("last").await?;
        warm(&installation, &[&kept, &evicted, &before, &after, &last]).await?;
        writes.purged(1).await?;
        ensure!(installation.controller.process.id() == controller, "the controller was restarted");
        installation.pulled_once(&[NODE], &[&kept, &before, &after, &last, &withdrawn])
    })
}

#[test]
fn a_watch_that_cannot_be_taken_up_any_more_lists_again() -> Result<()> {
    scenario("api-compacted", LIMIT, async |run| {
        let mut installation = Installation::start(&run, spec().api_by_bytes()).await?;
        let (kept, withdrawn) = (installation.deploy_new("kept").await?, installation.deploy_new("withdrawn").await?);
        warm(&installation, &[&kept, &withdrawn]).await?;
        let writes = Writes::follow(&installation).await?;

        installation.api_connections()?.cut().await?;
        let mut during = Vec::new();
        for i in 0..10 {
            during.push(installation.deploy_new(&format!("during-{i}")).await?);
        }
        let never = installation.deploy_new("came-and-went").await?;
        installation.undeploy("default", "came-and-went").await?;
        installation.undeploy("default", "withdrawn").await?;
        installation.cluster.api.compact().await?;
        // With it goes the cache of the API server, which would remember longer than etcd.
        installation.cluster.api.restart().await?;
        installation.api_connections()?.heal().await?;

        let log = || installation.controller.process.log_text();
        eventually("a watch is refused with 410", SOON, async || log().contains("(410)")).await?;
        warm(&installation, &during.iter().collect::<Vec<_>>()).await?;
        warm(&installation, &[&kept]).await?;
        installation.until_unlabelled(NODE, &withdrawn.by_tag(REGISTRY)).await?;
        let sentinel = installation.deploy_new("sentinel").await?;
        warm(&installation, &[&sentinel]).await?;
        writes.purged(1).await?;
        ensure!(installation.reads(NODE, "team/came-and-went") == 0, "{} was pulled", never.repository);
        installation.pulled_once(&[NODE], &[&kept, &withdrawn])?;
        installation.pulled_once(&[NODE], &during.iter().collect::<Vec<_>>())
    })
}

/// Label patches so far.
fn patches(installation: &Installation) -> Result<Vec<Request>> {
    Ok(installation.api_requests()?.log().select(|request| request.method == "PATCH"))
}

#[test]
fn a_label_patch_that_is_refused_is_repeated_with_patience() -> Result<()> {
    scenario("api-patch", LIMIT, async |run| {
        let installation = Installation::start(&run, spec().api_by_requests()).await?;
        let proxy = installation.api_requests()?;
        let there = installation.deploy_new("there").await?;
        warm(&installation, &[&there]).await?;
        let witness = Witness::start(installation.cluster.client()).await?;
        let nodes = "^/api/v1/nodes/";

        // The API server says when to come back.
        let (before, asked) = (patches(&installation)?.len(), Duration::from_secs(3));
        let rule = Rule::new(nodes, Fault::status_with(429, "Retry-After", "3"))?.method(hyper::Method::PATCH);
        proxy.add(rule.times(1));
        let throttled = installation.deploy_new("throttled").await?;
        warm(&installation, &[&throttled]).await?;
        let sent: Vec<Instant> = patches(&installation)?.iter().skip(before).map(|patch| patch.at).collect();
        ensure!(sent.len() == 2, "{} patches for one refusal", sent.len());
        let waited = sent[1].duration_since(sent[0]);
        ensure!(waited >= asked && waited < asked * 3, "came back after {waited:?}");

        // It does not: 100 ms, 200 ms, ... at most 1 s (writeBackoff, writeBackoffMax), by half at most earlier.
        let before = patches(&installation)?.len();
        let rule = proxy.add(Rule::new(nodes, Fault::status(500))?.method(hyper::Method::PATCH));
        let refused = installation.deploy_new("refused").await?;
        let name = refused.by_tag(REGISTRY);
        installation.until_state(NODE, &name, "warm", None).await?;
        let so_many = async || patches(&installation).map(|all| all.len() >= before + 8);
        eventually("it is tried again and again", SOON, so_many).await?;
        ensure!(installation.image_label(NODE, &name).await?.is_none(), "labelled by whom?");
        let sent: Vec<Request> = patches(&installation)?.into_iter().skip(before).take(8).collect();
        let took = sent[7].at.duration_since(sent[0].at);
        ensure!(took >= Duration::from_secs(2), "8 attempts within {took:?}: a storm");
        proxy.remove(rule);
        warm(&installation, &[&refused]).await?;

        let errors =
            installation.metric(&installation.controller.admin(), "warm_label_patches_total", "throttled").await?;
        ensure!((errors - 1.0).abs() < f64::EPSILON, "{errors} throttled patches");
        witness.none_lost(&[NODE], &[&there]).await
    })
}

/// Waits until the controller says that it is not ready, in words that contain `why`.
async fn until_unready(installation: &Installation, why: &str) -> Result<()> {
    let (http, url) = (Http::new(), format!("{}/readyz", installation.controller.admin()));
    eventually(format!("not ready: {why}"), SOON, async || {
        let answer = http.get(&url).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(!answer.status.is_success() && text.contains(why), "{}: {text}", answer.status);
        Ok(())
    })
    .await
}

#[test]
fn a_list_that_is_refused_at_the_start_decides_nothing() -> Result<()> {
    scenario("api-list", LIMIT, async |run| {
        let mut installation = Installation::start(&run, spec().api_by_requests()).await?;
        let there = installation.deploy_new("there").await?;
        warm(&installation, &[&there]).await?;
        let writes = Writes::follow(&installation).await?;
        let witness = Witness::start(installation.cluster.client()).await?;
        let mut images = vec![there];
        for (path, why, fault) in [
            ("^/apis/apps/v1/deployments", "deployments", Fault::status(500)),
            ("^/api/v1/nodes\\?", "nodes", Fault::status_with(429, "Retry-After", "1")),
            ("^/api/v1/namespaces", "namespaces", Fault::Cut),
        ] {
            installation.controller.process.terminate(STOP).await?;
            let rule = installation.api_requests()?.add(Rule::new(path, fault)?);
            let mark = installation.api_requests()?.log().len();
            installation.controller.process.start_again()?;
            until_unready(&installation, why).await?;
            // Nor does it look ready a little later: three attempts have failed.
            let proxy = installation.api_requests()?;
            let failed = || proxy.log().since(mark).iter().filter(|request| request.fault.is_some()).count();
            eventually("three attempts fail", SOON, async || failed() >= 3).await?;
            until_unready(&installation, why).await?;
            proxy.remove(rule);
            installation.until_controller_ready().await?;
            let image = installation.deploy_new(&format!("after-{why}")).await?;
            warm(&installation, &[&image]).await?;
            images.push(image);
        }
        writes.purged(0).await?;
        let all: Vec<&Published> = images.iter().collect();
        witness.none_lost(&[NODE], &all[..1]).await?;
        installation.pulled_once(&[NODE], &all)
    })
}

#[test]
fn a_running_watch_that_is_refused_keeps_what_is_known() -> Result<()> {
    scenario("api-watch", LIMIT, async |run| {
        let mut installation = Installation::start(&run, spec().api_by_requests()).await?;
        let (there, withdrawn) = (installation.deploy_new("there").await?, installation.deploy_new("withdrawn").await?);
        warm(&installation, &[&there, &withdrawn]).await?;
        let writes = Writes::follow(&installation).await?;
        let witness = Witness::start(installation.cluster.client()).await?;
        let mut images = vec![there];
        for (name, fault) in [
            ("throttled", Fault::status_with(429, "Retry-After", "1")),
            ("erring", Fault::status(500)),
            ("broken", Fault::TruncateAfter(0)),
            ("cut", Fault::Cut),
        ] {
            let proxy = installation.api_requests()?;
            let mark = proxy.log().len();
            let rule = proxy.add(Rule::new("[?&]watch=true", fault)?);
            let failed = || proxy.log().since(mark).iter().filter(|request| request.fault.is_some()).count();
            // Six sources, each with a running watch that ends within 2 s.
            eventually("every watch was refused twice", SOON, async || failed() >= 12).await?;
            let image = installation.deploy_new(name).await?;
            proxy.remove(rule);
            warm(&installation, &[&image]).await?;
            images.push(image);
        }
        installation.undeploy("default", "withdrawn").await?;
        installation.until_unlabelled(NODE, &withdrawn.by_tag(REGISTRY)).await?;
        installation.until_controller_ready().await?;
        writes.purged(1).await?;
        let all: Vec<&Published> = images.iter().collect();
        witness.none_lost(&[NODE], &all[..1]).await?;
        installation.pulled_once(&[NODE], &all)
    })
}

#[test]
fn connections_that_died_without_a_word_are_replaced() -> Result<()> {
    scenario("api-silent", LIMIT, async |run| {
        let installation = Installation::start(&run, spec().api_by_bytes()).await?;
        let there = installation.deploy_new("there").await?;
        warm(&installation, &[&there]).await?;
        let witness = Witness::start(installation.cluster.client()).await?;
        let start = tokio::time::Instant::now();
        installation.api_connections()?.stall_open();
        let image = installation.cluster.registry.push(&Image::new("team/silent", "1").layer(1_000)).await?;
        installation.deploy("silent", &[&image.by_tag(REGISTRY)]).await?;
        warm(&installation, &[&image]).await?;
        // A watch says nothing for 2 s + 5 s and is given up; a patch on a dead connection has 10 s.
        ensure!(start.elapsed() < Duration::from_secs(25), "noticed only after {:?}", start.elapsed());
        let sent = installation.api_connections()?.traffic();
        ensure!(sent.accepted > 6, "{sent:?}");
        witness.none_lost(&[NODE], &[&there]).await.context("over the outage")?;
        installation.pulled_once(&[NODE], &[&there, &image])
    })
}
