//! The sync of one pool: which deltas connect, what a beat proves, when the bucket is read. `protocol.md` section 5.
//!
//! Owns head, doubt and the reads of one pool. Never knows of other pools, epochs or the connection; that is
//! [`crate::sync`].

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use shared::machine::Moment;
use shared::message::{Beat, Delta, DeltaChange, DeltaEntry, Intent};
use shared::name::{ImageKey, PoolId};
use shared::pool_set::PoolSummary;
use shared::reason::Reason;

use crate::content::Content;
use crate::doubt::Doubt;
use crate::fact::{PoolContent, Stored};
use crate::persisted::PersistedPool;
use crate::ranges::Ranges;
use crate::reading::retry;
use crate::timing::Timing;

/// How far back a read goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// From the head on.
    Since,
    /// Everything; the head does not fall.
    Full,
    /// Everything, after a rollback: the head is what is found.
    Reset,
}

/// What a beat or delta brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Verdict {
    /// What the pool wants or may report changed; a head that moves alone does not count.
    pub(crate) changed: bool,
    /// Something is missing: read.
    pub(crate) read: Option<Depth>,
}

impl Verdict {
    const QUIET: Self = Self { changed: false, read: None };

    fn read(depth: Depth) -> Self {
        Self { changed: false, read: Some(depth) }
    }
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    number: u64,
    depth: Depth,
    began: Moment,
}

/// Who stands for the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backing {
    /// Nobody: the epoch changed, and whoever writes it may be in the middle.
    Renewed,
    /// Nobody yet: listening began anew, and the bucket may be an older copy by now.
    Unheard,
    /// What was read in full.
    Read,
    /// A beat since it was last read in full.
    Beat,
}

/// One pool.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    /// Its intents.
    pub(crate) content: Content,
    head: u64,
    /// The set is exact at the head: it was read or restored in this epoch.
    is_exact: bool,
    /// This process has read it in this epoch, or a beat agreed with it.
    is_current: bool,
    backing: Backing,
    due: Option<(Moment, Depth)>,
    in_flight: Option<InFlight>,
    failures: u32,
    /// The beat that caused the read under way or due.
    asked: Option<PoolSummary>,
    /// A snapshot has been of use in this epoch, or was of another: if something is amiss, the keys themselves decide.
    is_plain: bool,
    doubt: Doubt,
    ranges: Ranges,
    /// Changes by delta since the read under way began.
    touched: BTreeMap<ImageKey, u64>,
    heard: Moment,
    /// When a beat last named exactly the set held.
    agreed: Option<Moment>,
    /// When the last read that succeeded began.
    read: Option<Moment>,
}

impl Pool {
    /// A pool of which nothing is known.
    pub(crate) fn new(id: PoolId, now: Moment) -> Self {
        Self::of(Content::new(id), 0, false, now)
    }

    /// A pool as it was persisted in this epoch.
    pub(crate) fn restore(id: PoolId, stored: PersistedPool, now: Moment) -> Self {
        let head = stored.head;
        Self::of(Content::restore(id, stored), head, head > 0, now)
    }

    fn of(content: Content, head: u64, is_exact: bool, now: Moment) -> Self {
        Self {
            content,
            head,
            is_exact,
            is_current: false,
            backing: Backing::Unheard,
            due: None,
            in_flight: None,
            failures: 0,
            asked: None,
            is_plain: false,
            doubt: Doubt::default(),
            ranges: Ranges::default(),
            touched: BTreeMap::new(),
            heard: now,
            agreed: None,
            read: None,
        }
    }

    /// Last sequence taken in.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Head, count and digest of the live set.
    pub(crate) fn summary(&self) -> PoolSummary {
        self.content.summary(self.head)
    }

    /// Whether this process knows the set in this epoch: what may be reported.
    pub(crate) fn is_current(&self) -> bool {
        self.is_current
    }

    /// Whether it was read or restored in this epoch.
    pub(crate) fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Whether a beat since `since` named exactly this set, nothing has contradicted it, and all of it can be read.
    pub(crate) fn is_proven(&self, since: Moment) -> bool {
        self.agreed.is_some_and(|agreed| agreed >= since)
            && (self.due, self.in_flight.is_none(), self.doubt.is_none()) == (None, true, true)
            && self.content.unknown().next().is_none()
    }

    /// Whether it wants nothing that is not known, as of `since`: a beat has said so later, or it was read from then on and
    /// is believed. An empty set is believed only when a beat has said it.
    pub(crate) fn is_known_since(&self, since: Moment) -> bool {
        let was_read = self.read.is_some_and(|began| began >= since);
        let is_known = match self.backing {
            Backing::Beat => was_read || self.agreed.is_some_and(|agreed| agreed > since),
            Backing::Read => was_read && !self.content.is_empty(),
            Backing::Renewed | Backing::Unheard => false,
        };
        self.is_exact && self.due.is_none() && self.in_flight.is_none() && is_known
    }

    /// When a beat was last heard, or when listening began.
    pub(crate) fn heard(&self) -> Moment {
        self.heard
    }

    /// Listening begins anew.
    pub(crate) fn listen(&mut self, now: Moment) {
        self.heard = now;
        if self.backing != Backing::Renewed {
            self.backing = Backing::Unheard;
        }
        self.doubt.forgive();
    }

    /// A word for people.
    pub(crate) fn phase(&self) -> &'static str {
        match (self.in_flight, self.due, self.is_current, self.is_exact) {
            (Some(_), ..) => "reading",
            (_, Some(_), true, _) => "read-due",
            (_, _, true, _) => "synced",
            (_, _, false, true) => "restored",
            (_, _, false, false) => "unread",
        }
    }

    /// Asks for a read at `at` or earlier, at least as deep as `depth`.
    pub(crate) fn schedule(&mut self, depth: Depth, at: Moment) {
        let depth = if self.is_exact { depth } else { depth.max(Depth::Full) };
        self.due = Some(self.due.map_or((at, depth), |(due, deeper)| (due.min(at), deeper.max(depth))));
    }

    /// When a read is due.
    pub(crate) fn read_due(&self) -> Option<Moment> {
        if self.in_flight.is_some() { None } else { self.due.map(|(at, _)| at) }
    }

    /// Starts the read that is due now as number `number`; gives the first sequence wanted, and whether no snapshot will do.
    pub(crate) fn start_read(&mut self, now: Moment, number: u64) -> Option<(u64, bool)> {
        if self.read_due()? > now {
            return None;
        }
        let (_, depth) = self.due.take()?;
        self.in_flight = Some(InFlight { number, depth, began: now });
        self.touched.clear();
        self.ranges.read_begins();
        let from = if depth == Depth::Since { self.head.saturating_add(1) } else { 1 };
        Some((from, self.is_plain || depth == Depth::Reset))
    }

    /// The epoch changed: sequences start again.
    pub(crate) fn reset_epoch(&mut self, id: PoolId, now: Moment) {
        let mut content = std::mem::replace(&mut self.content, Content::new(id));
        content.retire();
        *self = Self { backing: Backing::Renewed, ..Self::of(content, 0, false, now) };
    }

    /// A delta of this epoch.
    pub(crate) fn delta(&mut self, delta: Delta) -> Verdict {
        let Some(entries) = delta.entries else {
            return Verdict::read(Depth::Since);
        };
        let mut verdict = Verdict::QUIET;
        for entry in entries {
            match self.learn(entry) {
                Some(changed) => verdict.changed |= changed,
                None => verdict.read = Some(Depth::Full),
            }
        }
        if self.is_exact && delta.prev <= self.head {
            self.head = self.head.max(delta.to);
            self.head = self.ranges.connect(self.head);
        } else {
            let during = self.in_flight.is_some();
            self.ranges.push(delta.prev, delta.to, during);
            if !during && self.due.is_none() {
                verdict.read = Some(Depth::Since);
            }
        }
        verdict
    }

    /// Takes an entry; says whether anything changed, `None` if that cannot be told.
    fn learn(&mut self, entry: DeltaEntry) -> Option<bool> {
        let DeltaEntry { seq, id, change } = entry;
        let known = self.content.sequence(&id).max(self.touched.get(&id).copied());
        let is_old = match known {
            Some(known) => seq <= known,
            // Absent up to the head is known to be withdrawn: an older delta that comes late does not bring it back. But
            // the stream may also have lost its end and gone on from there.
            None if self.is_exact && seq <= self.head => {
                return if matches!(change, DeltaChange::Put(_)) { None } else { Some(false) };
            }
            None => false,
        };
        if is_old {
            return Some(false);
        }
        if self.in_flight.is_some() {
            self.touched.insert(id.clone(), seq);
        }
        match change {
            DeltaChange::Put(intent) => self.content.put(id, seq, Some(intent)),
            DeltaChange::Del => self.content.withdraw(&id),
        }
        Some(true)
    }

    /// A beat of this epoch.
    pub(crate) fn beat(&mut self, beat: &Beat, now: Moment) -> Verdict {
        self.heard = now;
        let told = beat.summary();
        if self.summary().is_same_set(&told) {
            if told.head >= self.head {
                self.doubt.agreed();
            } else if self.doubt.is_behind(told.head, self.head) {
                // The stream has lost its end, and nothing of this set with it: what comes next is not old.
                self.head = told.head;
                self.ranges = Ranges::default();
                self.doubt.agreed();
            }
            return self.agree(told.head, now);
        }
        if self.due.is_some() || self.in_flight.is_some() {
            return Verdict::QUIET;
        }
        match told.head.cmp(&self.head) {
            Ordering::Less if self.doubt.is_behind(told.head, self.head) => Verdict::read(Depth::Reset),
            Ordering::Less => Verdict::QUIET,
            Ordering::Greater if self.doubt.is_none() => self.ask(told),
            _ if self.doubt.differs() => Verdict::read(Depth::Full),
            Ordering::Greater => self.ask(told),
            Ordering::Equal => Verdict::QUIET,
        }
    }

    /// Reads what the beat has and we have not.
    fn ask(&mut self, told: PoolSummary) -> Verdict {
        self.asked = Some(told);
        Verdict::read(Depth::Since)
    }

    fn agree(&mut self, head: u64, now: Moment) -> Verdict {
        self.head = self.head.max(head);
        self.agreed = Some(now);
        self.head = self.ranges.connect(self.head);
        let is_news = !self.is_current;
        (self.is_exact, self.is_current) = (true, true);
        self.backing = Backing::Beat;
        Verdict { changed: self.content.agreed(now) || is_news, read: None }
    }

    /// A read ended. `None` if it is not the one under way; else whether anything changed.
    pub(crate) fn read_ended(
        &mut self,
        number: u64,
        result: Result<PoolContent, Reason>,
        epoch: Option<&str>,
        (now, timing, rng): (Moment, &Timing, &mut Rng),
    ) -> Option<bool> {
        let InFlight { depth, began, .. } = self.in_flight.filter(|read| read.number == number)?;
        self.in_flight = None;
        let Ok(content) = result else {
            self.failures = self.failures.saturating_add(1);
            self.schedule(depth, now + retry(timing).full_jitter(self.failures, rng));
            return Some(false);
        };
        self.is_plain = true;
        if content.snapshot.is_some() && content.snapshot.as_deref() != epoch {
            self.schedule(depth, now);
            return Some(false);
        }
        (self.failures, self.read) = (0, Some(began));
        let newest = content.entries.iter().map(|e| e.seq).chain(self.touched.values().copied()).max().unwrap_or(0);
        if depth == Depth::Since {
            self.take_in(content);
        } else {
            self.take_all(content);
            if self.backing != Backing::Renewed {
                self.backing = Backing::Read;
            }
        }
        self.head = if depth == Depth::Reset { newest } else { self.head.max(newest) };
        self.touched.clear();
        (self.is_exact, self.is_current) = (true, true);
        self.head = self.ranges.connect(self.head);
        if self.ranges.read_ended() {
            self.schedule(Depth::Since, now);
        }
        if let Some(asked) = self.asked.take() {
            self.answer(&asked, newest, now);
        }
        Some(true)
    }

    fn take_in(&mut self, content: PoolContent) {
        for entry in content.entries {
            let known = self.content.sequence(&entry.id).max(self.touched.get(&entry.id).copied());
            if known.is_some_and(|known| entry.seq <= known) {
                continue;
            }
            match entry.value {
                Some(value) => self.content.put(entry.id, entry.seq, decoded(value)),
                None => self.content.withdraw(&entry.id),
            }
        }
    }

    fn take_all(&mut self, content: PoolContent) {
        let mut found = BTreeMap::new();
        // Pages of one read may show a key twice.
        for entry in content.entries {
            let before = found.remove(&entry.id);
            if let Some(value) = entry.value {
                let last_good = before.and_then(|(_, intent)| intent);
                found.insert(entry.id, (entry.seq, decoded(value).or(last_good)));
            } else if self.touched.get(&entry.id).is_none_or(|newer| *newer < entry.seq) {
                self.content.withdraw(&entry.id);
            }
        }
        self.content.replace(found, &self.touched);
    }

    /// Compares what a read brought with the beat that caused it.
    fn answer(&mut self, asked: &PoolSummary, newest: u64, now: Moment) {
        if self.summary().is_same_set(asked) {
            self.doubt.agreed();
            self.agree(asked.head, now);
        } else if self.content.summary_up_to(asked.head).is_same_set(asked) {
            self.head = self.head.max(asked.head);
            self.doubt.explained();
        } else if newest <= asked.head && self.doubt.is_none() {
            // Everything up to the beat's head was read and the sets still differ: one more beat, then everything.
            self.doubt.differs();
        }
    }
}

fn decoded(value: Stored) -> Option<Arc<Intent>> {
    match value {
        Stored::Intent(intent) => Some(intent),
        Stored::Undecodable => None,
    }
}
