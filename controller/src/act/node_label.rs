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
use kube::{Api, Client};
use serde_json::json;
use shared::label::FIELD_MANAGER;
use shared::metric;
use shared::name::NodeName;
use shared::reason::Reason;
use tracing::{debug, warn};

/// A patch that takes longer has failed; whether it took effect the watch will show.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Applies `labels` to the Node `node` whose UID is `uid`, once.
pub async fn apply(
    client: &Client,
    node: &NodeName,
    uid: &str,
    labels: &BTreeMap<String, String>,
) -> Result<(), Reason> {
    let api: Api<Node> = Api::all(client.clone());
    let patch = Patch::Apply(json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": node, "uid": uid, "labels": labels },
    }));
    let params = PatchParams::apply(FIELD_MANAGER).force();
    // Metadata only: a Node's status is large and is not needed.
    let answer = tokio::time::timeout(TIMEOUT, api.patch_metadata(node.as_str(), &params, &patch)).await;
    let result = match answer {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            let reason = reason(&error);
            // A Node that has just gone is no trouble.
            if reason == Reason::Conflict {
                debug!(%node, %error, "the Node is gone or is another one");
            } else {
                warn!(%node, %reason, %error, "labelling failed");
            }
            Err(reason)
        }
        Err(_) => {
            warn!(%node, "labelling got no answer in {TIMEOUT:?}");
            Err(Reason::Timeout)
        }
    };
    let outcome = result.map_or_else(outcome, |()| Outcome::Ok);
    metrics::count(metric::LABEL_PATCHES, &[outcome.as_str()], 1);
    effect_done("label-node", outcome, result.err());
    result
}

fn outcome(reason: Reason) -> Outcome {
    match reason {
        Reason::Conflict => Outcome::Conflict,
        Reason::Throttled => Outcome::Throttled,
        Reason::Forbidden | Reason::Invalid => Outcome::Permanent,
        _ => Outcome::Transient,
    }
}

fn reason(error: &kube::Error) -> Reason {
    match error {
        // Seen on 1.36: another UID is 422 over `metadata.uid` when the Node exists, and 409 when it does not.
        kube::Error::Api(status) if status.code == 422 && is_about_uid(status) => Reason::Conflict,
        kube::Error::Api(status) => match status.code {
            404 | 409 => Reason::Conflict,
            401 | 403 => Reason::Forbidden,
            429 => Reason::Throttled,
            400 | 422 => Reason::Invalid,
            504 => Reason::Timeout,
            _ => Reason::Unknown,
        },
        kube::Error::BuildRequest(_) => Reason::Invalid,
        _ => Reason::Network,
    }
}

fn is_about_uid(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.field == "metadata.uid")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(404, Reason::Conflict)]
    #[case(409, Reason::Conflict)]
    #[case(403, Reason::Forbidden)]
    #[case(429, Reason::Throttled)]
    #[case(422, Reason::Invalid)]
    #[case(500, Reason::Unknown)]
    #[case(503, Reason::Unknown)]
    #[case(504, Reason::Timeout)]
    fn an_answer_becomes_a_bounded_reason(#[case] code: u16, #[case] expected: Reason) {
        let status = Status { code, ..Status::default() };
        assert_eq!(reason(&kube::Error::Api(Box::new(status))), expected);
    }
}
