//! Definitions of kinds: that of `ImageSet`, as the chart installs it, and those of other people's kinds. Owns that the first is
//! served before anything asks for it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use controller::api::image_set::{self, ImageSet};
use controller::config::KindSettings;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::eventually::eventually;

/// An API server takes up a definition within this time, on a busy machine.
const SERVED: Duration = Duration::from_secs(30);

/// Installs it, and waits until sets can be listed.
pub async fn install(client: &Client) -> Result<()> {
    let definition: CustomResourceDefinition = serde_json::from_value(image_set::definition())?;
    let definitions = Api::all(client.clone());
    definitions.create(&PostParams::default(), &definition).await.context("installing the definition of ImageSet")?;
    let sets: Api<ImageSet> = Api::all(client.clone());
    eventually("sets can be listed", SERVED, async || sets.list(&ListParams::default()).await.map(drop)).await
}

/// That of a configured kind whose objects may hold anything.
pub fn of_kind(kind: &KindSettings) -> Result<CustomResourceDefinition> {
    let (plural, group) = (kind.plural(), &kind.group);
    let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let definition = json!({
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": { "plural": plural, "kind": kind.kind },
            "versions": [
                { "name": kind.version, "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } },
            ],
        },
    });
    Ok(serde_json::from_value(definition)?)
}
