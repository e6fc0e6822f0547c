//! What is in the runtime's store.
//!
//! Owns `ListImages` and `ImageStatus`. Says only what the runtime says: neither proves that an image is unpacked.

use node_plan::fact::RuntimeImage;

use super::client::Client;
use super::error::CriError;
use super::proto;

impl Client {
    /// Every image.
    pub async fn list_images(&self) -> Result<Vec<RuntimeImage>, CriError> {
        let request = proto::ListImagesRequest { filter: None };
        let listed = self.ask("ListImages", "", self.images().list_images(request)).await?;
        Ok(listed.images.into_iter().map(image).collect())
    }

    /// What the runtime holds under a reference; `None` if it holds nothing.
    pub async fn image_status(&self, reference: &str) -> Result<Option<RuntimeImage>, CriError> {
        let spec = proto::ImageSpec { image: reference.to_owned(), ..Default::default() };
        let request = proto::ImageStatusRequest { image: Some(spec), verbose: false };
        let status = self.ask("ImageStatus", reference, self.images().image_status(request)).await?;
        Ok(status.image.map(image))
    }
}

fn image(image: proto::Image) -> RuntimeImage {
    RuntimeImage {
        runtime_id: image.id,
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        bytes: image.size,
        pinned: image.pinned,
    }
}
