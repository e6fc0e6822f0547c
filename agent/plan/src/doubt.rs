//! How many beats must contradict what is known before everything is read.
//!
//! Owns the count. A single contradiction is usual: a beat and a delta may cross.

/// Beats in a row that must differ, doubling with each full read that did not help: then it is not we who are wrong.
const PATIENCE: u32 = 2;
/// That many doublings at most.
const MAX_FRUITLESS: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    None,
    /// At our head, or after a read up to theirs, the sets differ; beats that said so.
    Differs(u32),
    /// The stream's head lies below this one of ours; beats that said so.
    Behind(u64, u32),
}

/// Beats that contradict what is known, so far in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Doubt {
    kind: Kind,
    fruitless: u32,
}

impl Doubt {
    /// Whether nothing contradicts.
    pub(crate) fn is_none(&self) -> bool {
        self.kind == Kind::None
    }

    /// A beat agreed.
    pub(crate) fn agreed(&mut self) {
        *self = Self::default();
    }

    /// What was doubted has another explanation.
    pub(crate) fn explained(&mut self) {
        self.kind = Kind::None;
    }

    /// Listening begins anew.
    pub(crate) fn forgive(&mut self) {
        self.fruitless = 0;
    }

    /// The sets differ. Gives whether it is time to read everything.
    pub(crate) fn differs(&mut self) -> bool {
        let beats = if let Kind::Differs(beats) = self.kind { beats + 1 } else { 1 };
        self.kind = Kind::Differs(beats);
        self.is_exhausted(beats)
    }

    /// A beat's head lies below ours, which is usual just after a delta. It is a rollback if the stream's head stays
    /// below what ours was when that was first noticed: whether our set up to there agrees does not matter, for what
    /// came later may be what was lost. Gives whether it is time to read everything.
    pub(crate) fn is_behind(&mut self, head: u64, ours: u64) -> bool {
        let (ours, beats) = match self.kind {
            Kind::Behind(ours, beats) if head < ours => (ours, beats + 1),
            _ => (ours, 1),
        };
        self.kind = Kind::Behind(ours, beats);
        self.is_exhausted(beats)
    }

    fn is_exhausted(&mut self, beats: u32) -> bool {
        let is_exhausted = beats >= PATIENCE << self.fruitless;
        if is_exhausted {
            self.kind = Kind::None;
            self.fruitless = (self.fruitless + 1).min(MAX_FRUITLESS);
        }
        is_exhausted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_beat_in_a_row_is_believed() {
        let mut doubt = Doubt::default();
        assert!(!doubt.differs());
        doubt.agreed();
        assert!(!doubt.differs());
        assert!(doubt.differs());
    }

    #[test]
    fn a_full_read_that_did_not_help_doubles_the_patience_up_to_sixteen_beats() {
        let mut doubt = Doubt::default();
        for patience in [2, 4, 8, 16, 16] {
            let beats = (1..=99).find(|_| doubt.differs()).unwrap();
            assert_eq!(beats, patience);
        }
        doubt.agreed();
        assert!(!doubt.differs() && doubt.differs());
    }

    #[test]
    fn a_stream_that_grows_past_what_our_head_was_has_not_lost_its_end() {
        let mut doubt = Doubt::default();
        assert!(!doubt.is_behind(9, 10));
        assert!(!doubt.is_behind(10, 12), "it has caught up with the 10 of then");
        assert!(doubt.is_behind(11, 12));
    }
}
