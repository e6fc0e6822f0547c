//! `Effect::ListContainers` and `Effect::RemoveImage`.
//!
//! Owns the last look before a removal: what was decided on may have changed since.

use std::collections::BTreeSet;

use daemon::metrics::count;
use node_plan::Fact;
use node_plan::fact::{Removal, RuntimeImage};
use node_plan::gc::is_used;
use shared::metric;
use tracing::info;

use super::outcome::done;
use crate::cri::{Client, CriError};

/// What containers use.
pub(super) async fn containers(client: &Client) -> Fact {
    Fact::InUse(done("list-containers", client.images_in_use().await))
}

/// Looks once more and removes, or says why not.
pub(super) async fn remove(client: &Client, image: String, held: &RuntimeImage, is_dry_run: bool) -> Fact {
    let result = done("remove-image", look_and_remove(client, &image, held, is_dry_run).await);
    let outcome = result.map_or("failed", Removal::as_str);
    count(metric::REMOVALS, &[outcome], 1);
    let bytes = held.bytes;
    match result {
        Ok(Removal::Removed) => {
            count(metric::REMOVED_BYTES, &[], bytes);
            info!(%image, bytes, "removed: nobody wants it, and the disk is above gc.high");
        }
        Ok(Removal::Planned) => {
            info!(%image, bytes, "would be removed: nobody wants it, and the disk is above gc.high; gc.mode is dryRun");
        }
        Ok(Removal::Used | Removal::Changed) => info!(%image, outcome, "not removed after a last look"),
        Err(_) => {}
    }
    Fact::Removed { image, result }
}

/// Removes the image unless it is pinned, another than was decided on, or in use; the runtime itself looks at none of it.
pub async fn look_and_remove(
    client: &Client,
    reference: &str,
    held: &RuntimeImage,
    is_dry_run: bool,
) -> Result<Removal, CriError> {
    let Some(now) = client.image_status(reference).await? else {
        return Ok(Removal::Removed);
    };
    if now.pinned || now.runtime_id != held.runtime_id || names(&now) != names(held) {
        return Ok(Removal::Changed);
    }
    if is_used(&now, &client.images_in_use().await?) {
        return Ok(Removal::Used);
    }
    if is_dry_run {
        return Ok(Removal::Planned);
    }
    client.remove_image(reference).await?;
    Ok(Removal::Removed)
}

fn names(image: &RuntimeImage) -> BTreeSet<&String> {
    image.repo_tags.iter().chain(&image.repo_digests).collect()
}
