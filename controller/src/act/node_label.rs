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
use kube::client::Body;
use kube::core::Status;
use kube::{Client, Resource as _};
use serde_json::json;
use shared::label::FIELD_MANAGER;
use shared::metric;
use shared::name::NodeName;
use shared::reason::Reason;
use tracing::{debug, warn};

use super::outcome::of_kubernetes;
use crate::api::failure;
use crate::leader::tenure::{LeaseLost, Tenure};

/// A patch that takes longer has failed; whether it took effect the watch will show.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest that an API server's word on when to come back is believed.
const PATIENCE: Duration = Duration::from_hours(1);

/// Why a Node was not labelled.
#[derive(Debug)]
pub struct Refusal {
    /// The bounded reason.
    pub reason: Reason,
    /// For how long the API server wants to be left alone, if it said so.
    pub retry_after: Option<Duration>,
}

/// A request that failed, with the answer's `Retry-After`, which kube's typed calls drop.
struct Failed {
    error: kube::Error,
    retry_after: Option<Duration>,
}

impl From<kube::Error> for Failed {
    fn from(error: kube::Error) -> Self {
        Self { error, retry_after: None }
    }
}

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
    let answer = client.send(request.map(Body::from)).await?;
    let code = answer.status();
    let after = retry_after(answer.headers().get("retry-after").and_then(|value| value.to_str().ok()));
    // To the end in any case: only then is the connection used again.
    let body = answer.into_body().collect_bytes().await?;
    if code.is_success() {
        return Ok(());
    }
    // What stands before an API server answers in words of its own.
    let in_words = || Status::failure(String::from_utf8_lossy(&body).trim(), "").with_code(code.as_u16());
    let status = serde_json::from_slice(&body).unwrap_or_else(|_| in_words());
    Err(Failed { error: kube::Error::Api(Box::new(status)), retry_after: after })
}

/// In seconds, as API servers and most proxies say it; a date is not read.
fn retry_after(value: Option<&str>) -> Option<Duration> {
    let seconds = value?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(PATIENCE))
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Some("3"), Some(3))]
    #[case(Some("0"), Some(0))]
    #[case(Some("99999999999"), Some(3_600))]
    #[case(Some("-1"), None)]
    #[case(Some("Wed, 21 Oct 2026 07:28:00 GMT"), None)]
    #[case(None, None)]
    fn when_to_come_back_is_read_in_seconds_and_bounded(#[case] value: Option<&str>, #[case] seconds: Option<u64>) {
        assert_eq!(retry_after(value), seconds.map(Duration::from_secs));
    }
}
