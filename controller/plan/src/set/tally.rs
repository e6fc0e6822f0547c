//! How one image of a set is, over the nodes that it is wanted on.
//!
//! Owns the count, and which reasons and nodes are told.

use std::collections::BTreeMap;

use shared::name::NodeName;
use shared::state::ImageState;

use super::status::{MOST_NODES, SetImage, SetReason};
use crate::judge::ImageEvidence;

/// Where nothing is known: no agent of these nodes has said anything of the image.
pub(crate) const NOT_REPORTED: &str = "not-reported";

/// The count of one image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally<'a> {
    warm: usize,
    pending: usize,
    failed: usize,
    refused: usize,
    unknown: usize,
    reasons: BTreeMap<&'static str, usize>,
    /// The first nodes on which it fails, and those on which it is yet to come.
    failing_on: Vec<&'a NodeName>,
    pending_on: Vec<&'a NodeName>,
}

impl<'a> Tally<'a> {
    /// Counts `nodes` nodes that say the same; of `some` a few are named.
    pub(crate) fn add(
        &mut self,
        evidence: Option<&ImageEvidence>,
        nodes: usize,
        some: impl IntoIterator<Item = &'a NodeName>,
    ) {
        if nodes == 0 {
            return;
        }
        let named = match evidence.map(|e| e.state) {
            Some(ImageState::Warm) => {
                self.warm += nodes;
                return;
            }
            Some(ImageState::Failed) => {
                self.failed += nodes;
                &mut self.failing_on
            }
            Some(ImageState::Refused) => {
                self.refused += nodes;
                &mut self.failing_on
            }
            known => {
                self.pending += nodes;
                self.unknown += if known.is_none() { nodes } else { 0 };
                &mut self.pending_on
            }
        };
        named.extend(some.into_iter().take(MOST_NODES.min(nodes)));
        named.sort();
        named.truncate(MOST_NODES);
        let reason = evidence.map_or(NOT_REPORTED, |e| e.why.map_or(e.state.as_str(), |why| why.as_str()));
        *self.reasons.entry(reason).or_default() += nodes;
    }

    /// Pairs of which nothing is known.
    pub(crate) fn unknown(&self) -> usize {
        self.unknown
    }

    /// What people are told. `image` is as they wrote it.
    pub(crate) fn told(&self, image: &str, bytes: Option<u64>, problem: &str) -> SetImage {
        let mut reasons: Vec<(&&str, &usize)> = self.reasons.iter().collect();
        reasons.sort_by_key(|(reason, nodes)| (std::cmp::Reverse(**nodes), **reason));
        let nodes = self.failing_on.iter().chain(&self.pending_on).take(MOST_NODES);
        SetImage {
            image: image.to_owned(),
            desired: whole(self.warm + self.pending + self.failed + self.refused),
            warm: whole(self.warm),
            pending: whole(self.pending),
            failed: whole(self.failed),
            refused: whole(self.refused),
            bytes: bytes.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or_default(),
            problem: problem.to_owned(),
            reasons: reasons
                .into_iter()
                .map(|(reason, nodes)| SetReason { reason: (*reason).to_owned(), nodes: whole(*nodes) })
                .collect(),
            not_warm_on: nodes.map(ToString::to_string).collect(),
        }
    }
}

/// As Kubernetes counts.
fn whole(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use shared::reason::Reason;

    use super::*;

    fn evidence(state: ImageState, why: Option<Reason>) -> ImageEvidence {
        ImageEvidence { state, why, digest: None }
    }

    #[test]
    fn nodes_on_which_it_fails_are_named_first_and_five_at_most() {
        let names: Vec<NodeName> = (0..9).map(|n| NodeName::parse(&format!("n{n}")).unwrap()).collect();
        let mut tally = Tally::default();
        tally.add(Some(&evidence(ImageState::Warm, None)), 2, &names[..2]);
        tally.add(None, 3, &names[2..5]);
        tally.add(Some(&evidence(ImageState::Pulling, None)), 1, &names[5..6]);
        tally.add(Some(&evidence(ImageState::Failed, Some(Reason::NotFound))), 2, &names[7..]);
        tally.add(Some(&evidence(ImageState::Refused, Some(Reason::NoPlatform))), 1, &names[6..7]);
        let told = tally.told("a", Some(7), "");
        assert_eq!((told.desired, told.warm, told.pending, told.failed, told.refused), (9, 2, 4, 2, 1));
        assert_eq!(told.not_warm_on, ["n6", "n7", "n8", "n2", "n3"]);
        let reasons: Vec<(&str, i64)> = told.reasons.iter().map(|r| (r.reason.as_str(), r.nodes)).collect();
        assert_eq!(reasons, [("not-reported", 3), ("not-found", 2), ("no-platform", 1), ("pulling", 1)]);
        assert_eq!((told.bytes, tally.unknown()), (7, 3));
    }
}
