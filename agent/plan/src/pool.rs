//! The sync of one pool: which deltas connect, what a beat proves, when the bucket is read. `protocol.md` section 5.
//!
//! Owns head, doubt and the reads of one pool. Never knows of other pools, epochs or the connection; that is
//! [`crate::sync`].

use std::cmp::Ordering;
use std::collections::BTreeMap;

use fastrand::Rng;
use shared::machine::Moment;
use shared::message::{Beat, Delta, DeltaChange, DeltaEntry};
use shared::name::{ImageKey, PoolId};
use shared::pool_set::PoolSummary;
use shared::reason::Reason;

use crate::content::Content;
use crate::fact::{PoolContent, Stored};
use crate::persisted::PersistedPool;
use crate::reading::retry;
use crate::timing::Timing;

/// Beats in a row that must differ before everything is read, doubling with each full read that did not help.
const BEATS_OF_DOUBT: u32 = 2;
/// That many doublings at most.
const MAX_FRUITLESS: u32 = 3;

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
    const QUIET: Self = Self {
        changed: false,
        read: None,
    };

    fn read(depth: Depth) -> Self {
        Self {
            changed: false,
            read: Some(depth),
        }
    }
}

/// Beats that contradict what is known, so far in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    /// At our head, or after a read up to theirs, the sets differ.
    Differs(u32),
    /// The stream's head lies below this one of ours.
    Behind(u64, u32),
}

/// A delta that did not connect: covers the sequences after `prev` up to `to`.
#[derive(Debug, Clone, Copy)]
struct Range {
    prev: u64,
    to: u64,
    /// It arrived while a read was under way that may not have seen it.
    during: bool,
}

/// More unconnected deltas than this are not remembered; beats show what they meant.
const MAX_RANGES: usize = 64;

#[derive(Debug, Clone, Copy)]
struct InFlight {
    number: u64,
    depth: Depth,
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
    due: Option<(Moment, Depth)>,
    in_flight: Option<InFlight>,
    failures: u32,
    /// The beat that caused the read under way or due.
    asked: Option<PoolSummary>,
    doubt: Doubt,
    fruitless: u32,
    ranges: Vec<Range>,
    /// Changes by delta since the read under way began.
    touched: BTreeMap<ImageKey, u64>,
    heard: Moment,
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
            due: None,
            in_flight: None,
            failures: 0,
            asked: None,
            doubt: Doubt::None,
            fruitless: 0,
            ranges: Vec::new(),
            touched: BTreeMap::new(),
            heard: now,
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

    /// When a beat was last heard, or when listening began.
    pub(crate) fn heard(&self) -> Moment {
        self.heard
    }

    /// Listening begins anew.
    pub(crate) fn listen(&mut self, now: Moment) {
        self.heard = now;
        self.fruitless = 0;
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
        self.due = Some(
            self.due
                .map_or((at, depth), |(due, deeper)| (due.min(at), deeper.max(depth))),
        );
    }

    /// When a read is due.
    pub(crate) fn read_due(&self) -> Option<Moment> {
        if self.in_flight.is_some() {
            None
        } else {
            self.due.map(|(at, _)| at)
        }
    }

    /// Starts the read that is due now as number `number`; gives the first sequence wanted.
    pub(crate) fn start_read(&mut self, now: Moment, number: u64) -> Option<u64> {
        if self.read_due()? > now {
            return None;
        }
        let (_, depth) = self.due.take()?;
        self.in_flight = Some(InFlight { number, depth });
        self.touched.clear();
        for range in &mut self.ranges {
            range.during = false;
        }
        Some(if depth == Depth::Since {
            self.head.saturating_add(1)
        } else {
            1
        })
    }

    /// The epoch changed: sequences start again.
    pub(crate) fn reset_epoch(&mut self, id: PoolId, now: Moment) {
        let mut content = std::mem::replace(&mut self.content, Content::new(id));
        content.retire();
        *self = Self::of(content, 0, false, now);
    }

    /// A delta of this epoch.
    pub(crate) fn delta(&mut self, delta: Delta) -> Verdict {
        let Some(entries) = delta.entries else {
            return Verdict::read(Depth::Since);
        };
        let mut verdict = Verdict::QUIET;
        for entry in entries {
            verdict.changed |= self.learn(entry);
        }
        if self.is_exact && delta.prev <= self.head {
            self.head = self.head.max(delta.to);
            self.connect_ranges();
        } else {
            let during = self.in_flight.is_some();
            if self.ranges.len() < MAX_RANGES {
                self.ranges.push(Range {
                    prev: delta.prev,
                    to: delta.to,
                    during,
                });
            }
            if !during && self.due.is_none() {
                verdict.read = Some(Depth::Since);
            }
        }
        verdict
    }

    fn learn(&mut self, entry: DeltaEntry) -> bool {
        let DeltaEntry { seq, id, change } = entry;
        let known = self.content.sequence(&id).max(self.touched.get(&id).copied());
        let is_old = match known {
            Some(known) => seq <= known,
            // Absent up to the head is known to be withdrawn: an older delta that comes late does not bring it back.
            None => self.is_exact && seq <= self.head,
        };
        if is_old {
            return false;
        }
        if self.in_flight.is_some() {
            self.touched.insert(id.clone(), seq);
        }
        match change {
            DeltaChange::Put(intent) => self.content.put(id, seq, Some(*intent)),
            DeltaChange::Del => self.content.withdraw(&id),
        }
        true
    }

    /// Moves the head over remembered deltas that now connect.
    fn connect_ranges(&mut self) {
        self.ranges.sort_by_key(|range| range.prev);
        for range in &self.ranges {
            if range.prev <= self.head {
                self.head = self.head.max(range.to);
            }
        }
        let head = self.head;
        self.ranges.retain(|range| range.to > head);
    }

    /// A beat of this epoch.
    pub(crate) fn beat(&mut self, beat: &Beat, now: Moment) -> Verdict {
        self.heard = now;
        let told = beat.summary();
        if self.summary().is_same_set(&told) {
            return self.agree(told.head, now);
        }
        if self.due.is_some() || self.in_flight.is_some() {
            return Verdict::QUIET;
        }
        match told.head.cmp(&self.head) {
            Ordering::Greater if self.doubt == Doubt::None => {
                self.asked = Some(told);
                Verdict::read(Depth::Since)
            }
            Ordering::Less => self.doubt_head(told.head),
            Ordering::Equal | Ordering::Greater => self.doubt_set(told),
        }
    }

    fn agree(&mut self, head: u64, now: Moment) -> Verdict {
        self.head = self.head.max(head);
        self.doubt = Doubt::None;
        self.fruitless = 0;
        self.connect_ranges();
        let news = !self.is_current;
        (self.is_exact, self.is_current) = (true, true);
        Verdict {
            changed: self.content.agreed(now) || news,
            read: None,
        }
    }

    fn doubt_set(&mut self, told: PoolSummary) -> Verdict {
        let beats = if let Doubt::Differs(beats) = self.doubt {
            beats + 1
        } else {
            1
        };
        self.doubt = Doubt::Differs(beats);
        if beats >= self.patience() {
            return self.read_everything(Depth::Full);
        }
        if told.head > self.head {
            self.asked = Some(told);
            return Verdict::read(Depth::Since);
        }
        Verdict::QUIET
    }

    /// A beat's head below ours is usual just after a delta. It is a rollback if the stream's head stays below what ours
    /// was when that was first noticed: whether our set up to there agrees does not matter, for what came later may be
    /// what was lost.
    fn doubt_head(&mut self, head: u64) -> Verdict {
        let (ours, beats) = match self.doubt {
            Doubt::Behind(ours, beats) if head < ours => (ours, beats + 1),
            _ => (self.head, 1),
        };
        self.doubt = Doubt::Behind(ours, beats);
        if beats >= self.patience() {
            self.read_everything(Depth::Reset)
        } else {
            Verdict::QUIET
        }
    }

    fn read_everything(&mut self, depth: Depth) -> Verdict {
        self.doubt = Doubt::None;
        self.fruitless = (self.fruitless + 1).min(MAX_FRUITLESS);
        Verdict::read(depth)
    }

    fn patience(&self) -> u32 {
        BEATS_OF_DOUBT << self.fruitless.min(MAX_FRUITLESS)
    }

    /// A read ended. `None` if it is not the one under way; else whether anything changed.
    pub(crate) fn read_ended(
        &mut self,
        number: u64,
        result: Result<PoolContent, Reason>,
        now: Moment,
        timing: &Timing,
        rng: &mut Rng,
    ) -> Option<bool> {
        let depth = self.in_flight.filter(|read| read.number == number)?.depth;
        self.in_flight = None;
        let Ok(content) = result else {
            self.failures = self.failures.saturating_add(1);
            self.schedule(depth, now + retry(timing).full_jitter(self.failures, rng));
            return Some(false);
        };
        self.failures = 0;
        let newest = content
            .entries
            .iter()
            .map(|e| e.seq)
            .chain(self.touched.values().copied())
            .max()
            .unwrap_or(0);
        if depth == Depth::Since {
            self.take_in(content);
        } else {
            self.take_all(content);
        }
        self.head = if depth == Depth::Reset {
            newest
        } else {
            self.head.max(newest)
        };
        self.touched.clear();
        (self.is_exact, self.is_current) = (true, true);
        self.connect_ranges();
        if self.ranges.iter().any(|range| range.during) {
            self.schedule(Depth::Since, now);
        }
        self.ranges.clear();
        if let Some(asked) = self.asked.take() {
            self.answer(&asked, newest, now);
        }
        Some(true)
    }

    fn take_in(&mut self, content: PoolContent) {
        for entry in content.entries {
            let known = self
                .content
                .sequence(&entry.id)
                .max(self.touched.get(&entry.id).copied());
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
            self.agree(asked.head, now);
        } else if self.content.summary_up_to(asked.head).is_same_set(asked) {
            self.head = self.head.max(asked.head);
            self.doubt = Doubt::None;
        } else if newest <= asked.head && self.doubt == Doubt::None {
            // Everything up to the beat's head was read and the sets still differ: one more beat, then everything.
            self.doubt = Doubt::Differs(1);
        }
    }
}

fn decoded(value: Stored) -> Option<shared::message::Intent> {
    match value {
        Stored::Intent(intent) => Some(*intent),
        Stored::Undecodable => None,
    }
}
