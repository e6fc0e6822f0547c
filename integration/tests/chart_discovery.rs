//! The rights that the chart gives for configured kinds.
//!
//! Shows: each preset, and all of them with a kind of one's own, grant `list` and `watch` on exactly the kinds that the
//! controller would watch, beside what it always has; its own loader accepts the configuration; a real API server gives its
//! account those rights and no others.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use controller::api::access;
use controller::config::{ControllerConfig, DiscoverSettings};
use integration::apiserver::ApiServer;
use integration::chart::{Chart, RELEASE};
use integration::eventually::eventually;
use integration::parts::{Parts, Tool};
use integration::run::scenario;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

const TEST: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_secs(30);
const NAME: &str = "warm-images-controller";

fn presets() -> Vec<String> {
    DiscoverSettings::presets().into_keys().collect()
}

/// Arguments for Helm.
fn values(presets: &[String], kinds: &Value) -> [String; 2] {
    let discover = json!({ "presets": presets, "kinds": kinds });
    ["--set-json".to_owned(), format!("config.discover={discover}")]
}

fn objects(args: &[String]) -> Result<Vec<Value>> {
    let text = Chart::new()?.template(args)?.map_err(|why| anyhow!(why))?;
    let all = text.split("\n---").map(serde_saphyr::from_str::<Option<Value>>);
    Ok(all.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn named<'a>(all: &'a [Value], kind: &str) -> Result<&'a Value> {
    let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == NAME;
    all.iter().find(is_it).with_context(|| format!("no {kind}"))
}

/// What a list of rules grants: group, resource, verb.
fn granted(rules: &Value) -> BTreeSet<[String; 3]> {
    let words = |rule: &Value, field: &str| -> Vec<String> {
        rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
    };
    let mut granted = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                granted.extend(words(rule, "verbs").into_iter().map(|verb| [group.clone(), resource.clone(), verb]));
            }
        }
    }
    granted
}

/// What the controller needs for its configuration, beside what it always needs.
fn needed(discover: &DiscoverSettings) -> BTreeSet<[String; 3]> {
    let of = |verb: &'static str| {
        let kinds = discover.kinds();
        kinds.into_values().map(move |kind| [kind.group.clone(), kind.plural(), verb.to_owned()]).collect::<Vec<_>>()
    };
    of("list").into_iter().chain(of("watch")).collect()
}

#[test]
fn each_preset_grants_what_its_kinds_need_and_nothing_else() -> Result<()> {
    let fleets = json!([{ "group": "example.com", "version": "v1", "kind": "Fleet", "images": ["$.spec.image"] }]);
    let none = json!([]);
    let mut cases: Vec<(Vec<String>, &Value)> = presets().into_iter().map(|preset| (vec![preset], &none)).collect();
    cases.push((presets(), &fleets));
    cases.push((Vec::new(), &none));
    let always = granted(&access::cluster_role(access::ACCESS, NAME)["rules"]);
    for (presets, kinds) in cases {
        let all = objects(&values(&presets, kinds))?;
        let text = named(&all, "ConfigMap")?["data"].as_object().and_then(|data| data.values().next());
        let text = text.and_then(Value::as_str).context("no configuration")?;
        let config: ControllerConfig =
            daemon::config::read(Path::new("controller.yaml"), text, &[]).map_err(|error| anyhow!("{error}"))?;
        let discover = config.discover;
        ensure!(discover.presets.iter().eq(&presets) && discover.kinds.len() == kinds.as_array().map_or(0, Vec::len));
        let wanted: BTreeSet<_> = always.union(&needed(&discover)).cloned().collect();
        let found = granted(&named(&all, "ClusterRole")?["rules"]);
        ensure!(found == wanted, "{presets:?}: {:?}", found.symmetric_difference(&wanted).collect::<Vec<_>>());
    }
    Ok(())
}

#[test]
fn a_real_api_server_gives_the_controller_the_rights_of_all_presets() -> Result<()> {
    scenario("chart_presets", TEST, async |run| {
        let api = ApiServer::start(&run, &Parts::ensure(&[Tool::Etcd, Tool::KubeApiserver])?).await?;
        let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": RELEASE } }))?;
        Api::all(api.client()).create(&PostParams::default(), &namespace).await?;
        let chart = Chart::new()?;
        let (folder, config) = (chart.folder().display().to_string(), api.admin_kubeconfig().display().to_string());
        let fixed = ["install", RELEASE, &folder, "--namespace", RELEASE, "--kubeconfig", &config, "--no-hooks"];
        let output = chart.helm(fixed.map(ToOwned::to_owned).into_iter().chain(values(&presets(), &json!([]))))?;
        ensure!(output.status.success(), "helm install: {}", String::from_utf8_lossy(&output.stderr));

        let client = api.client_for(&format!("system:serviceaccount:{RELEASE}:{NAME}"), None).await?;
        let reviews: Api<SelfSubjectAccessReview> = Api::all(client);
        let may = async |group: &str, resource: &str, verb: &str| -> Result<bool> {
            let asked = json!({ "group": group, "resource": resource, "verb": verb });
            let review = serde_json::from_value(json!({ "spec": { "resourceAttributes": asked } }))?;
            let answer = reviews.create(&PostParams::default(), &review).await?;
            Ok(answer.status.is_some_and(|status| status.allowed))
        };
        let discover = DiscoverSettings { presets: presets().into_iter().collect(), ..DiscoverSettings::default() };
        let needed = needed(&discover);
        ensure!(needed.len() >= 2 * 25, "{} rights", needed.len());
        for [group, resource, verb] in &needed {
            // The API server takes up roles some time after they were made.
            eventually(format!("it may {verb} {resource}.{group}"), SOON, async || may(group, resource, verb).await)
                .await?;
            for verb in ["get", "create", "update", "patch", "delete"] {
                ensure!(!may(group, resource, verb).await?, "it may {verb} {resource}.{group}");
            }
        }
        Ok(())
    })
}
