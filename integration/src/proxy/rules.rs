//! The rules of one proxy: owns which there are, which one a request meets, and waking what a rule held back once it is
//! taken away. What a rule does is the proxy's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Names a rule that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(u64);

/// Rules in the order in which they were added.
pub(super) struct Rules<R> {
    list: Mutex<Vec<(RuleId, R)>>,
    /// Ids in `list`; whoever is held back waits here for its own to go.
    active: watch::Sender<Vec<RuleId>>,
    next: AtomicU64,
}

impl<R> Default for Rules<R> {
    fn default() -> Self {
        Self { list: Mutex::default(), active: watch::Sender::new(Vec::new()), next: AtomicU64::new(0) }
    }
}

impl<R> Rules<R> {
    /// Adds a rule.
    pub(super) fn add(&self, rule: R) -> RuleId {
        let id = RuleId(self.next.fetch_add(1, Ordering::Relaxed));
        self.change(|rules| rules.push((id, rule)));
        id
    }

    /// Takes one rule away.
    pub(super) fn remove(&self, id: RuleId) {
        self.change(|rules| rules.retain(|(known, _)| *known != id));
    }

    /// Takes all rules away.
    pub(super) fn clear(&self) {
        self.change(Vec::clear);
    }

    /// The first rule that takes a request, and what it makes of it.
    pub(super) fn meet<T>(&self, mut take: impl FnMut(&mut R) -> Option<T>) -> Option<(RuleId, T)> {
        self.lock().iter_mut().find_map(|(id, rule)| take(rule).map(|taken| (*id, taken)))
    }

    /// Which rules there are, to wait for one to go.
    pub(super) fn active(&self) -> watch::Receiver<Vec<RuleId>> {
        self.active.subscribe()
    }

    /// Returns when the rule was taken away.
    pub(super) async fn gone(&self, rule: Option<RuleId>) {
        wait_until_gone(&mut self.active(), rule).await;
    }

    fn change(&self, change: impl FnOnce(&mut Vec<(RuleId, R)>)) {
        let mut rules = self.lock();
        change(&mut rules);
        self.active.send_replace(rules.iter().map(|(id, _)| *id).collect());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(RuleId, R)>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when the rule was taken away.
pub(super) async fn wait_until_gone(active: &mut watch::Receiver<Vec<RuleId>>, rule: Option<RuleId>) {
    // An error says that the proxy is gone, and the rule with it.
    let _ = active.wait_for(|active| rule.is_none_or(|rule| !active.contains(&rule))).await;
}
