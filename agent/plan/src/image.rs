//! One wanted image on this node: what was seen of it, what went wrong, what state that makes.
//!
//! Owns the record and the judgement of its state. Never chooses what is pulled next; that is [`crate::pull`].

use std::time::Duration;

use jiff::Timestamp;
use shared::image::{Digest, Reference};
use shared::machine::{Moment, Now};
use shared::name::ImageKey;
use shared::reason::Reason;
use shared::state::ImageState;

use crate::age::{Age, millis};
use crate::disk::footprint;
use crate::persisted::{LastAttempt, Setback};
use crate::presence::{Listing, Present};
use crate::refresh::Refresh;
use crate::want::{Gate, Want};

/// Evictions of one image that are further apart than this do not count as repeated.
const EVICTION_MEMORY: Duration = Duration::from_hours(1);

/// A time in both forms: one to act on, one to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) at: Moment,
    pub(crate) wall: Timestamp,
}

impl Due {
    pub(crate) fn after(now: Now, wait: Duration) -> Self {
        Self { at: now.mono + wait, wall: now.wall.checked_add(wait).unwrap_or(now.wall) }
    }
}

/// What stands in the way since the last attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// `failed`, `refused` or `deferred`.
    pub(crate) st: ImageState,
    pub(crate) why: Reason,
    /// Not before; `None` is "as soon as nothing else stands in the way".
    pub(crate) next: Option<Due>,
}

/// What the last attempt took, until an event has said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) took: Duration,
    pub(crate) number: u32,
}

/// What the node as a whole says about pulling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Climate {
    /// A list of the runtime's images has come since the start of this process.
    pub(crate) is_listed: bool,
    /// Why nothing is pulled now.
    pub(crate) obstacle: Option<Reason>,
    /// A person has paused everything.
    pub(crate) is_paused: bool,
    /// Bytes that may still be pulled before the mark; `None` if no mark is known.
    pub(crate) room: Option<u64>,
}

impl Climate {
    /// Why an image of this size is not pulled now, if so.
    fn holds_back(&self, bytes: Option<u64>) -> Option<Reason> {
        let crosses = |room| match room {
            0 => Some(Reason::DiskPressure),
            room if footprint(bytes.unwrap_or(0)) > room => Some(Reason::NoSpace),
            _ => None,
        };
        self.obstacle.or_else(|| self.room.and_then(crosses))
    }
}

/// One image.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) want: Want,
    reference: Option<Reference>,
    pub(crate) st: ImageState,
    pub(crate) why: Option<Reason>,
    pub(crate) since: Timestamp,
    /// Nobody has been told of it yet.
    pub(crate) is_new: bool,
    /// What the runtime holds was not compared with what is wanted now.
    pub(crate) is_unseen: bool,
    pub(crate) present: Option<Present>,
    /// Attempts that failed in a row.
    pub(crate) tries: u32,
    /// Of them, those the runtime did not answer.
    pub(crate) unanswered: u32,
    pub(crate) trouble: Option<Trouble>,
    /// After repeated evictions: not before.
    pub(crate) hold: Option<Due>,
    evictions: u32,
    evicted: Option<Age>,
    pub(crate) attempt: Option<Attempt>,
    /// When it is pulled again though it is there.
    pub(crate) refresh: Refresh,
    /// An attempt began of which no success is known. containerd writes the tag of a pulled image before its digest: what
    /// has none is then what a pull left behind that was cut off, and not what somebody has loaded by hand.
    pub(crate) is_begun: bool,
}

/// What a look at the runtime found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing that matters.
    Same,
    /// Its digest is another one.
    Moved,
    /// It was warm and is gone; so many times within an hour.
    Evicted(u32),
}

impl Image {
    pub(crate) fn new(want: Want, now: Now) -> Self {
        let reference = Reference::parse(&want.image).ok();
        Self {
            want,
            reference,
            st: ImageState::Pending,
            why: None,
            since: now.wall,
            is_new: true,
            is_unseen: true,
            present: None,
            tries: 0,
            unanswered: 0,
            trouble: None,
            hold: None,
            evictions: 0,
            evicted: None,
            attempt: None,
            refresh: Refresh::default(),
            is_begun: false,
        }
    }

    /// What must survive a restart, if anything.
    pub(crate) fn store(&self, now: Moment) -> Option<Setback> {
        let left = |due: Due| millis(due.at.since(now));
        // A runtime that did not answer is asked anew by the next run.
        let trouble = self.trouble.as_ref().filter(|trouble| trouble.st != ImageState::Deferred);
        let evicted = self.evicted.filter(|last| last.at(now) < EVICTION_MEMORY);
        (self.tries > 0 || self.is_begun || evicted.is_some()).then(|| Setback {
            image: self.want.image.clone(),
            digest: self.want.digest.clone(),
            secrets: self.want.secrets.clone(),
            tries: self.tries,
            begun: self.is_begun,
            last: trouble.map(|trouble| LastAttempt {
                st: trouble.st,
                why: trouble.why,
                since: self.since,
                wait_ms: trouble.next.map_or(0, left),
            }),
            evictions: self.evictions,
            evicted_ms: evicted.map(|last| last.millis(now)),
            hold_ms: self.hold.map(left),
        })
    }

    /// What an earlier run knew of it.
    pub(crate) fn restore(&mut self, stored: &Setback, now: Now) {
        let due = |ms| Due::after(now, Duration::from_millis(ms));
        self.evictions = stored.evictions;
        self.evicted = stored.evicted_ms.map(|ms| Age::restore(ms, now.mono));
        self.hold = stored.hold_ms.map(due);
        self.is_begun = stored.begun && self.want.image == stored.image;
        let is_same =
            self.want.image == stored.image && self.want.digest == stored.digest && self.want.secrets == stored.secrets;
        if !is_same {
            return;
        }
        self.tries = stored.tries;
        if let Some(LastAttempt { st, why, since, wait_ms }) = stored.last.clone() {
            (self.st, self.since) = (st, since);
            self.trouble = Some(Trouble { st, why, next: Some(due(wait_ms)) });
        }
    }

    /// Takes a newer wish. Gives whether an attempt under way says nothing about it.
    pub(crate) fn rewant(&mut self, want: Want) -> bool {
        let is_another = !self.want.is_same_attempt(&want);
        if is_another {
            if self.want.image != want.image {
                self.reference = Reference::parse(&want.image).ok();
            }
            self.forget_trouble();
            self.refresh.forget_failures();
            self.is_unseen = true;
        }
        self.want = want;
        is_another
    }

    fn forget_trouble(&mut self) {
        (self.tries, self.unanswered, self.trouble) = (0, 0, None);
    }

    /// Whether it is there as wanted.
    pub(crate) fn is_present(&self) -> bool {
        self.whole().is_some_and(|present| present.is_right)
    }

    /// What is there, unless a pull left it unfinished.
    fn whole(&self) -> Option<&Present> {
        self.present.as_ref().filter(|present| present.digest.is_some() || !self.is_begun)
    }

    /// Its digest, if it is there as wanted.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.present.as_ref().and_then(|present| present.digest.as_ref())
    }

    /// Whether what its reference names may become another image: no digest says which it is.
    pub(crate) fn may_move(&self) -> bool {
        self.want.digest.is_none() && self.reference.as_ref().is_some_and(|reference| reference.digest().is_none())
    }

    /// Compares with what the runtime holds. While a refresh is in flight what has no digest is the tag on its way from one
    /// image to the next, both of which are whole: it says nothing.
    pub(crate) fn look(&mut self, id: &ImageKey, listing: &Listing, is_refreshing: bool, now: Moment) -> Look {
        self.is_unseen = false;
        let found = self
            .reference
            .as_ref()
            .and_then(|reference| listing.look(id, reference, self.want.digest.as_ref(), self.digest()));
        if is_refreshing && self.digest().is_some() && found.as_ref().is_some_and(|found| found.digest.is_none()) {
            return Look::Same;
        }
        let was = std::mem::replace(&mut self.present, found);
        self.is_begun &= is_refreshing || self.digest().is_none();
        if self.is_present() {
            self.forget_trouble();
            self.hold = None;
        }
        let is_moved = was.as_ref().map(|p| &p.digest) != self.present.as_ref().map(|p| &p.digest);
        match (self.st, &self.present) {
            (ImageState::Warm, None) => {
                let is_repeated = self.evicted.is_some_and(|last| last.at(now) < EVICTION_MEMORY);
                self.evictions = if is_repeated { self.evictions.saturating_add(1) } else { 1 };
                self.evicted = Some(Age::new(now));
                Look::Evicted(self.evictions)
            }
            (ImageState::Warm, Some(_)) if is_moved => Look::Moved,
            _ => Look::Same,
        }
    }

    /// When the next attempt may start, if something holds it back until then.
    pub(crate) fn next(&self) -> Option<Due> {
        let trouble = self.trouble.as_ref().and_then(|trouble| trouble.next);
        match (trouble, self.hold) {
            (Some(a), Some(b)) => Some(if a.at >= b.at { a } else { b }),
            (a, b) => a.or(b),
        }
    }

    /// Whether it may be pulled at all, as far as the node and the wish go.
    pub(crate) fn is_open(&self, climate: &Climate) -> bool {
        climate.is_listed
            && !climate.is_paused
            && !self.want.is_retained
            && self.reference.is_some()
            && self.want.gate == Gate::Open
            && climate.holds_back(self.want.bytes).is_none()
    }

    /// Whether it is missing and a pull may start now.
    pub(crate) fn may_pull(&self, climate: &Climate, now: Moment) -> bool {
        !self.is_present() && self.is_open(climate) && self.next().is_none_or(|due| due.at <= now)
    }

    /// Whether it is there and a refresh may start now.
    pub(crate) fn may_refresh(&self, climate: &Climate, now: Moment) -> bool {
        self.is_present() && self.digest().is_some() && self.refresh.is_due(now) && self.is_open(climate)
    }

    /// The state, with its reason.
    pub(crate) fn judge(&self, is_pulling: bool, climate: &Climate) -> (ImageState, Option<Reason>) {
        if is_pulling {
            return (ImageState::Pulling, None);
        }
        if self.is_present() {
            return (ImageState::Warm, None);
        }
        if self.reference.is_none() {
            return (ImageState::Refused, Some(Reason::Invalid));
        }
        if let Some(trouble) = &self.trouble {
            return (trouble.st, Some(trouble.why));
        }
        if let Some(why) = climate.holds_back(self.want.bytes) {
            return (ImageState::Deferred, Some(why));
        }
        if climate.is_paused {
            return (ImageState::Waiting, Some(Reason::Paused));
        }
        match self.want.gate {
            Gate::Wave => return (ImageState::Waiting, Some(Reason::Wave)),
            Gate::Permit => return (ImageState::Waiting, Some(Reason::Permit)),
            Gate::Open => {}
        }
        if self.whole().is_some() {
            return (ImageState::Failed, Some(Reason::Corrupt));
        }
        (ImageState::Pending, None)
    }
}
