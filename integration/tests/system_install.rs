//! The unmodified chart, installed by the real Helm on a full cluster of two nodes, with the images of `cargo xtask images`.
//!
//! Shows: `helm install` with the defaults makes an image warm on both nodes, and a Deployment's pods start with the event
//! "already present on machine", without a pull of the kubelet's, be it Helm 4 or Helm 3; the namespace may enforce Pod
//! Security as documented, whose stricter levels refuse the agents and nobody else; the API server has the network policies; an
//! upgrade and a rollback while images are being pulled lose no label and no image.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::helm::{Helm, HelmRelease, prepare, push_images};
use integration::image::{Image, Published};
use integration::kubernetes::{Kubernetes, busybox};
use integration::package::Content;
use integration::run::{RunDir, measured, said, scenario_in_network};
use integration::witness::Witness;
use serde_json::{Value, json};
use shared::image::Reference;
use shared::label;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_mins(8);
const NODES: [&str; 2] = ["node-a", "node-b"];
const SOON: Duration = Duration::from_secs(30);
/// So many images take longer to pull than Helm takes to upgrade; a node carries the labels of 64.
const MANY: usize = 30;
/// A label may wait for its window of 30 s.
const WARM: Duration = Duration::from_mins(2);

/// A cluster with the release installed and ready.
async fn install<'a>(run: &Arc<RunDir>, cluster: &'a Kubernetes, helm: Helm) -> Result<HelmRelease<'a>> {
    let release = HelmRelease::new(run, cluster, helm, "warm-images").await?;
    let start = Instant::now();
    release.install(&HelmRelease::values()).await?;
    release.until_ready().await?;
    measured("helm install until everything is ready", start.elapsed());
    Ok(release)
}

async fn cluster(run: &Arc<RunDir>, contents: &[Content]) -> Result<Kubernetes> {
    let start = Instant::now();
    let cluster = Kubernetes::start(run, &NODES).await?;
    measured("a full cluster", start.elapsed());
    let start = Instant::now();
    push_images(&cluster, contents).await?;
    measured("packing and pushing the images", start.elapsed());
    Ok(cluster)
}

/// A Deployment of an image, of so many pods.
fn deployment(name: &str, image: &str, replicas: u32) -> Value {
    let labels = json!({ "app": name });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                        "labelSelector": { "matchLabels": labels },
                    }],
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{ "name": "it", "image": image, "args": ["sleep", "100000"] }],
                },
            },
        },
    })
}

/// Waits until every node carries the image's label.
async fn until_warm(cluster: &Kubernetes, image: &Published) -> Result<()> {
    let key = label::image_label(&Reference::parse(&image.by_tag(REGISTRY))?.key());
    let seen = eventually(format!("{} is warm on every node", image.repository), WARM, async || {
        let nodes: Value = serde_json::from_str(&cluster.kubectl(&["get", "nodes", "-o", "json"]).await?)?;
        for node in nodes["items"].as_array().context("a list of nodes")? {
            let labels = &node["metadata"]["labels"];
            ensure!(!labels[&key].is_null(), "{} has the labels {labels}", node["metadata"]["name"]);
        }
        anyhow::Ok(())
    });
    match seen.await {
        Ok(()) => Ok(()),
        Err(error) => Err(anyhow!("{error:#}\n{}", controllers_view(cluster).await)),
    }
}

/// What the controller thinks, by the command that the chart's notes give.
async fn controllers_view(cluster: &Kubernetes) -> String {
    let path = "/api/v1/namespaces/warm-images/services/warm-images-controller:admin/proxy/state";
    let (state, table) = (
        cluster.kubectl(&["get", "--raw", path]).await,
        cluster.kubectl(&["get", "--raw", &format!("{path}/table")]).await,
    );
    let shown = |answer: Result<String>| answer.unwrap_or_else(|error| format!("{error:#}"));
    format!("{}\n{}", shown(state), shown(table))
}

/// Scales a Deployment whose image is warm, and looks at how its pods started.
async fn pods_find_the_image_present(cluster: &Kubernetes, name: &str, replicas: u32) -> Result<()> {
    let start = Instant::now();
    cluster.kubectl(&["scale", &format!("deployment/{name}"), &format!("--replicas={replicas}")]).await?;
    cluster.until_available("default", name).await?;
    measured(&format!("{replicas} pods of a warm image"), start.elapsed());
    let events = ["get", "events", "--namespace", "default", "-o", "json"];
    let events: Value = serde_json::from_str(&cluster.kubectl(&events).await?)?;
    let mut present = 0;
    for event in events["items"].as_array().context("a list of events")? {
        let of = event["involvedObject"]["name"].as_str().unwrap_or_default();
        if !of.starts_with(&format!("{name}-")) {
            continue;
        }
        ensure!(event["reason"] != "Pulling", "the kubelet pulls: {event}");
        if event["reason"] == "Pulled" {
            let said = event["message"].as_str().unwrap_or_default();
            ensure!(said.contains("already present on machine"), "{said}");
            present += 1;
        }
    }
    ensure!(present == replicas, "{present} of {replicas} pods found the image");
    Ok(())
}

/// An image is warm soon after a Deployment wants it, and its pods start without a pull.
async fn an_image_becomes_warm_and_pods_find_it(cluster: &Kubernetes) -> Result<()> {
    let image = cluster.registry.push(&busybox("shop/web")?).await?;
    let start = Instant::now();
    cluster.apply("web", &deployment("web", &image.by_tag(REGISTRY), 0)).await?;
    until_warm(cluster, &image).await?;
    measured("Deployment applied to warm and labelled on both nodes", start.elapsed());
    pods_find_the_image_present(cluster, "web", 4).await
}

/// Holds the pods of the release against a level of Pod Security, and says who is refused and why.
async fn refused_at(cluster: &Kubernetes, level: &str) -> Result<Vec<(String, String)>> {
    let namespace = format!("level-{level}");
    let labels = json!({ "pod-security.kubernetes.io/enforce": level });
    let metadata = json!({ "name": namespace, "labels": labels });
    let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata });
    cluster.apply(&namespace, &object).await?;
    // Without it every pod is refused for another reason.
    eventually(format!("{namespace} has its service account"), SOON, async || {
        cluster.kubectl(&["get", "serviceaccount", "default", "--namespace", &namespace]).await.map(drop)
    })
    .await?;
    let all = ["get", "deployments,daemonsets,statefulsets", "--namespace", "warm-images", "-o", "json"];
    let all: Value = serde_json::from_str(&cluster.kubectl(&all).await?)?;
    let mut refused = Vec::new();
    for object in all["items"].as_array().context("what makes pods")? {
        let name = object["metadata"]["name"].as_str().context("a name")?;
        let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "spec": object["spec"]["template"]["spec"] });
        pod["metadata"] = json!({ "name": name, "namespace": namespace });
        pod["spec"]["serviceAccountName"] = json!("default");
        pod["spec"]["serviceAccount"] = json!("default");
        if let Err(error) = cluster.dry_run(&format!("{namespace}-{name}"), &pod).await {
            refused.push((name.to_owned(), format!("{error:#}")));
        }
    }
    Ok(refused)
}

#[test]
fn pods_of_a_deployment_start_with_their_image_already_present() -> Result<()> {
    let contents = prepare(Helm::Four)?;
    scenario_in_network("install", LIMIT, async |run| {
        let cluster = cluster(&run, &contents).await?;
        install(&run, &cluster, Helm::Four).await?;
        an_image_becomes_warm_and_pods_find_it(&cluster).await?;

        for level in ["baseline", "restricted"] {
            let refused = refused_at(&cluster, level).await?;
            let [(name, why)] = &refused[..] else { bail!("{level} refuses {refused:?}") };
            ensure!(name == "warm-images-agent" && why.contains("hostPath"), "{level} refuses {name}: {why}");
        }
        ensure!(refused_at(&cluster, "privileged").await?.is_empty(), "even `privileged` refuses some");
        let policies = ["get", "networkpolicies", "--namespace", "warm-images", "--output", "name"];
        let policies = cluster.kubectl(&policies).await?;
        for component in ["controller", "agent", "nats"] {
            ensure!(policies.contains(&format!("warm-images-{component}")), "of {component} there is none: {policies}");
        }
        Ok(())
    })
}

#[test]
fn helm_3_installs_it_too() -> Result<()> {
    let contents = prepare(Helm::Three)?;
    scenario_in_network("helm_3", LIMIT, async |run| {
        let cluster = cluster(&run, &contents).await?;
        install(&run, &cluster, Helm::Three).await?;
        an_image_becomes_warm_and_pods_find_it(&cluster).await
    })
}

#[test]
fn an_upgrade_and_a_rollback_while_images_are_pulled_lose_nothing() -> Result<()> {
    let contents = prepare(Helm::Four)?;
    scenario_in_network("upgrade", LIMIT, async |run| {
        let cluster = cluster(&run, &contents).await?;
        let release = install(&run, &cluster, Helm::Four).await?;
        let mut images = want(&cluster, "before", 3).await?;
        for image in &images {
            until_warm(&cluster, image).await?;
        }
        let witness = Witness::start(cluster.client()).await?;
        let settings = async || {
            let maps = ["get", "configmaps", "--namespace", "warm-images", "--output", "json"];
            let maps: Value = serde_json::from_str(&cluster.kubectl(&maps).await?)?;
            let named = |map: &&Value| map["metadata"]["name"] == "warm-images-agent";
            anyhow::Ok(
                maps["items"].as_array().context("a list")?.iter().find(named).context("no settings")?["data"].clone(),
            )
        };
        let first = settings().await?;

        let mut values = HelmRelease::values();
        values["config"]["log"] = json!({ "filter": "debug,async_nats=off" });
        // The work begins while Helm is at it.
        let (_, more) = tokio::try_join!(release.upgrade(&values), want(&cluster, "upgraded", MANY))?;
        images.extend(more);
        in_flight(&cluster, "upgraded").await?;
        release.until_ready().await?;
        ensure!(settings().await? != first, "the upgrade changed nothing");
        for image in &images {
            until_warm(&cluster, image).await?;
        }

        let (_, more) = tokio::try_join!(release.rollback(1), want(&cluster, "rolled-back", MANY))?;
        images.extend(more);
        in_flight(&cluster, "rolled-back").await?;
        release.until_ready().await?;
        ensure!(settings().await? == first, "the rollback did not bring the settings back");
        for image in &images {
            until_warm(&cluster, image).await?;
        }
        ensure!(release.revision().await? == 3, "not three revisions");
        let all: Vec<&Published> = images.iter().collect();
        witness.none_lost(&NODES, &all).await
    })
}

/// Images of a few megabytes, wanted on every node by Deployments of no pods.
async fn want(cluster: &Kubernetes, name: &str, count: usize) -> Result<Vec<Published>> {
    let mut images = Vec::new();
    let mut objects = Vec::new();
    for number in 0..count {
        let image = Image::new(format!("{name}/{number}"), "1").layer(3_000_000).layer(2_000_000);
        let image = cluster.registry.push(&image).await?;
        objects.push(deployment(&format!("{name}-{number}"), &image.by_tag(REGISTRY), 0));
        images.push(image);
    }
    cluster.apply(name, &json!({ "apiVersion": "v1", "kind": "List", "items": objects })).await?;
    Ok(images)
}

/// Fails if all images of that name are warm already: then what has just been done met no work.
async fn in_flight(cluster: &Kubernetes, name: &str) -> Result<()> {
    let path = "/api/v1/namespaces/warm-images/services/warm-images-controller:admin/proxy/state/table";
    let answer = async || cluster.kubectl(&["get", "--raw", path]).await.map(Some);
    let table: Value = serde_json::from_str(&eventually("a controller answers", SOON, answer).await?)?;
    let rows = table.as_array().context("a table")?.iter();
    let ours = rows.filter(|row| row["image"].as_str().is_some_and(|image| image.contains(&format!("/{name}/"))));
    let (warm, rest): (Vec<_>, Vec<_>) = ours.partition(|row| row["state"] == "warm");
    said(&format!("in flight: {} of {}", rest.len(), warm.len() + rest.len()));
    ensure!(!rest.is_empty(), "all {} pairs were warm before it was through", warm.len());
    Ok(())
}
