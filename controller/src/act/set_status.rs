//! The status of one set.
//!
//! Owns the server-side apply of all of it, on the subresource, which makes no set. Seen on 1.36: the status of a custom
//! resource is applied whatever UID stands beside it. A set of the same name that came later may so be told of with the
//! evidence of an earlier one, until the watch shows it: what it shows is put right then.

use std::fmt::Display;

use cluster_plan::effect::SetStatusWrite;
use daemon::metrics::{self, Outcome, effect_done};
use kube::api::{Patch, PatchParams};
use kube::{Client, Resource as _};
use serde_json::json;
use shared::label::FIELD_MANAGER;
use shared::metric;

use super::apply::{self, Failed, Refusal};
use super::outcome::of_kubernetes;
use crate::api::failure;
use crate::api::image_set::ImageSet;
use crate::leader::tenure::Tenure;

/// Writes the status once, as long as the tenure lasts.
pub async fn write(client: &Client, tenure: &Tenure, write: &SetStatusWrite) -> Result<(), Refusal> {
    let what = ("the status of a set", &write.set as &(dyn Display + Sync));
    let result = apply::once(tenure, what, patch(client, write), failure::reason).await;
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
