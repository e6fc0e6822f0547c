//! What an earlier run knew of its images, until they are looked up.
//!
//! Owns how it is handed to them. What it means for one is [`crate::image`]'s and [`crate::refresh`]'s.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::machine::Now;
use shared::name::ImageKey;

use crate::image::Image;
use crate::persisted::{Persisted, Refreshed, Setback};
use crate::refresh::Refresh;

/// What an earlier run knew of its images.
#[derive(Debug, Clone, Default)]
pub(super) struct Restored {
    setbacks: BTreeMap<ImageKey, Setback>,
    refreshed: BTreeMap<ImageKey, Refreshed>,
}

impl Restored {
    /// After `passed` without an agent.
    pub(super) fn of(persisted: &mut Persisted, passed: Duration) -> Self {
        let (setbacks, refreshed) = (std::mem::take(&mut persisted.setbacks), std::mem::take(&mut persisted.refreshed));
        Self {
            setbacks: setbacks.into_iter().map(|(id, setback)| (id, setback.later(passed))).collect(),
            refreshed: refreshed.into_iter().map(|(id, refreshed)| (id, refreshed.later(passed))).collect(),
        }
    }

    /// Tells an image what is known of it: once.
    pub(super) fn give(&mut self, id: &ImageKey, image: &mut Image, now: Now) {
        if let Some(setback) = self.setbacks.remove(id) {
            image.restore(&setback, now);
        }
        if let Some(refreshed) = self.refreshed.remove(id) {
            image.refresh = Refresh::restore(&refreshed, now);
        }
    }

    /// Every pool has been read: what is not wanted now was not when it was written, or is of another node. Gives the
    /// attempts that had begun, by canonical reference.
    pub(super) fn end(&mut self) -> impl Iterator<Item = (ImageKey, String)> + use<> {
        let left = std::mem::take(self).setbacks.into_iter();
        left.filter(|(_, setback)| setback.begun).map(|(id, setback)| (id, setback.image))
    }

    /// What has not been told yet.
    pub(super) fn setbacks(&self) -> impl Iterator<Item = (ImageKey, Setback)> {
        self.setbacks.clone().into_iter()
    }

    /// What has not been told yet.
    pub(super) fn refreshed(&self) -> impl Iterator<Item = (ImageKey, Refreshed)> {
        self.refreshed.clone().into_iter()
    }
}
