//! Removal of an image.
//!
//! Owns `RemoveImage`. Looks at nothing: containerd removes what a container uses, and every name of the image with one.

use super::client::Client;
use super::error::CriError;
use super::proto;

impl Client {
    /// Removes the image of this name; no error if there is none.
    pub async fn remove_image(&self, reference: &str) -> Result<(), CriError> {
        let spec = proto::ImageSpec { image: reference.to_owned(), ..Default::default() };
        let request = proto::RemoveImageRequest { image: Some(spec) };
        self.ask("RemoveImage", reference, self.images().remove_image(request)).await.map(drop)
    }
}
