//! `helm uninstall` on a full cluster leaves nothing behind.
//!
//! Shows: after an install that worked and was tested by `helm test` (labels on nodes, a Lease, keys for NATS, state on the hosts) the cluster has the same
//! objects as before it, no node has a label or a taint of ours, no host has the agents' state, and people's own pods ran
//! on all the time; it does not take longer than the cleanup may, and ends even when the cleanup cannot run at all.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::helm::{Helm, HelmRelease, prepare, push_images};
use integration::kubernetes::{Kubernetes, busybox};
use integration::package::Content;
use integration::run::{RunDir, measured, scenario_in_network};
use serde_json::{Value, json};
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_mins(8);
const SOON: Duration = Duration::from_mins(2);
const NODES: [&str; 2] = ["node-a", "node-b"];

/// Kinds whose objects come and go by themselves, or are histories with an end of their own.
const VOLATILE: [&str; 3] = ["events", "events.events.k8s.io", "endpointslices.discovery.k8s.io"];

async fn cluster(run: &Arc<RunDir>, contents: &[Content]) -> Result<Kubernetes> {
    let cluster = Kubernetes::start(run, &NODES).await?;
    push_images(&cluster, contents).await?;
    cluster.registry.push(&busybox("web")?).await?;
    Ok(cluster)
}

/// Kind and name of every object of every kind that the API server lists.
async fn objects(cluster: &Kubernetes) -> Result<BTreeSet<String>> {
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "--output=name"]).await?;
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !VOLATILE.contains(kind)).collect();
    ensure!(kinds.len() > 30, "the API server lists only {kinds:?}");
    let template = "{{range .items}}{{.kind}} {{.metadata.namespace}}/{{.metadata.name}}{{\"\\n\"}}{{end}}";
    let output = format!("--output=go-template={template}");
    let all = cluster.kubectl(&["get", &kinds.join(","), "--all-namespaces", &output]).await?;
    Ok(all.lines().map(str::to_owned).collect())
}

/// Labels and taints of ours on any node.
async fn ours_on_nodes(cluster: &Kubernetes) -> Result<Vec<String>> {
    let nodes: Value = serde_json::from_str(&cluster.kubectl(&["get", "nodes", "--output=json"]).await?)?;
    let mut found = Vec::new();
    for node in nodes["items"].as_array().context("a list of nodes")? {
        let labels = node["metadata"]["labels"].as_object().into_iter().flat_map(|labels| labels.keys().cloned());
        let taints = node["spec"]["taints"].as_array().into_iter().flatten();
        found.extend(labels.chain(taints.filter_map(|taint| taint["key"].as_str().map(str::to_owned))));
    }
    Ok(found.into_iter().filter(|key| key.contains("warm-images.dev/")).collect())
}

/// What the agents have left on the hosts.
fn state_on_hosts(run: &RunDir) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for node in NODES {
        let folder = run.path().join(node).join("lib/warm-images");
        if folder.exists() {
            for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
                found.push(entry?.path());
            }
        }
    }
    Ok(found)
}

#[test]
fn an_uninstall_leaves_the_cluster_as_it_was() -> Result<()> {
    let contents = prepare(Helm::Four)?;
    scenario_in_network("uninstall", LIMIT, async |run| {
        let cluster = cluster(&run, &contents).await?;
        // People's own: it is there before and after.
        cluster.apply("web", &web()).await?;
        cluster.until_available("default", "web").await?;
        let started = pods_of_web(&cluster).await?;
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "warm-images" } });
        cluster.apply("namespace", &namespace).await?;
        // What Kubernetes itself makes in a namespace comes a moment later.
        cluster
            .kubectl(&[
                "wait",
                "--for=create",
                "serviceaccount/default",
                "configmap/kube-root-ca.crt",
                "--namespace",
                "warm-images",
            ])
            .await?;
        let before = objects(&cluster).await?;

        let release = HelmRelease::new(&run, &cluster, Helm::Four, "warm-images").await?;
        release.install(&HelmRelease::values()).await?;
        release.until_ready().await?;
        eventually("labels on nodes and state on hosts", SOON, async || {
            let (labels, states) = (ours_on_nodes(&cluster).await?, state_on_hosts(&run)?);
            ensure!(labels.len() >= NODES.len() && states.len() >= NODES.len(), "{labels:?} {states:?}");
            Ok(())
        })
        .await?;
        // A person makes sure that it works.
        let tested = release.helm("test", &["warm-images"]).await?;
        ensure!(tested.contains("Succeeded"), "{tested}");
        let during = objects(&cluster).await?;
        ensure!(during.iter().any(|object| object.starts_with("Lease warm-images/")), "no Lease: {during:?}");

        let start = Instant::now();
        release.uninstall().await?;
        measured("helm uninstall with its cleanup", start.elapsed());
        // When Helm returns, not some time later.
        let (labels, states) = (ours_on_nodes(&cluster).await?, state_on_hosts(&run)?);
        ensure!(labels.is_empty(), "left on nodes: {labels:?}");
        ensure!(states.is_empty(), "left on hosts: {states:?}");
        // Pods take their time to end.
        eventually("the cluster is as it was", SOON, async || {
            let after = objects(&cluster).await?;
            let (left, lost): (Vec<_>, Vec<_>) =
                (after.difference(&before).collect(), before.difference(&after).collect());
            // Deleting it would delete everybody's sets (`crds.keep`). The API server keeps the group registered for it.
            let is_kept = |object: &&String| {
                object.contains("imagesets.warm-images.dev") || object.contains("v1alpha1.warm-images.dev")
            };
            let (kept, left): (Vec<_>, Vec<_>) = left.into_iter().partition(is_kept);
            ensure!(kept.len() == 2, "the definition of ImageSet and its group: {kept:?}");
            ensure!(left.is_empty() && lost.is_empty(), "left: {left:?}, lost: {lost:?}");
            Ok(())
        })
        .await?;
        ensure!(pods_of_web(&cluster).await? == started, "people's own pods did not run on");
        Ok(())
    })
}

#[test]
fn an_uninstall_ends_though_the_cleanup_cannot_run() -> Result<()> {
    let contents = prepare(Helm::Four)?;
    scenario_in_network("uninstall_broken", LIMIT, async |run| {
        let cluster = cluster(&run, &contents).await?;
        let release = HelmRelease::new(&run, &cluster, Helm::Four, "warm-images").await?;
        let mut values = HelmRelease::values();
        values["cleanup"] = json!({ "limitSeconds": 10 });
        release.install(&values).await?;
        release.until_ready().await?;
        // No node takes a pod any more.
        for node in NODES {
            cluster.kubectl(&["cordon", node]).await?;
        }
        let start = Instant::now();
        let said = release.uninstall().await;
        measured("helm uninstall whose cleanup cannot run", start.elapsed());
        // It says so, and the release is gone all the same.
        let said = format!("{:#}", said.err().context("it does not say that the cleanup failed")?);
        ensure!(said.contains("warm-images-cleanup") || said.contains("DeadlineExceeded"), "{said}");
        let known = format!("{:#}", release.revision().await.err().context("Helm still knows the release")?);
        ensure!(known.contains("not found"), "{known}");
        let pods = ["get", "deployments,daemonsets,statefulsets", "--namespace", "warm-images", "--output=name"];
        let left = cluster.kubectl(&pods).await?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
}

fn web() -> Value {
    let labels = json!({ "app": "web" });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{ "name": "web", "image": format!("{REGISTRY}/web:1"), "args": ["sleep", "100000"] }],
                },
            },
        },
    })
}

/// Names and starts of the pods.
async fn pods_of_web(cluster: &Kubernetes) -> Result<String> {
    let each = "{range .items[*]}{.metadata.name} {.status.containerStatuses[0].state.running.startedAt}{\"\\n\"}{end}";
    cluster.kubectl(&["get", "pods", "--selector=app=web", &format!("--output=jsonpath={each}")]).await
}
