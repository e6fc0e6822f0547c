//! An image that only the Pods of a Deployment carry, as an injector of sidecars makes them.
//!
//! Shows: it becomes warm where the Deployment may land and nowhere else; `ctl.explain` says who wants it and which Pod shows
//! it; it stays as long as one such Pod is there, and is withdrawn when the last has gone, while the Deployment's own stays.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::{Image, Published};
use integration::installation::{Installation, InstallationSpec, reader};
use integration::node::NodeSpec;
use integration::run::scenario;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use shared::image::Reference;

const LIMIT: Duration = Duration::from_secs(150);
const SOON: Duration = Duration::from_secs(30);
const SET: &str = "web-5d9c";

async fn push(installation: &Installation, name: &str) -> Result<Published> {
    installation.cluster.registry.push(&Image::new(format!("team/{name}"), "1").layer(2_000)).await
}

async fn create<K>(installation: &Installation, object: Value) -> Result<String>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::default_namespaced(installation.cluster.client());
    let made = api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    made.meta().uid.clone().context("no UID")
}

fn controlled(name: &str, kind: &str, by: &str, uid: &str) -> Value {
    let owner = json!({ "apiVersion": "apps/v1", "kind": kind, "name": by, "uid": uid, "controller": true });
    json!({ "name": name, "ownerReferences": [owner] })
}

/// What the controllers of Kubernetes and an injector make of the Deployment `web`.
async fn replica_set(installation: &Installation, app: &str) -> Result<String> {
    let deployments: Api<Deployment> = Api::default_namespaced(installation.cluster.client());
    let deployment = deployments.get("web").await?;
    let spec = deployment.spec;
    let uid = deployment.metadata.uid.context("no UID")?;
    let set = json!({
        "metadata": controlled(SET, "Deployment", "web", &uid),
        "spec": { "replicas": 2, "selector": spec.selector, "template": spec.template },
    });
    create::<ServiceAccount>(installation, json!({ "metadata": { "name": "default" } })).await?;
    ensure!(set.to_string().contains(app), "another template: {set}");
    create::<ReplicaSet>(installation, set).await
}

async fn pod(installation: &Installation, name: &str, set: &str, images: [&str; 2]) -> Result<()> {
    let [app, sidecar] = images;
    let pod = json!({
        "metadata": controlled(name, "ReplicaSet", SET, set),
        "spec": {
            "nodeSelector": { "pool": "web" },
            "containers": [{ "name": "web", "image": app }, { "name": "istio-proxy", "image": sidecar }],
        },
    });
    create::<Pod>(installation, pod).await.map(drop)
}

async fn explained(installation: &Installation, image: &str) -> Result<Value> {
    installation.ask(reader(), "explain", &json!({ "image": image }).to_string()).await
}

#[test]
fn an_injected_image_is_warm_where_its_deployment_may_land_until_its_pods_are_gone() -> Result<()> {
    scenario("injected", LIMIT, async |run| {
        let nodes = vec![NodeSpec::new("node-a").label("pool", "web"), NodeSpec::new("node-b")];
        let spec = InstallationSpec::new(nodes).controller(json!({ "discover": { "linger": "2s" } }));
        let installation = Installation::start(&run, spec).await?;
        let (app, sidecar) = (push(&installation, "app").await?, push(&installation, "sidecar").await?);
        let (app_ref, sidecar_ref) = (app.by_tag(REGISTRY), sidecar.by_tag(REGISTRY));
        installation.deploy_with("default", "web", &[&app_ref], json!({ "nodeSelector": { "pool": "web" } })).await?;
        installation.until_warm(&["node-a"], &app).await?;
        let before = explained(&installation, &sidecar_ref).await?;
        ensure!(before["wanted"] == false, "{before:#}");

        let set = replica_set(&installation, &app_ref).await?;
        for name in ["web-5d9c-a", "web-5d9c-b"] {
            pod(&installation, name, &set, [&app_ref, &sidecar_ref]).await?;
        }
        installation.until_warm(&["node-a"], &sidecar).await?;
        let said = explained(&installation, &sidecar_ref).await?;
        let owner = &said["owners"][0];
        ensure!(said["ownersTotal"] == 1 && owner["kind"] == "Deployment" && owner["name"] == "web", "{said:#}");
        let why = owner["rule"].as_str().unwrap_or_default();
        let source = "none of its own templates names it: pod web-5d9c-a containers[1] \"istio-proxy\"";
        ensure!(why.ends_with(source), "{why}");
        let own = explained(&installation, &app_ref).await?;
        let why = own["owners"][0]["rule"].as_str().unwrap_or_default().to_owned();
        ensure!(!why.contains("only a Pod"), "its template names it: {why}");

        // One of two goes: the other is named in its place.
        let pods: Api<Pod> = Api::default_namespaced(installation.cluster.client());
        let now = DeleteParams::default().grace_period(0);
        pods.delete("web-5d9c-a", &now).await?;
        eventually("the other Pod is named", SOON, async || {
            let said = explained(&installation, &sidecar_ref).await?;
            let why = said["owners"][0]["rule"].as_str().unwrap_or_default().to_owned();
            ensure!(why.contains("pod web-5d9c-b containers[1]"), "{why}");
            Ok(())
        })
        .await?;
        installation.until_warm(&["node-a"], &sidecar).await?;

        pods.delete("web-5d9c-b", &now).await?;
        installation.until_unlabelled("node-a", &sidecar_ref).await?;
        let key = format!("i.{}", Reference::parse(&sidecar_ref)?.key());
        eventually("the intent is withdrawn", SOON, async || {
            let keys = installation.kv_keys("intents").await?;
            ensure!(!keys.iter().any(|held| held.ends_with(&key)), "{keys:?}");
            Ok(())
        })
        .await?;
        installation.until_warm(&["node-a"], &app).await?;
        for repository in ["team/app", "team/sidecar"] {
            ensure!(installation.reads("node-b", repository) == 0, "{}", installation.cluster.requests.show());
        }
        installation.pulled_once(&["node-a"], &[&app, &sidecar])
    })
}
