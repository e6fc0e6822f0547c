//! What is in the runtime's store.
//!
//! Owns `ListImages` and `ImageStatus`. Says only what the runtime says: neither proves that an image is unpacked.

use node_plan::fact::RuntimeImage;
use tracing::debug;

use super::client::Client;
use super::error::CriError;
use super::proto;

impl Client {
    /// Every image.
    pub async fn list_images(&self) -> Result<Vec<RuntimeImage>, CriError> {
        let request = proto::ListImagesRequest { filter: None };
        let listed = self.ask("ListImages", "", self.images().list_images(request)).await?;
        Ok(images(listed))
    }

    /// What the runtime holds under a reference; `None` if it holds nothing.
    pub async fn image_status(&self, reference: &str) -> Result<Option<RuntimeImage>, CriError> {
        let spec = proto::ImageSpec { image: reference.to_owned(), ..Default::default() };
        let request = proto::ImageStatusRequest { image: Some(spec), verbose: false };
        let status = self.ask("ImageStatus", reference, self.images().image_status(request)).await?;
        Ok(held(status))
    }
}

/// What a list says. An image that cannot be read is left out, and so is each of its names that cannot.
pub fn images(listed: proto::ListImagesResponse) -> Vec<RuntimeImage> {
    listed.images.into_iter().filter_map(image).collect()
}

/// What is held, if anything is.
pub fn held(status: proto::ImageStatusResponse) -> Option<RuntimeImage> {
    status.image.and_then(image)
}

fn image(image: proto::Image) -> Option<RuntimeImage> {
    let Ok(runtime_id) = String::from_utf8(image.id) else {
        debug!("an image whose id is no UTF-8 is left out");
        return None;
    };
    Some(RuntimeImage {
        repo_tags: names(&runtime_id, image.repo_tags),
        repo_digests: names(&runtime_id, image.repo_digests),
        bytes: image.size,
        pinned: image.pinned,
        runtime_id,
    })
}

/// A name that is no UTF-8 can be no reference.
fn names(id: &str, names: Vec<Vec<u8>>) -> Vec<String> {
    let count = names.len();
    let read: Vec<String> = names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect();
    if read.len() < count {
        debug!(id, "{} names of an image are no UTF-8 and left out", count - read.len());
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unreadable_image_or_name_leaves_the_rest_of_the_list() {
        let image = |id: &[u8], tags: &[&[u8]]| proto::Image {
            id: id.to_vec(),
            repo_tags: tags.iter().map(|tag| tag.to_vec()).collect(),
            size: 7,
            ..Default::default()
        };
        let listed = proto::ListImagesResponse {
            images: vec![
                image(b"a", &[b"docker.io/library/a:1"]),
                image(b"\xff", &[b"b"]),
                image(b"c", &[b"\xc3\x28", b"c:1"]),
            ],
        };
        // As it comes: the peer's own type of these fields is `string`.
        let bytes = prost::Message::encode_to_vec(&listed);
        let read = images(<proto::ListImagesResponse as prost::Message>::decode(bytes.as_slice()).unwrap());
        let found: Vec<(&str, Vec<&str>)> =
            read.iter().map(|i| (i.runtime_id.as_str(), i.repo_tags.iter().map(String::as_str).collect())).collect();
        assert_eq!(found, [("a", vec!["docker.io/library/a:1"]), ("c", vec!["c:1"])]);
    }
}
