//! A set as the machine keeps it, beside what it wants.
//!
//! Owns the images as people wrote them, and which of them nobody has ever vouched for.

use std::collections::BTreeSet;

use shared::image::Reference;
use shared::name::ImageKey;

use super::condition::KINDS;
use super::status::SetStatus;
use crate::input::ImageSet;

/// A set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SetView {
    /// UID of the object.
    pub(crate) uid: String,
    /// Which version of its wishes this is.
    pub(crate) generation: i64,
    /// Whether nothing is to be pulled for it.
    pub(crate) is_suspended: bool,
    /// Each image as it is written, and what it is; `Err` says what is wrong with it.
    pub(crate) images: Vec<(String, Result<ImageKey, String>)>,
    /// Images that came to it while this controller watched. The label of before does not speak of them: nothing known of
    /// one of these is not "nothing known yet".
    pub(crate) fresh: BTreeSet<ImageKey>,
    /// What the API server shows.
    pub(crate) status: Option<SetStatus>,
}

/// Without conditions of others, and in our order.
fn ours(mut status: SetStatus) -> SetStatus {
    let found = KINDS.iter().filter_map(|kind| status.conditions.iter().find(|c| c.kind == *kind));
    status.conditions = found.cloned().collect();
    status
}

impl SetView {
    /// Reads a set.
    pub(crate) fn of(set: &ImageSet) -> Self {
        let read = |text: &str| match Reference::parse(text) {
            Ok(reference) => Ok(reference.key()),
            Err(error) => Err(error.to_string()),
        };
        Self {
            uid: set.wants.uid.clone(),
            generation: set.generation,
            is_suspended: set.wants.is_suspended,
            images: set.wants.images.iter().map(|image| (image.image.clone(), read(&image.image))).collect(),
            fresh: BTreeSet::new(),
            status: set.status.clone().map(ours),
        }
    }

    /// The images that can be used, each once.
    pub(crate) fn keys(&self) -> BTreeSet<&ImageKey> {
        self.images.iter().filter_map(|(_, key)| key.as_ref().ok()).collect()
    }

    /// Whether anything but the status differs, which is our own.
    pub(crate) fn wants_the_same(&self, other: &Self) -> bool {
        self.uid == other.uid && self.images == other.images && self.is_suspended == other.is_suspended
    }

    /// Takes what is known of the same set from before: `None` if it was not there, though every set was known.
    pub(crate) fn follow(&mut self, before: Option<&Self>) {
        let same = before.filter(|before| before.uid == self.uid);
        let known: BTreeSet<&ImageKey> = same.map(Self::keys).unwrap_or_default();
        let is_fresh = |id: &ImageKey| !known.contains(id) || same.is_some_and(|before| before.fresh.contains(id));
        self.fresh = self.keys().into_iter().filter(|id| is_fresh(id)).cloned().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::{ContainerImage, Workload};

    fn set(uid: &str, images: &[&str]) -> SetView {
        let image = |text: &&str| ContainerImage { position: String::new(), image: (*text).to_owned() };
        let wants = Workload { uid: uid.to_owned(), images: images.iter().map(image).collect(), ..Workload::default() };
        SetView::of(&ImageSet { wants, ..ImageSet::default() })
    }

    fn key(text: &str) -> ImageKey {
        Reference::parse(text).unwrap().key()
    }

    #[test]
    fn what_came_while_somebody_watched_is_fresh_and_stays_so() {
        let known = set("1", &["a", "b"]);
        assert_eq!(known.fresh, [].into(), "the first list says nothing of what was before");
        let mut more = set("1", &["a", "b", "c"]);
        more.follow(Some(&known));
        assert_eq!(more.fresh, [key("c")].into());
        let mut same = set("1", &["b", "c"]);
        same.follow(Some(&more));
        assert_eq!(same.fresh, [key("c")].into());
        let mut another = set("2", &["b", "c"]);
        another.follow(Some(&same));
        assert_eq!(another.fresh, [key("b"), key("c")].into(), "another object of the same name");
        let mut new = set("3", &["a"]);
        new.follow(None);
        assert_eq!(new.fresh, [key("a")].into());
    }

    #[test]
    fn a_bad_reference_spoils_only_itself() {
        let set = set("1", &["a", "B//c", "docker.io/library/a:latest"]);
        assert_eq!(set.keys(), [&key("a")].into());
        assert!(set.images[1].1.is_err());
    }
}
