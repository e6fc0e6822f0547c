//! Which of the wanted images the runtime holds, judged from its own list.
//!
//! Owns the match of references against tags and digests, and which digest is reported. Never reads
//! `node.status.images`, never trusts that a pull that succeeded once still holds.

use std::collections::BTreeMap;

use shared::image::{Digest, Reference};
use shared::machine::Moment;
use shared::name::ImageKey;

use crate::fact::{RuntimeImage, digest_in};

/// An image that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Present {
    /// What the reference resolves to, as far as the runtime says.
    pub(crate) digest: Option<Digest>,
    /// As the runtime counts.
    pub(crate) bytes: u64,
    /// The digest is the wanted one, or none is wanted.
    pub(crate) is_right: bool,
}

/// The newest knowledge of the runtime's images: a list, and what pulls ended with since that list was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    images: Vec<RuntimeImage>,
    names: BTreeMap<String, usize>,
    asked: Moment,
    pulled: BTreeMap<ImageKey, Pulled>,
}

/// What the runtime holds since a pull.
#[derive(Debug, Clone)]
struct Pulled {
    image: RuntimeImage,
    /// A list was asked for after its end was known: that will know better.
    is_before_list: bool,
}

impl Listing {
    /// A list is asked for now.
    pub(crate) fn ask(&mut self) {
        self.pulled.values_mut().for_each(|pulled| pulled.is_before_list = true);
    }

    /// Takes the list that was asked for at `asked`. A pull whose end was not known by then knows better.
    pub(crate) fn replace(&mut self, images: Vec<RuntimeImage>, asked: Moment) {
        self.names = BTreeMap::new();
        for (at, image) in images.iter().enumerate() {
            for name in image.repo_tags.iter().chain(&image.repo_digests) {
                self.names.insert(name.clone(), at);
            }
        }
        (self.images, self.asked) = (images, asked);
        self.pulled.retain(|_, pulled| !pulled.is_before_list);
    }

    /// Takes what the runtime holds right after a pull.
    pub(crate) fn pulled(&mut self, id: ImageKey, image: RuntimeImage) {
        self.pulled.insert(id, Pulled { image, is_before_list: false });
    }

    /// Number of images in the list.
    pub(crate) fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether anything under this canonical reference is held.
    pub(crate) fn has(&self, id: &ImageKey, canonical: &str) -> bool {
        self.find(id, canonical).is_some()
    }

    /// When the list was asked for.
    pub(crate) fn asked(&self) -> Moment {
        self.asked
    }

    /// What the list has under this name.
    pub(crate) fn listed(&self, name: &str) -> Option<&RuntimeImage> {
        self.names.get(name).and_then(|at| self.images.get(*at))
    }

    /// Whether the list has this image under a name that `is_ours` does not know.
    pub(crate) fn is_of_others(&self, runtime_id: &str, is_ours: impl Fn(&str) -> bool) -> bool {
        let same = self.images.iter().filter(|image| image.runtime_id == runtime_id);
        same.flat_map(|image| image.repo_tags.iter().chain(&image.repo_digests)).any(|name| !is_ours(name))
    }

    fn find(&self, id: &ImageKey, canonical: &str) -> Option<&RuntimeImage> {
        self.pulled.get(id).map(|pulled| &pulled.image).or_else(|| self.listed(canonical))
    }

    /// Looks for a wanted image.
    ///
    /// Reported is the wanted digest if the image has it, else the one known before if it still has that, else its first.
    pub(crate) fn look(
        &self,
        id: &ImageKey,
        reference: &Reference,
        wanted: Option<&Digest>,
        known: Option<&Digest>,
    ) -> Option<Present> {
        let image = self.find(id, &reference.canonical())?;
        let repository = reference.repository();
        let mut digests: Vec<Digest> = image
            .repo_digests
            .iter()
            .filter(|name| name.split_once('@').is_some_and(|(of, _)| of == repository))
            .filter_map(|name| digest_in(name))
            .collect();
        digests.sort();
        let held = |digest: Option<&Digest>| digest.filter(|d| digests.contains(d)).cloned();
        let is_right = wanted.is_none_or(|d| digests.contains(d));
        let digest = held(wanted).or_else(|| held(reference.digest())).or_else(|| held(known));
        Some(Present { digest: digest.or_else(|| digests.first().cloned()), bytes: image.bytes, is_right })
    }
}
