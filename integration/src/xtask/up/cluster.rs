//! `cargo xtask up`: the product installed by Helm on a full cluster, with kubelets whose pods start from warm images. Owns
//! the demonstration: what is applied, what is shown of it, and the commands it prints.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use shared::image::Reference;

use super::Args;
use super::table::{Source, Table};
use crate::cluster::REGISTRY;
use crate::helm::{Helm, HelmRelease, prepare, push_images};
use crate::installation::Row;
use crate::kubernetes::{Kubernetes, busybox};
use crate::network::Door;
use crate::package::Content;
use crate::parts::Tool;
use crate::run::{RunDir, scenario_in_network};
use crate::system_program;
use crate::xtask::{root, say};

/// Name of the release and of its namespace.
const RELEASE: &str = "warm-images";
/// The namespace and the Deployment of the example, and its image.
const EXAMPLE: (&str, &str, &str) = ("shop", "web", "shop/web");
/// Pods that the example is scaled to.
const PODS: usize = 4;
/// Until somebody ends it.
const LONG: Duration = Duration::from_hours(24 * 365);

pub(super) fn run(args: &Args) -> Result<()> {
    system_program::ensure(&system_program::FOR_PODS)?;
    say("building controller and agent for their images, unless they are built");
    let contents = prepare(Helm::Four)?;
    scenario_in_network("up", LONG, async |run| {
        tokio::select! {
            done = demonstrate(&run, args, &contents) => done,
            _ = tokio::signal::ctrl_c() => { say("stopping"); Ok(()) }
        }
    })
}

async fn demonstrate(run: &Arc<RunDir>, args: &Args, contents: &[Content]) -> Result<()> {
    let start = Instant::now();
    let took = |start: Instant| format!("{:.1} s", start.elapsed().as_secs_f64());
    say("starting etcd, API server, scheduler, a registry, and two nodes with containerd, kubelet and kube-proxy");
    let cluster = Kubernetes::start(run, &["node-a", "node-b"]).await?;
    say(&format!("the cluster is ready after {}", took(start)));
    let start = Instant::now();
    push_images(&cluster, contents).await?;
    say(&format!("controller, agent and NATS are in the registry {REGISTRY} after {}", took(start)));

    let start = Instant::now();
    let release = HelmRelease::new(run, &cluster, Helm::Four, RELEASE).await?;
    let mut values = HelmRelease::values();
    // Users get a label window of 30 s; who looks on does not want to wait for it.
    let window = json!({ "timing": { "labelWindow": "1s" } });
    values
        .pointer_mut("/config")
        .and_then(|config| config.as_object_mut())
        .context("values")?
        .insert("controller".into(), window);
    release.upgrade_or_install(&values).await?;
    say(&format!("helm upgrade --install {RELEASE} helm/warm-images -n {RELEASE} --values …"));
    release.until_ready().await?;
    say(&format!("two controllers, NATS and an agent on each node are ready after {}", took(start)));

    let shown = Shown { cluster: &cluster };
    let (_, name, repository) = EXAMPLE;
    cluster.registry.push(&busybox(repository)?).await?;
    let example = [root().join("integration/example/web.yaml")];
    let files = if args.files.is_empty() { &example[..] } else { &args.files };
    for file in files {
        apply(&cluster, file).await?;
    }
    let mut table = Table::new();
    let done = table.until_settled(&shown, args.once).await;
    table.print_end()?;
    done?;
    if args.files.is_empty() {
        pods_start(&cluster).await.with_context(|| format!("the pods of {name}"))?;
    }
    if args.once {
        return Ok(());
    }
    let _doors = print_commands(&cluster).await?;
    table.follow(&shown).await
}

/// The cluster, as the controller and the API server show it.
struct Shown<'a> {
    cluster: &'a Kubernetes,
}

impl Source for Shown<'_> {
    async fn rows(&self) -> Result<Vec<Row>> {
        let path = format!("/api/v1/namespaces/{RELEASE}/services/{RELEASE}-controller:admin/proxy/state/table");
        let text = self.cluster.kubectl(&["get", "--raw", &path]).await?;
        serde_json::from_str(&text).context("the controller's table")
    }

    async fn are_labelled(&self, rows: &[Row]) -> Result<bool> {
        let nodes: Api<Node> = Api::all(self.cluster.client());
        for row in rows.iter().filter(|row| row.state.as_deref() == Some("warm")) {
            let label = shared::label::image_label(&Reference::parse(&row.image)?.key());
            if !nodes.get(&row.node).await?.labels().contains_key(&label) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

async fn apply(cluster: &Kubernetes, file: &Path) -> Result<()> {
    ensure!(file.is_file(), "{}: no such file", file.display());
    let path = file.canonicalize().with_context(|| file.display().to_string())?;
    let text = cluster.kubectl(&["apply", "-f", path.to_str().context("a path that is no text")?]).await?;
    say(&format!("kubectl apply -f {}\n{}", path.display(), text.trim_end()));
    Ok(())
}

/// Scales the example up, and shows what the kubelets say of its pods.
async fn pods_start(cluster: &Kubernetes) -> Result<()> {
    let (namespace, name, _) = EXAMPLE;
    let start = Instant::now();
    let (deployment, replicas) = (format!("deployment/{name}"), format!("--replicas={PODS}"));
    cluster.kubectl(&["scale", "--namespace", namespace, &deployment, &replicas]).await?;
    cluster.until_available(namespace, name).await?;
    let took = start.elapsed().as_secs_f64();
    let pods = Api::<Pod>::namespaced(cluster.client(), namespace).list(&ListParams::default()).await?;
    let events = Api::<Event>::namespaced(cluster.client(), namespace);
    let events = events.list(&ListParams::default().fields("reason=Pulled")).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nkubectl -n {namespace} scale {deployment} {replicas}: all ready after {took:.1} s\n")?;
    let mut present = 0;
    for pod in &pods.items {
        let of_pod = |event: &&Event| event.involved_object.name.as_deref() == Some(&pod.name_any());
        let message = events.iter().find(of_pod).and_then(|event| event.message.clone()).unwrap_or_default();
        present += usize::from(message.contains("already present on machine"));
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        writeln!(out, "{:<22} {node:<8} {message}", pod.name_any())?;
    }
    ensure!(present == PODS, "{present} of {PODS} pods found their image present");
    Ok(())
}

/// Ways in, and what to type. The doors are open as long as they are kept.
async fn print_commands(cluster: &Kubernetes) -> Result<[Door; 2]> {
    let parts = cluster.parts();
    let (door, kubeconfig) = cluster.api_door()?;
    let nats_pod = Api::<Pod>::namespaced(cluster.client(), RELEASE).get(&format!("{RELEASE}-nats-0")).await?;
    let address = nats_pod.status.and_then(|status| status.pod_ip).context("NATS has no address")?;
    // A pod's own address: Services' are for nodes and pods.
    let nats_door = cluster.door(SocketAddr::new(address.parse().context("the address of NATS")?, 4222))?;
    let label = shared::label::image_label(&Reference::parse(&format!("{REGISTRY}/{}:1", EXAMPLE.2))?.key());
    let (kubectl, nats, helm) = (parts.path(Tool::Kubectl)?, parts.path(Tool::Nats)?, parts.path(Tool::Helm)?);
    let (kubectl, nats, helm) = (kubectl.display(), nats.display(), helm.display());
    let secret = format!("get secret {RELEASE}-nats-users -o jsonpath='{{.data.reader}}'");
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nLook further, in another terminal:\n")?;
    writeln!(out, "  export KUBECONFIG={}", kubeconfig.display())?;
    writeln!(out, "  {kubectl} get nodes -L {label}")?;
    writeln!(out, "  {kubectl} -n {RELEASE} get pods -o wide")?;
    writeln!(out, "  {kubectl} -n {} get events", EXAMPLE.0)?;
    writeln!(out, "  {helm} -n {RELEASE} history {RELEASE}\n")?;
    writeln!(out, "  export NATS_URL=nats://{} NATS_USER=reader", nats_door.address())?;
    writeln!(out, "  export NATS_PASSWORD=$({kubectl} -n {RELEASE} {secret} | base64 -d)")?;
    writeln!(out, "  {nats} kv ls warm-default-intents")?;
    writeln!(out, "  {nats} kv get warm-default-nodes node-a.inv --raw")?;
    writeln!(out, "  {nats} sub 'warm.v1.default.node.*.ev.>'\n")?;
    writeln!(
        out,
        "  {kubectl} get --raw /api/v1/namespaces/{RELEASE}/services/{RELEASE}-controller:admin/proxy/state"
    )?;
    writeln!(
        out,
        "\nTry: {kubectl} -n {} create deployment other --image={REGISTRY}/coredns:1 --replicas=0",
        EXAMPLE.0
    )?;
    writeln!(out, "Ctrl-C stops everything and leaves nothing behind.")?;
    Ok([door, nats_door])
}
