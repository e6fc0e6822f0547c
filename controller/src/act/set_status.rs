//! The status of one set.
//!
//! Owns the server-side apply of all of it, on the subresource, which makes no set. Seen on 1.36: the status of a custom
//! resource is applied whatever UID stands beside it. A set of the same name that came later may so be told of with the
//! evidence of an earlier one, until the watch shows it: what it shows is put right then.

use std::time::Duration;

use cluster_plan::effect::SetStatusWrite;
use daemon::metrics::{self, Outcome, effect_done};
use kube::api::{Patch, PatchParams};
use kube::{Client, Resource as _};
use serde_json::json;
use shared::label::FIELD_MANAGER;
use shared::metric;
use shared::reason::Reason;
use tracing::{debug, warn};

use super::apply::{self, Failed, Refusal};
use super::outcome::of_kubernetes;
use crate::api::failure;
use crate::api::image_set::ImageSet;
use crate::leader::tenure::{LeaseLost, Tenure};

/// A write that takes longer has failed; whether it took effect the watch will show.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Writes the status once, as long as the tenure lasts.
pub async fn write(client: &Client, tenure: &Tenure, write: &SetStatusWrite) -> Result<(), Refusal> {
    let set = &write.set;
    let patching = tokio::time::timeout(TIMEOUT, patch(client, write));
    let result = match tenure.guard(patching).await {
        Err(LeaseLost) => {
            debug!(%set, "writing a status ends with the tenure");
            Err(Refusal { reason: Reason::LeaseLost, retry_after: None })
        }
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(Failed { error, retry_after }))) => {
            let reason = failure::reason(&error);
            // A set that has just gone is no trouble.
            if reason == Reason::Conflict {
                debug!(%set, %error, "the set is gone or is another one");
            } else {
                warn!(%set, %reason, ?retry_after, %error, "the status of a set could not be written");
            }
            Err(Refusal { reason, retry_after })
        }
        Ok(Err(_)) => {
            warn!(%set, "the status of a set got no answer in {TIMEOUT:?}");
            Err(Refusal { reason: Reason::Timeout, retry_after: None })
        }
    };
    let failure = result.as_ref().err().map(|refusal| refusal.reason);
    let outcome = failure.map_or(Outcome::Ok, of_kubernetes);
    metrics::count(metric::SET_STATUS_WRITES, &[outcome.as_str()], 1);
    effect_done("write-set-status", outcome, failure);
    result
}

async fn patch(client: &Client, write: &SetStatusWrite) -> Result<(), Failed> {
    let SetStatusWrite { set, uid, status } = write;
    let patch = Patch::Apply(json!({
        "apiVersion": ImageSet::api_version(&()),
        "kind": ImageSet::kind(&()),
        "metadata": { "name": set.name, "namespace": set.namespace, "uid": uid },
        "status": status,
    }));
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let request = kube::core::Request::new(ImageSet::url_path(&(), Some(&set.namespace)))
        .patch_subresource("status", &set.name, &params, &patch)
        .map_err(kube::Error::BuildRequest)?;
    apply::send(client, request).await
}
