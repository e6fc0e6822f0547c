//! What Pods show beyond their templates.
//!
//! Owns how long that outlasts the last such Pod: between the Pods of one revision and those of the next there may be
//! none, and what is injected into the next is the same.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::machine::Moment;

use crate::input::{Constraint, ContainerImage};

/// Of one workload.
#[derive(Debug, Clone, Default)]
pub(super) struct Extras {
    /// Of which object of this name.
    uid: String,
    /// By reference as written.
    images: BTreeMap<String, Extra>,
}

#[derive(Debug, Clone)]
struct Extra {
    image: ContainerImage,
    constraint: Constraint,
    /// When it ends; not before a Pod shows it no more.
    until: Option<Moment>,
}

impl Extras {
    /// Takes what is shown now.
    pub(super) fn show(&mut self, uid: &str, shown: Vec<(ContainerImage, Constraint)>, now: Moment, linger: Duration) {
        if self.uid != uid {
            uid.clone_into(&mut self.uid);
            self.images.clear();
        }
        let shown: BTreeMap<String, (ContainerImage, Constraint)> =
            shown.into_iter().rev().map(|(image, constraint)| (image.image.clone(), (image, constraint))).collect();
        for (text, extra) in &mut self.images {
            if !shown.contains_key(text) {
                extra.until.get_or_insert(now + linger);
            }
        }
        self.images.retain(|_, extra| extra.until.is_none_or(|until| until > now));
        for (text, (image, constraint)) in shown {
            self.images.insert(text, Extra { image, constraint, until: None });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Every image, with where it stood.
    pub(super) fn images(&self) -> impl Iterator<Item = &ContainerImage> {
        self.images.values().map(|extra| &extra.image)
    }

    /// Every image with the constraint of the Pod that showed it.
    pub(super) fn by_constraint(&self) -> Vec<(ContainerImage, Constraint)> {
        self.images.values().map(|extra| (extra.image.clone(), extra.constraint.clone())).collect()
    }

    /// When the next of them ends.
    pub(super) fn due(&self) -> Option<Moment> {
        self.images.values().filter_map(|extra| extra.until).min()
    }

    /// Whether one of them has ended.
    pub(super) fn has_ended(&self, now: Moment) -> bool {
        self.due().is_some_and(|due| due <= now)
    }
}
