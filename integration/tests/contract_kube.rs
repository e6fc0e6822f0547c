//! The controller's Kubernetes adapters against a real API server.
//!
//! The contract: a source says everything once in a full list, then each change that matters and no other, over refusals
//! and restarts; the rights it needs are those of the table; labels of ours on a Node become exactly those applied, no
//! other label is touched, and neither another Node nor a new one can be hit.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use cluster_plan::Fact;
use cluster_plan::fact::{Change, Source};
use cluster_plan::input::{Workload, WorkloadKey, WorkloadKind};
use controller::act::node_label;
use controller::api::client;
use controller::config::DiscoverSettings;
use controller::leader::Seat;
use daemon::metrics;
use daemon::supervise::Tasks;
use integration::apiserver::ApiServer;
use integration::eventually::eventually;
use integration::installation::rights;
use integration::listener::Listener;
use integration::node::{NodeSpec, Nodes};
use integration::parts::{Parts, Tool};
use integration::run::{RunDir, scenario};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use shared::label;
use shared::name::{ImageKey, NodeName};
use shared::reason::Reason;

const TEST: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_secs(30);
const WATCH: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(40);
const USER: &str = "warm-images-controller";

/// Labels of ours.
const A: &str = "image.warm-images.dev/aaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "image.warm-images.dev/bbbbbbbbbbbbbbbbbbbbbbbbbb";

async fn control_plane(run: &Arc<RunDir>) -> Result<ApiServer> {
    ApiServer::start(run, &Parts::ensure(&[Tool::Etcd, Tool::KubeApiserver])?).await
}

/// Every source of the controller, running as the controller's user.
struct Sources {
    said: Listener,
    tasks: Tasks,
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Sources {
    async fn start(api: &ApiServer) -> Result<Self> {
        let client = client::connect(Some(&api.kubeconfig_for(USER, None)?), SILENCE).await?;
        let (tasks, shutdown) = Tasks::new();
        let (said, inbox) = Listener::start(&tasks, shutdown);
        let (_none, expressions) = tokio::sync::watch::channel(Arc::default());
        controller::watch::start(&client, &DiscoverSettings::default(), WATCH, true, &expressions, &inbox, &tasks);
        Ok(Self { said, tasks })
    }

    fn all(&self) -> Vec<Fact> {
        self.said.facts()
    }

    async fn until_listed(&self) -> Result<()> {
        eventually("every source has listed", SOON, async || {
            let listed: Vec<Source> = self.all().iter().filter_map(source_of_list).collect();
            let missing: Vec<&str> =
                Source::FIXED[..11].iter().filter(|s| !listed.contains(s)).map(Source::as_str).collect();
            if missing.is_empty() { Ok(()) } else { Err(anyhow!("no list of {}", missing.join(", "))) }
        })
        .await
    }

    /// Changes of one workload so far: its images, or `None` for a removal.
    fn changes_of(&self, of: &WorkloadKey) -> Vec<Option<Vec<String>>> {
        let change = |fact: Fact| match fact {
            Fact::Workload(Change::Upsert(key, content)) if key == *of => Some(Some(images(&content))),
            Fact::Workload(Change::Remove(key)) if key == *of => Some(None),
            _ => None,
        };
        self.all().into_iter().filter_map(change).collect()
    }

    async fn until_last_change(&self, of: &WorkloadKey, expected: Option<&[&str]>) -> Result<()> {
        let expected = expected.map(|images| images.iter().map(ToString::to_string).collect::<Vec<_>>());
        eventually(format!("{of} is {expected:?}"), SOON, async || {
            let changes = self.changes_of(of);
            if changes.last() == Some(&expected) { Ok(()) } else { Err(anyhow!("{changes:?}")) }
        })
        .await
    }
}

fn images(content: &Result<Workload, String>) -> Vec<String> {
    content.iter().flat_map(|w| &w.images).map(|i| i.image.clone()).collect()
}

fn source_of_list(fact: &Fact) -> Option<Source> {
    match fact {
        Fact::Workloads(kind, _) => Some(Source::Workloads(kind.clone())),
        Fact::Namespaces(_) => Some(Source::Namespaces),
        Fact::Nodes(_) => Some(Source::Nodes),
        Fact::RuntimeClasses(_) => Some(Source::RuntimeClasses),
        _ => None,
    }
}

fn key(kind: WorkloadKind, name: &str) -> WorkloadKey {
    WorkloadKey { kind, namespace: "default".into(), name: name.into() }
}

async fn create_deployment(admin: &Client, name: &str, image: &str) -> Result<()> {
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "app", "image": image }] },
            },
        },
    }))?;
    Api::default_namespaced(admin.clone()).create(&PostParams::default(), &deployment).await.context("deployment")?;
    Ok(())
}

async fn merge<K>(api: &Api<K>, name: &str, patch: Value) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.with_context(|| format!("patching {name}"))?;
    Ok(())
}

#[test]
fn a_source_tells_what_is_there_what_changes_and_what_goes_with_the_rights_of_the_table() -> Result<()> {
    scenario("watch", TEST, async |run| {
        let api = control_plane(&run).await?;
        let admin = api.client();
        rights::grant(&admin, USER).await?;
        create_deployment(&admin, "old", "nginx:1").await?;
        Nodes::new(admin.clone()).create(&NodeSpec::new("n1").label("disk", "ssd")).await?;
        let sources = Sources::start(&api).await?;
        sources.until_listed().await?;
        for fact in sources.all() {
            match fact {
                Fact::Workloads(WorkloadKind::Deployment, list) => {
                    assert_eq!(list.keys().collect::<Vec<_>>(), [&key(WorkloadKind::Deployment, "old")]);
                }
                Fact::Namespaces(list) => {
                    let system = list.get("kube-system").context("kube-system")?.as_ref().unwrap();
                    assert!(!system.uid.is_empty());
                }
                Fact::Nodes(list) => {
                    let node = list.get("n1").context("n1")?.as_ref().unwrap();
                    assert_eq!(node.labels.get("disk").map(String::as_str), Some("ssd"));
                }
                _ => {}
            }
        }

        let (new, deployments) =
            (key(WorkloadKind::Deployment, "new"), Api::<Deployment>::default_namespaced(admin.clone()));
        create_deployment(&admin, "new", "redis:1").await?;
        sources.until_last_change(&new, Some(&["redis:1"])).await?;
        // Scaling says nothing; the change after it is the sentinel.
        merge(&deployments, "new", json!({ "spec": { "replicas": 7 } })).await?;
        let image =
            json!({ "spec": { "template": { "spec": { "initContainers": [{ "name": "i", "image": "init:1" }] } } } });
        merge(&deployments, "new", image).await?;
        sources.until_last_change(&new, Some(&["init:1", "redis:1"])).await?;
        deployments.delete("new", &DeleteParams::default()).await?;
        sources.until_last_change(&new, None).await?;
        assert_eq!(sources.changes_of(&new).len(), 3, "{:?}", sources.changes_of(&new));
        Ok(())
    })
}

#[test]
fn a_bare_pod_counts_until_it_ends_and_a_node_heartbeat_says_nothing() -> Result<()> {
    scenario("pods", TEST, async |run| {
        let api = control_plane(&run).await?;
        let admin = api.client();
        rights::grant(&admin, USER).await?;
        let account: ServiceAccount = serde_json::from_value(json!({ "metadata": { "name": "default" } }))?;
        Api::default_namespaced(admin.clone()).create(&PostParams::default(), &account).await.context("account")?;
        let nodes = Nodes::new(admin.clone());
        nodes.create(&NodeSpec::new("n1")).await?;
        let sources = Sources::start(&api).await?;
        sources.until_listed().await?;

        let pods: Api<Pod> = Api::default_namespaced(admin.clone());
        let pod = |name: &str, owners: Value| {
            serde_json::from_value::<Pod>(json!({
                "metadata": { "name": name, "ownerReferences": owners },
                "spec": { "containers": [{ "name": "app", "image": "nginx:1" }] },
            }))
        };
        let owner =
            json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true }]);
        pods.create(&PostParams::default(), &pod("child", owner)?).await?;
        pods.create(&PostParams::default(), &pod("bare", json!([]))?).await?;
        let bare = key(WorkloadKind::Pod, "bare");
        sources.until_last_change(&bare, Some(&["nginx:1"])).await?;
        assert_eq!(sources.changes_of(&key(WorkloadKind::Pod, "child")), []);
        let ended = Patch::Merge(json!({ "status": { "phase": "Succeeded" } }));
        pods.patch_status("bare", &PatchParams::default(), &ended).await?;
        sources.until_last_change(&bare, None).await?;

        let seen = || sources.all().into_iter().filter(|fact| matches!(fact, Fact::Node(_))).count();
        let before = seen();
        for beat in ["2026-01-01T00:00:00Z", "2026-01-01T00:00:10Z"] {
            let status = json!({ "status": { "conditions": [
                { "type": "Ready", "status": "True", "lastHeartbeatTime": beat } ] } });
            nodes.api().patch_status("n1", &PatchParams::default(), &Patch::Merge(status)).await?;
        }
        merge(nodes.api(), "n1", json!({ "metadata": { "labels": { "sentinel": "yes" } } })).await?;
        eventually("the label is seen", SOON, async || seen() > before).await?;
        assert_eq!(seen(), before + 1, "heartbeats are no facts");
        Ok(())
    })
}

#[test]
fn sources_go_on_after_the_api_server_was_away_and_say_nothing_twice() -> Result<()> {
    scenario("restart", TEST, async |run| {
        let mut api = control_plane(&run).await?;
        let admin = api.client();
        rights::grant(&admin, USER).await?;
        create_deployment(&admin, "kept", "a:1").await?;
        create_deployment(&admin, "gone", "b:1").await?;
        let sources = Sources::start(&api).await?;
        sources.until_listed().await?;

        api.server().restart()?;
        api.until_ready().await?;
        Api::<Deployment>::default_namespaced(admin.clone()).delete("gone", &DeleteParams::default()).await?;
        create_deployment(&admin, "after", "c:1").await?;
        let known = || {
            let mut known: BTreeMap<WorkloadKey, Vec<String>> = BTreeMap::new();
            for fact in sources.all() {
                match fact {
                    Fact::Workloads(WorkloadKind::Deployment, list) => {
                        known = list.iter().map(|(key, content)| (key.clone(), images(content))).collect();
                    }
                    Fact::Workload(Change::Upsert(key, content)) => {
                        known.insert(key, images(&content));
                    }
                    Fact::Workload(Change::Remove(key)) => {
                        known.remove(&key);
                    }
                    _ => {}
                }
            }
            known.into_keys().map(|key| key.name).collect::<Vec<_>>()
        };
        eventually("what is known is what is there", SOON, async || {
            let known = known();
            if known == ["after", "kept"] { Ok(()) } else { Err(anyhow!("{known:?}")) }
        })
        .await?;
        let lists = sources.all().iter().filter(|fact| matches!(fact, Fact::Namespaces(_))).count();
        assert_eq!(lists, 1, "a list that shows the same is no fact");
        Ok(())
    })
}

#[test]
fn a_source_without_rights_asks_again_until_it_has_them() -> Result<()> {
    scenario("rights", TEST, async |run| {
        let metrics = metrics::install();
        let api = control_plane(&run).await?;
        let sources = Sources::start(&api).await?;
        eventually("refusals are counted", SOON, async || {
            let text = metrics.render();
            ["deployments", "nodes", "pods"]
                .iter()
                .all(|s| text.contains(&format!("warm_source_errors_total{{source=\"{s}\"}}")))
        })
        .await?;
        assert!(sources.all().is_empty(), "nothing is known, and nothing is said to be empty");
        rights::grant(&api.client(), USER).await?;
        sources.until_listed().await
    })
}

/// A Node, the admin's view of it, and the controller's hand.
struct Labelled {
    api: ApiServer,
    nodes: Nodes,
    hand: Client,
    seat: Seat,
    uid: String,
}

impl Labelled {
    async fn start(run: &Arc<RunDir>) -> Result<Self> {
        let api = control_plane(run).await?;
        rights::grant(&api.client(), USER).await?;
        let nodes = Nodes::new(api.client());
        let node = nodes.create(&NodeSpec::new("n1").label("disk", "ssd")).await?;
        let hand = client::connect(Some(&api.kubeconfig_for(USER, None)?), SILENCE).await?;
        Ok(Self { api, nodes, hand, seat: Seat::of_the_only_controller(), uid: node.metadata.uid.context("uid")? })
    }

    async fn apply(&self, node: &str, uid: &str, labels: &[(&str, &str)]) -> Result<(), Reason> {
        node_label::apply(&self.hand, &self.seat.tenure(), &NodeName::parse(node).unwrap(), uid, &map(labels))
            .await
            .map_err(|refusal| refusal.reason)
    }

    async fn set(&self, labels: &[(&str, &str)]) -> Result<()> {
        self.apply("n1", &self.uid, labels).await.map_err(|reason| anyhow!("{reason}"))
    }

    async fn ours(&self) -> Result<BTreeMap<String, String>> {
        let labels = self.nodes.labels("n1").await?;
        Ok(labels.into_iter().filter(|(key, _)| shared::label::is_ours(key)).collect())
    }

    /// Another field manager applies labels.
    async fn other(&self, labels: &[(&str, &str)]) -> Result<()> {
        let patch = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1", "labels": map(labels) } });
        self.nodes.api().patch("n1", &PatchParams::apply("somebody").force(), &Patch::Apply(patch)).await?;
        Ok(())
    }
}

fn map(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn labels_of_ours_become_exactly_those_applied_and_no_other_is_touched() -> Result<()> {
    scenario("labels", TEST, async |run| {
        let node = Labelled::start(&run).await?;
        let others = node.nodes.labels("n1").await?;
        for labels in [&[(A, "1"), (B, "2")][..], &[(B, "3")], &[], &[(A, "1")]] {
            node.set(labels).await?;
            assert_eq!(node.ours().await?, map(labels));
            let mut rest = node.nodes.labels("n1").await?;
            rest.retain(|key, _| !shared::label::is_ours(key));
            assert_eq!(rest, others, "labels of others after {labels:?}");
        }
        let before = node.nodes.get("n1").await?.metadata.resource_version;
        node.set(&[(A, "1")]).await?;
        let after = node.nodes.get("n1").await?.metadata.resource_version;
        assert_eq!(before, after, "what is there already is not written");
        Ok(())
    })
}

#[test]
fn a_node_of_another_uid_is_refused_and_none_is_ever_created() -> Result<()> {
    scenario("uid", TEST, async |run| {
        let node = Labelled::start(&run).await?;
        let other = "00000000-0000-0000-0000-000000000000";
        assert_eq!(node.apply("n1", other, &[(A, "1")]).await, Err(Reason::Conflict));
        assert_eq!(node.ours().await?, BTreeMap::new());
        assert_eq!(node.apply("absent", other, &[(A, "1")]).await, Err(Reason::Conflict));
        // Even with every right: the UID alone keeps a Node from being created.
        let admin = node.api.client();
        let absent = NodeName::parse("absent")?;
        let refused = node_label::apply(&admin, &node.seat.tenure(), &absent, other, &map(&[(A, "1")])).await;
        assert_eq!(refused.map_err(|refusal| refusal.reason), Err(Reason::Conflict));
        let found: Option<Node> = node.nodes.api().get_opt("absent").await?;
        ensure!(found.is_none(), "a Node was created");

        let again = node.nodes.replace(&NodeSpec::new("n1")).await?;
        assert_ne!(again.metadata.uid.as_deref(), Some(node.uid.as_str()));
        assert_eq!(node.apply("n1", &node.uid, &[(A, "1")]).await, Err(Reason::Conflict), "it came later");
        Ok(())
    })
}

#[test]
fn a_label_of_ours_that_another_manager_holds_becomes_ours_and_goes_with_us() -> Result<()> {
    scenario("managers", TEST, async |run| {
        let node = Labelled::start(&run).await?;
        node.other(&[(A, "theirs"), (B, "same"), ("team", "x")]).await?;
        node.set(&[(A, "ours"), (B, "same")]).await?;
        assert_eq!(node.ours().await?, map(&[(A, "ours"), (B, "same")]));
        node.set(&[]).await?;
        // Where both said the same, both own it: it stays until the other lets go as well.
        assert_eq!(node.ours().await?, map(&[(B, "same")]));
        assert_eq!(node.nodes.labels("n1").await?.get("team").map(String::as_str), Some("x"));
        Ok(())
    })
}

#[test]
fn what_a_full_budget_of_labels_adds_to_a_node_is_what_the_docs_say() -> Result<()> {
    scenario("label-bytes", TEST, async |run| {
        let node = Labelled::start(&run).await?;
        let size = async || anyhow::Ok(serde_json::to_vec(&node.nodes.get("n1").await?)?.len());
        // What a field manager costs whatever it holds.
        node.set(&[(A, "1")]).await?;
        let bare = size().await?;
        let value = "0123456789abcdef".repeat(2);
        let images =
            (0..64).map(|n| (label::image_label(&ImageKey::of(&format!("registry.example/app:{n}"))), value.clone()));
        let images: Vec<(String, String)> = images.collect();
        let sets: Vec<(String, String)> =
            (0..64).map(|n| (label::set_label("production", &format!("models-{n:02}")), "warm".to_owned())).collect();
        for (kind, labels, most) in [("image", images, 160), ("set", sets, 120)] {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            node.set(&labels).await?;
            let each = (size().await? - bare) / labels.len();
            println!("{each} bytes for a label of kind {kind}, {} for 64", each * labels.len());
            assert!((most / 2..=most).contains(&each), "{each} bytes for each label of an {kind}");
        }
        Ok(())
    })
}

#[test]
fn failures_of_a_patch_have_bounded_reasons() -> Result<()> {
    scenario("reasons", TEST, async |run| {
        let mut node = Labelled::start(&run).await?;
        assert_eq!(node.apply("n1", &node.uid, &[(A, "not a label value!")]).await, Err(Reason::Invalid));
        let stranger = node.api.client_for("stranger", None).await?;
        let n1 = NodeName::parse("n1")?;
        let uid = node.uid.clone();
        let refused = node_label::apply(&stranger, &node.seat.tenure(), &n1, &uid, &map(&[])).await;
        assert_eq!(refused.map_err(|refusal| refusal.reason), Err(Reason::Forbidden));
        node.api.server().kill()?;
        assert_eq!(node.apply("n1", &uid, &[(A, "1")]).await, Err(Reason::KubernetesUnavailable));
        Ok(())
    })
}
