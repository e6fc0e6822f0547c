//! Lies about which images a runtime has: owns what `ListImages` and `ImageStatus` are made to say. The messages are
//! those of CRI v1 (`runtime.v1`), with every field, so that nothing but the lie is changed.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use prost::Message as _;

/// What is said instead of the truth.
#[derive(Clone, Debug)]
pub enum Lie {
    /// The image of this name (tag or digest) is not there.
    Absent(String),
    /// This one is there.
    Present(Held),
    /// The image of this name is there under this digest instead of its own.
    Digest(String, String),
}

/// An image that is said to be there.
#[derive(Clone, Debug)]
pub struct Held {
    /// `repository:tag`.
    pub tag: String,
    /// `repository@sha256:…`.
    pub digest: String,
}

impl Lie {
    /// Whether answers of this method tell of images.
    pub(super) fn is_about(method: &str) -> bool {
        matches!(method, "ListImages" | "ImageStatus")
    }

    /// The message that is passed on in place of `message`, the answer of `method` when asked about `image`.
    pub(super) fn tell(&self, method: &str, image: &str, message: &[u8]) -> Result<Vec<u8>> {
        match method {
            "ListImages" => {
                let mut list = ListImagesResponse::decode(message).context("the list of images")?;
                list.images = self.twist(list.images);
                Ok(list.encode_to_vec())
            }
            "ImageStatus" => {
                let mut status = ImageStatusResponse::decode(message).context("the status of an image")?;
                let told = self.twist(status.image.into_iter().collect());
                // A made up image answers to its own names only.
                status.image = told.into_iter().find(|told| !self.made(told) || told.is(image));
                Ok(status.encode_to_vec())
            }
            _ => Ok(message.to_vec()),
        }
    }

    fn made(&self, image: &Image) -> bool {
        matches!(self, Self::Present(held) if image.id == held.id())
    }

    fn twist(&self, mut images: Vec<Image>) -> Vec<Image> {
        match self {
            Self::Absent(name) => images.retain(|image| !image.is(name)),
            Self::Present(held) => images.push(held.image()),
            Self::Digest(name, digest) => {
                for image in images.iter_mut().filter(|image| image.is(name)) {
                    for repo_digest in &mut image.repo_digests {
                        let repository = repo_digest.split('@').next().unwrap_or_default();
                        *repo_digest = format!("{repository}@{digest}");
                    }
                }
            }
        }
        images
    }
}

impl Held {
    fn id(&self) -> String {
        self.digest.rsplit('@').next().unwrap_or_default().to_owned()
    }

    fn image(&self) -> Image {
        Image {
            id: self.id(),
            repo_tags: vec![self.tag.clone()],
            repo_digests: vec![self.digest.clone()],
            size: 1_000,
            ..Image::default()
        }
    }
}

/// The image that a request names in its first field.
pub(super) fn image_named(message: &[u8]) -> Result<String> {
    let request = AboutAnImage::decode(message).context("a request about an image")?;
    Ok(request.image.unwrap_or_default().image)
}

/// `ImageStatusRequest`, `PullImageRequest` and `RemoveImageRequest`, of which no more is read.
#[derive(Clone, PartialEq, prost::Message)]
struct AboutAnImage {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListImagesResponse {
    #[prost(message, repeated, tag = "1")]
    images: Vec<Image>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageStatusResponse {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
    #[prost(map = "string, string", tag = "2")]
    info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Image {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, repeated, tag = "2")]
    repo_tags: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    repo_digests: Vec<String>,
    #[prost(uint64, tag = "4")]
    size: u64,
    #[prost(message, optional, tag = "5")]
    uid: Option<Int64Value>,
    #[prost(string, tag = "6")]
    username: String,
    #[prost(message, optional, tag = "7")]
    spec: Option<ImageSpec>,
    #[prost(bool, tag = "8")]
    pinned: bool,
}

impl Image {
    fn is(&self, name: &str) -> bool {
        self.id == name || self.repo_tags.iter().chain(&self.repo_digests).any(|own| own == name)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
    #[prost(map = "string, string", tag = "2")]
    annotations: HashMap<String, String>,
    #[prost(string, tag = "18")]
    user_specified_image: String,
    #[prost(string, tag = "19")]
    runtime_handler: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Int64Value {
    #[prost(int64, tag = "1")]
    value: i64,
}
