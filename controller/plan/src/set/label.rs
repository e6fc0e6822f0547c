//! Whether a node may carry the label of a set.
//!
//! Owns the verdict, which is that of image labels for all images of the set at once: proof makes it, proof of absence of
//! any one removes it, and where nothing is known it stays as it is. Worked out once for all nodes that agree in what whole
//! sets prove.

use std::collections::{BTreeMap, BTreeSet};

use shared::name::ImageKey;
use shared::state::ImageState;

use super::view::SetView;
use crate::evidence::Class;
use crate::judge::ImageEvidence;

/// What is to become of the label of a set on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is there.
    Warm,
    /// It is not there.
    NotWarm,
    /// It stays as it is.
    Open,
}

/// A set on the nodes of a class.
#[derive(Debug)]
pub(crate) struct OnClass<'a> {
    /// Those of its images that are wanted there.
    wanted: BTreeSet<&'a ImageKey>,
    refuted: BTreeSet<&'a ImageKey>,
    open: BTreeSet<&'a ImageKey>,
    fresh: &'a BTreeSet<ImageKey>,
}

impl<'a> OnClass<'a> {
    /// A set on the nodes of a class; `None` if none of its images is wanted there.
    pub(crate) fn of(set: &'a SetView, class: &Class<'_>) -> Option<Self> {
        let wanted: BTreeSet<&ImageKey> = set.keys().into_iter().filter(|id| class.wanted.contains_key(id)).collect();
        let mut on = Self { wanted, refuted: BTreeSet::new(), open: BTreeSet::new(), fresh: &set.fresh };
        for id in on.wanted.clone() {
            match on.judge(id, class.proven.get(id)) {
                Verdict::Warm => {}
                Verdict::NotWarm => drop(on.refuted.insert(id)),
                Verdict::Open => drop(on.open.insert(id)),
            }
        }
        (!on.wanted.is_empty()).then_some(on)
    }

    fn judge(&self, id: &ImageKey, evidence: Option<&ImageEvidence>) -> Verdict {
        match evidence {
            Some(evidence) if evidence.state == ImageState::Warm => Verdict::Warm,
            Some(_) => Verdict::NotWarm,
            // The label of before does not speak of it.
            None if self.fresh.contains(id) => Verdict::NotWarm,
            None => Verdict::Open,
        }
    }

    /// On a node of the class of which this is proven alone, which wins.
    pub(crate) fn on(&self, singles: &BTreeMap<&ImageKey, &ImageEvidence>) -> Verdict {
        let (mut refuted, mut open) = (self.refuted.len(), self.open.len());
        for (id, evidence) in singles.iter().filter(|(id, _)| self.wanted.contains(*id)) {
            refuted -= usize::from(self.refuted.contains(*id));
            open -= usize::from(self.open.contains(*id));
            refuted += usize::from(evidence.state != ImageState::Warm);
        }
        match (refuted, open) {
            (0, 0) => Verdict::Warm,
            (0, _) => Verdict::Open,
            _ => Verdict::NotWarm,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn evidence(word: char) -> Option<ImageEvidence> {
        let of = |state| Some(ImageEvidence { state, why: None, digest: None });
        match word {
            'w' => of(ImageState::Warm),
            'p' => of(ImageState::Pulling),
            _ => None,
        }
    }

    // What is proven of two images by whole sets and alone: warm, pulling, nothing known.
    #[rstest]
    #[case::all_are_warm("ww", "??", Verdict::Warm)]
    #[case::one_is_not("wp", "??", Verdict::NotWarm)]
    #[case::of_one_nothing_is_known("w?", "??", Verdict::Open)]
    #[case::one_is_not_and_of_the_other_nothing_is_known("p?", "??", Verdict::NotWarm)]
    #[case::what_is_proven_alone_wins("wp", "?w", Verdict::Warm)]
    #[case::and_refutes("ww", "?p", Verdict::NotWarm)]
    #[case::and_fills("w?", "?w", Verdict::Warm)]
    #[case::and_says_the_same("wp", "?p", Verdict::NotWarm)]
    fn every_image_that_is_wanted_there_counts(#[case] whole: &str, #[case] alone: &str, #[case] expected: Verdict) {
        let ids = ["a", "b", "elsewhere"].map(ImageKey::of);
        let known = |words: &str| -> Vec<_> { words.chars().map(evidence).collect() };
        let (whole, alone) = (known(whole), known(alone));
        let class = Class {
            wanted: ids[..2].iter().map(|id| (id, crate::plan::Regard::default())).collect(),
            proven: ids.iter().zip(whole).filter_map(|(id, e)| Some((id, e?))).collect(),
        };
        let singles = ids.iter().zip(&alone).filter_map(|(id, e)| Some((id, e.as_ref()?))).collect();
        let set = |fresh: &[ImageKey]| SetView {
            uid: String::new(),
            generation: 1,
            is_suspended: false,
            images: ids.iter().map(|id| (id.to_string(), Ok(id.clone()))).collect(),
            fresh: fresh.iter().cloned().collect(),
            status: None,
        };
        let usual = set(&[]);
        let verdict = OnClass::of(&usual, &class).unwrap().on(&singles);
        assert_eq!(verdict, expected);
        let new = set(&ids);
        let of_new = OnClass::of(&new, &class).unwrap().on(&singles);
        let expected = if expected == Verdict::Open { Verdict::NotWarm } else { expected };
        assert_eq!(of_new, expected, "nobody has ever vouched for these images");
        let nowhere = Class { wanted: BTreeMap::new(), proven: BTreeMap::new() };
        assert!(OnClass::of(&usual, &nowhere).is_none());
    }
}
