//! The ledger: which images this agent pulled. They are the only ones it may ever remove.
//!
//! Owns entries by canonical reference. Removes nothing from a node.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::fact::RuntimeImage;
use crate::persisted::LedgerEntry;

/// The ledger.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<String, LedgerEntry>,
    revision: u64,
}

impl Ledger {
    pub(crate) fn restore(entries: BTreeMap<String, LedgerEntry>) -> Self {
        Self { entries, revision: 0 }
    }

    /// Notes a pull that succeeded.
    pub(crate) fn pulled(&mut self, image: String, held: &RuntimeImage, at: Timestamp) {
        let entry = LedgerEntry { runtime_id: held.runtime_id.clone(), pulled: at, bytes: held.bytes };
        self.entries.insert(image, entry);
        self.revision += 1;
    }

    /// Forgets what the runtime holds no longer: should it come back, somebody else pulled it.
    pub(crate) fn keep(&mut self, is_held: impl Fn(&str) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|image, _| is_held(image));
        self.revision += u64::from(self.entries.len() != before);
    }

    pub(crate) fn get(&self, image: &str) -> Option<&LedgerEntry> {
        self.entries.get(image)
    }

    pub(crate) fn entries(&self) -> &BTreeMap<String, LedgerEntry> {
        &self.entries
    }

    /// Moves with each change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }
}
