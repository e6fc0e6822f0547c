//! The container runtime as this agent knows it: what it holds, whether it answers, when it is looked at again.
//!
//! Owns the rhythm of looking. What a list means for an image is [`crate::presence`].

use std::time::Duration;

use fastrand::Rng;
use shared::backoff::{Backoff, random_up_to};
use shared::machine::Moment;
use shared::message::Runtime as RuntimeInfo;
use shared::name::ImageKey;
use shared::reason::Reason;

use crate::disk::{DiskSettings, Guard};
use crate::effect::Effect;
use crate::fact::{Observation, RuntimeImage};
use crate::image::Climate;
use crate::presence::Listing;
use crate::timing::Timing;

/// The runtime.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) listing: Listing,
    pub(crate) disk: Guard,
    pub(crate) info: RuntimeInfo,
    is_listed: bool,
    /// It did not answer last, and since when lists were asked for that do not count against that.
    away: Option<Moment>,
    asked: Option<Moment>,
    due: Moment,
    /// A list that was asked for before this one is followed by another at once.
    renewed: Option<Moment>,
    observing: Option<Moment>,
    is_observation_due: bool,
    failures: u32,
}

impl Runtime {
    pub(crate) fn new(disk: DiskSettings, now: Moment) -> Self {
        Self {
            listing: Listing::default(),
            disk: Guard::new(disk),
            info: RuntimeInfo::default(),
            is_listed: false,
            away: None,
            asked: None,
            due: now,
            renewed: None,
            observing: None,
            is_observation_due: false,
            failures: 0,
        }
    }

    /// A list of images came, or did not.
    pub(crate) fn listed(
        &mut self,
        result: Result<Vec<RuntimeImage>, Reason>,
        now: Moment,
        timing: &Timing,
        rng: &mut Rng,
    ) {
        let asked = self.asked.take().unwrap_or(now);
        let Ok(images) = result else {
            self.away = Some(now);
            self.look_again(now, timing, rng);
            return;
        };
        self.listing.replace(images, asked);
        (self.is_listed, self.failures) = (true, 0);
        if self.away.is_none_or(|away| asked >= away) {
            self.away = None;
        }
        let span = timing.verify_max.saturating_sub(timing.verify_min);
        self.renewed = self.renewed.filter(|renewed| *renewed > asked);
        let wait = if self.renewed.is_some() { Duration::ZERO } else { timing.verify_min + random_up_to(span, rng) };
        self.due = now + wait;
    }

    /// A look at disk and runtime ended. Gives whether it says anything new.
    pub(crate) fn observed(&mut self, result: Result<Observation, Reason>, now: Moment) -> bool {
        let asked = self.observing.take().unwrap_or(now);
        let Ok(Observation { space, runtime }) = result else { return false };
        self.disk.observed(space, asked);
        self.info = runtime;
        true
    }

    /// What it holds under a name is another since a pull that ended now.
    pub(crate) fn pulled(&mut self, id: ImageKey, image: RuntimeImage, now: Moment) {
        self.disk.pulled(image.bytes, now);
        self.listing.pulled(id, image);
        self.is_observation_due = true;
    }

    /// What it holds under a name was looked up at the registry, and is what it was.
    pub(crate) fn confirmed(&mut self, id: ImageKey, image: RuntimeImage) {
        self.listing.pulled(id, image);
    }

    /// An image was removed now: what was asked for before says nothing of it.
    pub(crate) fn removed(&mut self, now: Moment) {
        (self.due, self.renewed) = (now, Some(now));
    }

    /// It did not answer a pull.
    pub(crate) fn did_not_answer(&mut self, now: Moment, timing: &Timing, rng: &mut Rng) {
        self.away = Some(now);
        self.look_again(now, timing, rng);
    }

    fn look_again(&mut self, now: Moment, timing: &Timing, rng: &mut Rng) {
        self.failures = self.failures.saturating_add(1);
        let backoff = Backoff { base: timing.read_retry.min(timing.verify_min), ceiling: timing.verify_max };
        self.due = now + backoff.equal_jitter(self.failures, rng);
    }

    pub(crate) fn is_listed(&self) -> bool {
        self.is_listed
    }

    pub(crate) fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// What node, disk and runtime say about pulling.
    pub(crate) fn climate(&self, is_paused: bool) -> Climate {
        let obstacle = self.disk.pressure().or(self.away.map(|_| Reason::RuntimeUnavailable));
        Climate { is_listed: self.is_listed, obstacle, is_paused, room: self.disk.room() }
    }

    /// Looks, if it is time.
    pub(crate) fn step(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.asked.is_none() && self.due <= now {
            self.asked = Some(now);
            self.listing.ask();
            self.is_observation_due = true;
            effects.push(Effect::ListImages);
        }
        if self.observing.is_none() && std::mem::take(&mut self.is_observation_due) {
            self.observing = Some(now);
            effects.push(Effect::Observe);
        }
    }

    /// When the next look is due.
    pub(crate) fn due(&self) -> Option<Moment> {
        if self.asked.is_some() { None } else { Some(self.due) }
    }
}
