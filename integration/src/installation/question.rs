//! What tests and people ask of an installation: objects to apply, labels, intents, inventories, the controller's table.
//! It changes only what it is told to.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::image::{Digest, Reference};
use shared::label;

use super::Installation;
use crate::cluster::REGISTRY;
use crate::eventually::eventually;
use crate::image::{Image, Published};
use crate::parts::Tool;
use crate::process::{Invocation, Process};

/// Longer than anything takes that works, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// One pair of wanted image and node, as the controller's table shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Canonical reference.
    pub image: String,
    /// Node.
    pub node: String,
    /// State word, or nothing if there is no evidence.
    pub state: Option<String>,
    /// Reason word.
    pub why: Option<String>,
    /// Digest.
    pub digest: Option<String>,
    /// Size as the runtime reports it.
    pub bytes: Option<u64>,
}

impl Installation {
    /// Creates a namespace.
    pub async fn create_namespace(&self, name: &str, annotations: &[(&str, &str)]) -> Result<()> {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let namespace: Namespace =
            serde_json::from_value(json!({ "metadata": { "name": name, "annotations": annotations } }))?;
        Api::all(self.cluster.client())
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("creating namespace {name}"))?;
        Ok(())
    }

    /// Creates a Deployment of `images` (one container each) in `default`.
    pub async fn deploy(&self, name: &str, images: &[&str]) -> Result<()> {
        self.deploy_with("default", name, images, json!({})).await
    }

    /// The same in a namespace, with a change merged over the pod spec.
    pub async fn deploy_with(&self, namespace: &str, name: &str, images: &[&str], pod: Value) -> Result<()> {
        let mut object = deployment(name, images);
        super::merge(&mut object, json!({ "spec": { "template": { "spec": pod } } }));
        self.apply(namespace, object).await
    }

    /// Creates a Deployment from a whole object.
    pub async fn apply(&self, namespace: &str, object: Value) -> Result<()> {
        let object: Deployment = serde_json::from_value(object)?;
        self.deployments(namespace).create(&PostParams::default(), &object).await.context("creating a Deployment")?;
        Ok(())
    }

    /// Pushes a small new image `team/<name>:1` and deploys it as `name` in `default`.
    pub async fn deploy_new(&self, name: &str) -> Result<Published> {
        let image = self.cluster.registry.push(&Image::new(format!("team/{name}"), "1").layer(3_000)).await?;
        self.deploy(name, &[&image.by_tag(REGISTRY)]).await?;
        Ok(image)
    }

    /// Waits until each of these nodes carries the label of the image.
    pub async fn until_warm(&self, nodes: &[&str], image: &Published) -> Result<()> {
        for node in nodes {
            self.until_labelled(node, &image.by_tag(REGISTRY), &image.digest).await?;
        }
        Ok(())
    }

    /// Fails unless each of these nodes has read each layer of each image exactly once.
    pub fn pulled_once(&self, nodes: &[&str], images: &[&Published]) -> Result<()> {
        for (node, image) in nodes.iter().flat_map(|node| images.iter().map(move |image| (node, image))) {
            for layer in &image.layers {
                let times = self.cluster.requests.count(|r| r.node == *node && r.path.contains(layer.as_str()));
                let log = || self.cluster.requests.show();
                ensure!(times == 1, "{node} read {} {times} times:\n{}", image.repository, log());
            }
        }
        Ok(())
    }

    /// `nats sub` as a person would run it; what it prints is its log.
    pub fn listen(&self, subject: &str) -> Result<Process> {
        let nats = self.cluster.parts().path(Tool::Nats)?;
        let url = self.cluster.nats.url();
        self.cluster.spawn(
            Invocation::new("nats-sub", nats)
                .args(["-s", url.as_str(), "--user", super::reader(), "--password", super::reader()])
                .args(["sub", subject]),
        )
    }

    /// Fails unless each label of ours that a node shows now is true: its runtime has that image with that digest.
    pub async fn labels_are_true(&self) -> Result<()> {
        for node in &self.cluster.nodes {
            // In this order: an image that is there stays, so what a label said must be there afterwards.
            let labels = self.our_labels(&node.name).await?;
            let images = node.containerd.crictl().images().await?;
            for (label, value) in &labels {
                let is_there = images.iter().any(|image| {
                    image.repo_digests.iter().any(|name| name.contains(value.as_str()))
                        && image
                            .repo_tags
                            .iter()
                            .filter_map(|tag| Reference::parse(tag).ok())
                            .any(|tag| label::image_label(&tag.key()) == *label)
                });
                ensure!(is_there, "{} shows {label} = {value}, and its runtime has {images:?}", node.name);
            }
        }
        Ok(())
    }

    /// Merges a change into a Deployment.
    pub async fn change(&self, namespace: &str, name: &str, change: Value) -> Result<()> {
        let params = PatchParams::default();
        self.deployments(namespace)
            .patch(name, &params, &Patch::Merge(change))
            .await
            .with_context(|| format!("changing Deployment {namespace}/{name}"))?;
        Ok(())
    }

    /// Deletes a Deployment.
    pub async fn undeploy(&self, namespace: &str, name: &str) -> Result<()> {
        self.deployments(namespace)
            .delete(name, &DeleteParams::default())
            .await
            .with_context(|| format!("deleting Deployment {namespace}/{name}"))?;
        Ok(())
    }

    fn deployments(&self, namespace: &str) -> Api<Deployment> {
        Api::namespaced(self.cluster.client(), namespace)
    }

    /// The label of an image on a node.
    pub async fn image_label(&self, node: &str, reference: &str) -> Result<Option<String>> {
        let key = label::image_label(&Reference::parse(reference)?.key());
        Ok(self.cluster.node_objects().labels(node).await?.remove(&key))
    }

    /// All labels of ours on a node.
    pub async fn our_labels(&self, node: &str) -> Result<BTreeMap<String, String>> {
        let mut labels = self.cluster.node_objects().labels(node).await?;
        labels.retain(|key, _| label::is_ours(key));
        Ok(labels)
    }

    /// Waits until the node carries the label of the image with the value of this digest.
    pub async fn until_labelled(&self, node: &str, reference: &str, digest: &str) -> Result<()> {
        let expected = label::image_label_value(&Digest::parse(digest)?);
        eventually(format!("{node} is labelled with {reference} = {expected}"), LIMIT, async || {
            let found = self.image_label(node, reference).await?;
            ensure!(
                found.as_ref() == Some(&expected),
                "label {found:?}; table {:?}",
                self.said_row(node, reference).await
            );
            Ok(())
        })
        .await
    }

    /// Waits until the node does not carry the label of the image.
    pub async fn until_unlabelled(&self, node: &str, reference: &str) -> Result<()> {
        eventually(format!("{node} is not labelled with {reference}"), LIMIT, async || {
            let found = self.image_label(node, reference).await?;
            ensure!(found.is_none(), "label {found:?}; table {:?}", self.said_row(node, reference).await);
            Ok(())
        })
        .await
    }

    /// Waits until the controller's table shows a state, and a reason if one is given.
    pub async fn until_state(&self, node: &str, reference: &str, state: &str, why: Option<&str>) -> Result<Row> {
        eventually(format!("{reference} is {state} {why:?} on {node}"), LIMIT, async || {
            let row = self.row(node, reference).await?.ok_or_else(|| anyhow!("no such row"))?;
            let is_there = row.state.as_deref() == Some(state) && (why.is_none() || row.why.as_deref() == why);
            ensure!(is_there, "{row:?}");
            Ok(Some(row))
        })
        .await
    }

    /// The controller's row, for a message: the controller may be stopped and never answer.
    async fn said_row(&self, node: &str, reference: &str) -> Result<Option<Row>> {
        tokio::time::timeout(Duration::from_secs(1), self.row(node, reference)).await?
    }

    /// The controller's row for an image on a node.
    pub async fn row(&self, node: &str, reference: &str) -> Result<Option<Row>> {
        let canonical = Reference::parse(reference)?.canonical();
        Ok(self.table().await?.into_iter().find(|row| row.node == node && row.image == canonical))
    }

    /// The controller's table.
    pub async fn table(&self) -> Result<Vec<Row>> {
        let url = format!("{}/state/table", self.controller.admin());
        let body = self.http.get(&url).await?.success()?;
        serde_json::from_slice(&body).context("the controller's table")
    }

    /// `/state` of the controller.
    pub async fn controller_state(&self) -> Result<Value> {
        let body = self.http.get(&format!("{}/state", self.controller.admin())).await?.success()?;
        serde_json::from_slice(&body).context("the controller's state")
    }

    /// `/state` of an agent.
    pub async fn agent_state(&self, node: &str) -> Result<Value> {
        let agent = self.agents.get(node).with_context(|| format!("node {node} has no agent"))?;
        let body = self.http.get(&format!("{}/state", agent.admin())).await?.success()?;
        serde_json::from_slice(&body).context("the agent's state")
    }

    /// A number from `/metrics`: the sum over all series of that name whose labels contain `labels`.
    pub async fn metric(&self, admin: &str, name: &str, labels: &str) -> Result<f64> {
        let body = self.http.get(&format!("{admin}/metrics")).await?.success()?;
        let text = String::from_utf8_lossy(&body).into_owned();
        Ok(text
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(labels))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// What the controllers answer `user` on `ctl.<verb>`, asked with the `nats` CLI; be it an error of theirs.
    pub async fn ask(&self, user: &str, verb: &str, body: &str) -> Result<Value> {
        let subject = format!("warm.v1.default.ctl.{verb}");
        let said = self.cluster.nats.cli(user, &["req", &subject, body, "--raw", "--timeout", "10s"]).await?;
        serde_json::from_str(&said).with_context(|| format!("the answer on {subject} is no JSON: {said}"))
    }

    /// What a person's `nats` prints.
    pub async fn nats(&self, args: &[&str]) -> Result<String> {
        self.cluster.nats.cli(super::reader(), args).await
    }

    /// How many times a node asked for a layer or config of a repository.
    pub fn blob_reads(&self, node: &str, repository: &str) -> usize {
        self.cluster.requests.count(|r| r.node == node && r.is_of(repository) && r.is_blob() && r.method == "GET")
    }

    /// How many times a node asked for anything of a repository.
    pub fn reads(&self, node: &str, repository: &str) -> usize {
        self.cluster.requests.count(|r| r.node == node && r.is_of(repository))
    }
}

/// A Deployment of `images`, one container each.
pub fn deployment(name: &str, images: &[&str]) -> Value {
    let containers: Vec<Value> =
        images.iter().enumerate().map(|(i, image)| json!({ "name": format!("c{i}"), "image": image })).collect();
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": name },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": containers } },
        },
    })
}
