//! The assignment this agent holds: which one is newer, which one replaces what is held.
//!
//! Owns the order of assignments. Never reads one; that is [`crate::sync`].

use std::time::Duration;

use shared::machine::Moment;
use shared::message::Assignment;

/// What becomes of an assignment that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It is held from now on.
    Adopted {
        /// It is for another Node object: what is known of pools was for the old one.
        is_other_node: bool,
    },
    /// It says what is held already.
    Same,
    /// It is older than what is held.
    Older,
}

/// A read of the bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read {
    /// When it ended.
    pub(crate) now: Moment,
    /// What two reads must be apart.
    pub(crate) patience: Duration,
    /// When somebody last spoke for the bucket.
    pub(crate) spoken: Option<Moment>,
}

/// The assignment held.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    assignment: Option<Assignment>,
    /// Term and revision; `None` when anything is newer: in a new epoch revisions start again.
    rank: Option<(u64, u64)>,
    /// What that was in the epoch before: the bucket may be an older copy that nobody has put right yet.
    before: Option<(u64, u64)>,
    /// What the bucket said last, if that was older, and since when.
    older: Option<((u64, u64), Moment)>,
}

impl Held {
    pub(crate) fn restore(assignment: Option<Assignment>) -> Self {
        let rank = assignment.as_ref().map(rank);
        Self { assignment, rank, before: None, older: None }
    }

    pub(crate) fn get(&self) -> Option<&Assignment> {
        self.assignment.as_ref()
    }

    /// The epoch changed.
    pub(crate) fn reset_epoch(&mut self) {
        (self.before, self.older) = (self.rank.take().or(self.before), None);
    }

    /// Judges an assignment of this epoch, and `read` if the bucket says so. One from the bucket that is older is believed
    /// when it is read twice: the bucket was rolled back, and the controller, which has spoken meanwhile, lets it be. One
    /// held of a term that never was (as `_meta` now says) yields at once.
    pub(crate) fn offer(&mut self, new: Assignment, term: u64, read: Option<Read>) -> Judgement {
        let offered = rank(&new);
        let known = self.rank.filter(|held| held.0 <= term);
        let known = if read.is_some() { known.or(self.before) } else { known };
        if known.is_some_and(|known| offered < known) {
            let Some(Read { now, patience, spoken }) = read else { return Judgement::Older };
            let first = self.older.filter(|(older, _)| *older == offered);
            let &mut (_, since) = self.older.insert(first.unwrap_or((offered, now)));
            if since + patience > now || spoken.is_none_or(|spoken| spoken <= since) {
                return Judgement::Older;
            }
        }
        (self.rank, self.before, self.older) = (Some(offered), None, None);
        if self.assignment.as_ref() == Some(&new) {
            return Judgement::Same;
        }
        let is_other_node = self.assignment.as_ref().is_some_and(|held| held.uid != new.uid);
        self.assignment = Some(new);
        Judgement::Adopted { is_other_node }
    }
}

fn rank(assignment: &Assignment) -> (u64, u64) {
    (assignment.term, assignment.rev)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use shared::name::NodeName;

    use super::*;

    fn assignment(term: u64, rev: u64) -> Assignment {
        Assignment {
            node: NodeName::parse("a").unwrap(),
            uid: "u".into(),
            pools: vec![],
            rev,
            pressure: vec![],
            limits: std::collections::BTreeMap::new(),
            term,
        }
    }

    /// Read at that second, with a controller that spoke just before.
    fn read(at: u64) -> Read {
        let now = Moment(at * 1_000);
        Read { now, patience: Duration::from_mins(1), spoken: (at > 0).then(|| Moment(now.0 - 1)) }
    }

    #[rstest]
    #[case(2, 7, Judgement::Same)]
    #[case(2, 8, Judgement::Adopted { is_other_node: false })]
    #[case(3, 1, Judgement::Adopted { is_other_node: false })]
    #[case(2, 6, Judgement::Older)]
    #[case(1, 9, Judgement::Older)]
    fn the_higher_term_wins_then_the_higher_revision(#[case] term: u64, #[case] rev: u64, #[case] want: Judgement) {
        let mut held = Held::restore(Some(assignment(2, 7)));
        assert_eq!(held.offer(assignment(term, rev), 2, None), want);
    }

    #[test]
    fn an_older_one_is_believed_when_the_bucket_says_it_twice_and_never_from_a_copy() {
        let mut held = Held::restore(Some(assignment(2, 7)));
        assert_eq!(held.offer(assignment(2, 6), 2, None), Judgement::Older);
        assert_eq!(held.offer(assignment(2, 6), 2, None), Judgement::Older);
        assert_eq!(held.offer(assignment(2, 6), 2, Some(read(0))), Judgement::Older);
        assert_eq!(
            held.offer(assignment(2, 6), 2, Some(read(59))),
            Judgement::Older,
            "too soon to have been put right"
        );
        assert_eq!(held.offer(assignment(2, 5), 2, Some(read(60))), Judgement::Older, "another one");
        let silent = Some(Read { spoken: Some(Moment(60_000)), ..read(121) });
        assert_eq!(held.offer(assignment(2, 5), 2, silent), Judgement::Older, "nobody can have put it right");
        assert_eq!(held.offer(assignment(2, 5), 2, Some(read(122))), Judgement::Adopted { is_other_node: false });
    }

    #[test]
    fn one_of_a_term_that_never_was_yields_at_once() {
        let mut held = Held::restore(Some(assignment(9, 7)));
        assert_eq!(held.offer(assignment(2, 1), 2, Some(read(0))), Judgement::Adopted { is_other_node: false });
    }

    #[test]
    fn in_a_new_epoch_revisions_start_again_by_a_copy_at_once_and_by_the_bucket_when_it_says_so_twice() {
        let adopted = Judgement::Adopted { is_other_node: false };
        for (is_from_bucket, judgements) in [(false, [adopted, Judgement::Same]), (true, [Judgement::Older, adopted])] {
            let mut held = Held::restore(Some(assignment(2, 7)));
            held.reset_epoch();
            held.reset_epoch();
            let offers = [0, 60].map(|at| held.offer(assignment(2, 1), 2, is_from_bucket.then(|| read(at))));
            assert_eq!(offers, judgements);
            assert_eq!(held.offer(assignment(2, 0), 2, None), Judgement::Older);
        }
    }

    #[test]
    fn another_uid_is_another_node() {
        let mut held = Held::restore(Some(assignment(2, 7)));
        let other = Assignment { uid: "v".into(), ..assignment(2, 8) };
        assert_eq!(held.offer(other, 2, None), Judgement::Adopted { is_other_node: true });
    }
}
