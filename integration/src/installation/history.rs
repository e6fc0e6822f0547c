//! What a Node was labelled with in the past: owns reading every version of the object, so that a label that was away for
//! a moment is seen. Works as long as the API server that saw the changes runs.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use kube::api::{WatchEvent, WatchParams};
use shared::image::Reference;
use shared::label;

use super::Installation;
use crate::cluster::REGISTRY;
use crate::image::Published;

impl Installation {
    /// The version of the Node now: where a history begins.
    pub async fn node_version(&self, node: &str) -> Result<String> {
        let node = self.cluster.node_objects().get(node).await?;
        node.metadata.resource_version.context("a Node without a version")
    }

    /// Labels of ours in every version of the Node after `since`, the oldest first.
    pub async fn labels_since(&self, node: &str, since: &str) -> Result<Vec<BTreeMap<String, String>>> {
        let last = self.node_version(node).await?;
        let mut seen = Vec::new();
        if last == since {
            return Ok(seen);
        }
        let nodes = self.cluster.node_objects();
        let params = WatchParams::default().fields(&format!("metadata.name={node}")).timeout(5);
        let mut versions = std::pin::pin!(nodes.api().watch(&params, since).await?);
        while let Some(event) = versions.next().await {
            let (WatchEvent::Modified(node) | WatchEvent::Added(node)) = event? else { continue };
            let mut labels = node.metadata.labels.unwrap_or_default();
            labels.retain(|key, _| label::is_ours(key));
            seen.push(labels);
            if node.metadata.resource_version.as_ref() == Some(&last) {
                return Ok(seen);
            }
        }
        anyhow::bail!("version {last} of {node} is not among the {} since {since}", seen.len())
    }

    /// Fails if a version of the Node since `since` lacks the label of one of these images. Their number is given.
    pub async fn no_label_went(&self, node: &str, since: &str, images: &[&Published]) -> Result<usize> {
        let versions = self.labels_since(node, since).await?;
        for image in images {
            let key = label::image_label(&Reference::parse(&image.by_tag(REGISTRY))?.key());
            let all = versions.iter().all(|labels| labels.contains_key(&key));
            ensure!(all, "a version of {node} lacks the label of {}: {versions:?}", image.repository);
        }
        Ok(versions.len())
    }
}
