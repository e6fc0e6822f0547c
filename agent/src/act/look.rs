//! `Effect::ListImages` and `Effect::Observe`: looks at the runtime and its disk.

use std::path::Path;

use node_plan::Fact;
use shared::message::Disk;
use tracing::warn;

use super::outcome::done;
use crate::cri::Client;
use crate::cri::observe::disk_of;

/// What the runtime holds.
pub(super) async fn list(client: &Client) -> Fact {
    Fact::Images(done("list-images", client.list_images().await))
}

/// Who it is and how full its disk; nothing if it does not answer. Where its images cannot be seen from here, the file
/// system of `state_dir` stands for theirs: both are the node's.
pub(super) async fn observe(client: &Client, state_dir: &Path) -> Option<Fact> {
    let runtime = done("observe", client.version().await).ok()?;
    let mountpoint = client.image_mountpoint().await.ok().flatten();
    let paths: Vec<&Path> = mountpoint.as_deref().into_iter().chain([state_dir]).collect();
    let disk = disk_of(&paths).unwrap_or_else(|errno| {
        warn!(%errno, ?paths, "the disk cannot be measured");
        Disk::default()
    });
    Some(Fact::Observed { disk, runtime })
}
