//! References of images, as people write them and as runtimes pull them.
//!
//! Owns how the text of an image is read, normalised and printed. It must equal, byte for byte, what containerd makes of
//! the same text (`ParseDockerRef` of `github.com/distribution/reference` v0.6.0, `normalize.go`): an image warmed under
//! another name is pulled again. `tests/reference_vectors.rs` checks that against the peer's own answers.
//! Never asks a registry and never applies a runtime's short-name rules; [`Reference::is_unqualified`] says where those
//! could matter.

use std::fmt;

use super::{Digest, DigestError, clip, grammar};
use crate::name::ImageKey;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const LOCALHOST: &str = "localhost";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";

/// A text that names no image. Every text shown is clipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("the image reference is empty: write one such as `nginx:1.27` or `registry.example/team/app:1.2`")]
    Empty,
    /// The ID of an image, which names content of one node and nothing a registry knows.
    #[error("`{text}` is the ID of an image, not its name: write <repository>@sha256:<hex> to ask for a digest")]
    ImageId {
        /// What was given.
        text: String,
    },
    /// The part before the first `/` must be a registry host and is none.
    #[error(
        "image reference `{text}`: `{domain}` is not a registry host: write labels of a-z, A-Z, 0-9 and - joined by \
         dots, or an IPv6 address in [], then an optional :port of digits; no scheme such as https://, no user"
    )]
    Domain {
        /// What was given.
        text: String,
        /// The part at fault.
        domain: String,
    },
    /// A capital in the path.
    #[error("image reference `{text}`: the repository `{path}` must be lower-case")]
    Uppercase {
        /// What was given.
        text: String,
        /// The part at fault.
        path: String,
    },
    /// A component of the path breaks the rule.
    #[error(
        "image reference `{text}`: `{component}` is not part of a repository name: write a-z and 0-9, joined by one \
         of . _ __ or dashes, with one / between parts and none at the end"
    )]
    Path {
        /// What was given.
        text: String,
        /// The part at fault.
        component: String,
    },
    /// The path is too long.
    #[error("image reference `{text}`: the repository has {length} characters without its host, 255 are allowed")]
    TooLong {
        /// What was given.
        text: String,
        /// Its length.
        length: usize,
    },
    /// The tag breaks the rule.
    #[error(
        "image reference `{text}`: `{tag}` is not a tag: write 1 to 128 of a-z, A-Z, 0-9, _, . and -, the first one \
         neither . nor -"
    )]
    Tag {
        /// What was given.
        text: String,
        /// The part at fault.
        tag: String,
    },
    /// The digest breaks the rule.
    #[error("image reference `{text}`: {source}")]
    Digest {
        /// What was given.
        text: String,
        /// What is wrong with the digest.
        source: DigestError,
    },
}

/// An image by name: normalised, and with a tag, a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference as written in a pod: adds `docker.io`, `library/` and, when it has neither tag nor digest,
    /// `latest`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        // The two forms that `ParseAnyReference` and containerd's store take for an ID before they take it for a name.
        if grammar::is_identifier(text) || Digest::parse(text).is_ok() {
            return Err(ReferenceError::ImageId { text: clip(text) });
        }
        // No part but the digest's separator holds an `@`.
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => {
                let digest =
                    Digest::parse(digest).map_err(|source| ReferenceError::Digest { text: clip(text), source })?;
                (named, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = split_tag(named);
        let (domain, path) = normalise(text, name)?;
        let tag = match tag {
            Some(tag) if grammar::is_tag(tag) => Some(tag.to_owned()),
            Some(tag) => {
                return Err(ReferenceError::Tag { text: clip(text), tag: clip(tag) });
            }
            None if digest.is_none() => Some(DEFAULT_TAG.to_owned()),
            None => None,
        };
        Ok(Self { domain, path, tag, digest })
    }

    /// The registry host with its port. Empty, as for the peer, in the one odd case of a first part that holds a dot
    /// yet is no host name, such as `my_registry.corp/app`; it is then the first part of [`Reference::path`].
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository without its host.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, given or `latest`; none when only a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, when one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Host and path: the reference without tag and digest.
    pub fn repository(&self) -> String {
        if self.domain.is_empty() { self.path.clone() } else { format!("{}/{}", self.domain, self.path) }
    }

    /// The pull key, under which containerd knows the image: the tag is dropped next to a digest.
    pub fn canonical(&self) -> String {
        let mut text = self.repository();
        match (&self.digest, &self.tag) {
            (Some(digest), _) => text.extend(["@", digest.algorithm(), ":", digest.hex()]),
            (None, Some(tag)) => text.extend([":", tag]),
            (None, None) => {}
        }
        text
    }

    /// The key of the image: that of its canonical form.
    pub fn key(&self) -> ImageKey {
        ImageKey::of(&self.canonical())
    }

    /// Whether the text, as written, names no registry host, so that a runtime with short-name rules (CRI-O) may take
    /// it elsewhere than to `docker.io`.
    ///
    /// The rule is that of CRI-O's library (`IsShortName` of `go.podman.io/image`, formerly `containers/image`): a host
    /// has a dot or a port, or is `localhost`. So `REG/x` is a short name there and `docker.io/x` is none. False for
    /// what is no reference.
    pub fn is_unqualified(text: &str) -> bool {
        let names_host = text
            .split_once('/')
            .is_some_and(|(first, _)| (first == LOCALHOST || first.contains(['.', ':'])) && grammar::is_domain(first));
        !names_host && Self::parse(text).is_ok()
    }
}

/// For people: everything known, `domain/path[:tag][@digest]`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.domain.is_empty() {
            write!(f, "{}/", self.domain)?;
        }
        f.write_str(&self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Name and tag: a colon before the last `/` belongs to the host.
fn split_tag(named: &str) -> (&str, Option<&str>) {
    let last = named.rsplit_once('/').map_or(named, |(_, last)| last);
    match last.split_once(':') {
        Some((_, tag)) => (named.strip_suffix(tag).and_then(|n| n.strip_suffix(':')).unwrap_or(named), Some(tag)),
        None => (named, None),
    }
}

/// Domain and path of a name without tag and digest (`splitDockerDomain`, then the grammar of names).
fn normalise(text: &str, name: &str) -> Result<(String, String), ReferenceError> {
    let (domain, path) = match name.split_once('/') {
        Some((LEGACY_DEFAULT_DOMAIN, path)) => (DEFAULT_DOMAIN, path),
        Some((first, path)) if reads_as_domain(first) => (first, path),
        _ => (DEFAULT_DOMAIN, name),
    };
    let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
        format!("{OFFICIAL_PREFIX}{path}")
    } else {
        path.to_owned()
    };
    let (domain, path) = if grammar::is_domain(domain) {
        (domain.to_owned(), path)
    } else if grammar::is_path_component(domain) {
        // `my_registry.corp/app`: the peer's grammar has no other place for it than the path.
        (String::new(), format!("{domain}/{path}"))
    } else {
        return Err(ReferenceError::Domain { text: clip(text), domain: clip(domain) });
    };
    if let Some(component) = path.split('/').find(|c| !grammar::is_path_component(c)) {
        return Err(if path.bytes().any(|b| b.is_ascii_uppercase()) {
            ReferenceError::Uppercase { text: clip(text), path: clip(&path) }
        } else {
            ReferenceError::Path { text: clip(text), component: clip(component) }
        });
    }
    if path.len() > grammar::PATH_MAX {
        return Err(ReferenceError::TooLong { text: clip(text), length: path.len() });
    }
    Ok((domain, path))
}

/// Whether the part before the first `/` is meant as a host. A capital decides for it, as repositories have none.
fn reads_as_domain(first: &str) -> bool {
    first == LOCALHOST || first.contains(['.', ':']) || first.bytes().any(|b| b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests;
