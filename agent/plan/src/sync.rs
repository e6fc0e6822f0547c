//! The agent's view of NATS: epoch, term, assignment, pools, and what is read when. `protocol.md` section 5.
//!
//! Owns everything before "what is wanted". Knows neither images nor the runtime.

mod documents;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use shared::backoff::random_up_to;
use shared::machine::Moment;
use shared::message::{Assignment, Beat, Delta, Intent};
use shared::name::{ImageKey, NodeName, PoolId};
use shared::reason::Reason;

use crate::assignment::Held;
use crate::effect::Effect;
use crate::fact::PoolContent;
use crate::persisted::Persisted;
use crate::pool::{Depth, Pool, Verdict};
use crate::reading::{Reading, retry};
use crate::subscription::Subscription;
use crate::timing::Timing;

/// The connection to NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Not yet up in this process.
    Never,
    Up,
    Lost,
}

/// What the bucket has told this process of the assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    /// It has none, or had one in an older epoch.
    Something,
    /// That which is held.
    Assignment,
}

/// An image that is leaving.
#[derive(Debug, Clone)]
struct Leaving {
    /// The pool it was withdrawn from; `None` if the node has left that, or it may be wanted there again.
    from: Option<PoolId>,
    since: Moment,
    intent: Arc<Intent>,
}

/// The view.
#[derive(Debug, Clone)]
pub(crate) struct Sync {
    node: NodeName,
    timing: Timing,
    rng: Rng,
    link: Link,
    epoch: Option<String>,
    term: u64,
    meta: Reading,
    /// `_meta` was read since the connection, the last gap or the last sign of another epoch: pools may be read.
    is_meta_fresh: bool,
    assigning: Reading,
    assignment: Held,
    /// Read before `_meta` was, so not yet judged.
    stash: Option<Assignment>,
    told: Told,
    /// The assignment was read, or arrived, since the connection, the last gap or the last sign of a new leader.
    is_assignment_fresh: bool,
    pools: BTreeMap<PoolId, Pool>,
    /// Withdrawn, or left with its pool, while not all other pools are known as of then: another one may want it.
    leaving: BTreeMap<ImageKey, Leaving>,
    /// The term that was known when `_meta` was found at an older one: the buckets are an older copy, which may lack what
    /// is wanted, until somebody speaks for them.
    lost_term: Option<u64>,
    /// When somebody last spoke for the buckets.
    spoken: Option<Moment>,
    subscription: Subscription,
    spread: Option<Duration>,
    /// What happens now was caused by a live message and not by a connection: no fleet does the same.
    is_live: bool,
    gaps: u32,
    last_gap: Option<Moment>,
    poll_due: Option<Moment>,
    reads: u64,
    revision: u64,
    stored_revision: u64,
}

impl Sync {
    pub(crate) fn new(node: NodeName, timing: Timing, persisted: &mut Persisted, seed: u64, now: Moment) -> Self {
        let mut stored = std::mem::take(&mut persisted.pools);
        let assignment = persisted.assignment.take().filter(|a| a.node == node);
        let pools = assignment.iter().flat_map(|a| a.pools.iter().cloned()).map(|id| {
            let pool = match stored.remove(&id) {
                Some(stored) => Pool::restore(id.clone(), stored, now),
                None => Pool::new(id.clone(), now),
            };
            (id, pool)
        });
        Self {
            pools: pools.collect(),
            node,
            timing,
            rng: Rng::with_seed(seed),
            link: Link::Never,
            epoch: persisted.epoch.take(),
            term: persisted.term,
            meta: Reading::default(),
            is_meta_fresh: false,
            assigning: Reading::default(),
            assignment: Held::restore(assignment),
            stash: None,
            told: Told::Nothing,
            is_assignment_fresh: false,
            leaving: BTreeMap::new(),
            lost_term: None,
            spoken: None,
            subscription: Subscription::default(),
            spread: None,
            is_live: false,
            gaps: 0,
            last_gap: None,
            poll_due: None,
            reads: 0,
            revision: 1,
            stored_revision: 0,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.link == Link::Up
    }

    pub(crate) fn epoch(&self) -> Option<&str> {
        self.epoch.as_deref()
    }

    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    pub(crate) fn assignment(&self) -> Option<&Assignment> {
        self.assignment.get()
    }

    pub(crate) fn pools(&self) -> &BTreeMap<PoolId, Pool> {
        &self.pools
    }

    /// What is withdrawn where it was known, and may be wanted where it is yet to be read.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = (&ImageKey, &Arc<Intent>)> {
        self.leaving.iter().map(|(id, leaving)| (id, &leaving.intent))
    }

    /// Moves when what is wanted may have changed.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Moves when what is persisted changed; heads that move by a beat alone do not count.
    pub(crate) fn stored_revision(&self) -> u64 {
        self.stored_revision
    }

    /// Connected once, assignment read, every pool read or restored.
    pub(crate) fn is_synced(&self) -> bool {
        self.link != Link::Never && self.told >= Told::Something && self.pools.values().all(Pool::is_exact)
    }

    /// Whether this process knows exactly what this node is to hold, by a beat not long ago: what is not in it may be let
    /// go. What was persisted, or only read, proves nothing; a node in no pool is told nothing.
    pub(crate) fn is_proven(&self, now: Moment) -> bool {
        let since = now - self.timing.beat_lost;
        self.is_connected()
            && self.is_meta_fresh
            && self.told == Told::Assignment
            && !self.pools.is_empty()
            && self.pools.values().all(|pool| pool.is_proven(since))
    }

    /// Somebody asked for quiet: no pull may be in flight, so nothing is removed either.
    pub(crate) fn is_paused(&self) -> bool {
        self.assignment().and_then(Assignment::pulls_in_flight) == Some(0)
    }

    /// A random delay within the spread in force.
    pub(crate) fn spread(&mut self) -> Duration {
        let unheard = if self.is_live { Duration::ZERO } else { self.timing.start_spread };
        random_up_to(self.spread.unwrap_or(unheard), &mut self.rng)
    }

    fn changed(&mut self) {
        self.revision += 1;
        self.stored_revision += 1;
    }

    /// The connection is up.
    pub(crate) fn connected(&mut self, now: Moment) {
        self.is_live = false;
        let is_first = self.link == Link::Never;
        self.link = Link::Up;
        let delay = if is_first { Duration::ZERO } else { self.spread() };
        self.read_again(now, delay);
        self.subscription.renew(now);
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self) {
        self.link = Link::Lost;
    }

    /// Messages were lost on a connection that stands. The more often in a row, the more patience.
    pub(crate) fn gap(&mut self, now: Moment) {
        let is_in_a_row = self.last_gap.is_some_and(|last| now.since(last) < self.timing.poll);
        self.gaps = if is_in_a_row { self.gaps.saturating_add(1) } else { 0 };
        self.last_gap = Some(now);
        self.is_live = false;
        let mut delay = self.spread();
        if self.gaps > 0 {
            delay += retry(&self.timing).limit(self.gaps);
        }
        self.read_again(now, delay);
        self.subscription.renew(now + delay);
    }

    fn read_again(&mut self, now: Moment, delay: Duration) {
        (self.is_meta_fresh, self.is_assignment_fresh) = (false, false);
        self.leaving.values_mut().for_each(|leaving| leaving.from = None);
        self.meta.request(now + delay);
        self.assigning.request(now + delay);
        let ids: Vec<PoolId> = self.pools.keys().cloned().collect();
        for id in ids {
            let at = now + self.spread();
            if let Some(pool) = self.pools.get_mut(&id) {
                pool.listen(now);
                pool.schedule(Depth::Since, at);
            }
        }
    }

    /// A controller asks for the inventory: the assignment may be another one.
    pub(crate) fn read_assignment(&mut self, now: Moment) {
        self.spoken_for(now);
        self.assigning.request(now);
    }

    /// Somebody asks for everything to be read, of this agent alone.
    pub(crate) fn resync(&mut self, now: Moment) {
        self.is_meta_fresh = false;
        self.meta.request(now);
        self.assigning.request(now);
        for pool in self.pools.values_mut() {
            pool.schedule(Depth::Full, now);
        }
    }

    /// The subscription stands.
    pub(crate) fn subscribed(&mut self, pools: Vec<PoolId>, now: Moment) {
        for (id, pool) in &mut self.pools {
            if pools.contains(id) && !self.subscription.has(id) {
                pool.listen(now);
            }
        }
        let again = now + self.poll_wait();
        self.subscription.answered(pools, again);
    }

    /// A delta arrived. Gives whether a step is due.
    pub(crate) fn delta(&mut self, delta: Delta, now: Moment) -> bool {
        let is_new_term = delta.term > self.term;
        if !self.is_of_now(&delta.epoch, delta.term, delta.spread_ms, now) {
            return true;
        }
        let id = delta.pool.clone();
        let Some(verdict) = self.pools.get_mut(&id).map(|pool| pool.delta(delta)) else {
            return is_new_term;
        };
        self.obey(&id, verdict, now) || is_new_term
    }

    /// A beat arrived. Gives whether a step is due.
    pub(crate) fn beat(&mut self, beat: &Beat, now: Moment) -> bool {
        let is_new_term = beat.term > self.term;
        if !self.is_of_now(&beat.epoch, beat.term, beat.spread_ms, now) {
            return true;
        }
        let Some(verdict) = self.pools.get_mut(&beat.pool).map(|pool| pool.beat(beat, now)) else {
            return is_new_term;
        };
        self.obey(&beat.pool, verdict, now) || is_new_term
    }

    /// Whether a message is of this epoch and of no older term; if so its spread is in force from here on.
    fn is_of_now(&mut self, epoch: &str, term: u64, spread_ms: u64, now: Moment) -> bool {
        let is_other_epoch = self.epoch.as_deref() != Some(epoch);
        if is_other_epoch || term < self.term {
            self.suspect(is_other_epoch, now);
            return false;
        }
        self.spread = Some(Duration::from_millis(spread_ms));
        self.spoken_for(now);
        self.heard_term(term, now);
        true
    }

    fn obey(&mut self, id: &PoolId, verdict: Verdict, now: Moment) -> bool {
        if let Some(depth) = verdict.read {
            let at = now + self.spread();
            if let Some(pool) = self.pools.get_mut(id) {
                pool.schedule(depth, at);
            }
        }
        if verdict.changed {
            self.changed();
        }
        verdict != Verdict::default() || !self.leaving.is_empty()
    }

    /// A read of a pool ended.
    pub(crate) fn pool_read(
        &mut self,
        id: &PoolId,
        read: u64,
        result: Result<PoolContent, Reason>,
        now: Moment,
    ) -> bool {
        let Some(pool) = self.pools.get_mut(id) else {
            return false;
        };
        let Some(changed) = pool.read_ended(read, result, self.epoch.as_deref(), (now, &self.timing, &mut self.rng))
        else {
            return false;
        };
        if changed {
            self.changed();
        }
        true
    }

    /// What NATS is asked for now.
    pub(crate) fn step(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.pools.values_mut().fold(false, |any, pool| pool.content.release(now) | any) {
            self.changed();
        }
        self.let_go(now);
        if !self.is_connected() {
            return;
        }
        self.poll(now);
        if self.meta.start(now) {
            effects.push(Effect::ReadMeta);
        }
        if self.assigning.start(now) {
            effects.push(Effect::ReadAssignment);
        }
        let wanted: Vec<PoolId> = self.pools.keys().cloned().collect();
        if let Some(pools) = self.subscription.start(wanted, now) {
            effects.push(Effect::Subscribe(pools));
        }
        if !self.is_meta_fresh {
            return;
        }
        for (id, pool) in self.pools.iter_mut().filter(|(id, _)| self.subscription.has(id)) {
            if let Some((from, plain)) = pool.start_read(now, self.reads + 1) {
                self.reads += 1;
                effects.push(Effect::ReadPool { pool: id.clone(), from, read: self.reads, plain });
            }
        }
    }

    /// An image that moves between pools may be withdrawn in one before it is known to be in the other, so it goes only
    /// when every other pool is known as of the withdrawal.
    fn let_go(&mut self, now: Moment) {
        for (pool, known) in &mut self.pools {
            let withdrawn = known.content.take_withdrawn().into_iter();
            let leaving = |intent| Leaving { from: Some(pool.clone()), since: now, intent };
            self.leaving.extend(withdrawn.map(|(id, intent)| (id, leaving(intent))));
        }
        if self.leaving.is_empty() || !self.is_assignment_fresh {
            return;
        }
        let before = self.leaving.len();
        self.leaving.retain(|_, leaving| {
            let is_open = |pool: &Pool| !pool.is_known_since(leaving.since);
            self.pools.iter().any(|(id, pool)| leaving.from.as_ref() != Some(id) && is_open(pool))
        });
        if self.leaving.len() != before {
            self.revision += 1;
        }
    }

    /// No beat for long: everything is read now and then, `_meta` first, because the buckets may be others by now.
    fn poll(&mut self, now: Moment) {
        let beat_lost = self.timing.beat_lost;
        let is_lost = |pool: &Pool| pool.heard() + beat_lost <= now;
        if !self.pools.values().any(is_lost) {
            self.poll_due = None;
            return;
        }
        // Beats stop for all agents of a pool at once: the first poll is spread as well.
        let first = random_up_to(self.timing.poll / 4, &mut self.rng);
        if *self.poll_due.get_or_insert(now + first) > now {
            return;
        }
        self.poll_due = Some(now + self.poll_wait());
        self.is_meta_fresh = false;
        self.meta.request(now);
        self.assigning.request(now);
        for pool in self.pools.values_mut().filter(|pool| is_lost(pool)) {
            pool.schedule(Depth::Since, now);
        }
    }

    fn poll_wait(&mut self) -> Duration {
        self.timing.poll + random_up_to(self.timing.poll / 4, &mut self.rng)
    }

    /// When something is due.
    pub(crate) fn timers(&self) -> impl Iterator<Item = Moment> {
        let lost = self.pools.values().map(|pool| pool.heard() + self.timing.beat_lost);
        let connected = [self.meta.due(), self.assigning.due(), self.subscription.due(), self.poll_due]
            .into_iter()
            .flatten()
            .chain(lost)
            .chain(self.pools.values().filter_map(Pool::read_due))
            .filter(|_| self.is_connected());
        self.pools.values().filter_map(|pool| pool.content.next_release()).chain(connected)
    }
}
