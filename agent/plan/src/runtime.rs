//! The container runtime as this agent knows it: what it holds, whether it answers, when it is looked at again.
//!
//! Owns the rhythm of looking. What a list means for an image is [`crate::presence`].

use fastrand::Rng;
use shared::backoff::{Backoff, random_up_to};
use shared::machine::Moment;
use shared::message::assignment::Pressure;
use shared::message::{Disk, Runtime as RuntimeInfo};
use shared::reason::Reason;

use crate::effect::Effect;
use crate::fact::RuntimeImage;
use crate::image::Climate;
use crate::presence::Listing;
use crate::timing::Timing;

/// The runtime.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) listing: Listing,
    pub(crate) disk: Disk,
    pub(crate) info: RuntimeInfo,
    is_listed: bool,
    /// It did not answer last, and since when lists were asked for that do not count against that.
    away: Option<Moment>,
    asked: Option<Moment>,
    due: Moment,
    failures: u32,
}

impl Runtime {
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            listing: Listing::default(),
            disk: Disk::default(),
            info: RuntimeInfo::default(),
            is_listed: false,
            away: None,
            asked: None,
            due: now,
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
        self.due = now + timing.verify_min + random_up_to(span, rng);
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
    pub(crate) fn climate(&self, pressure: &[Pressure]) -> Climate {
        let obstacle = if pressure.contains(&Pressure::Disk) {
            Some(Reason::DiskPressure)
        } else if pressure.contains(&Pressure::Pid) {
            Some(Reason::PidPressure)
        } else {
            self.away.map(|_| Reason::RuntimeUnavailable)
        };
        let room = (self.disk.mark > 0).then(|| self.disk.mark.saturating_sub(self.disk.used));
        Climate { is_listed: self.is_listed, obstacle, room }
    }

    /// Looks, if it is time.
    pub(crate) fn step(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.asked.is_none() && self.due <= now {
            self.asked = Some(now);
            effects.extend([Effect::ListImages, Effect::Observe]);
        }
    }

    /// When the next look is due.
    pub(crate) fn due(&self) -> Option<Moment> {
        if self.asked.is_some() { None } else { Some(self.due) }
    }
}
