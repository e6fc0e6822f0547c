//! Sets of images in a running installation: owns applying them as `kubectl apply` does, and waiting for what is said of them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cluster_plan::set::{ConditionStatus, SetStatus};
use controller::api::image_set::ImageSet;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use shared::label;

use super::Installation;
use crate::eventually::eventually;

/// Longer than anything takes that works, on a busy machine.
const LIMIT: Duration = Duration::from_secs(45);

/// Status and reason of a condition, as `True AllWarm`.
pub fn condition(status: &SetStatus, kind: &str) -> String {
    let found = status.conditions.iter().find(|condition| condition.kind == kind);
    found.map(|c| format!("{:?} {}", c.status, c.reason)).unwrap_or_default()
}

impl Installation {
    /// The sets of a namespace.
    pub fn sets(&self, namespace: &str) -> Api<ImageSet> {
        Api::namespaced(self.cluster.client(), namespace)
    }

    /// Makes a set or changes it.
    pub async fn apply_set(&self, namespace: &str, name: &str, spec: &Value) -> Result<()> {
        let object = json!({
            "apiVersion": "warm-images.dev/v1alpha1", "kind": "ImageSet", "metadata": { "name": name }, "spec": spec,
        });
        let params = PatchParams::apply("people").force();
        self.sets(namespace).patch(name, &params, &Patch::Apply(object)).await.context("applying a set")?;
        Ok(())
    }

    /// Deletes a set.
    pub async fn delete_set(&self, namespace: &str, name: &str) -> Result<()> {
        self.sets(namespace).delete(name, &DeleteParams::default()).await.context("deleting a set")?;
        Ok(())
    }

    /// Waits until the status of a set speaks of its newest version and is as asked; gives it.
    pub async fn until_set(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        is: impl Fn(&SetStatus) -> bool,
    ) -> Result<SetStatus> {
        let sets = self.sets(namespace);
        eventually(format!("set {name}: {what}"), LIMIT, async || {
            let set = sets.get(name).await?;
            let status = set.status.context("no status yet")?;
            ensure!(Some(status.observed_generation) == set.metadata.generation, "an older one: {status:?}");
            ensure!(is(&status), "{status:?}");
            Ok(Some(status))
        })
        .await
    }

    /// Waits until a set is ready.
    pub async fn until_set_ready(&self, namespace: &str, name: &str) -> Result<SetStatus> {
        let is_ready =
            |s: &SetStatus| s.conditions.iter().any(|c| c.kind == "Ready" && c.status == ConditionStatus::True);
        self.until_set(namespace, name, "ready", is_ready).await
    }

    /// Waits until exactly these of all nodes carry the label of a set.
    pub async fn until_set_labels(&self, namespace: &str, name: &str, nodes: &[&str]) -> Result<()> {
        let key = label::set_label(namespace, name);
        eventually(format!("{key} on {nodes:?}"), LIMIT, async || {
            let mut labelled = Vec::new();
            for node in &self.cluster.nodes {
                let labels = self.our_labels(&node.name).await?;
                labelled.extend(labels.get(&key).map(|value| format!("{}={value}", node.name)));
            }
            let wanted: Vec<String> = nodes.iter().map(|node| format!("{node}=warm")).collect();
            ensure!(labelled == wanted, "{labelled:?}");
            Ok(())
        })
        .await
    }
}
