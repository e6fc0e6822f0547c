//! The two documents everything else hangs on: `_meta` with epoch and term, and this node's assignment.
//!
//! Owns what each of them changes. When they are read is [`Reading`](crate::reading::Reading)'s.

use shared::backoff::vary;
use shared::machine::Moment;
use shared::message::{Assignment, Meta};
use shared::name::PoolId;
use shared::reason::Reason;

use super::{Leaving, Sync, Told};
use crate::assignment::{Judgement, Read};
use crate::pool::{Depth, Pool};

impl Sync {
    /// `_meta` was read.
    pub(crate) fn meta_read(&mut self, result: Result<Option<Meta>, Reason>, now: Moment) {
        let Ok(Some(meta)) = result else {
            return self.meta.failed(now, &self.timing, &mut self.rng);
        };
        let is_newest = self.meta.succeeded();
        if self.epoch.as_deref() == Some(meta.epoch.as_str()) {
            if meta.term > self.term {
                self.heard_term(meta.term, now);
            } else if meta.term < self.term {
                // The bucket was rolled back, or a term was forged: what is stored decides.
                self.lost_term = Some(std::mem::replace(&mut self.term, meta.term));
                self.stored_revision += 1;
            }
        } else {
            self.enter_epoch(meta, now);
        }
        self.is_meta_fresh |= is_newest;
        if let Some(assignment) = self.stash.take() {
            self.consider(assignment, true, now);
        }
    }

    fn enter_epoch(&mut self, meta: Meta, now: Moment) {
        let is_first = self.epoch.is_none();
        (self.epoch, self.term) = (Some(meta.epoch), meta.term);
        self.lost_term = None;
        self.leaving.values_mut().for_each(|leaving| leaving.from = None);
        let ids: Vec<PoolId> = self.pools.keys().cloned().collect();
        for id in ids {
            let at = now + self.spread();
            if let Some(pool) = self.pools.get_mut(&id) {
                pool.reset_epoch(id, now);
                pool.schedule(Depth::Full, at);
            }
        }
        self.told = self.told.min(Told::Something);
        if !is_first {
            self.assignment.reset_epoch();
            self.is_assignment_fresh = false;
            let at = now + self.spread();
            self.assigning.request(at);
        }
        self.changed();
    }

    /// A term of this epoch was heard. A new leader may have written an assignment whose copy its predecessor did not
    /// live to send.
    pub(super) fn heard_term(&mut self, term: u64, now: Moment) {
        if term <= self.term {
            return;
        }
        let is_new_leader = self.term > 0;
        self.term = term;
        self.spoken_for(now);
        self.stored_revision += 1;
        if is_new_leader {
            self.is_assignment_fresh = false;
            let at = now + self.spread();
            self.assigning.request(at);
        }
    }

    /// Somebody speaks for the buckets as they are now.
    pub(super) fn spoken_for(&mut self, now: Moment) {
        self.spoken = Some(now);
        if self.lost_term.take().is_some() {
            let at = now + self.spread();
            self.assigning.request(at);
        }
    }

    /// A message of another epoch or of an older term: one of both sides is behind.
    pub(super) fn suspect(&mut self, is_other_epoch: bool, now: Moment) {
        if is_other_epoch {
            self.is_meta_fresh = false;
        }
        let at = now + self.spread();
        self.meta.request(at);
    }

    /// The assignment was read from the bucket.
    pub(crate) fn assignment_read(&mut self, result: Result<Option<Assignment>, Reason>, now: Moment) {
        let Ok(found) = result else {
            return self.assigning.failed(now, &self.timing, &mut self.rng);
        };
        self.assigning.succeeded();
        match found {
            None => {
                // NATS may have been wiped, or the controller has not come this far: nothing is dropped.
                self.told = Told::Something;
                let at = now + self.poll_wait();
                self.assigning.request(at);
            }
            Some(assignment) if self.is_meta_fresh => self.consider(assignment, true, now),
            Some(assignment) => self.stash = Some(assignment),
        }
        // A copy that was lost on its way is not shown by any beat: look from time to time.
        let at = now + vary(self.timing.inventory_every, 20, &mut self.rng);
        self.assigning.request(at);
    }

    /// A copy of the assignment arrived.
    pub(crate) fn assignment_copied(&mut self, epoch: &str, assignment: Assignment, now: Moment) {
        if self.epoch.as_deref() == Some(epoch) {
            self.is_live = true;
            self.spoken_for(now);
            self.consider(assignment, false, now);
        } else {
            self.is_live = true;
            self.suspect(true, now);
            let at = now + self.spread();
            self.assigning.request(at);
        }
    }

    fn consider(&mut self, assignment: Assignment, is_from_bucket: bool, now: Moment) {
        if assignment.node != self.node {
            return;
        }
        // What an older copy of the buckets says is not believed at once.
        let term = self.lost_term.unwrap_or(self.term);
        let read = Read { now, patience: self.timing.poll, spoken: self.spoken };
        let judgement = self.assignment.offer(assignment, term, is_from_bucket.then_some(read));
        if is_from_bucket {
            self.told = if judgement == Judgement::Older { Told::Something } else { Told::Assignment };
        }
        self.is_assignment_fresh |= judgement != Judgement::Older;
        match judgement {
            Judgement::Same => {}
            Judgement::Older => {
                let wait = if is_from_bucket { self.poll_wait() } else { self.spread() };
                self.assigning.request(now + wait);
            }
            Judgement::Adopted { is_other_node } => {
                if is_other_node {
                    self.pools.clear();
                    self.leaving.clear();
                }
                self.place_pools(now);
                self.changed();
            }
        }
    }

    fn place_pools(&mut self, now: Moment) {
        let wanted = self.assignment.get().map(|a| a.pools.clone()).unwrap_or_default();
        for (_, left) in self.pools.extract_if(.., |id, _| !wanted.contains(id)) {
            let leaving = |intent| Leaving { from: None, since: now, intent };
            self.leaving.extend(left.content.leave().into_iter().map(|(id, intent)| (id, leaving(intent))));
        }
        for id in wanted {
            if !self.pools.contains_key(&id) {
                let mut pool = Pool::new(id.clone(), now);
                pool.schedule(Depth::Full, now + self.spread());
                self.leaving.values_mut().filter(|l| l.from.as_ref() == Some(&id)).for_each(|l| l.from = None);
                self.pools.insert(id, pool);
            }
        }
    }
}
