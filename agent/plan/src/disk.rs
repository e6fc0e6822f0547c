//! The disk that images lie on: whether it leaves room for a pull, and whether the Node asks for quiet.
//!
//! Owns the marks with their hysteresis, and what pulls may have taken since the disk was last looked at. Never measures.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::machine::Moment;
use shared::message::Disk;
use shared::message::assignment::Pressure;
use shared::reason::Reason;

use crate::fact::Space;

/// What a pull takes of the disk, by the bytes that are transferred: the layers as they came, and unpacked.
const ON_DISK: u64 = 3;

/// How full the image file system may be. Percent used, as the kubelet counts: what is left is what an ordinary process
/// may still write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DiskSettings {
    /// At this much no pull starts, nor one that is known to cross it. Below the kubelet's `imageGCHighThresholdPercent`.
    pub mark: u8,
    /// Once at the mark, pulls start again when no more than this is used.
    pub resume: u8,
}

impl Default for DiskSettings {
    fn default() -> Self {
        Self { mark: 80, resume: 77 }
    }
}

/// So many percent of a file system.
pub(crate) fn share(space: Space, percent: u8) -> u64 {
    let total = u128::from(space.used) + u128::from(space.free);
    u64::try_from(total * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// What an image of so many transferred bytes takes of the disk, about.
pub(crate) fn footprint(bytes: u64) -> u64 {
    bytes.saturating_mul(ON_DISK)
}

/// The guard.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    settings: DiskSettings,
    space: Option<Space>,
    /// When the look was asked for that `space` is of.
    looked: Moment,
    /// It reached the mark, and has not been at `resume` since.
    is_full: bool,
    /// Pulls that ended since: when, and what they may have taken.
    spent: Vec<(Moment, u64)>,
    /// What the Node reports as short; until when after it no longer does.
    pressure: Option<(Reason, Option<Moment>)>,
}

impl Guard {
    pub(crate) fn new(settings: DiskSettings) -> Self {
        Self { settings, space: None, looked: Moment::default(), is_full: false, spent: Vec::new(), pressure: None }
    }

    /// A look that was asked for at `asked`; `None` if the disk cannot be measured: then nothing is held back.
    pub(crate) fn observed(&mut self, space: Option<Space>, asked: Moment) {
        (self.space, self.looked) = (space, asked);
        self.spent.retain(|(ended, _)| *ended >= asked);
        self.is_full = match space {
            None => false,
            Some(space) if space.used >= share(space, self.settings.mark) => true,
            Some(space) => self.is_full && space.used > share(space, self.settings.resume),
        };
    }

    /// A pull ended: until the next look this much less is free.
    pub(crate) fn pulled(&mut self, bytes: u64, now: Moment) {
        self.spent.push((now, footprint(bytes)));
    }

    /// What the Node's conditions say now. Pressure counts for `hold` after it has gone.
    pub(crate) fn feel(&mut self, pressure: &[Pressure], hold: Duration, now: Moment) {
        let felt = if pressure.contains(&Pressure::Disk) {
            Some(Reason::DiskPressure)
        } else if pressure.contains(&Pressure::Pid) {
            Some(Reason::PidPressure)
        } else {
            None
        };
        self.pressure = match (felt, self.pressure) {
            (Some(felt), _) => Some((felt, None)),
            (None, Some((why, None))) => Some((why, Some(now + hold))),
            (None, Some((_, Some(until)))) if until <= now => None,
            (None, still) => still,
        };
    }

    /// Why nothing is pulled, as the Node says.
    pub(crate) fn pressure(&self) -> Option<Reason> {
        self.pressure.map(|(why, _)| why)
    }

    /// When pressure that has gone no longer counts.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.pressure.and_then(|(_, until)| until)
    }

    /// Bytes that may still be taken below the mark; `None` if the disk is not known.
    pub(crate) fn room(&self) -> Option<u64> {
        let space = self.space?;
        let spent = self.spent.iter().fold(space.used, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let mark = share(space, self.settings.mark);
        Some(if self.is_full { 0 } else { mark.saturating_sub(spent) })
    }

    /// The newest look, and when it was asked for.
    pub(crate) fn space(&self) -> Option<(Space, Moment)> {
        self.space.map(|space| (space, self.looked))
    }

    /// As the inventory says it; all zero if the disk is not known.
    pub(crate) fn report(&self) -> Disk {
        self.space.map_or(Disk::default(), |space| Disk {
            used: space.used,
            free: space.free,
            mark: share(space, self.settings.mark),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(used: u64) -> Space {
        Space { used, free: 1_000 - used }
    }

    #[test]
    fn at_the_mark_there_is_no_room_until_no_more_than_resume_is_used() {
        let mut guard = Guard::new(DiskSettings { mark: 80, resume: 77 });
        for (used, room) in [(799, 1), (800, 0), (799, 0), (771, 0), (770, 30), (799, 1), (900, 0), (0, 800)] {
            guard.observed(Some(at(used)), Moment(1));
            assert_eq!(guard.room(), Some(room), "{used}");
        }
    }

    #[test]
    fn what_was_pulled_counts_three_times_until_a_look_that_was_asked_for_later() {
        let mut guard = Guard::new(DiskSettings::default());
        guard.observed(Some(at(500)), Moment(1));
        guard.pulled(50, Moment(5));
        assert_eq!(guard.room(), Some(150));
        guard.observed(Some(at(500)), Moment(4));
        assert_eq!(guard.room(), Some(150), "asked for before the pull ended");
        guard.observed(Some(at(600)), Moment(6));
        assert_eq!(guard.room(), Some(200));
    }

    #[test]
    fn pressure_counts_for_a_while_after_it_has_gone() {
        let (hold, mut guard) = (Duration::from_millis(10), Guard::new(DiskSettings::default()));
        guard.feel(&[Pressure::Pid], hold, Moment(0));
        guard.feel(&[Pressure::Disk, Pressure::Pid], hold, Moment(1));
        assert_eq!((guard.pressure(), guard.due()), (Some(Reason::DiskPressure), None));
        guard.feel(&[], hold, Moment(5));
        guard.feel(&[], hold, Moment(14));
        assert_eq!((guard.pressure(), guard.due()), (Some(Reason::DiskPressure), Some(Moment(15))));
        guard.feel(&[Pressure::Disk], hold, Moment(14));
        guard.feel(&[], hold, Moment(16));
        assert_eq!(guard.due(), Some(Moment(26)), "it starts again");
        guard.feel(&[], hold, Moment(26));
        assert_eq!((guard.pressure(), guard.due()), (None, None));
    }

    #[test]
    fn a_disk_that_cannot_be_measured_holds_nothing_back() {
        let mut guard = Guard::new(DiskSettings::default());
        guard.observed(Some(at(900)), Moment(1));
        guard.observed(None, Moment(2));
        assert_eq!((guard.room(), guard.report()), (None, Disk::default()));
        guard.observed(Some(Space { used: u64::MAX, free: u64::MAX }), Moment(3));
        assert_eq!(guard.room(), Some(0));
    }
}
