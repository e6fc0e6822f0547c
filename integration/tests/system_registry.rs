//! The registry refuses, errs, throttles, stalls, breaks off and sends something else.
//!
//! Shows: a reference that does not exist, answers 500, 401, 429, a stalled blob, one that is cut short, and bytes that are
//! not those of the digest give the right state and reason; other images are unaffected; all heal when the registry heals;
//! 401 is asked once anonymously and is never a retry storm.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::image::{Image, Published};
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::proxy::fault::{Fault, Rule};
use integration::run::scenario;
use integration::witness::Witness;
use serde_json::json;
use shared::image::Reference;
use shared::label;

const LIMIT: Duration = Duration::from_secs(200);
const NODE: &str = "node-a";

/// An image whose first requests meet `fault` shows `state` and `why` and never its label, another image becomes warm
/// meanwhile, and the first is warm after the registry healed.
async fn shows_and_heals(
    installation: &Installation,
    name: &str,
    rule: Rule,
    state: &str,
    why: &str,
) -> Result<Published> {
    let registry = &installation.cluster.registry;
    let image = registry.push(&Image::new(format!("team/{name}"), "1").layer(300_000)).await?;
    let other = registry.push(&Image::new(format!("team/beside-{name}"), "1").layer(1_000)).await?;
    let proxy = &installation.cluster.node(NODE)?.registry;
    let witness = Witness::start(installation.cluster.client()).await?;
    proxy.add(rule);
    installation.deploy(name, &[&image.by_tag(REGISTRY)]).await?;
    installation.until_state(NODE, &image.by_tag(REGISTRY), state, Some(why)).await?;
    installation.deploy(&format!("beside-{name}"), &[&other.by_tag(REGISTRY)]).await?;
    installation.until_labelled(NODE, &other.by_tag(REGISTRY), &other.digest).await?;
    let label = label::image_label(&Reference::parse(&image.by_tag(REGISTRY))?.key());
    let versions = witness.versions(NODE).await?;
    ensure!(!versions.iter().any(|labels| labels.contains_key(&label)), "called warm: {versions:?}");
    proxy.heal();
    installation.until_labelled(NODE, &image.by_tag(REGISTRY), &image.digest).await?;
    Ok(image)
}

fn spec() -> InstallationSpec {
    InstallationSpec::new(vec![NodeSpec::new(NODE)])
}

#[test]
fn what_does_not_exist_is_not_found_until_it_exists() -> Result<()> {
    scenario("not-found", LIMIT, async |run| {
        let installation = Installation::start(&run, spec()).await?;
        let missing = format!("{REGISTRY}/team/later:1");
        let other = installation.cluster.registry.push(&Image::new("team/there", "1").layer(1_000)).await?;
        installation.deploy("both", &[&missing, &other.by_tag(REGISTRY)]).await?;
        installation.until_state(NODE, &missing, "failed", Some("not-found")).await?;
        installation.until_labelled(NODE, &other.by_tag(REGISTRY), &other.digest).await?;
        let image = installation.cluster.registry.push(&Image::new("team/later", "1").layer(1_000)).await?;
        installation.until_labelled(NODE, &missing, &image.digest).await
    })
}

#[test]
fn a_registry_that_errs_or_throttles_fails_one_image_and_heals() -> Result<()> {
    scenario("erring", LIMIT, async |run| {
        let installation = Installation::start(&run, spec()).await?;
        let erring = Rule::new("^/v2/team/erring/", Fault::status(500))?;
        shows_and_heals(&installation, "erring", erring, "failed", "registry-unavailable").await?;
        let throttled = Rule::new("^/v2/team/throttled/", Fault::status_with(429, "Retry-After", "1"))?;
        shows_and_heals(&installation, "throttled", throttled, "failed", "throttled").await?;
        Ok(())
    })
}

#[test]
fn credentials_are_asked_for_once_and_never_in_a_storm() -> Result<()> {
    scenario("unauthorized", LIMIT, async |run| {
        // Between two attempts lie minutes: whatever the registry sees within this test is one attempt.
        let config = json!({ "timing": { "pullFinal": "5m" } });
        let mut installation = Installation::start(&run, spec().agent(config)).await?;
        let image = installation.cluster.registry.push(&Image::new("team/private", "1").layer(1_000)).await?;
        let fault = Fault::status_with(401, "WWW-Authenticate", "Basic realm=\"registry\"");
        installation.cluster.node(NODE)?.registry.add(Rule::new("^/v2/team/private/", fault)?);
        installation.deploy("private", &[&image.by_tag(REGISTRY)]).await?;
        installation.until_state(NODE, &image.by_tag(REGISTRY), "refused", Some("unauthorized")).await?;
        let asked = installation.reads(NODE, "team/private");
        for i in 0..3 {
            let other = installation.cluster.registry.push(&Image::new(format!("team/o{i}"), "1").layer(10)).await?;
            installation.deploy(&format!("o{i}"), &[&other.by_tag(REGISTRY)]).await?;
            installation.until_labelled(NODE, &other.by_tag(REGISTRY), &other.digest).await?;
        }
        let more = installation.reads(NODE, "team/private").saturating_sub(asked);
        ensure!(asked > 0 && more == 0, "asked {asked} times, then {more} times more");
        let admin = installation.agent(NODE)?.admin();
        let pulls = installation.metric(&admin, "warm_pulls_total", "unauthorized").await?;
        ensure!((pulls - 1.0).abs() < f64::EPSILON, "{pulls} anonymous attempts");
        Ok(())
    })
}

#[test]
fn a_refused_image_is_tried_again_at_its_rare_interval_and_heals() -> Result<()> {
    scenario("refused-heals", LIMIT, async |run| {
        let installation = Installation::start(&run, spec()).await?;
        let fault = Fault::status_with(401, "WWW-Authenticate", "Basic realm=\"registry\"");
        let rule = Rule::new("^/v2/team/private/", fault)?;
        shows_and_heals(&installation, "private", rule, "refused", "unauthorized").await.map(drop)
    })
}

#[test]
fn a_stalled_blob_meets_its_deadline() -> Result<()> {
    scenario("stalled", LIMIT, async |run| {
        let config = json!({ "timing": { "pullDeadline": "2s" } });
        let installation = Installation::start(&run, spec().agent(config)).await?;
        let stall = Rule::new("^/v2/team/stalled/blobs/", Fault::StallAfter(10_000))?;
        shows_and_heals(&installation, "stalled", stall, "failed", "deadline-exceeded").await.map(drop)
    })
}

#[test]
fn a_blob_or_manifest_that_is_cut_short_or_altered_is_never_warm() -> Result<()> {
    scenario("damaged", LIMIT, async |run| {
        let installation = Installation::start(&run, spec()).await?;
        let short = Rule::new("^/v2/team/short/blobs/", Fault::TruncateAfter(100))?;
        shows_and_heals(&installation, "short", short, "failed", "network").await?;
        let altered = Rule::new("^/v2/team/altered/blobs/", Fault::Alter)?;
        shows_and_heals(&installation, "altered", altered, "failed", "corrupt").await?;
        let listed = Rule::new("^/v2/team/listed/manifests/", Fault::Alter)?.method(hyper::Method::GET);
        shows_and_heals(&installation, "listed", listed, "failed", "corrupt").await?;
        let brief = Rule::new("^/v2/team/brief/manifests/", Fault::TruncateAfter(100))?.method(hyper::Method::GET);
        shows_and_heals(&installation, "brief", brief, "failed", "network").await?;
        installation.labels_are_true().await?;
        Ok(())
    })
}
