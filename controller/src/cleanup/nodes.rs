//! Labels and taints of ours on Nodes.
//!
//! Owns reading all Nodes in pages and patching those that have any: as few requests as there are such Nodes, at most a
//! few at once. Whatever is not ours stays as it is.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde_json::{Value, json};
use shared::label::{self, FIELD_MANAGER};

/// Nodes are large; an API server gives 500 at most by default.
const PAGE: u32 = 250;

/// So many patches at once: an uninstall is in no hurry.
const AT_ONCE: usize = 8;

/// What was taken away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Nodes that were patched.
    pub nodes: usize,
    /// Labels.
    pub labels: usize,
    /// Taints.
    pub taints: usize,
}

impl AddAssign for Cleared {
    fn add_assign(&mut self, more: Self) {
        self.nodes += more.nodes;
        self.labels += more.labels;
        self.taints += more.taints;
    }
}

/// A Node with something of ours, and the patch that takes it away.
#[derive(Debug, Clone, PartialEq)]
struct Marked {
    name: String,
    patch: Value,
    cleared: Cleared,
}

/// Takes everything of ours from every Node; done when a reading of all Nodes finds none.
pub(super) async fn clear(client: &Client) -> kube::Result<Cleared> {
    // As they are written: a taint of others goes back with everything it has.
    let nodes: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<Node>(&()));
    let mut cleared = Cleared::default();
    loop {
        let marked = marked(&nodes).await?;
        if marked.is_empty() {
            return Ok(cleared);
        }
        let patches = stream::iter(marked).map(|node| clear_one(&nodes, node)).buffer_unordered(AT_ONCE);
        cleared += patches
            .try_fold(Cleared::default(), async |mut sum, one| {
                sum += one;
                Ok(sum)
            })
            .await?;
    }
}

async fn marked(nodes: &Api<DynamicObject>) -> kube::Result<Vec<Marked>> {
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = nodes.list(&page).await?;
        found.extend(list.items.into_iter().filter_map(mark));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(found),
        }
    }
}

async fn clear_one(nodes: &Api<DynamicObject>, node: Marked) -> kube::Result<Cleared> {
    match nodes.patch_metadata(&node.name, &PatchParams::apply(FIELD_MANAGER), &Patch::Merge(node.patch)).await {
        Ok(_) => Ok(node.cleared),
        // It took everything with it.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Cleared::default()),
        Err(error) => Err(error),
    }
}

/// A merge patch (RFC 7396): a null removes; a list is replaced as a whole, so it holds only for the version it was read at.
fn mark(node: DynamicObject) -> Option<Marked> {
    let labels: BTreeMap<String, Value> = node
        .metadata
        .labels
        .unwrap_or_default()
        .into_keys()
        .filter(|key| label::is_ours(key))
        .map(|key| (key, Value::Null))
        .collect();
    let all = node.data.pointer("/spec/taints").and_then(Value::as_array).into_iter().flatten();
    let is_ours = |taint: &&Value| taint.get("key").and_then(Value::as_str).is_some_and(label::is_our_taint);
    let (ours, others): (Vec<&Value>, Vec<&Value>) = all.partition(is_ours);
    let cleared = Cleared { nodes: 1, labels: labels.len(), taints: ours.len() };
    if labels.is_empty() && ours.is_empty() {
        return None;
    }
    let patch = if ours.is_empty() {
        json!({ "metadata": { "labels": labels } })
    } else {
        let others = if others.is_empty() { Value::Null } else { json!(others) };
        json!({
            "metadata": { "labels": labels, "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": others },
        })
    };
    Some(Marked { name: node.metadata.name?, patch, cleared })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked_patch(node: Value) -> Option<Value> {
        mark(serde_json::from_value(node).unwrap()).map(|marked| marked.patch)
    }

    #[test]
    fn only_what_is_ours_is_in_the_patch() {
        let ours = "image.warm-images.dev/aaaaaaaaaaaaaaaaaaaaaaaaaa";
        let labels = json!({ "kubernetes.io/os": "linux", "warm-images.dev.example.com/a": "b" });
        assert_eq!(marked_patch(json!({ "metadata": { "name": "n", "labels": labels } })), None);
        let labels = json!({ "kubernetes.io/os": "linux", ours: "d", "shop.set.warm-images.dev/base": "warm" });
        assert_eq!(
            marked_patch(json!({ "metadata": { "name": "n", "labels": labels } })),
            Some(json!({ "metadata": { "labels": { ours: null, "shop.set.warm-images.dev/base": null } } }))
        );
    }

    #[test]
    fn taints_of_others_stay_and_hold_for_the_version_that_was_read() {
        let (ours, other) = (
            json!({ "key": "warm-images.dev/cold", "effect": "NoSchedule" }),
            json!({ "key": "gpu", "value": "a100", "effect": "NoSchedule" }),
        );
        let node = |taints: &Value| json!({ "metadata": { "name": "n", "resourceVersion": "7" }, "spec": { "taints": taints } });
        let patch = |taints: Value| json!({ "metadata": { "labels": {}, "resourceVersion": "7" }, "spec": { "taints": taints } });
        assert_eq!(marked_patch(node(&json!([other]))), None);
        assert_eq!(marked_patch(node(&json!([ours, other]))), Some(patch(json!([other]))));
        assert_eq!(marked_patch(node(&json!([ours]))), Some(patch(Value::Null)));
    }
}
