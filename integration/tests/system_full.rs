//! A full cluster of real parts: two nodes with kubelets on one machine.
//!
//! Shows: a Deployment's pods from an image in the local registry become ready on both nodes; a Service answers by its
//! address and by its name from within a pod, and so do registry and API server; `kubectl` outside the run's network gets
//! in by a door; afterwards no process, no mount and no cgroup is left, and the machine's links are what they were.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::cluster::REGISTRY;
use integration::kubernetes::{Kubernetes, busybox};
use integration::parts::Tool;
use integration::run::{RunDir, measured, scenario_in_network};
use serde_json::{Value, json};
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_mins(4);
const NODES: [&str; 2] = ["node-a", "node-b"];

#[test]
fn pods_run_on_both_nodes_and_find_each_other_by_name() -> Result<()> {
    let place: OnceLock<PathBuf> = OnceLock::new();
    let before = links()?;
    scenario_in_network("full", LIMIT, async |run| {
        place.get_or_init(|| run.path().to_owned());
        let start = Instant::now();
        let cluster = Kubernetes::start(&run, &NODES).await?;
        measured("a full cluster with two nodes and DNS", start.elapsed());

        cluster.registry.push(&busybox("web")?.file("/www/index.html", "it works\n")).await?;
        let start = Instant::now();
        cluster.apply("web", &web()).await?;
        cluster.until_available("default", "web").await?;
        measured("a Deployment of four pods", start.elapsed());
        let pods = cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", "json"]).await?;
        let pods: Value = serde_json::from_str(&pods)?;
        let pods = pods["items"].as_array().context("a list of pods")?;
        let on: BTreeSet<_> = pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
        ensure!(on == BTreeSet::from(NODES), "pods are on {on:?}");

        let address = cluster.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).await?;
        for pod in pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()) {
            for host in [address.as_str(), "web", "web.default.svc.cluster.local"] {
                let said = ask(&cluster, pod, "GET / HTTP/1.0", host, 80).await?;
                ensure!(said.ends_with("it works\n"), "http://{host}/ said {said}");
            }
            let said = ask(&cluster, pod, "GET /v2/ HTTP/1.0", REGISTRY, 80).await?;
            ensure!(said.contains("200 OK"), "the registry said {said}");
            // Without TLS it says so; what counts is who answers.
            let said = ask(&cluster, pod, "GET / HTTP/1.0", "kubernetes.default.svc", 443).await?;
            ensure!(said.contains("HTTP request to an HTTPS server"), "the API server said {said}");
        }
        for node in &cluster.nodes {
            let crictl = node.runtime.crictl();
            ensure!(crictl.has(&format!("{REGISTRY}/web:1")).await?, "{} does not hold the image", node.name);
        }
        reached_from_outside_by_a_door(&run, &cluster)?;
        ensure!(before == links()?, "the machine's own network changed");
        let start = Instant::now();
        drop(cluster);
        measured("taking it down", start.elapsed());
        Ok(())
    })?;
    let place = place.get().context("the folder of the run")?;
    let left = left_behind(place)?;
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(())
}

/// What somebody answers to a request from within a pod, of whom it has the name.
async fn ask(cluster: &Kubernetes, pod: &str, request: &str, host: &str, port: u16) -> Result<String> {
    let script = format!("printf '{request}\\r\\n\\r\\n' | /bin/busybox nc -w 10 {host} {port}");
    cluster.kubectl(&["exec", pod, "--", "/bin/busybox", "sh", "-c", &script]).await
}

/// A person at the terminal gets in by a door.
fn reached_from_outside_by_a_door(run: &RunDir, cluster: &Kubernetes) -> Result<()> {
    let network = run.network().context("a network of the run's own")?;
    let (_door, kubeconfig) = cluster.api_door()?;
    let kubectl = cluster.parts().path(Tool::Kubectl)?;
    // `outside` is this test's own choice of place, so not by the harness, which starts everything inside.
    let answer = network.outside(|| {
        Command::new(kubectl).arg("--kubeconfig").arg(&kubeconfig).args(["get", "nodes", "--no-headers"]).output()
    })??;
    let said = String::from_utf8_lossy(&answer.stdout).into_owned();
    ensure!(said.lines().count() == NODES.len(), "kubectl outside: {said}{}", String::from_utf8_lossy(&answer.stderr));
    Ok(())
}

fn web() -> Value {
    let labels = json!({ "app": "web" });
    let spread = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": labels },
    }]);
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "replicas": 4,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "topologySpreadConstraints": spread,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "web",
                        "image": format!("{REGISTRY}/web:1"),
                        "args": ["httpd", "-f", "-p", "8080", "-h", "/www"],
                        "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
                    }],
                },
            },
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" },
        "spec": { "selector": labels, "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    json!({ "apiVersion": "v1", "kind": "List", "items": [deployment, service] })
}

/// Names of the network's links, as this process sees them.
fn links() -> Result<BTreeSet<String>> {
    // By way of the main thread: others may be in a network of their own.
    let text = std::fs::read_to_string(format!("/proc/{}/net/dev", std::process::id())).context("the links")?;
    Ok(text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect())
}

/// Processes, mounts and cgroups that name the run.
fn left_behind(place: &Path) -> Result<Vec<String>> {
    let id = place.file_name().and_then(|name| name.to_str()).context("the name of the run")?;
    let mut left = Vec::new();
    if place.exists() {
        left.push(place.display().to_string());
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    left.extend(mounts.lines().filter(|line| line.contains(id)).map(str::to_owned));
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
        let below = std::fs::read_dir(hierarchy.path()).into_iter().flatten().flatten();
        left.extend(below.map(|entry| entry.path().display().to_string()).filter(|path| path.contains(id)));
    }
    for process in std::fs::read_dir("/proc")?.flatten() {
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&words).contains(id) {
            left.push(format!("process {}", process.file_name().display()));
        }
    }
    Ok(left)
}
