//! When a Node may be patched.
//!
//! Owns the window of each node, the rate of the cluster, patches in flight, and what was applied but is not shown
//! yet. Never decides what a Node is to be labelled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use shared::backoff::Backoff;
use shared::machine::Moment;
use shared::name::NodeName;
use shared::reason::Reason;

use crate::label::Labels;
use crate::ledger::Retries;

/// One patch costs this many units of the token bucket, which gains `per_second` units a millisecond.
const PATCH: u64 = 1_000;

/// Patches of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Nodes to be looked at.
    dirty: BTreeSet<NodeName>,
    nodes: BTreeMap<NodeName, Patched>,
    /// Those of them whose patch was applied and is not yet seen on the Node.
    unseen: BTreeSet<NodeName>,
    retries: Retries<NodeName>,
    rate: u64,
    tokens: u64,
    filled: Moment,
    /// When the last look ran out of tokens, until when.
    starved: Option<Moment>,
    /// Labels for which a node has no room, where there are any.
    beyond: BTreeMap<NodeName, usize>,
}

/// The last patch of one node.
#[derive(Debug, Clone)]
struct Patched {
    sent: Moment,
    labels: Labels,
    /// What the Node may show until it shows `labels`.
    before: Vec<Labels>,
    state: State,
}

/// What is to come for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Nothing.
    Rest,
    /// A patch is under way.
    InFlight,
    /// A look, and maybe a patch; not before then.
    Due(Option<Moment>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    InFlight,
    /// Applied, and not yet seen on the Node.
    Applied(Moment),
    /// Seen on the Node, failed, or forgotten: the Node says what there is.
    Over,
}

impl Patched {
    fn end(&mut self) {
        self.state = State::Over;
        self.labels.clear();
        self.before.clear();
    }
}

impl Pace {
    pub(crate) fn new(per_second: u32, now: Moment) -> Self {
        let rate = u64::from(per_second.max(1));
        Self {
            dirty: BTreeSet::new(),
            nodes: BTreeMap::new(),
            unseen: BTreeSet::new(),
            retries: Retries::default(),
            rate,
            tokens: rate * PATCH,
            filled: now,
            starved: None,
            beyond: BTreeMap::new(),
        }
    }

    /// A node must be looked at.
    pub(crate) fn touch(&mut self, node: &NodeName) {
        if !self.dirty.contains(node) {
            self.dirty.insert(node.clone());
        }
    }

    /// As [`Pace::touch`], for many nodes.
    pub(crate) fn touch_all(&mut self, nodes: &BTreeSet<NodeName>) {
        self.dirty.append(&mut nodes.clone());
    }

    /// There is no such Node any more, or it is another object.
    pub(crate) fn forget(&mut self, node: &NodeName) {
        self.dirty.remove(node);
        self.nodes.remove(node);
        self.unseen.remove(node);
        self.retries.succeeded(node);
        self.beyond.remove(node);
    }

    /// So many more labels would be right on a node, for which there is no room.
    pub(crate) fn lacks_room(&mut self, node: &NodeName, beyond: usize) {
        if beyond == 0 {
            self.beyond.remove(node);
        } else if self.beyond.get(node) != Some(&beyond) {
            self.beyond.insert(node.clone(), beyond);
        }
    }

    /// Whether more labels would be right on a node than there is room for.
    pub(crate) fn is_beyond(&self, node: &NodeName) -> bool {
        self.beyond.contains_key(node)
    }

    /// Labels for which there is no room, over all nodes, and on how many nodes that is.
    pub(crate) fn beyond(&self) -> (usize, usize) {
        (self.beyond.values().sum(), self.beyond.len())
    }

    /// The Node shows this: if it is what was applied, or is neither that nor what was there before, there is nothing
    /// to remember any more.
    pub(crate) fn shows(&mut self, node: &NodeName, shows: &Labels) {
        let patched = self.nodes.get_mut(node).filter(|p| matches!(p.state, State::Applied(_)));
        if let Some(patched) = patched.filter(|p| !p.before.contains(shows)) {
            patched.end();
            self.unseen.remove(node);
        }
    }

    /// What a node has to be taken to show: what was applied, until the Node itself tells or `patience` has passed.
    pub(crate) fn shown<'a>(&'a self, node: &NodeName, shows: &'a Labels) -> &'a Labels {
        match self.nodes.get(node) {
            Some(patched) if patched.state != State::Over => &patched.labels,
            _ => shows,
        }
    }

    /// Gives the nodes that may be patched now, at most as many as there are tokens for. The caller says of each, by
    /// [`Pace::sent`] or [`Pace::rest`], what came of it.
    pub(crate) fn look(&mut self, window: Duration, patience: Duration, now: Moment) -> Vec<NodeName> {
        let (nodes, dirty) = (&mut self.nodes, &mut self.dirty);
        self.unseen.retain(|node| match nodes.get_mut(node) {
            Some(patched) if matches!(patched.state, State::Applied(at) if at + patience <= now) => {
                patched.end();
                dirty.insert(node.clone());
                false
            }
            patched => patched.is_some(),
        });
        let gained = u64::try_from(now.since(self.filled).as_millis()).unwrap_or(u64::MAX).saturating_mul(self.rate);
        self.tokens = self.tokens.saturating_add(gained).min(self.rate * PATCH);
        self.filled = self.filled.max(now);
        self.starved = None;
        // A fleet that waits for tokens is not gone through at each step.
        if self.dirty.is_empty() || !self.has_token(now) {
            return Vec::new();
        }
        self.dirty.iter().filter(|node| self.waits_until(node, window).is_none_or(|due| due <= now)).cloned().collect()
    }

    /// Until when a node cannot be patched; the end of time while a patch is in flight.
    fn waits_until(&self, node: &NodeName, window: Duration) -> Option<Moment> {
        let patched = self.nodes.get(node);
        if patched.is_some_and(|p| p.state == State::InFlight) {
            return Some(Moment(u64::MAX));
        }
        self.retries.due(node).max(patched.map(|p| p.sent + window))
    }

    /// What is to come for a node.
    pub(crate) fn outlook(&self, node: &NodeName, window: Duration) -> Outlook {
        if self.nodes.get(node).is_some_and(|p| p.state == State::InFlight) {
            return Outlook::InFlight;
        }
        if self.dirty.contains(node) { Outlook::Due(self.waits_until(node, window)) } else { Outlook::Rest }
    }

    /// Patches that failed and wait.
    pub(crate) fn waiting(&self, now: Moment) -> impl Iterator<Item = (&NodeName, u32, Moment, Reason)> {
        self.retries.waiting(now)
    }

    /// Whether one more patch may be sent now.
    pub(crate) fn has_token(&mut self, now: Moment) -> bool {
        if self.tokens >= PATCH {
            return true;
        }
        self.starved = Some(now + Duration::from_millis((PATCH - self.tokens).div_ceil(self.rate)));
        false
    }

    /// The node has what it is to have.
    pub(crate) fn rest(&mut self, node: &NodeName) {
        self.dirty.remove(node);
    }

    /// A patch was sent.
    pub(crate) fn sent(&mut self, node: &NodeName, labels: Labels, shows: &Labels, now: Moment) {
        self.tokens = self.tokens.saturating_sub(PATCH);
        self.dirty.remove(node);
        let mut before = vec![shows.clone()];
        if let Some(last) = self.nodes.remove(node).filter(|p| p.state != State::Over) {
            before.extend(last.before);
            before.push(last.labels);
        }
        before.retain(|b| *b != labels);
        self.unseen.remove(node);
        self.nodes.insert(node.clone(), Patched { sent: now, labels, before, state: State::InFlight });
    }

    /// A patch ended; says whether it was one of ours.
    pub(crate) fn done(
        &mut self,
        node: &NodeName,
        result: Result<(), Reason>,
        now: Moment,
        backoff: &Backoff,
        rng: &mut Rng,
    ) -> bool {
        let Some(patched) = self.nodes.get_mut(node).filter(|p| p.state == State::InFlight) else {
            return false;
        };
        if let Err(reason) = result {
            patched.end();
            self.retries.failed(node.clone(), reason, now, backoff, rng);
        } else {
            patched.state = State::Applied(now);
            self.unseen.insert(node.clone());
            self.retries.succeeded(node);
        }
        self.dirty.insert(node.clone());
        true
    }

    /// A node whose last patch failed is left alone until then.
    pub(crate) fn spare(&mut self, node: &NodeName, until: Moment) {
        self.retries.not_before(node, until);
    }

    /// When the next look is due.
    pub(crate) fn next(&self, window: Duration, patience: Duration, now: Moment) -> Option<Moment> {
        let echoes = self.unseen.iter().filter_map(|node| match self.nodes.get(node)?.state {
            State::Applied(at) => Some(at + patience),
            State::InFlight | State::Over => None,
        });
        // Nothing is patched before there is a token again, whatever its window says.
        let waits = self.dirty.iter().filter(|_| self.starved.is_none());
        let waits = waits.filter_map(|node| self.waits_until(node, window)).filter(|due| *due > now);
        waits.chain(echoes).chain(self.starved).filter(|due| due.0 != u64::MAX).min()
    }

    /// How many patches are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.nodes.values().filter(|p| p.state == State::InFlight).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), ceiling: Duration::from_secs(1) };

    fn patched(pace: &mut Pace, node: &NodeName, now: Moment) {
        pace.touch(node);
        assert_eq!(pace.look(Duration::ZERO, Duration::ZERO, now), std::slice::from_ref(node), "at {now:?}");
        pace.sent(node, Labels::from([("a".to_owned(), "b".to_owned())]), &Labels::new(), now);
    }

    #[test]
    fn a_node_whose_patch_was_refused_is_spared_for_as_long_as_asked_and_not_shorter_than_the_backoff() {
        let (node, mut rng) = (NodeName::parse("n").unwrap(), Rng::with_seed(7));
        for (asked, waits) in
            [(Duration::ZERO, 50..=100), (Duration::from_millis(10), 50..=100), (Duration::from_secs(5), 5_000..=5_000)]
        {
            let mut pace = Pace::new(10, Moment(0));
            patched(&mut pace, &node, Moment(0));
            pace.done(&node, Err(Reason::Throttled), Moment(0), &BACKOFF, &mut rng);
            pace.spare(&node, Moment(0) + asked);
            let due = pace.next(Duration::ZERO, Duration::ZERO, Moment(0)).unwrap();
            assert!(waits.contains(&due.0), "asked for {asked:?}, waits until {due:?}");
            assert_eq!(pace.look(Duration::ZERO, Duration::ZERO, Moment(due.0 - 1)), []);
            patched(&mut pace, &node, due);
            pace.done(&node, Ok(()), due, &BACKOFF, &mut rng);
            pace.spare(&node, due + asked);
            pace.touch(&node);
            let free = pace.look(Duration::ZERO, Duration::ZERO, due);
            assert_eq!(free, std::slice::from_ref(&node), "success ends every wait");
        }
    }
}
