//! Nodes that nobody has heard of for so long that their labels go.
//!
//! Owns the patience, which counts only while this controller could have heard, and the quota: a fault that silences
//! many agents at once must not unlabel a fleet. Never judges evidence.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::machine::Moment;
use shared::name::NodeName;

/// The quota is a hundredth of the nodes, and at least one node, in this time.
const PERIOD: Duration = Duration::from_hours(1);
const SHARE: usize = 100;

/// The silent nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Silence {
    /// Since when everything agents say is heard.
    listening: Option<Moment>,
    /// When the quota was last used, or began.
    used: Moment,
    /// Nodes that are to have no labels, and when they had last been heard.
    given_up: BTreeMap<NodeName, Option<Moment>>,
}

/// A node as it is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    /// Its name.
    pub(crate) node: &'a NodeName,
    /// When its agent was last heard.
    pub(crate) heard: Option<Moment>,
    /// Whether it shows labels of ours.
    pub(crate) is_labelled: bool,
}

impl Silence {
    /// The connection is up.
    pub(crate) fn connected(&mut self, now: Moment) {
        self.listening.get_or_insert(now);
    }

    /// The connection is gone: silence means nothing.
    pub(crate) fn disconnected(&mut self) {
        self.listening = None;
    }

    /// Since when everything agents say is heard.
    pub(crate) fn listening(&self) -> Option<Moment> {
        self.listening
    }

    /// A new term: the one before may have used the quota just now.
    pub(crate) fn leads(&mut self, now: Moment) {
        self.used = now;
    }

    /// Whether a node is to have no labels.
    pub(crate) fn has_given_up(&self, node: &NodeName) -> bool {
        self.given_up.contains_key(node)
    }

    /// Judges every node; gives those whose labels are to be looked at. A node that is silent and has no labels is
    /// given none; one that has them loses them within the quota, if this controller is the one that labels.
    pub(crate) fn judge<'a>(
        &mut self,
        nodes: impl Iterator<Item = Candidate<'a>>,
        leads: bool,
        patience: Duration,
        now: Moment,
    ) -> Vec<NodeName> {
        let Some(listening) = self.listening else {
            return Vec::new();
        };
        let (mut count, mut silent, mut changed) = (0, Vec::new(), Vec::new());
        let mut before = std::mem::take(&mut self.given_up);
        for Candidate { node, heard, is_labelled } in nodes {
            count += 1;
            let is_silent = heard.unwrap_or_default().max(listening) + patience <= now;
            match before.remove(node) {
                Some(then) if then == heard => drop(self.given_up.insert(node.clone(), heard)),
                Some(_) => changed.push(node.clone()),
                None if is_silent && is_labelled => silent.push((heard, node)),
                None if is_silent => drop(self.given_up.insert(node.clone(), heard)),
                None => {}
            }
        }
        let may = leads && self.used + gap(count) <= now;
        // Whoever has been silent for longest.
        if let Some((heard, node)) = silent.into_iter().min().filter(|_| may) {
            self.used = now;
            self.given_up.insert(node.clone(), heard);
            changed.push(node.clone());
        }
        changed
    }
}

/// Between two nodes that lose their labels.
fn gap(nodes: usize) -> Duration {
    let quota = u32::try_from(nodes / SHARE).unwrap_or(u32::MAX).max(1);
    PERIOD / quota
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, 60)]
    #[case(1, 60)]
    #[case(199, 60)]
    #[case(200, 30)]
    #[case(6_000, 1)]
    fn a_hundredth_an_hour_and_at_least_one(#[case] nodes: usize, #[case] minutes: u64) {
        assert_eq!(gap(nodes), Duration::from_mins(minutes));
    }
}
