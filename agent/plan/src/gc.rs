//! Own garbage collection: which image goes next, if any.
//!
//! Owns the choice. Only what this agent pulled, wanted by nobody as far as is proven, used by no container, not pinned,
//! not held under a name of somebody else, unwanted for long, and only while the disk is above a watermark. One at a
//! time, with a look at list and disk between two. Never removes: whoever does looks once more (`docs/operate/disk.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::image::Reference;
use shared::machine::{Moment, Now};
use shared::reason::Reason;

use crate::disk::{Guard, footprint, share};
use crate::effect::Effect;
use crate::fact::{Removal, RuntimeImage};
use crate::ledger::Ledger;
use crate::presence::Listing;
use crate::timing::Timing;

/// Whether images that nobody wants any more are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GcMode {
    /// Never.
    Off,
    /// Everything but the removal: what would go is logged, counted and shown.
    #[default]
    DryRun,
    /// Yes.
    On,
}

/// Own garbage collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GcSettings {
    /// `off`, `dryRun` or `on`. Removing races with a kubelet that is about to start a container of the image.
    pub mode: GcMode,
    /// Above this much of the image file system, in percent used, images go. Below the kubelet's thresholds.
    pub high: u8,
    /// Until no more than this is used.
    pub low: u8,
    /// Not before nobody has wanted an image for so long.
    #[serde(with = "shared::duration")]
    pub min_age: Duration,
}

impl Default for GcSettings {
    fn default() -> Self {
        Self { mode: GcMode::default(), high: 75, low: 70, min_age: Duration::from_hours(1) }
    }
}

/// Whether one of these names, as containers give them, is one of the image's.
pub fn is_used(image: &RuntimeImage, used: &BTreeSet<String>) -> bool {
    let bare = |id: &str| id.strip_prefix("sha256:").unwrap_or(id).to_owned();
    let id = bare(&image.runtime_id);
    let is_name = |name: &String| image.repo_tags.contains(name) || image.repo_digests.contains(name);
    used.iter().any(|name| {
        let canonical = || Reference::parse(name).is_ok_and(|reference| is_name(&reference.canonical()));
        bare(name) == id || is_name(name) || canonical()
    })
}

/// An image that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate<'a> {
    pub(crate) reference: &'a str,
    pub(crate) image: &'a RuntimeImage,
    pub(crate) unwanted: Duration,
}

/// What a choice is made of.
pub(crate) struct View<'a> {
    pub(crate) settings: &'a GcSettings,
    pub(crate) timing: &'a Timing,
    pub(crate) disk: &'a Guard,
    pub(crate) listing: &'a Listing,
    pub(crate) ledger: &'a Ledger,
    /// Canonical references of whatever any intent names, live or retained.
    pub(crate) wanted: &'a BTreeSet<String>,
    /// Why nothing may go now, whatever the disk says.
    pub(crate) obstacle: Option<&'static str>,
}

impl<'a> View<'a> {
    /// What may go, the first first: unwanted for longest, then by reference.
    pub(crate) fn candidates(&self, now: Moment) -> Vec<Candidate<'a>> {
        let mut all: Vec<Candidate<'a>> =
            self.ledger.entries().keys().filter_map(|reference| self.candidate(reference, now)).collect();
        all.sort_by(|a, b| b.unwanted.cmp(&a.unwanted).then_with(|| a.reference.cmp(b.reference)));
        all
    }

    fn candidate(&self, reference: &'a str, now: Moment) -> Option<Candidate<'a>> {
        let image = self.listing.listed(reference)?;
        let unwanted = self.ripe(reference, image, now)?;
        (!image.pinned && self.is_ours_alone(image, now)).then_some(Candidate { reference, image, unwanted })
    }

    /// For how long nobody has wanted this name, if we pulled it, it still is what we pulled, and that is long enough.
    fn ripe(&self, name: &str, image: &RuntimeImage, now: Moment) -> Option<Duration> {
        let entry = self.ledger.get(name).filter(|entry| entry.runtime_id == image.runtime_id)?;
        let is_wanted = self.wanted.contains(name);
        entry.unwanted(now).filter(|age| !is_wanted && *age >= self.settings.min_age)
    }

    /// With one name a runtime may drop all names of that image (containerd does): each must be one that may go. A digest
    /// that a pull by tag brought along goes with that tag.
    fn is_ours_alone(&self, image: &RuntimeImage, now: Moment) -> bool {
        let comes_along = |name: &str| {
            self.ledger.get(name).is_none()
                && !self.wanted.contains(name)
                && self.ledger.covers(name, &image.runtime_id)
        };
        image.repo_tags.iter().all(|name| self.ripe(name, image, now).is_some())
            && image.repo_digests.iter().all(|name| comes_along(name) || self.ripe(name, image, now).is_some())
    }
}

/// How the last removal ended, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Last {
    image: String,
    at: Timestamp,
    outcome: String,
}

/// The collector.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collector {
    /// The disk was above `high`, and has not been at `low` since.
    is_sweeping: bool,
    removing: Option<String>,
    /// Containers are being listed.
    is_asking: bool,
    /// What containers use, and when that was learned.
    used: Option<(Moment, BTreeSet<String>)>,
    /// Containers could not be listed: not before.
    patience: Option<Moment>,
    /// Not before: a removal failed, or whoever looked once more found a reason against it.
    spared: BTreeMap<String, Moment>,
    /// In a dry run: what would have gone in this sweep, with what that would have freed.
    planned: BTreeMap<String, u64>,
    /// When the last removal ended: lists and looks that were asked for before say nothing.
    ended: Option<Moment>,
    last: Option<Last>,
}

impl Collector {
    /// Whether a removal is under way: no pull starts beside it, it might be of the same content.
    pub(crate) fn is_removing(&self) -> bool {
        self.removing.is_some()
    }

    /// Decides.
    pub(crate) fn step(&mut self, view: &View<'_>, now: Moment, effects: &mut Vec<Effect>) {
        self.spared.retain(|_, until| *until > now);
        let Some((space, looked)) = view.disk.space().filter(|_| view.settings.mode != GcMode::Off) else {
            (self.is_sweeping, self.used) = (false, None);
            self.planned.clear();
            return;
        };
        self.is_sweeping &= space.used > share(space, view.settings.low);
        self.is_sweeping |= space.used > share(space, view.settings.high);
        if !self.is_sweeping {
            self.planned.clear();
            return;
        }
        let is_known = self.ended.is_none_or(|ended| looked >= ended && view.listing.asked() >= ended);
        if view.obstacle.is_some() || !is_known || self.removing.is_some() || self.is_asking {
            return;
        }
        let candidates = view.candidates(now);
        self.planned.retain(|planned, _| candidates.iter().any(|c| c.reference == planned));
        let freed = self.planned.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        if space.used.saturating_sub(freed) <= share(space, view.settings.low) {
            return;
        }
        let mut open = candidates
            .iter()
            .filter(|c| !self.spared.contains_key(c.reference))
            .filter(|c| !self.is_planned(c))
            .peekable();
        if open.peek().is_none() {
            return;
        }
        match &self.used {
            Some((learned, used)) if now.since(*learned) < view.timing.verify_min => {
                if let Some(first) = open.find(|candidate| !is_used(candidate.image, used)) {
                    effects.push(remove(first, view.settings.mode));
                    self.removing = Some(first.reference.to_owned());
                }
            }
            _ if self.patience.is_some_and(|until| until > now) => {}
            _ => {
                self.is_asking = true;
                effects.push(Effect::ListContainers);
            }
        }
    }

    /// Whether a dry run has had this image, by this name or another.
    fn is_planned(&self, candidate: &Candidate<'_>) -> bool {
        candidate
            .image
            .repo_tags
            .iter()
            .chain(&candidate.image.repo_digests)
            .any(|name| self.planned.contains_key(name))
    }

    /// Containers were listed, or not.
    pub(crate) fn in_use(&mut self, result: Result<BTreeSet<String>, Reason>, timing: &Timing, now: Moment) {
        self.is_asking = false;
        self.patience = result.is_err().then(|| now + timing.gc_retry);
        self.used = result.ok().map(|used| (now, used));
    }

    /// A removal ended. Gives whether the image is gone.
    pub(crate) fn removed(
        &mut self,
        image: &str,
        result: Result<Removal, Reason>,
        bytes: u64,
        timing: &Timing,
        now: Now,
    ) -> bool {
        self.removing = None;
        let outcome = match result {
            Ok(removal) => removal.as_str(),
            Err(reason) => reason.as_str(),
        };
        self.last = Some(Last { image: image.to_owned(), at: now.wall, outcome: outcome.to_owned() });
        match result {
            Ok(Removal::Removed) => self.ended = Some(now.mono),
            Ok(Removal::Planned) => {
                self.planned.insert(image.to_owned(), footprint(bytes));
            }
            Ok(Removal::Used | Removal::Changed) | Err(_) => {
                self.spared.insert(image.to_owned(), now.mono + timing.gc_retry);
            }
        }
        result == Ok(Removal::Removed)
    }

    /// For people.
    pub(crate) fn summary(&self, view: &View<'_>, now: Moment) -> serde_json::Value {
        /// So many are named.
        const NAMED: usize = 10;
        let candidates = view.candidates(now);
        let named: Vec<_> = candidates
            .iter()
            .take(NAMED)
            .map(|c| serde_json::json!({ "image": c.reference, "bytes": c.image.bytes, "unwantedSec": c.unwanted.as_secs() }))
            .collect();
        serde_json::json!({
            "mode": view.settings.mode,
            "sweeping": self.is_sweeping,
            "heldBackBy": view.obstacle,
            "candidates": candidates.len(),
            "next": named,
            "removing": self.removing,
            "planned": self.planned.keys().take(NAMED).collect::<Vec<_>>(),
            "spared": self.spared.len(),
            "last": self.last,
        })
    }
}

fn remove(candidate: &Candidate<'_>, mode: GcMode) -> Effect {
    Effect::RemoveImage {
        image: candidate.reference.to_owned(),
        held: Box::new(candidate.image.clone()),
        is_dry_run: mode != GcMode::On,
    }
}
