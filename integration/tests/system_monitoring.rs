//! A real Prometheus that scrapes real processes answers every query of the dashboard and of the alerts.
//!
//! Shows: after a day's work with a set of images and a few troubles (an image that does not exist, junk in a bucket, an API server that refuses
//! and errs, an image that nobody wants any more) every query gives data: no name, label or value in it is one that the
//! processes do not have; Prometheus evaluates every rule without an error; those alerts are pending that there is reason
//! for, and one for the missing controller once it is gone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::Image;
use integration::installation::{Installation, InstallationSpec};
use integration::monitoring::{RULES, alerts, queries};
use integration::prometheus::Prometheus;
use integration::proxy::fault::{Fault, Rule};
use integration::run::scenario;
use serde_json::json;

const LIMIT: Duration = Duration::from_mins(5);
const SOON: Duration = Duration::from_mins(1);
const NODES: [&str; 2] = ["node-a", "node-b"];

fn spec() -> InstallationSpec {
    // Whatever is not wanted any more is planned to go.
    let agent = json!({ "gc": { "mode": "dryRun", "high": 2, "low": 1, "minAge": "100ms" } });
    InstallationSpec::two_nodes().with_callout().api_by_requests().agent(agent)
}

/// What every counter counts.
async fn trouble(installation: &Installation, prometheus: &Prometheus) -> Result<()> {
    // Looked up again after a minute, which is the shortest there is: before the queries have been waited for.
    let followed = installation.cluster.registry.push(&Image::new("team/followed", "1").layer(3_000)).await?;
    installation
        .apply_set("default", "follows", &json!({ "images": [followed.by_tag(REGISTRY)], "refresh": "1m" }))
        .await?;
    let gone = installation.deploy_new("gone").await?;
    installation.until_warm(&NODES, &gone).await?;
    installation.apply_set("default", "base", &json!({ "images": [gone.by_tag(REGISTRY)] })).await?;
    installation.until_set_ready("default", "base").await?;
    installation.delete_set("default", "base").await?;
    // A quantile of a rate is a number only if something was observed between two scrapes: these pulls are scraped before
    // there are others.
    eventually("the first pulls were scraped", SOON, async || {
        let samples = prometheus.query("sum(warm_pull_seconds_count)").await?;
        ensure!(samples.iter().any(|sample| sample.value > 0.0), "{samples:?}");
        Ok(())
    })
    .await?;
    installation.undeploy("default", "gone").await?;
    let missing = format!("{REGISTRY}/team/missing:1");
    installation.deploy("missing", &[&missing]).await?;
    for node in NODES {
        installation.until_state(node, &missing, "failed", Some("not-found")).await?;
    }
    // A watch that cannot be taken up again, patches that are refused, and junk: each again and again, as what is worth an
    // alert is.
    let api = installation.api_requests()?;
    let watch = api.add(Rule::new("^/apis/apps/v1/daemonsets", Fault::status(500))?);
    let patch = api.add(Rule::new("^/api/v1/nodes/", Fault::status(403))?.method(Method::PATCH));
    let image = installation.deploy_new("late").await?;
    eventually("what goes wrong is pending", SOON, async || {
        let junk = ["req", "$KV.warm-default-assign.node-a", "junk", "--raw"];
        installation.cluster.nats.cli("admin", &junk).await?;
        let pending = pending(prometheus).await?;
        for expected in ["WarmImagesFailing", "WarmForbidden", "WarmMessagesRefused", "WarmSourceFailing"] {
            ensure!(pending.iter().any(|name| name == expected), "{expected} is not: {pending:?}");
        }
        Ok(())
    })
    .await?;
    api.remove(watch);
    api.remove(patch);
    installation.until_warm(&NODES, &image).await
}

#[test]
fn every_query_gives_data_and_every_rule_is_evaluated() -> Result<()> {
    scenario("monitoring", LIMIT, async |run| {
        // Agents log in again every few seconds.
        let config = json!({ "kube": { "watchTimeout": "1s" }, "identity": { "sessionTtl": "6s" } });
        let mut installation = Installation::start(&run, spec().controller(config)).await?;
        let target = |admin: String| admin.trim_start_matches("http://").to_owned();
        let mut targets = vec![("controller", target(installation.controller.admin()))];
        targets.extend(installation.agents.values().map(|agent| ("agent", target(agent.admin()))));
        let prometheus = Prometheus::start(&run, &targets, RULES).await?;
        trouble(&installation, &prometheus).await?;
        for query in queries("2m")? {
            until_data(&prometheus, &query.title, &query.expression).await?;
        }
        let alerts = alerts()?;
        for alert in &alerts {
            until_data(&prometheus, &alert.name, &alert.measured()?).await?;
        }
        eventually("every rule was evaluated", SOON, async || {
            let rules = prometheus.rules().await?;
            ensure!(rules.len() == alerts.len(), "{rules:?}");
            let wrong: Vec<_> = rules.iter().filter(|(_, error)| !error.is_empty()).collect();
            ensure!(wrong.is_empty(), "{wrong:?}");
            Ok(())
        })
        .await?;
        let pending = pending(&prometheus).await?;
        for silent in ["WarmControllerAbsent", "WarmNoLeader", "WarmNatsUnreachable", "WarmAgentsMissing"] {
            ensure!(!pending.iter().any(|name| name == silent), "{silent} is pending: {pending:?}");
        }
        installation.controller.process.kill()?;
        eventually("the controller is missed", SOON, async || {
            let pending = self::pending(&prometheus).await?;
            ensure!(pending.iter().any(|name| name == "WarmControllerAbsent"), "{pending:?}");
            Ok(())
        })
        .await
    })
}

async fn until_data(prometheus: &Prometheus, what: &str, expression: &str) -> Result<()> {
    eventually(format!("data for {what}: {expression}"), SOON, async || {
        let samples = prometheus.query(expression).await?;
        ensure!(samples.iter().any(|sample| !sample.value.is_nan()), "{samples:?}");
        Ok(())
    })
    .await
}

async fn pending(prometheus: &Prometheus) -> Result<Vec<String>> {
    let samples = prometheus.query("ALERTS").await?;
    let name = |labels: &serde_json::Value| Some(labels.get("alertname")?.as_str()?.to_owned());
    samples.iter().map(|sample| name(&sample.labels).context("an alert without a name")).collect()
}
