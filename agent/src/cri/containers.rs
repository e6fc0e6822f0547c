//! What containers use.
//!
//! Owns `ListContainers` and `ContainerStatus`, of which nothing but images is read.

use std::collections::BTreeSet;

use shared::reason::Reason;

use super::client::Client;
use super::error::CriError;
use super::proto;

impl Client {
    /// Every name that a container, in any state, or one of its image volumes knows its image by: ids, tags, digests.
    pub async fn images_in_use(&self) -> Result<BTreeSet<String>, CriError> {
        let request = proto::ListContainersRequest {};
        let listed = self.ask("ListContainers", "", self.runtime().list_containers(request)).await?;
        let mut names = BTreeSet::new();
        for container in listed.containers {
            for mount in self.mounts(&container.id).await? {
                names.extend(mount.image.into_iter().flat_map(spoken));
            }
            names.extend(container.image.into_iter().flat_map(spoken));
            names.extend([container.image_ref, container.image_id]);
        }
        names.remove("");
        Ok(names)
    }

    /// Of a container that may have gone since it was listed.
    async fn mounts(&self, container: &str) -> Result<Vec<proto::Mount>, CriError> {
        let request = proto::ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
        match self.ask("ContainerStatus", "", self.runtime().container_status(request)).await {
            Ok(answer) => Ok(answer.status.map(|status| status.mounts).unwrap_or_default()),
            Err(error) if error.reason() == Reason::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn spoken(image: proto::ImageSpec) -> [String; 2] {
    [image.image, image.user_specified_image]
}
