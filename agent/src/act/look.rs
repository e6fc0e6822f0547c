//! `Effect::ListImages` and `Effect::Observe`: looks at the runtime and its disk.

use std::path::Path;

use node_plan::Fact;
use node_plan::fact::Observation;
use tracing::warn;

use super::outcome::done;
use crate::cri::observe::space_of;
use crate::cri::{Client, CriError};

/// What the runtime holds.
pub(super) async fn list(client: &Client) -> Fact {
    Fact::Images(done("list-images", client.list_images().await))
}

/// Who it is and how full its disk. Where its images cannot be seen from here, the file system of `state_dir` stands for
/// theirs: both are the node's.
pub(super) async fn observe(client: &Client, state_dir: &Path) -> Fact {
    let looked = async {
        let runtime = client.version().await?;
        let mountpoint = client.image_mountpoint().await?;
        let paths: Vec<&Path> = mountpoint.as_deref().into_iter().chain([state_dir]).collect();
        let space = space_of(&paths).inspect_err(|errno| warn!(%errno, ?paths, "the disk cannot be measured")).ok();
        Ok::<_, CriError>(Observation { space, runtime })
    };
    Fact::Observed(done("observe", looked.await))
}
