//! Labels of ours on one Node.
//!
//! Owns the server-side apply: the Node then has exactly the labels given among those this field manager has put there;
//! every other label is untouched. It carries the Node's UID, so that a Node of the same name that came later is never
//! labelled with the evidence of an earlier one, and none is ever created.

use std::collections::BTreeMap;

use daemon::metrics::{self, Outcome, effect_done};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::core::Status;
use kube::{Client, Resource as _};
use serde_json::json;
use shared::label::FIELD_MANAGER;
use shared::metric;
use shared::name::NodeName;
use shared::reason::Reason;

use super::apply::{self, Failed, Refusal};
use super::outcome::of_kubernetes;
use crate::api::failure;
use crate::leader::tenure::Tenure;

/// Applies `labels` to the Node `node` whose UID is `uid`, once, as long as the tenure lasts.
pub async fn apply(
    client: &Client,
    tenure: &Tenure,
    node: &NodeName,
    uid: &str,
    labels: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let result = apply::once(tenure, ("labels", node), patch(client, node, uid, labels), reason).await;
    let failure = result.as_ref().err().map(|refusal| refusal.reason);
    let outcome = failure.map_or(Outcome::Ok, of_kubernetes);
    metrics::count(metric::LABEL_PATCHES, &[outcome.as_str()], 1);
    effect_done("label-node", outcome, failure);
    result
}

async fn patch(client: &Client, node: &NodeName, uid: &str, labels: &BTreeMap<String, String>) -> Result<(), Failed> {
    let patch = Patch::Apply(json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": node, "uid": uid, "labels": labels },
    }));
    let params = PatchParams::apply(FIELD_MANAGER).force();
    // Metadata only: a Node's status is large and is not needed.
    let request = kube::core::Request::new(Node::url_path(&(), None))
        .patch_metadata(node.as_str(), &params, &patch)
        .map_err(kube::Error::BuildRequest)?;
    apply::send(client, request).await
}

fn reason(error: &kube::Error) -> Reason {
    match error {
        // Seen on 1.36: another UID is 422 over `metadata.uid` when the Node exists, and 409 when it does not.
        kube::Error::Api(status) if status.code == 422 && is_about_uid(status) => Reason::Conflict,
        _ => failure::reason(error),
    }
}

fn is_about_uid(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.field == "metadata.uid")
}
