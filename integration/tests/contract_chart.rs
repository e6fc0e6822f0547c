//! The chart on a real API server, installed by the real Helm.
//!
//! Shows: every object of every set of values is accepted under strict validation; an upgrade keeps the passwords; the
//! controller's account may change its own labels of a Node and nothing else of it, as the real controller does it; the
//! agents' account may do what any account may; nothing is left after `helm uninstall`.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use integration::apiserver::ApiServer;
use integration::chart::{CASES, Chart, RELEASE};
use integration::eventually::eventually;
use integration::node::{NodeSpec, Nodes};
use integration::parts::{Parts, Tool};
use integration::run::{RunDir, scenario};
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

const TEST: Duration = Duration::from_mins(3);
/// Otherwise a Job has to run first, which nobody does here.
const BY_PASSWORD: [&str; 2] = ["--set", "nats.embedded.auth=password"];
const SOON: Duration = Duration::from_secs(30);
const OURS: &str = "image.warm-images.dev/aaaaaaaaaaaaaaaaaaaaaaaaaa";
/// What the chart makes, but for what an API server without the Prometheus operator does not know.
const KINDS: &str = "deployments,daemonsets,statefulsets,services,configmaps,secrets,serviceaccounts,roles,rolebindings,\
                     networkpolicies,poddisruptionbudgets,clusterroles,clusterrolebindings,\
                     validatingadmissionpolicies,validatingadmissionpolicybindings";
/// Left for the sets that people have made (`crds.keep`).
const DEFINITION: &str = "imagesets.warm-images.dev";

/// A control plane and the tools in a person's hand.
struct Site {
    api: ApiServer,
    chart: Chart,
    kubectl: std::path::PathBuf,
}

impl Site {
    async fn start(run: &Arc<RunDir>) -> Result<Self> {
        let parts = Parts::ensure(&[Tool::Etcd, Tool::KubeApiserver, Tool::Kubectl])?;
        let api = ApiServer::start(run, &parts).await?;
        let site = Self { api, chart: Chart::new()?, kubectl: parts.path(Tool::Kubectl)? };
        site.kubectl(&["create", "namespace", RELEASE])?;
        // A controller manager would make it.
        site.kubectl(&["create", "serviceaccount", "default", "--namespace", RELEASE])?;
        Ok(site)
    }

    fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.kubectl);
        said(command.arg("--kubeconfig").arg(self.api.admin_kubeconfig()).args(args))
    }

    /// `install`, `upgrade` or `uninstall` of the release.
    fn helm(&self, verb: &str, args: &[&str]) -> Result<()> {
        let (folder, config) = (self.chart.folder().display().to_string(), self.api.admin_kubeconfig());
        let mut all = vec![verb, RELEASE, "--namespace", RELEASE];
        if verb != "uninstall" {
            all.push(&folder);
        }
        let config = config.display().to_string();
        // Nothing runs a hook's Job here; `system_install` does.
        all.extend(["--kubeconfig", &config, "--no-hooks"]);
        let output = self.chart.helm(all.iter().chain(args))?;
        ensure!(output.status.success(), "helm {verb}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    async fn password(&self) -> Result<Vec<u8>> {
        let secrets: Api<Secret> = Api::namespaced(self.api.client(), RELEASE);
        let secret = secrets.get("warm-images-nats-agent").await?;
        Ok(secret.data.and_then(|mut data| data.remove("password")).context("no password")?.0)
    }
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().context("starting kubectl")?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As the account of a component.
async fn client_of(api: &ApiServer, component: &str) -> Result<Client> {
    api.client_for(&format!("system:serviceaccount:{RELEASE}:warm-images-{component}"), None).await
}

/// A server-side apply of a part of the Node `a`.
async fn apply(nodes: &Api<Node>, mut part: Value) -> kube::Result<Node> {
    if let Some(part) = part.as_object_mut() {
        part.insert("apiVersion".to_owned(), json!("v1"));
        part.insert("kind".to_owned(), json!("Node"));
    }
    nodes.patch("a", &PatchParams::apply("warm-images").force(), &Patch::Apply(part)).await
}

fn is_refused(answer: &kube::Result<Node>, why: &str) -> bool {
    matches!(answer, Err(kube::Error::Api(status)) if status.message.contains(why))
}

#[test]
fn a_real_api_server_accepts_every_object_of_every_set_of_values() -> Result<()> {
    scenario("chart_accepted", TEST, async |run| {
        let site = Site::start(&run).await?;
        for (case, _) in CASES {
            // Without the Prometheus operator nobody knows its kinds.
            let args = [
                site.chart.values(case),
                vec!["--set".to_owned(), "monitoring.enabled=false,monitoring.rules.enabled=false".to_owned()],
            ];
            let text = site.chart.template(&args.concat())?.map_err(|why| anyhow!(why))?;
            let file = run.write(&format!("{case}.yaml"), text)?;
            let file = file.display().to_string();
            let args = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", &file];
            site.kubectl(&args).with_context(|| (*case).to_owned())?;
        }
        Ok(())
    })
}

#[test]
fn the_controller_may_change_its_labels_of_a_node_and_nothing_else() -> Result<()> {
    scenario("chart_policy", TEST, async |run| {
        let site = Site::start(&run).await?;
        site.helm("install", &[])?;
        let mut spec = NodeSpec::new("a").taint("only", "", "NoSchedule");
        spec = spec.label("pool", "gpu");
        Nodes::new(site.api.client()).create(&spec).await?;
        let nodes: Api<Node> = Api::all(client_of(&site.api, "controller").await?);

        // The API server takes up a policy some time after it was made. What changes nothing passes, so each try differs.
        let tries = AtomicU32::new(0);
        let foreign = "may only change its own labels";
        eventually("the policy is in force", SOON, async || {
            let next = tries.fetch_add(1, Ordering::Relaxed).to_string();
            let answer = apply(&nodes, json!({ "metadata": { "labels": { "sentinel": next } } })).await;
            if is_refused(&answer, foreign) { Ok(()) } else { Err(anyhow!("{answer:?}")) }
        })
        .await?;
        // Those that passed before are in the way: the next apply would take them away.
        site.kubectl(&["label", "node", "a", "sentinel-"])?;
        let labels = json!({ OURS: "0123", "shop.set.warm-images.dev/base": "warm" });
        let node = apply(&nodes, json!({ "metadata": { "labels": labels } })).await?;
        assert_eq!(node.metadata.labels.unwrap_or_default().get(OURS).map(String::as_str), Some("0123"));

        let rest = "may change nothing of a Node but labels";
        for (part, why) in [
            (json!({ "metadata": { "labels": { "node-role.kubernetes.io/control-plane": "" } } }), foreign),
            (json!({ "metadata": { "labels": { "pool": "other" } } }), foreign),
            (json!({ "metadata": { "labels": { "x/y.set.warm-images.dev": "" } } }), foreign),
            (json!({ "metadata": { "annotations": { "a": "b" } } }), rest),
            (json!({ "metadata": { "finalizers": ["example.org/a"] } }), rest),
            (json!({ "spec": { "unschedulable": true } }), rest),
            (json!({ "spec": { "taints": [] } }), rest),
        ] {
            let answer = apply(&nodes, part.clone()).await;
            assert!(is_refused(&answer, why), "{part}: {answer:?}");
        }
        let taken = json!({ "metadata": { "labels": { "pool": null } } });
        let answer = nodes.patch("a", &PatchParams::default(), &Patch::Merge(taken)).await;
        assert!(is_refused(&answer, foreign), "{answer:?}");

        let node = apply(&nodes, json!({ "metadata": { "labels": {} } })).await?;
        assert!(!node.metadata.labels.unwrap_or_default().contains_key(OURS), "its own label cannot be removed");
        // Others are not meant.
        site.kubectl(&["label", "node", "a", "team=shop"])?;
        Ok(())
    })
}

#[test]
fn an_upgrade_keeps_passwords_agents_have_no_rights_and_nothing_is_left_at_the_end() -> Result<()> {
    scenario("chart_life", TEST, async |run| {
        let site = Site::start(&run).await?;
        let before = left(&site)?;
        site.helm("install", &BY_PASSWORD)?;
        let password = site.password().await?;
        ensure!(password.len() == 32, "the password has {} bytes", password.len());
        site.helm("upgrade", &[&BY_PASSWORD[..], &["--set", "config.log.filter=debug"]].concat())?;
        assert!(site.password().await? == password, "another password after an upgrade");

        let rights = |account: &str| {
            site.kubectl(&["auth", "can-i", "--list", "--as", &format!("system:serviceaccount:{RELEASE}:{account}")])
        };
        assert_eq!(rights("warm-images-agent")?, rights("without-bindings")?);
        assert_ne!(rights("warm-images-controller")?, rights("without-bindings")?);

        site.helm("uninstall", &["--wait"])?;
        assert_eq!(left(&site)?, before);
        site.kubectl(&["get", "crd", DEFINITION])?;
        // The same release takes it up again; told to, it takes it along.
        site.helm("install", &[&BY_PASSWORD[..], &["--set", "crds.keep=false"]].concat())?;
        site.helm("uninstall", &["--wait"])?;
        ensure!(site.kubectl(&["get", "crd", DEFINITION]).is_err(), "the definition is left");
        Ok(())
    })
}

/// The names of all objects that a chart could have made.
fn left(site: &Site) -> Result<String> {
    site.kubectl(&["get", KINDS, "--all-namespaces", "--output", "name"])
}

#[test]
fn the_sets_of_values_are_all_there_are() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/warm-images/ci");
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let case = name.trim_end_matches(".yaml");
        // The deprecated keys have no snapshot; `chart.rs` renders them.
        ensure!(case == "deprecated" || CASES.iter().any(|(known, _)| *known == case), "{name} is tested by nothing");
    }
    Ok(())
}
