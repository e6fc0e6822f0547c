//! Which labels of ours a Node is to have.
//!
//! Owns what evidence allows: a label appears on proof, goes on proof of absence or when nobody wants the image, and
//! stays where nothing is known. Never knows when a patch may be sent: that is [`crate::pace`]'s.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use shared::label;
use shared::name::ImageKey;
use shared::state::ImageState;

use crate::evidence::Class;
use crate::judge::ImageEvidence;
use crate::settings::{LabelMode, LabelSettings};

/// The labels of a Node, or those of them that are ours.
pub(crate) type Labels = BTreeMap<String, String>;

/// The images of a class of nodes that proof allows to label, best first.
#[derive(Debug)]
pub(crate) struct Ranking<'c> {
    class: &'c Class<'c>,
    warm: Vec<(Reverse<u8>, &'c ImageKey, String)>,
}

impl<'c> Ranking<'c> {
    /// The ranking of a class.
    pub(crate) fn of(class: &'c Class<'c>) -> Self {
        let mut warm: Vec<_> = class
            .proven
            .iter()
            .filter_map(|(id, evidence)| Some((priority(class, id)?, *id, value(class, id, evidence, None)?)))
            .collect();
        warm.sort();
        Self { class, warm }
    }

    /// All labels of ours that a Node of the class is to have that shows `shown`. `singles` is proven of it alone and
    /// wins over what is proven of the class.
    pub(crate) fn decide<'s>(
        &self,
        shown: &Labels,
        singles: impl Iterator<Item = (&'s ImageKey, &'s ImageEvidence)>,
        settings: &LabelSettings,
    ) -> Labels {
        if settings.mode == LabelMode::None {
            return Labels::new();
        }
        let singles: BTreeMap<&ImageKey, &ImageEvidence> = singles.collect();
        let there: BTreeMap<ImageKey, &String> =
            shown.iter().filter_map(|(key, value)| Some((label::parse_image_label(key)?, value))).collect();
        let special: BTreeSet<&ImageKey> = there.keys().chain(singles.keys().copied()).collect();
        let mut candidates: Vec<(Reverse<u8>, bool, &ImageKey, String)> = Vec::new();
        for id in special.iter().copied() {
            let Some(priority) = priority(self.class, id) else {
                continue;
            };
            let there = there.get(id).copied();
            let value = match singles.get(id).copied().or_else(|| self.class.proven.get(id)) {
                Some(evidence) => value(self.class, id, evidence, there),
                None => there.cloned(),
            };
            candidates.extend(value.map(|value| (priority, there.is_none(), id, value)));
        }
        let others = self.warm.iter().filter(|(_, id, _)| !special.contains(*id)).take(settings.max_per_node);
        candidates.extend(others.map(|(priority, id, value)| (*priority, true, *id, value.clone())));
        // At equal priority those that are there stay, so that nothing flaps at the edge of the budget.
        candidates.sort();
        let kept = candidates.into_iter().take(settings.max_per_node);
        let mut decided: Labels = kept.map(|(_, _, id, value)| (label::image_label(id), value)).collect();
        // Labels of sets are not this module's to judge.
        let of_sets = shown.iter().filter(|(key, _)| !key.starts_with(label::IMAGE_PREFIX));
        decided.extend(of_sets.map(|(key, value)| (key.clone(), value.clone())));
        decided
    }
}

fn priority(class: &Class<'_>, id: &ImageKey) -> Option<Reverse<u8>> {
    class.wanted.get(id).map(|(priority, _)| Reverse(*priority))
}

/// The value for an image if it is warm: the digest that is there, else that of the intent, else what is shown.
fn value(class: &Class<'_>, id: &ImageKey, evidence: &ImageEvidence, there: Option<&String>) -> Option<String> {
    if evidence.state != ImageState::Warm {
        return None;
    }
    let named = class.wanted.get(id).and_then(|(_, digest)| *digest);
    let digest = evidence.digest.as_deref().or(named);
    digest.map(label::image_label_value).or_else(|| there.cloned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;
    use shared::image::Digest;

    use super::*;

    fn digest(c: char) -> Digest {
        Digest::parse(&format!("sha256:{}", String::from(c).repeat(64))).unwrap()
    }

    fn value(c: char) -> String {
        String::from(c).repeat(32)
    }

    #[rstest]
    #[case::proof_makes_it(None, Some((ImageState::Warm, Some('b'))), None, Some('b'))]
    #[case::the_report_wins_over_the_intent(None, Some((ImageState::Warm, Some('b'))), Some('a'), Some('b'))]
    #[case::the_intent_names_it(None, Some((ImageState::Warm, None)), Some('a'), Some('a'))]
    #[case::no_digest_no_label(None, Some((ImageState::Warm, None)), None, None)]
    #[case::warm_without_a_digest_keeps_it(Some('c'), Some((ImageState::Warm, None)), None, Some('c'))]
    #[case::a_wrong_value_is_corrected(Some('c'), Some((ImageState::Warm, Some('b'))), None, Some('b'))]
    #[case::proof_of_absence_removes_it(Some('c'), Some((ImageState::Evicted, None)), None, None)]
    #[case::pulling_is_not_warm(None, Some((ImageState::Pulling, Some('b'))), Some('a'), None)]
    #[case::nothing_known_keeps_it(Some('c'), None, Some('a'), Some('c'))]
    #[case::nothing_known_makes_none(None, None, Some('a'), None)]
    fn only_evidence_makes_and_removes_a_label(
        #[case] shown: Option<char>,
        #[case] said: Option<(ImageState, Option<char>)>,
        #[case] named: Option<char>,
        #[case] expected: Option<char>,
    ) {
        let id = ImageKey::of("nginx");
        let shown: Labels = shown.map(|c| (label::image_label(&id), value(c))).into_iter().collect();
        let said = said.map(|(state, d)| ImageEvidence { state, why: None, digest: d.map(digest).map(Arc::new) });
        let stale = ImageEvidence { state: ImageState::Warm, why: None, digest: Some(Arc::new(digest('e'))) };
        let named = named.map(digest);
        let settings = LabelSettings::default();
        let class = |is_wanted: bool, proven: Option<&ImageEvidence>| Class {
            wanted: is_wanted.then_some((&id, (50, named.as_ref()))).into_iter().collect(),
            proven: proven.map(|e| (&id, e.clone())).into_iter().collect(),
        };
        let of_class = class(true, said.as_ref());
        let decided = Ranking::of(&of_class).decide(&shown, std::iter::empty(), &settings);
        assert_eq!(decided, expected.map(|c| (label::image_label(&id), value(c))).into_iter().collect());
        if let Some(said) = &said {
            let overruled = class(true, Some(&stale));
            let single = std::iter::once((&id, said));
            assert_eq!(Ranking::of(&overruled).decide(&shown, single, &settings), decided, "proven of it alone");
        }
        let unwanted = class(false, said.as_ref());
        assert!(Ranking::of(&unwanted).decide(&shown, std::iter::empty(), &settings).is_empty(), "nobody wants it");
        let none = LabelSettings { mode: LabelMode::None, ..settings };
        assert!(Ranking::of(&of_class).decide(&shown, std::iter::empty(), &none).is_empty());
    }
}
