//! The key `_ctl`: what it holds, and what is obeyed.
//!
//! Owns the difference between a person's order and a loss: a value is obeyed, a marker is an order too (whoever removes
//! the key resumes), but a key that is merely gone, older than what was known, or undecodable changes nothing and is put
//! right.

use shared::message::Control;

use super::Held;
use crate::fact::StoredValue;

/// The key.
#[derive(Debug, Clone, Default)]
pub(crate) struct ControlKey {
    seq: u64,
    held: Held,
    /// The last order; outlives the bucket.
    obeyed: Option<Control>,
    /// What is there is not what is obeyed.
    is_wrong: bool,
}

impl ControlKey {
    /// Sequence that the next write expects.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// The last order, if there ever was one that could be read.
    pub(crate) fn obeyed(&self) -> Option<&Control> {
        self.obeyed.as_ref()
    }

    /// Takes what the stream says; says whether anything differs.
    pub(super) fn take(&mut self, seq: u64, value: StoredValue<Control>) -> bool {
        let before = self.clone();
        (self.seq, self.is_wrong) = (seq, false);
        match value {
            StoredValue::Value(control) => (self.held, self.obeyed) = (Held::Value, Some(control)),
            StoredValue::Undecodable => (self.held, self.is_wrong) = (Held::Undecodable, true),
            StoredValue::Newer(_) => self.held = Held::Newer,
            // Not even a marker: lost.
            StoredValue::Marker if seq == 0 => self.lose(),
            StoredValue::Marker => (self.held, self.obeyed) = (Held::Nothing, None),
        }
        (before.seq, before.held, before.obeyed) != (self.seq, self.held, self.obeyed.clone())
    }

    /// Takes what a full read of the same stream found: something older than what was known is a bucket that was
    /// restored from a copy, no order.
    pub(super) fn read(&mut self, seq: u64, value: StoredValue<Control>) {
        if seq == 0 || seq >= self.seq {
            self.take(seq, value);
        } else {
            (self.seq, self.held, self.is_wrong) = (seq, Held::Value, true);
        }
    }

    /// There is nothing, or the stream is another.
    pub(super) fn lose(&mut self) {
        (self.seq, self.held) = (0, Held::Nothing);
        self.is_wrong = self.obeyed.as_ref().is_some_and(|control| control.paused);
    }

    /// Whether a newer version has written it: it is left alone.
    pub(crate) fn is_newer(&self) -> bool {
        self.held == Held::Newer
    }

    /// Whether the leader has to write what is obeyed.
    pub(crate) fn is_wrong(&self) -> bool {
        self.is_wrong
    }
}
