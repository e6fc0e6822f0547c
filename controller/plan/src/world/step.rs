//! Deciding: what follows from what is known.
//!
//! Owns the order: plan, evidence, leadership, writes, beats, labels. Nothing is done before every source has delivered
//! its first full content: an empty world at start must never retract anything.

use std::collections::BTreeSet;
use std::time::Duration;

use shared::machine::{Moment, Now};
use shared::message::{Beat, Snapshot};
use shared::name::{NodeName, PoolId};

use super::World;
use crate::bucket::PoolBucket;
use crate::diff::{self, Buckets};
use crate::effect::{Effect, IntentBatch};
use crate::evidence::{NodeEvidence, Scope};
use crate::silence::Candidate;
use crate::snapshot::Due;

impl World {
    /// Everything that is to be done now.
    pub(super) fn decide(&mut self, now: Now) -> Vec<Effect> {
        let mut effects = std::mem::take(&mut self.outbox);
        self.take_orders(&mut effects);
        self.take_selection();
        if self.is_synced() {
            self.act(now, &mut effects);
        } else {
            self.turn(now, &mut effects);
            self.due = None;
        }
        self.answer(now, &mut effects);
        effects
    }

    fn act(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let is_paused = self.is_paused();
        if std::mem::replace(&mut self.was_paused, is_paused) != is_paused {
            (self.stale.intents, self.stale.assignments) = (true, true);
            self.suspects.all_assignments(&self.plan, &self.assigned);
        }
        let amount = self.family.look(now.mono);
        self.workloads_are(amount);
        self.replan();
        self.weigh(now.mono);
        self.lead(now.mono, effects);
        self.turn(now, effects);
        if self.sees_buckets() && self.leadership.leads().is_some() {
            self.write_intents(now.mono, effects);
            self.write_assignments(now.mono, effects);
            self.beat(now, effects);
            self.keep_snapshots(now.mono, effects);
            effects.extend(self.evidence.take_requests().into_iter().map(Effect::RequestInventory));
        }
        if self.leadership.leads().is_some() {
            self.label(now.mono, effects);
            self.tell_sets(now, effects);
        }
        if std::mem::take(&mut self.trouble_is_due) {
            self.tell_of_trouble(now.mono, effects);
        }
        let backoff = self.backoff();
        self.ledger.intent_retries.tidy(now.mono, &backoff);
        self.ledger.assignment_retries.tidy(now.mono, &backoff);
        self.due = self.next_timer(now.mono);
    }

    /// Weighs the evidence against the plan and the sets of the buckets.
    fn weigh(&mut self, now: Moment) {
        let moves = self.intents.take_moves();
        let scope = Scope { plan: &self.plan, intents: &self.intents, assigned: &self.assigned };
        for node in self.evidence.judge(&moves, scope) {
            self.pace.touch(&node);
        }
        if self.judged + self.settings.timing.judge <= now {
            self.judged = now;
            if self.evidence.look_for_late(now) {
                self.status_pace.touch();
            }
            self.give_up_silent(now);
            self.trouble_is_due = true;
        }
    }

    /// Has those nodes looked at that are silent for too long, or were and are heard again.
    fn give_up_silent(&mut self, now: Moment) {
        let candidates = self.nodes.good().map(|(node, there)| Candidate {
            node,
            heard: self.evidence.get(node).and_then(NodeEvidence::heard),
            is_labelled: !there.our_labels.is_empty(),
        });
        let leads = self.leadership.leads().is_some();
        let patience = self.settings.labels.stale_after;
        for node in self.silence.judge(candidates, leads, patience, now) {
            self.pace.touch(&node);
        }
    }

    fn lead(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster().map(ToOwned::to_owned) else {
            return;
        };
        if self.intents.is_fresh() {
            self.leadership.judge(&self.intents, &cluster);
            effects.extend(self.leadership.release());
        }
        if self.sees_buckets() {
            effects.extend(self.leadership.take(&self.intents, &cluster, &self.settings.instance, now));
        }
    }

    fn write_intents(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let is_free = !self.was_paused && !self.ledger.writes_intents();
        let Some(meta) = self.leadership.leads().filter(|_| is_free) else {
            return;
        };
        let is_due = self.stale.intents || self.ledger.intent_retries.has_due(now);
        let retries = &self.ledger.intent_retries;
        let buckets = Buckets { intents: &self.intents, assigned: &self.assigned };
        let suspects = &mut self.suspects;
        let mut missing = || diff::intents(&self.plan, buckets, suspects, retries, meta.term, now);
        let writes = if is_due { missing() } else { Vec::new() };
        self.stale.intents = false;
        if writes.is_empty() {
            return;
        }
        // A restored copy of the bucket may end below the last delta.
        let latest = self.intents.latest();
        let last = |pool: &PoolId| self.ledger.deltas.get(pool).copied().unwrap_or(self.leadership.head()).min(latest);
        let batch = IntentBatch {
            epoch: meta.epoch.clone(),
            term: meta.term,
            prev: diff::pools_of(&writes).map(|pool| (pool.clone(), last(pool))).collect(),
            spread: self.spread(),
            marker_ttl: self.settings.timing.marker_ttl,
            writes,
        };
        self.ledger.issue_intents(&self.intents, &batch.writes);
        effects.push(Effect::WriteIntents(batch));
    }

    fn write_assignments(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Some(meta) = self.leadership.leads().filter(|_| !self.ledger.writes_assignments()) else {
            return;
        };
        if !self.stale.assignments && !self.ledger.assignment_retries.has_due(now) {
            return;
        }
        self.stale.assignments = false;
        let retries = &self.ledger.assignment_retries;
        let exists = |node: &NodeName| self.nodes.contains(node) && self.nodes.get(node).is_none();
        let (buckets, is_paused) = (Buckets { intents: &self.intents, assigned: &self.assigned }, self.was_paused);
        let suspects = &mut self.suspects;
        let writes = diff::assignments(&self.plan, buckets, suspects, retries, exists, is_paused, meta.term, now);
        if !writes.is_empty() {
            self.ledger.issue_assignments(&self.assigned, &writes);
            let (epoch, term) = (meta.epoch.clone(), meta.term);
            effects.push(Effect::WriteAssignments { epoch, term, writes });
        }
    }

    /// Whether (head, count, digest) of the pools are what every agent will come to.
    fn is_settled(&self) -> bool {
        !self.ledger.writes_intents() && self.intents.is_settled()
    }

    /// What reads that a message causes are spread over: by the nodes that have an assignment, or are about to.
    fn spread(&self) -> Duration {
        self.settings.timing.spread_of(self.plan.nodes.len())
    }

    fn beat(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Some(meta) = self.leadership.leads().filter(|_| self.is_settled()) else {
            return;
        };
        let live = self.intents.pools().filter(|(_, pool)| pool.len() > 0).map(|(id, _)| id);
        let alive: BTreeSet<&PoolId> = live.chain(self.plan.pools.keys()).collect();
        let (timing, spread) = (&self.settings.timing, self.spread());
        for pool in self.beats.due(&alive, timing.beat, now.mono, &mut self.rng) {
            let head = self.intents.head();
            let set = self.intents.pool(&pool).map(|p| p.summary(head)).unwrap_or_default();
            // Agents believe an empty set, so it is said only where nothing is wanted: a failed write may wait for its
            // retry while the bucket is as good as empty.
            let wants = |p: &PoolId| self.plan.pools.get(p).is_some_and(|p| !p.intents.is_empty());
            if set.count == 0 && wants(&pool) {
                continue;
            }
            effects.push(Effect::PublishBeat(Beat {
                epoch: meta.epoch.clone(),
                term: meta.term,
                pool,
                head,
                count: set.count,
                digest: set.digest,
                spread_ms: u64::try_from(spread.as_millis()).unwrap_or(u64::MAX),
                ts: now.wall,
            }));
        }
    }

    /// Writes large pools down as a whole, as often as there is a step: each beat is one. A pool that holds what cannot be read
    /// here gets none.
    fn keep_snapshots(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Some(meta) = self.leadership.leads().filter(|_| self.is_settled()) else {
            return;
        };
        let (head, marker_ttl) = (self.intents.head(), self.settings.timing.marker_ttl);
        let ours = self.intents.pools().filter(|(_, pool)| pool.snapshot().is_ours());
        let pools = ours.map(|(id, pool)| (id, pool.summary(head), pool.snapshot().value()));
        for (id, due) in self.snapshots.due(pools, (self.settings.snapshots.least, &meta.epoch), now) {
            match due {
                Due::Purge(chunks) => effects.push(Effect::PurgeSnapshot { pool: id, chunks, marker_ttl }),
                Due::Write(before) => {
                    let Some(intents) = self.intents.pool(&id).and_then(PoolBucket::written) else {
                        continue;
                    };
                    let (epoch, term) = (meta.epoch.clone(), meta.term);
                    let snapshot = Box::new(Snapshot { epoch, term, pool: id, head, intents });
                    effects.push(Effect::WriteSnapshot { snapshot, before, marker_ttl });
                }
            }
        }
    }

    fn next_timer(&self, now: Moment) -> Option<Moment> {
        let timing = &self.settings.timing;
        let is_labelled = || self.nodes.good().any(|(_, node)| !node.our_labels.is_empty());
        let judge = (!self.evidence.is_empty() || is_labelled()).then_some(self.judged + timing.judge);
        let leads = self.leadership.leads().is_some();
        let labels = || self.pace.next(timing.label_window, timing.write_backoff_max, now);
        let has_sets = leads && self.sets.keys().next().is_some();
        let status = || self.status_pace.next(timing.set_status, timing.write_backoff_max, now);
        let mut timers = vec![judge, self.family.due(), leads.then(labels).flatten(), has_sets.then(status).flatten()];
        if self.sees_buckets() {
            timers.push(self.cluster().and_then(|_| self.leadership.due()));
            if leads {
                let is_free = !self.ledger.writes_intents();
                timers.push(is_free.then(|| self.ledger.intent_retries.next(now)).flatten());
                timers.push(self.ledger.assignment_retries.next(now));
                timers.push(self.is_settled().then(|| self.beats.next()).flatten());
            }
        }
        timers.into_iter().flatten().min()
    }
}
