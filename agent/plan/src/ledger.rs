//! The ledger: which images this agent pulled. They are the only ones it may ever remove.
//!
//! Owns entries by canonical reference, and for how long nobody has wanted each. Removes nothing from a node.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use shared::image::Reference;
use shared::machine::Moment;

use crate::age::Age;
use crate::fact::RuntimeImage;
use crate::persisted::LedgerEntry;

/// Nobody wants it: since when, and whether that was long enough when it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unwanted {
    age: Age,
    is_ripe: bool,
}

/// An image this agent pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The runtime's id of it at the time.
    pub(crate) runtime_id: String,
    pulled: Timestamp,
    bytes: u64,
    unwanted: Option<Unwanted>,
}

impl Entry {
    /// When this agent last pulled it, by the wall clock.
    pub(crate) fn pulled(&self) -> Timestamp {
        self.pulled
    }

    /// For how long nobody has wanted it.
    pub(crate) fn unwanted(&self, now: Moment) -> Option<Duration> {
        self.unwanted.map(|unwanted| unwanted.age.at(now))
    }

    /// As it is persisted.
    pub(crate) fn store(&self, now: Moment) -> LedgerEntry {
        LedgerEntry {
            runtime_id: self.runtime_id.clone(),
            pulled: self.pulled,
            bytes: self.bytes,
            unwanted_ms: self.unwanted.map(|unwanted| unwanted.age.millis(now)),
        }
    }
}

/// The ledger.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<String, Entry>,
    revision: u64,
}

impl Ledger {
    /// As it was persisted. The time between the runs does not count: what was wanted then is not known.
    pub(crate) fn restore(entries: BTreeMap<String, LedgerEntry>, now: Moment) -> Self {
        let restore = |stored: LedgerEntry| Entry {
            runtime_id: stored.runtime_id,
            pulled: stored.pulled,
            bytes: stored.bytes,
            unwanted: stored.unwanted_ms.map(|ms| Unwanted { age: Age::restore(ms, now), is_ripe: false }),
        };
        Self { entries: entries.into_iter().map(|(image, stored)| (image, restore(stored))).collect(), revision: 0 }
    }

    /// Notes a pull that succeeded.
    pub(crate) fn pulled(&mut self, image: String, held: &RuntimeImage, at: Timestamp) {
        let entry = Entry { runtime_id: held.runtime_id.clone(), pulled: at, bytes: held.bytes, unwanted: None };
        self.entries.insert(image, entry);
        self.revision += 1;
    }

    /// Forgets one that is no longer ours to remove.
    pub(crate) fn forget(&mut self, image: &str) {
        self.revision += u64::from(self.entries.remove(image).is_some());
    }

    /// Forgets what the runtime holds no longer: should it come back, somebody else pulled it.
    pub(crate) fn keep(&mut self, is_held: impl Fn(&str) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|image, _| is_held(image));
        self.revision += u64::from(self.entries.len() != before);
    }

    /// Compares with what is wanted. That something is not wanted counts from when it is proven; that it is, at once.
    pub(crate) fn compare(
        &mut self,
        is_wanted: impl Fn(&str) -> bool,
        is_proven: bool,
        min_age: Duration,
        now: Moment,
    ) {
        for (image, entry) in &mut self.entries {
            let was = entry.unwanted;
            entry.unwanted = match was {
                _ if is_wanted(image) => None,
                None if is_proven => Some(Unwanted { age: Age::new(now), is_ripe: min_age.is_zero() }),
                None => None,
                Some(unwanted) => Some(Unwanted { is_ripe: unwanted.age.at(now) >= min_age, ..unwanted }),
            };
            // An age that only grows is written when it begins, when it matters, and along with anything else.
            self.revision += u64::from(entry.unwanted != was);
        }
    }

    /// Whether this name of this image came by a pull of ours: we pulled it, or, if it is a digest, a tag of its
    /// repository.
    pub(crate) fn covers(&self, name: &str, runtime_id: &str) -> bool {
        let repository = name.split_once('@').map(|(repository, _)| repository);
        let brought = |image: &str| {
            repository.is_some_and(|of| Reference::parse(image).is_ok_and(|pulled| pulled.repository() == of))
        };
        let mut pulled = self.entries.iter().filter(|(_, entry)| entry.runtime_id == runtime_id);
        pulled.any(|(image, _)| image == name || brought(image))
    }

    pub(crate) fn get(&self, image: &str) -> Option<&Entry> {
        self.entries.get(image)
    }

    pub(crate) fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// As it is persisted.
    pub(crate) fn store(&self, now: Moment) -> BTreeMap<String, LedgerEntry> {
        self.entries.iter().map(|(image, entry)| (image.clone(), entry.store(now))).collect()
    }

    /// Moves with each change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }
}
