//! The controller's rights in Kubernetes are those it uses: not one too few, not one too many.
//!
//! Shows: over the whole of the main job the API server saw every verb of the table from the controller, and no other; with
//! any one of them taken away it is refused, says so, and goes on once it has it back; a verb too many in the table would be
//! found. What the API server saw is its own audit log.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use controller::api::access::{ACCESS, Access, Scope};
use integration::apiserver::Request;
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::installation::{Installation, InstallationSpec, NAMESPACE};
use integration::run::scenario;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

const LIMIT: Duration = Duration::from_mins(5);
const SOON: Duration = Duration::from_secs(45);
const USER: &str = "warm-images-controller";
const NODES: [&str; 2] = ["node-a", "node-b"];

/// A verb on a resource, as `patch nodes` or `update leases.coordination.k8s.io`.
fn right(verb: &str, resource: &str, group: &str) -> String {
    if group.is_empty() { format!("{verb} {resource}") } else { format!("{verb} {resource}.{group}") }
}

fn granted(rows: &[Access]) -> BTreeSet<String> {
    let of = |row: &Access| row.verbs.iter().map(|verb| right(verb, row.resource, row.group)).collect::<Vec<_>>();
    rows.iter().flat_map(of).collect()
}

fn used(requests: &[Request]) -> BTreeSet<String> {
    let ours = requests.iter().filter(|request| request.user == USER);
    ours.map(|request| right(&request.verb, &request.resource, &request.group)).collect()
}

/// Two nodes, and a controller that tells soon of what fails, and soon again.
fn spec() -> InstallationSpec {
    InstallationSpec::two_nodes().with_callout().controller(json!({ "events": { "settle": "100ms", "repeat": "6s" } }))
}

/// Everything that the main job needs: watches, the election, labels, Events.
async fn work(installation: &Installation) -> Result<()> {
    installation.deploy("fails", &[&format!("{REGISTRY}/team/missing:1")]).await?;
    let image = installation.deploy_new("web").await?;
    installation.until_warm(&NODES, &image).await?;
    // Its status is a write of its own.
    installation.apply_set("default", "base", &json!({ "images": [image.by_tag(REGISTRY)] })).await
}

#[test]
fn every_right_is_used_and_no_other_is_asked_for() -> Result<()> {
    scenario("rights_used", LIMIT, async |run| {
        let installation = Installation::start(&run, spec()).await?;
        work(&installation).await?;
        eventually("every right of the table has been used", SOON, async || {
            let unused: Vec<_> = granted(ACCESS).difference(&used(&requests(&installation)?)).cloned().collect();
            if unused.is_empty() { Ok(()) } else { Err(anyhow!("never used: {unused:?}")) }
        })
        .await?;
        let seen = requests(&installation)?;
        ensure!(used(&seen) == granted(ACCESS), "asked for beside the table: {:?}", used(&seen));
        let refused: Vec<_> = seen.iter().filter(|request| !request.is_allowed).collect();
        ensure!(refused.is_empty(), "refused: {refused:?}");

        // It can fail: a verb more in a row would be one that nobody was seen using.
        let namespaces = ACCESS.iter().find(|row| row.resource == "namespaces").context("no row")?;
        let more = Access { verbs: &["list", "watch", "delete"], ..*namespaces };
        ensure!(granted(&[more]).difference(&used(&seen)).eq(["delete namespaces"]), "a verb too many is not found");
        Ok(())
    })
}

#[test]
fn with_one_right_less_it_is_refused_says_so_and_goes_on_with_it() -> Result<()> {
    scenario("rights_missing", LIMIT, async |run| {
        let mut installation = Installation::start(&run, spec()).await?;
        work(&installation).await?;
        for row in ACCESS {
            for verb in row.verbs {
                let missing = right(verb, row.resource, row.group);
                without(&mut installation, row, verb).await.with_context(|| format!("without `{missing}`"))?;
            }
        }
        Ok(())
    })
}

/// Takes one right away, starts the controller anew, waits until it is refused just that and says so, and gives it back.
async fn without(installation: &mut Installation, row: &Access, verb: &str) -> Result<()> {
    let before = requests(installation)?.len();
    let missing = right(verb, row.resource, row.group);
    grant(installation, Some((row, verb))).await?;
    if (row.resource, verb) == ("leases", "create") {
        // It is made only where there is none.
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
            Api::namespaced(installation.cluster.client(), NAMESPACE);
        leases.delete(integration::installation::LEASE, &DeleteParams::default()).await?;
    }
    installation.controller.process.restart()?;
    if (row.resource, verb) == ("nodes", "patch") {
        // It patches only what changes.
        installation.deploy_new(&format!("more-{before}")).await?;
    }
    if row.resource == "imagesets/status" {
        let missing = format!("{REGISTRY}/team/missing:{before}");
        installation.apply_set("default", &format!("more-{before}"), &json!({ "images": [missing] })).await?;
    }
    if row.resource == "events" {
        // What failed before is no news.
        installation.deploy(&format!("fails-{before}"), &[&format!("{REGISTRY}/team/missing:{before}")]).await?;
    }
    eventually(format!("it is refused `{missing}` and says so"), SOON, async || {
        let seen = requests(installation)?;
        let refused = used(&seen.into_iter().skip(before).filter(|request| !request.is_allowed).collect::<Vec<_>>());
        ensure!(refused.contains(&missing), "refused: {refused:?}");
        let log = installation.controller.process.log_text();
        let said = log.lines().any(|line| line.contains("forbidden") && line.contains(row.resource));
        ensure!(said, "it does not say so");
        ensure!(refused.len() == 1, "refused more than `{missing}`: {refused:?}");
        Ok(())
    })
    .await?;
    grant(installation, None).await?;
    installation.until_controller_ready().await?;
    let image = installation.deploy_new(&format!("after-{before}")).await?;
    installation.until_warm(&NODES, &image).await
}

/// The rights of the table, less one.
async fn grant(installation: &Installation, less: Option<(&Access, &str)>) -> Result<()> {
    let client = installation.cluster.client();
    let rule = |row: &Access| {
        let taken = less.filter(|(of, _)| *of == row).map(|(_, verb)| verb);
        let names = (row.scope == Scope::OwnLease).then(|| vec![integration::installation::LEASE.to_owned()]);
        let verbs = row.verbs.iter().filter(|verb| Some(**verb) != taken).map(ToString::to_string).collect();
        let what = Some(vec![row.resource.to_owned()]);
        if row.scope == Scope::Path {
            return PolicyRule { non_resource_urls: what, verbs, ..PolicyRule::default() };
        }
        PolicyRule {
            api_groups: Some(vec![row.group.to_owned()]),
            resources: what,
            resource_names: names,
            verbs,
            ..PolicyRule::default()
        }
    };
    // A rule without verbs is no rule.
    let rules = |is_cluster: bool| -> Vec<PolicyRule> {
        let rows = ACCESS.iter().filter(|row| matches!(row.scope, Scope::Cluster | Scope::Path) == is_cluster);
        rows.map(rule).filter(|rule| !rule.verbs.is_empty()).collect()
    };
    let (params, patch) = (PatchParams::default(), |rules: Vec<PolicyRule>| Patch::Merge(json!({ "rules": rules })));
    Api::<ClusterRole>::all(client.clone()).patch(USER, &params, &patch(rules(true))).await?;
    Api::<Role>::namespaced(client, NAMESPACE).patch(USER, &params, &patch(rules(false))).await?;
    Ok(())
}

fn requests(installation: &Installation) -> Result<Vec<Request>> {
    installation.cluster.api.requests()
}
