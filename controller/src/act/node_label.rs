//! Labels of ours on one Node.
//!
//! Owns the server-side apply: the Node then has exactly the labels given among those this field manager has put there;
//! every other label is untouched. It carries the Node's UID, so that a Node of the same name that came later is never
//! labelled with the evidence of an earlier one, and none is ever created.

use std::collections::BTreeMap;
use std::time::Duration;

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
use tracing::{debug, warn};

use super::apply::{self, Failed, Refusal};
use super::outcome::of_kubernetes;
use crate::api::failure;
use crate::leader::tenure::{LeaseLost, Tenure};

/// A patch that takes longer has failed; whether it took effect the watch will show.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Applies `labels` to the Node `node` whose UID is `uid`, once, as long as the tenure lasts.
pub async fn apply(
    client: &Client,
    tenure: &Tenure,
    node: &NodeName,
    uid: &str,
    labels: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let patching = tokio::time::timeout(TIMEOUT, patch(client, node, uid, labels));
    let result = match tenure.guard(patching).await {
        Err(LeaseLost) => {
            debug!(%node, "labelling ends with the tenure");
            Err(Refusal { reason: Reason::LeaseLost, retry_after: None })
        }
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(Failed { error, retry_after }))) => {
            let reason = reason(&error);
            // A Node that has just gone is no trouble.
            if reason == Reason::Conflict {
                debug!(%node, %error, "the Node is gone or is another one");
            } else {
                warn!(%node, %reason, ?retry_after, %error, "labelling failed");
            }
            Err(Refusal { reason, retry_after })
        }
        Ok(Err(_)) => {
            warn!(%node, "labelling got no answer in {TIMEOUT:?}");
            Err(Refusal { reason: Reason::Timeout, retry_after: None })
        }
    };
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
