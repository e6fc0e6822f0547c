//! What the agent of one node has said.
//!
//! Owns the order of its words: instance and counter, what each pool's newest report proves, events after it, and its
//! silence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shared::machine::Moment;
use shared::message::{Content as Lists, Event, Heartbeat, Inventory, Message as _};
use shared::name::{ImageKey, PoolId};
use shared::pool_set::PoolSummary;
use shared::reason::Reason;
use shared::state::ImageState;

use super::proof::{Origin, Proof, Report, Single, Told};
use crate::bucket::{Ended, IntentsBucket};
use crate::judge::{Content, IdSet, ImageEvidence, Shared, Word};
use crate::lists::PoolList;
use crate::plan::Wanted;

/// After how many heartbeats that contradict the stored inventory it is asked for.
const CONTRADICTIONS: u8 = 2;

/// Of how many images the circumstances of the last word are remembered.
const MOST_TOLD: usize = 32;

/// What is known of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Agent {
    /// It never sent a heartbeat or an inventory.
    #[default]
    Missing,
    /// It has been silent for too long.
    Unknown,
    /// It is heard.
    Ready,
}

/// What one agent has said.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeEvidence {
    uid: String,
    inst: String,
    n: u64,
    heard: Option<Moment>,
    agent: Agent,
    report: Option<Report>,
    proofs: BTreeMap<PoolId, Proof>,
    /// Wins over the proofs: what a newer proof covers is dropped from here.
    singles: BTreeMap<ImageKey, Single>,
    /// Pools of the report whose set was not found yet.
    unmatched: BTreeSet<PoolId>,
    /// The pools it was last judged for, sorted.
    pools: PoolList,
    contradictions: u8,
    request: bool,
    /// Circumstances of what is not warm.
    told: BTreeMap<ImageKey, Told>,
    /// Kind of the message that was heard last.
    last: Option<&'static str>,
}

impl Agent {
    /// The word in metrics and summaries.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unknown => "unknown",
            Self::Missing => "no-agent",
        }
    }
}

impl NodeEvidence {
    /// What is proven of an image.
    pub(crate) fn of(&self, id: &ImageKey, intents: &IntentsBucket) -> Option<ImageEvidence> {
        if let Some(single) = self.singles.get(id) {
            return Some(single.evidence.clone());
        }
        self.proven(id, intents).map(|(evidence, _)| evidence)
    }

    /// What reports about whole sets prove of an image, with the newest counter that says so.
    pub(crate) fn proven(&self, id: &ImageKey, intents: &IntentsBucket) -> Option<(ImageEvidence, u64)> {
        let words =
            self.proofs.iter().filter_map(|(pool, proof)| Some((proof.of(pool, id, intents).evidence()?, proof.n)));
        words.max_by_key(|(_, n)| *n)
    }

    /// As [`NodeEvidence::proven`], of many images at once: what the reports speak of is gone through, not what is wanted.
    pub(super) fn proven_among<'p>(
        &self,
        wanted: &Wanted<'p>,
        intents: &IntentsBucket,
    ) -> BTreeMap<&'p ImageKey, ImageEvidence> {
        let mut proven: BTreeMap<&'p ImageKey, (ImageEvidence, u64)> = BTreeMap::new();
        for (pool, proof) in &self.proofs {
            for id in proof.ids.ids().filter_map(|id| wanted.get_key_value(id)).map(|(id, _)| *id) {
                let Some(evidence) = proof.of(pool, id, intents).evidence() else { continue };
                let newest = proven.entry(id).or_insert_with(|| (evidence.clone(), proof.n));
                if newest.1 <= proof.n {
                    *newest = (evidence, proof.n);
                }
            }
        }
        proven.into_iter().map(|(id, (evidence, _))| (id, evidence)).collect()
    }

    /// Whether anything could be proven of an image, by the numbers of the sets that have it.
    pub(crate) fn knows_by(&self, id: &ImageKey, sets: &BTreeSet<u64>) -> bool {
        let is_in_set = || self.proofs.values().any(|proof| sets.contains(&proof.ids.number));
        self.singles.contains_key(id) || (!sets.is_empty() && is_in_set())
    }

    /// The images proven one by one.
    pub(crate) fn singles(&self) -> impl Iterator<Item = (&ImageKey, &ImageEvidence)> {
        self.singles.iter().map(|(id, single)| (id, &single.evidence))
    }

    /// Whether an image is proven alone.
    pub(crate) fn is_single(&self, id: &ImageKey) -> bool {
        self.singles.contains_key(id)
    }

    /// The images at which an attempt has failed, with why, while the next is waited for or under way.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&ImageKey, Reason)> {
        self.told.iter().filter_map(|(id, told)| Some((id, told.failed?)))
    }

    /// Whether the agent has just met what it says of an image for the first time: not read, not met again.
    pub(crate) fn is_news(&self, id: &ImageKey) -> bool {
        let is_event = self.singles.get(id).is_some_and(|single| single.is_event);
        is_event && self.told.get(id).and_then(|told| told.tries).is_none_or(|tries| tries <= 1)
    }

    /// What its proofs are, newest first, by the numbers of contents and sets: nodes that agree in it agree in all that
    /// whole sets prove. A set is of one pool.
    pub(crate) fn class(&self) -> Vec<(u64, u64)> {
        let mut proofs: Vec<_> = self.proofs.values().collect();
        proofs.sort_by_key(|proof| std::cmp::Reverse(proof.n));
        proofs.into_iter().map(|proof| (proof.content.number, proof.ids.number)).collect()
    }

    /// The images that its reports say to have failed; whether that is what is proven of one is asked of it alone.
    pub(crate) fn reported_failures(&self) -> impl Iterator<Item = &ImageKey> {
        self.proofs.values().flat_map(|proof| proof.content.failures())
    }

    /// What is known of the agent.
    pub(crate) fn agent(&self) -> Agent {
        self.agent
    }

    /// When it was last heard.
    pub(crate) fn heard(&self) -> Option<Moment> {
        self.heard
    }

    /// The stored inventory.
    pub(crate) fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    /// UID of the Node it speaks for; empty while that is not known.
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// The run of the agent.
    pub(crate) fn instance(&self) -> &str {
        &self.inst
    }

    /// Kind of the message that was heard last.
    pub(crate) fn last(&self) -> Option<&'static str> {
        self.last
    }

    /// The circumstances of the last word about an image, if they are remembered.
    pub(crate) fn told(&self, id: &ImageKey) -> Option<&Told> {
        self.told.get(id)
    }

    /// What the last word about an image came with.
    pub(crate) fn origin(&self, id: &ImageKey, intents: &IntentsBucket) -> Option<Origin<'_>> {
        if let Some(single) = self.singles.get(id) {
            return Some(if single.is_event { Origin::Event { n: single.n } } else { Origin::Carried { n: single.n } });
        }
        let says = |(pool, proof): &(&PoolId, &Proof)| proof.of(pool, id, intents) != Word::Open;
        let newest = self.proofs.iter().filter(says).max_by_key(|(_, proof)| proof.n)?;
        Some(Origin::Inventory { pool: newest.0, n: newest.1.n })
    }

    /// Pools of the newest report that name no known set.
    pub(crate) fn unmatched(&self) -> &BTreeSet<PoolId> {
        &self.unmatched
    }

    pub(super) fn is_of(&self, uid: &str) -> bool {
        self.uid == uid
    }

    /// The Node is another object now. What was said of it before its UID was known stays.
    pub(super) fn renew(&mut self, uid: &str) {
        if !self.uid.is_empty() {
            self.proofs.clear();
            self.singles.clear();
            self.told.clear();
        }
        uid.clone_into(&mut self.uid);
    }

    /// Whether a message is not from an instance that another has followed. A node that has been silent for long is
    /// believed whatever its counter: its agent may have lost it.
    pub(super) fn admits(&mut self, inst: &str, n: u64, now: Moment, patience: Duration) -> bool {
        if self.inst == inst {
            self.n = self.n.max(n);
            return true;
        }
        let is_first = self.inst.is_empty();
        let is_silent = self.heard.is_none_or(|heard| now.since(heard) > patience);
        if !(is_first || n > self.n || is_silent) {
            return false;
        }
        if n <= self.n {
            // What was proven alone was newer than the proofs, and stays so. The old report proves nothing new.
            self.singles.values_mut().for_each(|single| single.n = 1);
            self.proofs.values_mut().for_each(|proof| proof.n = 0);
            self.forget_report();
        }
        inst.clone_into(&mut self.inst);
        self.n = n;
        self.contradictions = 0;
        true
    }

    /// Takes a pulse; says whether the report is to be judged again.
    pub(super) fn heartbeat(&mut self, heartbeat: &Heartbeat, now: Moment) -> bool {
        (self.heard, self.last) = (Some(now), Some(Heartbeat::KIND));
        let Some(report) = &mut self.report else {
            self.contradicted();
            return self.request;
        };
        if heartbeat.n < report.n {
            return false;
        }
        // It would speak of a pool that it knows of, and of no other: it has missed its assignment.
        let spoken: BTreeSet<&PoolId> = report.pools.keys().chain(heartbeat.pools.keys()).collect();
        let is_same = report.inst == heartbeat.inst
            && report.digest == heartbeat.inv_digest
            && spoken.into_iter().eq(self.pools.iter());
        if !is_same || (report.uid != self.uid && !self.uid.is_empty()) {
            self.contradicted();
            return self.request;
        }
        self.contradictions = 0;
        let settles_events = self.singles.values().any(|single| (report.n + 1..=heartbeat.n).contains(&single.n));
        let is_news = !std::mem::replace(&mut report.is_confirmed, true);
        let has_moved = report.moved != heartbeat.pools;
        report.n = heartbeat.n;
        if has_moved {
            report.moved.clone_from(&heartbeat.pools);
        }
        settles_events || has_moved || is_news
    }

    fn contradicted(&mut self) {
        self.contradictions = self.contradictions.saturating_add(1);
        if self.contradictions >= CONTRADICTIONS {
            self.contradictions = 0;
            self.request = true;
        }
    }

    /// Whether its inventory is to be asked for.
    pub(super) fn requests(&self) -> bool {
        self.request
    }

    pub(super) fn take_request(&mut self) -> bool {
        std::mem::take(&mut self.request)
    }

    /// Takes a transition; says whether it is the newest word about its image.
    pub(super) fn event(&mut self, event: &Event, intents: &IntentsBucket, shared: &mut Shared, now: Moment) -> bool {
        (self.heard, self.last) = (Some(now), Some(Event::KIND));
        let single = self.singles.get(&event.id).map(|single| single.n);
        let proof = self.proven(&event.id, intents).map(|(_, n)| n);
        if single.max(proof).is_some_and(|n| n >= event.n) {
            return false;
        }
        let digest = event.digest.as_ref().map(|digest| shared.digest(digest));
        let evidence = ImageEvidence { state: event.st, why: event.why, digest };
        self.singles.insert(event.id.clone(), Single { evidence, n: event.n, is_event: true });
        let failed = Told::failed(self.told.get(&event.id), event.st, event.why);
        let told = Told { n: event.n, heard: Some(now), since: event.ts, tries: event.r#try, next: event.next, failed };
        self.note(&event.id, (event.st != ImageState::Warm).then_some(told));
        true
    }

    /// Remembers circumstances, or forgets them; those of the oldest word make room.
    fn note(&mut self, id: &ImageKey, told: Option<Told>) {
        let Some(told) = told else {
            self.told.remove(id);
            return;
        };
        self.told.insert(id.clone(), told);
        if self.told.len() > MOST_TOLD {
            let oldest = self.told.iter().min_by_key(|(_, told)| told.n).map(|(id, _)| id.clone());
            oldest.map(|id| self.told.remove(&id));
        }
    }

    /// Remembers what an inventory says of the circumstances; what it does not list is warm.
    fn note_all(&mut self, inventory: &Inventory, heard: Option<Moment>) {
        let older: BTreeMap<_, _> = self.told.extract_if(.., |_, told| told.n <= inventory.n).collect();
        let list = match &inventory.content {
            Lists::Except(list) => list,
            Lists::WarmIds(_) => &inventory.not_warm,
        };
        let room = MOST_TOLD.saturating_sub(self.told.len());
        let news: Vec<_> = list.iter().filter(|e| !self.told.contains_key(&e.id)).take(room).collect();
        for e in news {
            let failed = Told::failed(older.get(&e.id), e.st, e.why);
            let told = Told { n: inventory.n, heard, since: e.since, tries: e.tries, next: e.next, failed };
            self.told.insert(e.id.clone(), told);
        }
    }

    /// Takes a report; says whether it is the newest.
    pub(super) fn take_inventory(&mut self, inventory: Inventory, shared: &mut Shared, heard: Option<Moment>) -> bool {
        if heard.is_some() {
            (self.heard, self.last) = (heard, Some(Inventory::KIND));
        }
        if self.agent == Agent::Missing {
            self.agent = Agent::Unknown;
        }
        let is_stale = |r: &Report| r.inst == inventory.inst && r.put > inventory.n;
        if self.report.as_ref().is_some_and(is_stale) {
            return false;
        }
        let is_same = |r: &Report| r.is_confirmed && r.inst == inventory.inst && r.put == inventory.n;
        let is_confirmed = heard.is_some() || self.report.as_ref().is_some_and(is_same);
        (self.contradictions, self.request) = (0, false);
        self.note_all(&inventory, heard);
        let digest = inventory.evidence_digest();
        self.report = Some(Report {
            content: shared.content(&inventory, digest),
            digest,
            uid: inventory.uid,
            inst: inventory.inst,
            is_confirmed,
            version: inventory.agent,
            put: inventory.n,
            n: inventory.n,
            ts: inventory.ts,
            epoch: inventory.epoch,
            disk: inventory.disk,
            runtime: inventory.runtime,
            pools: inventory.pools,
            moved: BTreeMap::new(),
        });
        true
    }

    /// The stored inventory has expired: what it proved stays, but no heartbeat can confirm it any more.
    pub(super) fn forget_report(&mut self) {
        self.report = None;
        self.unmatched.clear();
    }

    /// The stream is another: sequences begin anew, so proofs about its sets mean nothing.
    pub(super) fn forget_proofs(&mut self) -> bool {
        !std::mem::take(&mut self.proofs).is_empty()
    }

    /// Whether its report waits for one of these pools to become what it speaks of.
    pub(super) fn waits_for_any(&self, pools: &BTreeSet<PoolId>) -> bool {
        self.unmatched.iter().any(|pool| pools.contains(pool))
    }

    /// An intent ended in one of its pools. If the image has been wanted there otherwise since before, what was proven of
    /// it stands; if not, nobody vouches for it any more. Says whether anything is different.
    pub(super) fn ended(&mut self, ended: &Ended, is_covered: bool) -> bool {
        let is_proven = |proof: &Proof| proof.ids.seq(&ended.id).is_some_and(|seq| ended.born <= seq);
        let proof = self.proofs.get(&ended.pool).filter(|proof| is_proven(proof));
        if !is_covered {
            return self.singles.remove(&ended.id).is_some() || proof.is_some();
        }
        if let Some(proof) = proof
            && let Word::Is(evidence) = proof.content.of(&ended.id)
        {
            let single = Single { evidence, n: proof.n, is_event: false };
            self.singles.entry(ended.id.clone()).or_insert(single);
        }
        false
    }

    /// Notes the pools it answers for; says whether they are others than before.
    pub(super) fn enters(&mut self, pools: &PoolList) -> bool {
        if self.pools == *pools {
            return false;
        }
        self.pools = pools.clone();
        true
    }

    fn answers_for(&self, pool: &PoolId) -> bool {
        self.pools.binary_search(pool).is_ok()
    }

    /// After it entered pools: whether its report speaks of one that nothing is proven of yet.
    pub(super) fn has_word_of_new_pools(&self) -> bool {
        let spoken = self.report.iter().flat_map(|report| report.pools.keys().chain(report.moved.keys()));
        spoken.into_iter().any(|pool| self.answers_for(pool) && !self.proofs.contains_key(pool))
    }

    /// Drops what it does not answer for any more; what is proven of an image that is still covered otherwise stands. So
    /// nothing is different of any image that is wanted there.
    pub(super) fn keep(&mut self, intents: &IntentsBucket, covers: impl Fn(&ImageKey) -> bool) {
        let pools = self.pools.clone();
        let is_left = |pool: &PoolId| pools.binary_search(pool).is_err();
        self.unmatched.retain(|pool| !is_left(pool));
        let left: Vec<PoolId> = self.proofs.keys().filter(|pool| is_left(pool)).cloned().collect();
        for pool in left {
            let Some(proof) = self.proofs.remove(&pool) else {
                continue;
            };
            for id in proof.ids.ids().filter(|id| covers(id)) {
                if let Word::Is(evidence) = proof.of(&pool, id, intents) {
                    let single = Single { evidence, n: proof.n, is_event: false };
                    self.singles.entry(id.clone()).or_insert(single);
                }
            }
        }
        self.singles.retain(|id, _| covers(id));
    }

    /// Judges the report, pool by pool; says whether evidence may differ. `find` gives the set of a name.
    pub(super) fn judge(
        &mut self,
        intents: &IntentsBucket,
        mut find: impl FnMut(&PoolId, &PoolSummary) -> Option<Arc<IdSet>>,
    ) -> bool {
        self.unmatched.clear();
        let is_judged = |r: &&Report| r.is_confirmed && !self.uid.is_empty() && r.uid == self.uid;
        let Some(report) = self.report.as_ref().filter(is_judged) else {
            return false;
        };
        let (content, n) = (Arc::clone(&report.content), report.n);
        let sets: BTreeMap<&PoolId, &PoolSummary> = report.pools.iter().chain(&report.moved).collect();
        let mut proofs = BTreeMap::new();
        let pools = self.pools.clone();
        for (pool, set) in sets.into_iter().filter(|(pool, _)| pools.binary_search(pool).is_ok()) {
            match find(pool, set) {
                Some(ids) => {
                    proofs.insert(pool.clone(), Proof { content: Arc::clone(&content), ids, n });
                }
                None => {
                    self.unmatched.insert(pool.clone());
                }
            }
        }
        if content.is_complete() {
            self.accept(proofs, intents)
        } else {
            self.accept_listed(&content, &proofs, intents)
        }
    }

    /// Proofs of whole sets: they replace what was proven before them.
    fn accept(&mut self, proofs: BTreeMap<PoolId, Proof>, intents: &IntentsBucket) -> bool {
        let mut changed = false;
        self.singles.retain(|id, single| {
            let said = proofs.iter().filter(|(_, proof)| proof.n >= single.n).map(|(pool, p)| p.of(pool, id, intents));
            match said.into_iter().find(|word| *word != Word::Open) {
                None => return true,
                // It is not said what it is instead: what was said before stands, if that was not warm.
                Some(Word::NotWarm) if single.evidence.state != ImageState::Warm => return true,
                Some(_) => {}
            }
            changed = true;
            false
        });
        for (pool, proof) in proofs {
            let is_same = |p: &Proof| p.content.number == proof.content.number && p.ids.number == proof.ids.number;
            changed |= !self.proofs.get(&pool).is_some_and(is_same);
            self.proofs.insert(pool, proof);
        }
        changed
    }

    /// An incomplete report proves only what it lists.
    fn accept_listed(&mut self, content: &Content, proofs: &BTreeMap<PoolId, Proof>, intents: &IntentsBucket) -> bool {
        let mut changed = false;
        for id in content.listed() {
            for (pool, proof) in proofs {
                let Word::Is(evidence) = proof.of(pool, id, intents) else {
                    continue;
                };
                let known = self.singles.get(id).map(|s| s.n).max(self.proven(id, intents).map(|(_, n)| n));
                if known.is_none_or(|known| known <= proof.n) {
                    let single = Single { evidence, n: proof.n, is_event: false };
                    changed |= self.singles.get(id) != Some(&single);
                    self.singles.insert(id.clone(), single);
                }
            }
        }
        changed
    }

    /// Judges its silence; says whether the agent is another.
    pub(super) fn look_if_late(&mut self, now: Moment, patience: Duration) -> bool {
        let agent = match self.heard {
            Some(heard) if now.since(heard) <= patience => Agent::Ready,
            Some(_) => Agent::Unknown,
            None => self.agent,
        };
        std::mem::replace(&mut self.agent, agent) != agent
    }
}
