//! Small real OCI images, made in memory: owns layers of a chosen size, config, manifest, index. Pushing is the registry's.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const PLAIN_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What an image is to be like. Two images of one repository and tag are equal byte by byte; those of others share no
/// layer, unless a layer's seed is given.
#[derive(Clone, Debug)]
pub struct Image {
    repository: String,
    tag: String,
    platform: Platform,
    layers: Vec<(u64, usize)>,
    revision: u64,
    files: Vec<(String, Bytes)>,
    entrypoint: Vec<String>,
}

/// For which machines an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64` …
    pub architecture: String,
}

impl Platform {
    /// A Linux platform.
    pub fn linux(architecture: &str) -> Self {
        Self { os: "linux".into(), architecture: architecture.into() }
    }

    /// The platform of this machine, in Go's words.
    pub fn here() -> Self {
        Self::linux(match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        })
    }
}

impl Image {
    /// `repository` without a registry's name, as in `team/app`. Without a call of `layer` it has one of 1 KiB.
    pub fn new(repository: impl Into<String>, tag: impl Into<String>) -> Self {
        let (repository, tag) = (repository.into(), tag.into());
        Self {
            repository,
            tag,
            platform: Platform::here(),
            layers: Vec::new(),
            revision: 0,
            files: Vec::new(),
            entrypoint: Vec::new(),
        }
    }

    /// One more layer with a file of so many incompressible bytes.
    #[must_use]
    pub fn layer(self, bytes: usize) -> Self {
        let mut seed = DefaultHasher::new();
        (&self.repository, &self.tag, self.layers.len(), self.revision).hash(&mut seed);
        self.layer_of(seed.finish(), bytes)
    }

    /// One more layer that is equal in all images that give the same seed and size.
    #[must_use]
    pub fn layer_of(mut self, seed: u64, bytes: usize) -> Self {
        self.layers.push((seed, bytes));
        self
    }

    /// Another content under the same name: a tag that moves. To be called before `layer`.
    #[must_use]
    pub fn revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    /// One more layer with this file, readable and executable for all.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Bytes>) -> Self {
        self.files.push((path.trim_start_matches('/').to_owned(), content.into()));
        self
    }

    /// What a container of it runs.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(ToString::to_string).collect();
        self
    }

    /// For other machines than this one.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// The repository.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Makes all its blobs.
    pub(crate) fn build(&self) -> Result<Built> {
        let image =
            if self.layers.is_empty() && self.files.is_empty() { self.clone().layer(1024) } else { self.clone() };
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for (number, (seed, bytes)) in image.layers.iter().enumerate() {
            let tar = tar(&format!("layer-{number}.bin"), *seed, *bytes)?;
            diff_ids.push(digest(&tar));
            layers.push(Blob::new(LAYER, gzip(&tar)?));
        }
        for (path, content) in &image.files {
            // As it is: whoever made the file knows whether it compresses, and these stay on this machine.
            let layer = Blob::new(PLAIN_LAYER, tar_of(path, 0o755, content)?);
            diff_ids.push(layer.digest.clone());
            layers.push(layer);
        }
        let mut run = json!({ "Labels": { "test.revision": self.revision.to_string() } });
        if !self.entrypoint.is_empty() {
            run.as_object_mut().context("a map")?.insert("Entrypoint".to_owned(), json!(self.entrypoint));
        }
        let config = Blob::json(
            CONFIG,
            &json!({
                "architecture": self.platform.architecture,
                "os": self.platform.os,
                "config": run,
                "rootfs": { "type": "layers", "diff_ids": diff_ids },
            }),
        )?;
        let manifest = Blob::json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor(),
                "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
            }),
        )?;
        Ok(Built { layers, config, manifest })
    }
}

/// An image that is in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Without the registry's name.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// What the tag resolves to: of the index if there is one, else of the manifest.
    pub digest: String,
    /// The digest of the config: a runtime's image id. Empty if an index has no image for this machine.
    pub id: String,
    /// Digests of the compressed layers, of the image for this machine.
    pub layers: Vec<String>,
    /// Bytes that a pull moves: compressed layers and config, of the image for this machine.
    pub bytes: u64,
}

impl Published {
    pub(crate) fn new(repository: &str, tag: &str, top: &Blob, image: Option<&Built>) -> Self {
        let blobs = || image.into_iter().flat_map(|image| image.layers.iter().chain([&image.config]));
        Self {
            repository: repository.into(),
            tag: tag.into(),
            digest: top.digest.clone(),
            id: image.map(|image| image.config.digest.clone()).unwrap_or_default(),
            layers: image.iter().flat_map(|image| &image.layers).map(|layer| layer.digest.clone()).collect(),
            bytes: blobs().map(|blob| blob.bytes.len() as u64).sum(),
        }
    }

    /// `<registry>/<repository>:<tag>`, with the registry's name as nodes know it.
    pub fn by_tag(&self, registry: &str) -> String {
        format!("{registry}/{}:{}", self.repository, self.tag)
    }

    /// `<registry>/<repository>@<digest>`.
    pub fn by_digest(&self, registry: &str) -> String {
        format!("{registry}/{}@{}", self.repository, self.digest)
    }
}

/// All blobs of one image.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) layers: Vec<Blob>,
    pub(crate) config: Blob,
    pub(crate) manifest: Blob,
}

/// A piece of content with its name.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub(crate) media_type: &'static str,
    pub(crate) digest: String,
    pub(crate) bytes: Bytes,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { media_type, digest: digest(&bytes), bytes: bytes.into() }
    }

    fn json(media_type: &'static str, value: &serde_json::Value) -> Result<Self> {
        Ok(Self::new(media_type, serde_json::to_vec(value).context("writing a manifest")?))
    }

    fn descriptor(&self) -> serde_json::Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() })
    }
}

/// The index over images, and the one of them that is for this machine.
pub(crate) fn index(images: &[(Platform, Built)]) -> Result<(Blob, Option<&Built>)> {
    let manifests: Vec<_> = images
        .iter()
        .map(|(platform, built)| {
            json!({
                "mediaType": built.manifest.media_type,
                "digest": built.manifest.digest,
                "size": built.manifest.bytes.len(),
                "platform": { "os": platform.os, "architecture": platform.architecture },
            })
        })
        .collect();
    let index = Blob::json(INDEX, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }))?;
    let here = images.iter().find(|(platform, _)| *platform == Platform::here()).map(|(_, built)| built);
    Ok((index, here))
}

/// An archive with one file of pseudo-random bytes, equal for equal arguments.
fn tar(name: &str, seed: u64, bytes: usize) -> Result<Vec<u8>> {
    let mut content = vec![0; bytes];
    fastrand::Rng::with_seed(seed).fill(&mut content);
    tar_of(name, 0o644, &content)
}

/// An archive with one file.
fn tar_of(name: &str, mode: u32, content: &[u8]) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    let mut archive = tar::Builder::new(Vec::with_capacity(content.len() + 2048));
    archive.append_data(&mut header, name, content).context("writing a layer")?;
    archive.into_inner().context("writing a layer")
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write as _;
    // Random bytes do not get smaller; the format is what matters.
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len()), Compression::none());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).context("compressing a layer")
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_equal_to_itself_and_to_no_other() {
        let digest_of = |image: &Image| image.build().map(|built| built.manifest.digest).unwrap();
        let image = Image::new("team/app", "1").layer(10).layer(20);
        assert_eq!(digest_of(&image), digest_of(&image.clone()));
        assert_ne!(digest_of(&image), digest_of(&Image::new("team/app", "2").layer(10).layer(20)));
        assert_ne!(digest_of(&image), digest_of(&Image::new("team/app", "1").revision(1).layer(10).layer(20)));
        let shared = |name: &str| Image::new(name, "1").layer_of(7, 10).build().unwrap().layers[0].digest.clone();
        assert_eq!(shared("a"), shared("b"));
    }
}
