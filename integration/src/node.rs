//! Node objects, as a kubelet would register them: owns creating, readying and removing them. There is no kubelet: nothing
//! runs on such a node.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::image::Platform;

/// What a node is to look like.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    name: String,
    labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
    platform: Platform,
    is_ready: bool,
}

impl NodeSpec {
    /// A ready node with the labels that a kubelet gives.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            platform: Platform::here(),
            is_ready: true,
        }
    }

    /// One more label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// One more taint; `effect` is `NoSchedule`, `NoExecute` or `PreferNoSchedule`.
    #[must_use]
    pub fn taint(mut self, key: &str, value: &str, effect: &str) -> Self {
        let value = (!value.is_empty()).then(|| value.to_owned());
        self.taints.push(Taint { key: key.into(), value, effect: effect.into(), time_added: None });
        self
    }

    /// Another platform than this machine's.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// Registered, but not ready.
    #[must_use]
    pub fn not_ready(mut self) -> Self {
        self.is_ready = false;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The Node objects of a cluster.
#[derive(Clone)]
pub struct Nodes {
    api: Api<Node>,
}

impl Nodes {
    /// With a client that may do everything to Nodes.
    pub fn new(client: Client) -> Self {
        Self { api: Api::all(client) }
    }

    /// The API they are reached by.
    pub fn api(&self) -> &Api<Node> {
        &self.api
    }

    /// Creates a node and reports its status, as a kubelet does on its first start.
    pub async fn create(&self, spec: &NodeSpec) -> Result<Node> {
        let NodeSpec { name, platform, .. } = spec;
        let mut labels = spec.labels.clone();
        for (key, value) in [
            ("kubernetes.io/hostname", name),
            ("kubernetes.io/os", &platform.os),
            ("kubernetes.io/arch", &platform.architecture),
        ] {
            labels.entry(key.into()).or_insert_with(|| value.clone());
        }
        let node = Node {
            metadata: ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() },
            spec: Some(k8s_openapi::api::core::v1::NodeSpec {
                taints: (!spec.taints.is_empty()).then(|| spec.taints.clone()),
                ..Default::default()
            }),
            status: None,
        };
        let created =
            self.api.create(&PostParams::default(), &node).await.with_context(|| format!("creating node {name}"))?;
        // The API server taints a new node as not ready, and the node-lifecycle controller would remove that; there is
        // none, so the harness does it after the status says ready.
        self.report(name, spec.is_ready, Some(platform)).await?;
        if spec.is_ready {
            let taints = json!({ "spec": { "taints": spec.taints } });
            return self.merge(name, &taints).await;
        }
        Ok(created)
    }

    /// Says whether the node is ready, with a heartbeat of now.
    pub async fn set_ready(&self, name: &str, is_ready: bool) -> Result<()> {
        self.report(name, is_ready, None).await
    }

    /// Sets a label, or removes it.
    pub async fn set_label(&self, name: &str, key: &str, value: Option<&str>) -> Result<Node> {
        self.merge(name, &json!({ "metadata": { "labels": { key: value } } })).await
    }

    /// Replaces all taints.
    pub async fn set_taints(&self, name: &str, taints: &[Taint]) -> Result<Node> {
        self.merge(name, &json!({ "spec": { "taints": taints } })).await
    }

    /// The node as it is now.
    pub async fn get(&self, name: &str) -> Result<Node> {
        self.api.get(name).await.with_context(|| format!("reading node {name}"))
    }

    /// Its labels as they are now.
    pub async fn labels(&self, name: &str) -> Result<BTreeMap<String, String>> {
        Ok(self.get(name).await?.metadata.labels.unwrap_or_default())
    }

    /// Removes a node.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.api.delete(name, &DeleteParams::default()).await.with_context(|| format!("deleting node {name}"))?;
        Ok(())
    }

    /// Removes a node and creates it anew: same name, another UID.
    pub async fn replace(&self, spec: &NodeSpec) -> Result<Node> {
        self.delete(spec.name()).await?;
        self.create(spec).await
    }

    /// Reports the nodes as ready every so often until the returned value is dropped: needed only beside Kubernetes' own
    /// node-lifecycle controller, which takes a silent node for lost.
    pub fn keep_ready(&self, names: &[&str], every: Duration) -> Heartbeats {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let nodes = self.clone();
        Heartbeats(tokio::spawn(async move {
            loop {
                for name in &names {
                    // A node that was deleted has no heart; the others' go on.
                    let _ = nodes.set_ready(name, true).await;
                }
                tokio::time::sleep(every).await;
            }
        }))
    }

    async fn merge(&self, name: &str, patch: &serde_json::Value) -> Result<Node> {
        self.api
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .with_context(|| format!("changing node {name}"))
    }

    async fn report(&self, name: &str, is_ready: bool, platform: Option<&Platform>) -> Result<()> {
        let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = |kind: &str, holds: bool, reason: &str| {
            json!({
                "type": kind, "status": if holds { "True" } else { "False" }, "reason": reason,
                "lastHeartbeatTime": now, "lastTransitionTime": now,
            })
        };
        let conditions = json!([
            condition("Ready", is_ready, if is_ready { "KubeletReady" } else { "KubeletNotReady" }),
            condition("DiskPressure", false, "KubeletHasNoDiskPressure"),
            condition("MemoryPressure", false, "KubeletHasSufficientMemory"),
            condition("PIDPressure", false, "KubeletHasSufficientPID"),
        ]);
        let patch = match platform {
            None => json!({ "status": { "conditions": conditions } }),
            Some(platform) => json!({ "status": {
                "conditions": conditions,
                "capacity": amounts(),
                "allocatable": amounts(),
                "nodeInfo": {
                    "architecture": platform.architecture, "operatingSystem": platform.os,
                    "containerRuntimeVersion": "containerd://2", "kubeletVersion": "v1.36.0", "kubeProxyVersion": "",
                    "kernelVersion": "", "machineID": "", "osImage": "", "systemUUID": "", "bootID": "",
                },
            }}),
        };
        self.api
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .with_context(|| format!("reporting the status of node {name}"))?;
        Ok(())
    }
}

/// Heartbeats of some nodes; dropping it ends them.
pub struct Heartbeats(JoinHandle<()>);

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn amounts() -> serde_json::Value {
    json!({ "cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "100Gi" })
}
