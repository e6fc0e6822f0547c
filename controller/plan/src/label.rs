//! Which labels of ours a Node is to have.
//!
//! Owns what evidence allows: a label appears on proof, goes on proof of absence or when nobody wants the image, and
//! stays where nothing is known; and which of them a Node has room for. Never knows when a patch may be sent: that is [`crate::pace`]'s.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use shared::image::Digest;
use shared::label;
use shared::name::ImageKey;
use shared::state::ImageState;

use crate::evidence::Class;
use crate::judge::ImageEvidence;
use crate::plan::Regard;
use crate::set::Verdict;
use crate::settings::{LabelMode, LabelSettings};

/// The labels of a Node, or those of them that are ours.
pub(crate) type Labels = BTreeMap<String, String>;

/// The images of a class of nodes that proof allows to label, best first.
#[derive(Debug)]
pub(crate) struct Ranking<'c> {
    class: &'c Class<'c>,
    mode: LabelMode,
    warm: Vec<Candidate<'c>>,
    ids: BTreeSet<&'c ImageKey>,
}

/// A set that is for a Node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetOnNode<'a> {
    /// Key of its label.
    pub(crate) label: &'a str,
    /// Its priority.
    pub(crate) priority: u8,
    /// What the evidence allows to be said of it there.
    pub(crate) verdict: Verdict,
}

/// The labels that a Node is to have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    /// All of ours.
    pub(crate) labels: Labels,
    /// So many more would be right, for which there is no room.
    pub(crate) beyond: usize,
}

/// A label that a Node may have. Sorts the most wanted first: sets, whom somebody has named by hand, before images; then
/// the highest priority. Among equals those that are there stay, so that nothing flaps at the edge of the budget; only
/// among new ones does it count how many want them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate<'c> {
    is_image: bool,
    priority: Reverse<u8>,
    is_new: bool,
    owners: Reverse<u64>,
    name: Name<'c>,
    value: Value<'c>,
}

/// What it is to say: made into words only for those that there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Value<'c> {
    Digest(&'c Digest),
    Text(&'c str),
}

impl Value<'_> {
    fn text(self) -> String {
        match self {
            Self::Digest(digest) => label::image_label_value(digest),
            Self::Text(text) => text.to_owned(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Name<'c> {
    Set(&'c str),
    Image(&'c ImageKey),
}

impl Name<'_> {
    fn label(self) -> String {
        match self {
            Self::Set(label) => label.to_owned(),
            Self::Image(id) => label::image_label(id),
        }
    }
}

impl<'c> Candidate<'c> {
    fn of_image(id: &'c ImageKey, regard: &Regard<'_>, is_new: bool, value: Value<'c>) -> Self {
        let (priority, owners) = (Reverse(regard.priority), Reverse(regard.owners));
        Self { is_image: true, priority, is_new, owners, name: Name::Image(id), value }
    }
}

impl<'c> Ranking<'c> {
    /// The ranking of a class.
    pub(crate) fn of(class: &'c Class<'c>, mode: LabelMode) -> Self {
        let mut ranking = Self { class, mode, warm: Vec::new(), ids: BTreeSet::new() };
        let mut warm: Vec<_> = class
            .proven
            .iter()
            .filter_map(|(id, evidence)| {
                let regard = ranking.regard(id)?;
                Some(Candidate::of_image(id, regard, true, value(class, id, evidence, None)?))
            })
            .collect();
        warm.sort();
        ranking.ids = warm.iter().filter_map(|c| if let Name::Image(id) = c.name { Some(id) } else { None }).collect();
        ranking.warm = warm;
        ranking
    }

    /// How an image is wanted that may have a label at all.
    fn regard(&self, id: &ImageKey) -> Option<&'c Regard<'c>> {
        let is_meant = |regard: &&Regard<'_>| match self.mode {
            LabelMode::All => true,
            LabelMode::OptedIn => regard.is_opted_in,
            LabelMode::Sets | LabelMode::None => false,
        };
        self.class.wanted.get(id).filter(is_meant)
    }

    /// All labels of ours that a Node of the class is to have that shows `shown`. `singles` is proven of it alone and
    /// wins over what is proven of the class; `sets` are for it.
    pub(crate) fn decide(
        &self,
        shown: &Labels,
        singles: &BTreeMap<&ImageKey, &ImageEvidence>,
        sets: &[SetOnNode<'_>],
        settings: &LabelSettings,
    ) -> Decided {
        if self.mode == LabelMode::None {
            return Decided { labels: Labels::new(), beyond: 0 };
        }
        let there: BTreeMap<ImageKey, Value<'_>> = shown
            .iter()
            .filter_map(|(key, value)| Some((label::parse_image_label(key)?, Value::Text(value))))
            .collect();
        let special: BTreeSet<&ImageKey> = there.keys().chain(singles.keys().copied()).collect();
        let mut candidates: Vec<Candidate<'_>> = Vec::new();
        for set in sets {
            let is_new = !shown.contains_key(set.label);
            if set.verdict == Verdict::Warm || set.verdict == Verdict::Open && !is_new {
                let (priority, name) = (Reverse(set.priority), Name::Set(set.label));
                let value = Value::Text(label::SET_VALUE);
                candidates.push(Candidate { is_image: false, priority, is_new, owners: Reverse(0), name, value });
            }
        }
        for id in special.iter().copied() {
            let Some(regard) = self.regard(id) else {
                continue;
            };
            let there = there.get(id).copied();
            let value = match singles.get(id).copied().or_else(|| self.class.proven.get(id)) {
                Some(evidence) => value(self.class, id, evidence, there),
                None => there,
            };
            candidates.extend(value.map(|value| Candidate::of_image(id, regard, there.is_none(), value)));
        }
        let others = self.warm.iter().filter(|c| !matches!(c.name, Name::Image(id) if special.contains(id)));
        let unseen = self.warm.len() - special.iter().filter(|id| self.ids.contains(**id)).count();
        let all = candidates.len() + unseen;
        candidates.extend(others.take(settings.max_per_node).cloned());
        candidates.sort();
        let kept = candidates.into_iter().take(settings.max_per_node);
        let labels: Labels = kept.map(|c| (c.name.label(), c.value.text())).collect();
        Decided { beyond: all - labels.len(), labels }
    }
}

/// The value for an image if it is warm: the digest that is there, else that of the intent, else what is shown.
fn value<'c>(
    class: &'c Class<'c>,
    id: &ImageKey,
    evidence: &'c ImageEvidence,
    there: Option<Value<'c>>,
) -> Option<Value<'c>> {
    if evidence.state != ImageState::Warm {
        return None;
    }
    let named = class.wanted.get(id).and_then(|regard| regard.digest);
    let digest = evidence.digest.as_deref().or(named);
    digest.map(Value::Digest).or(there)
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
            wanted: is_wanted.then_some((&id, regard(50, named.as_ref()))).into_iter().collect(),
            proven: proven.map(|e| (&id, e.clone())).into_iter().collect(),
        };
        let decide = |class: &Class<'_>, singles: &[(&ImageKey, &ImageEvidence)], mode| {
            let singles = singles.iter().copied().collect();
            Ranking::of(class, mode).decide(&shown, &singles, &[], &settings).labels
        };
        let of_class = class(true, said.as_ref());
        let decided = decide(&of_class, &[], LabelMode::All);
        assert_eq!(decided, expected.map(|c| (label::image_label(&id), value(c))).into_iter().collect());
        if let Some(said) = &said {
            let overruled = class(true, Some(&stale));
            assert_eq!(decide(&overruled, &[(&id, said)], LabelMode::All), decided, "proven of it alone");
        }
        let unwanted = class(false, said.as_ref());
        assert!(decide(&unwanted, &[], LabelMode::All).is_empty(), "nobody wants it");
        for mode in [LabelMode::None, LabelMode::Sets, LabelMode::OptedIn] {
            assert!(decide(&of_class, &[], mode).is_empty(), "{mode:?}");
        }
    }

    fn regard(priority: u8, digest: Option<&Digest>) -> Regard<'_> {
        Regard { priority, digest, owners: 1, is_opted_in: false }
    }

    fn warm() -> ImageEvidence {
        ImageEvidence { state: ImageState::Warm, why: None, digest: Some(Arc::new(digest('d'))) }
    }

    /// Labels of some images, by number, on a node that is wanted as `wanted` says: priority, owners, whether opted in.
    fn kept(shown: &[usize], wanted: &[(u8, u64, bool)], mode: LabelMode, room: usize) -> (Vec<usize>, usize) {
        let ids: Vec<ImageKey> = (0..wanted.len()).map(|n| ImageKey::of(&n.to_string())).collect();
        let warm = warm();
        let of = |(priority, owners, is_opted_in)| Regard { priority, digest: None, owners, is_opted_in };
        let class = Class {
            wanted: ids.iter().zip(wanted).map(|(id, regard)| (id, of(*regard))).collect(),
            proven: ids.iter().map(|id| (id, warm.clone())).collect(),
        };
        let shown: Labels = shown.iter().map(|n| (label::image_label(&ids[*n]), value('d'))).collect();
        let settings = LabelSettings { max_per_node: room, ..LabelSettings::default() };
        let Decided { labels, beyond } = Ranking::of(&class, mode).decide(&shown, &BTreeMap::new(), &[], &settings);
        ((0..ids.len()).filter(|n| labels.contains_key(&label::image_label(&ids[*n]))).collect(), beyond)
    }

    #[rstest]
    #[case::priority_comes_first(&[], &[(50, 9, false), (60, 1, false)], 1, &[1])]
    #[case::then_how_many_want_it(&[], &[(50, 2, false), (50, 3, false)], 1, &[1])]
    #[case::what_is_there_stays_though_more_want_another(&[0], &[(50, 2, false), (50, 3, false)], 1, &[0])]
    #[case::but_not_against_a_higher_priority(&[0], &[(50, 2, false), (51, 1, false)], 1, &[1])]
    #[case::what_is_free_is_filled(&[0], &[(50, 2, false), (50, 1, false), (50, 3, false)], 2, &[0, 2])]
    fn the_most_wanted_have_room_and_nothing_flaps_at_the_edge(
        #[case] shown: &[usize],
        #[case] wanted: &[(u8, u64, bool)],
        #[case] room: usize,
        #[case] expected: &[usize],
    ) {
        let (labels, beyond) = kept(shown, wanted, LabelMode::All, room);
        assert_eq!((&labels[..], beyond), (expected, wanted.len() - room));
        let (again, _) = kept(&labels, wanted, LabelMode::All, room);
        assert_eq!(again, labels, "what was decided stays");
    }

    #[test]
    fn opted_in_means_that_somebody_who_wants_it_says_so() {
        let wanted = [(50, 1, false), (50, 1, true), (90, 1, false)];
        assert_eq!(kept(&[0, 2], &wanted, LabelMode::OptedIn, 9), (vec![1], 0));
        assert_eq!(kept(&[0, 2], &wanted, LabelMode::Sets, 9), (vec![], 0));
    }

    #[rstest]
    #[case::proof_makes_it(false, Verdict::Warm, true)]
    #[case::proof_of_absence_removes_it(true, Verdict::NotWarm, false)]
    #[case::nothing_known_keeps_it(true, Verdict::Open, true)]
    #[case::nothing_known_makes_none(false, Verdict::Open, false)]
    fn the_label_of_a_set_follows_the_verdict(
        #[case] is_there: bool,
        #[case] verdict: Verdict,
        #[case] expected: bool,
    ) {
        let (base, gone) = (label::set_label("shop", "base"), label::set_label("shop", "gone"));
        let class = Class { wanted: BTreeMap::new(), proven: BTreeMap::new() };
        let there = is_there.then(|| (base.clone(), label::SET_VALUE.to_owned()));
        let shown: Labels = there.into_iter().chain([(gone, label::SET_VALUE.to_owned())]).collect();
        let sets = [SetOnNode { label: &base, priority: 50, verdict }];
        for mode in [LabelMode::All, LabelMode::OptedIn, LabelMode::Sets] {
            let decided = Ranking::of(&class, mode).decide(&shown, &BTreeMap::new(), &sets, &LabelSettings::default());
            let expected = expected.then(|| (base.clone(), "warm".to_owned())).into_iter().collect();
            assert_eq!(decided, Decided { labels: expected, beyond: 0 }, "a set that is not for it has none");
        }
        let none = Ranking::of(&class, LabelMode::None);
        assert!(none.decide(&shown, &BTreeMap::new(), &sets, &LabelSettings::default()).labels.is_empty());
    }
}
