//! What people are told of a workload whose image fails, and of its recovery: as Kubernetes Events.
//!
//! Owns when: not at once, not twice, not as news what is old, and never more than so many a minute over the whole
//! cluster. What is the case is [`crate::world`]'s to find out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use shared::backoff::Backoff;
use shared::machine::Moment;
use shared::name::{ImageKey, NodeName};
use shared::reason::Reason;

use crate::effect::{Notice, WorkloadEvent};
use crate::input::WorkloadKey;
use crate::settings::EventSettings;

/// What is to be said waits for so long when nobody leads. Later, a follower takes it for said.
const INTERREGNUM: Duration = Duration::from_mins(1);
const MINUTE: Duration = Duration::from_mins(1);

/// An image of a workload.
pub(crate) type Subject = (WorkloadKey, ImageKey);

/// How an image of a workload is now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    /// It fails somewhere.
    Failing(Failing),
    /// It does not fail, and is not warm everywhere.
    Recovering,
    /// It is warm on each of so many nodes that have ever said anything.
    Warm(usize),
    /// Of the workload itself: this cannot be used.
    Unusable(String),
}

/// What the problems of a workload itself go by, where images go by their keys: no reference has this one.
pub(crate) fn of_workload() -> ImageKey {
    ImageKey::of("")
}

/// An image that fails.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failing {
    /// The most frequent reason.
    pub(crate) why: Reason,
    /// On how many nodes.
    pub(crate) nodes: usize,
    /// Of how many.
    pub(crate) of: usize,
    /// One of them.
    pub(crate) example: NodeName,
    /// Whether an agent has just said so of its first attempt: otherwise it may have been so for long.
    pub(crate) is_news: bool,
}

/// What was seen of an image of a workload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    /// UID of the workload.
    pub(crate) uid: String,
    /// Canonical reference.
    pub(crate) image: String,
    /// How it is.
    pub(crate) condition: Condition,
}

/// Everything there is to say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notices {
    entries: BTreeMap<Subject, Entry>,
    /// When it was first looked.
    began: Option<Moment>,
    /// Images that an agent has failed to pull at its first attempt since the last look: an inventory that came since says so too
    /// and looks like old news.
    met: BTreeSet<ImageKey>,
    /// Sent within the last minute.
    sent: VecDeque<Moment>,
    /// How many had to wait for room in their minute.
    limited: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    seen: Seen,
    /// When it began to fail, or became warm again. Attempts in between begin nothing.
    since: Moment,
    said: Option<Notice>,
    /// When a failure was last told.
    told: Option<Moment>,
    /// How often.
    count: u32,
    flight: Option<Notice>,
    failures: u32,
    retry: Moment,
    is_limited: bool,
}

impl Entry {
    fn new(seen: Seen, now: Moment) -> Self {
        Self {
            seen,
            since: now,
            said: None,
            told: None,
            count: 0,
            flight: None,
            failures: 0,
            retry: Moment::default(),
            is_limited: false,
        }
    }

    /// What is to be said, and not before when.
    fn due(&self, settings: &EventSettings) -> Option<(Moment, Notice)> {
        if self.flight.is_some() {
            return None;
        }
        let settled = self.since + settings.settle;
        let again = self.told.map(|told| told + settings.again());
        let (due, notice) = match (&self.seen.condition, self.said) {
            (Condition::Failing(now), Some(Notice::Failed(said))) if now.why == said => {
                (self.told? + settings.repeat, Notice::Failed(said))
            }
            (Condition::Failing(now), _) => {
                (again.map_or(settled, |again| again.max(settled)), Notice::Failed(now.why))
            }
            (Condition::Warm(_), Some(Notice::Failed(_))) => (self.since, Notice::Recovered),
            (Condition::Unusable(_), Some(_)) => (self.told? + settings.repeat, Notice::Unusable),
            (Condition::Unusable(_), None) => (again.map_or(settled, |again| again.max(settled)), Notice::Unusable),
            _ => return None,
        };
        Some((due.max(self.retry), notice))
    }

    fn said(&mut self, notice: Notice, now: Moment) {
        self.said = Some(notice);
        if matches!(notice, Notice::Failed(_) | Notice::Unusable) {
            self.told = Some(now);
            self.count = self.count.saturating_add(1);
        }
        (self.failures, self.retry) = (0, Moment::default());
    }

    /// Whether nothing that may come needs its memory.
    fn is_over(&self, settings: &EventSettings, now: Moment) -> bool {
        let is_warm = matches!(self.seen.condition, Condition::Warm(_));
        let owes_nothing = self.flight.is_none() && !matches!(self.said, Some(Notice::Failed(_)));
        is_warm && owes_nothing && self.told.is_none_or(|told| told + settings.again() <= now)
    }

    fn text(&self, notice: Notice) -> String {
        let image = &self.seen.image;
        match (&self.seen.condition, notice) {
            (Condition::Failing(f), Notice::Failed(why)) => {
                let meaning = Reason::ALL.iter().find(|(reason, _)| *reason == why).map_or("", |(_, text)| *text);
                format!(
                    "{image} cannot be kept warm on {} of {} nodes, among them {}: {why}. {meaning} {} Pods that need it \
                     pull it themselves meanwhile.",
                    f.nodes,
                    f.of,
                    f.example,
                    advice(why),
                )
            }
            (Condition::Warm(nodes), _) => format!("{image} is warm again on all of its {nodes} nodes."),
            (Condition::Unusable(problems), _) => {
                format!("Part of this object cannot be used, and the rest of it is: {problems}")
            }
            _ => format!("{image}: {}", notice.reason()),
        }
    }
}

/// What to do, or where to look.
fn advice(why: Reason) -> &'static str {
    match why {
        Reason::Unauthorized | Reason::Identity => {
            "Agents pull without credentials unless the runtime has some: see docs/operate/pull-policy.md."
        }
        Reason::NotFound | Reason::NoPlatform | Reason::ShortName => "Check how the image is written in the workload.",
        Reason::NoSpace | Reason::DiskPressure => "See docs/operate/disk.md.",
        Reason::Policy => "Ask whoever set the policy of the runtime or of the registry.",
        _ => "It is tried again by itself; `ctl.explain` says when, and the agent's log has the runtime's words.",
    }
}

impl Notices {
    /// The images it remembers.
    pub(crate) fn images(&self) -> impl Iterator<Item = &ImageKey> {
        self.entries.keys().map(|(_, id)| id)
    }

    /// An agent has just failed at its first attempt.
    pub(crate) fn met(&mut self, id: &ImageKey) {
        self.met.insert(id.clone());
    }

    /// Takes in what is the case now: everything that fails, and whatever else of [`Notices::images`] is still wanted. For
    /// `patience` after the first look, a failure that no agent has just met is taken for one that was told by whoever was
    /// here before; of what cannot be used, only what the first look finds is.
    pub(crate) fn see(
        &mut self,
        mut all: BTreeMap<Subject, Seen>,
        settings: &EventSettings,
        patience: Duration,
        now: Moment,
    ) {
        let is_first = self.began.is_none();
        let is_early = *self.began.get_or_insert(now) + patience > now;
        let met = std::mem::take(&mut self.met);
        self.entries.retain(|subject, entry| {
            let Some(seen) = all.remove(subject) else { return false };
            if seen.uid != entry.seen.uid {
                *entry = Entry::new(seen, now);
                return matches!(entry.seen.condition, Condition::Failing(_) | Condition::Unusable(_));
            }
            if matches!(seen.condition, Condition::Unusable(_)) {
                // Other words are news.
                if seen.condition != entry.seen.condition {
                    (entry.seen, entry.since, entry.said) = (seen, now, None);
                }
                return true;
            }
            let began = match (&entry.seen.condition, &seen.condition) {
                (Condition::Warm(_), Condition::Failing(_)) => true,
                (before, Condition::Warm(_)) => !matches!(before, Condition::Warm(_)),
                _ => false,
            };
            // What failed, is warm and then is not any more is not failing again.
            let is_told = !matches!(entry.said, Some(Notice::Failed(_)));
            let was_warm = matches!(entry.seen.condition, Condition::Warm(_));
            if !(is_told && was_warm && seen.condition == Condition::Recovering) {
                entry.seen = seen;
            }
            if began {
                entry.since = now;
            }
            !entry.is_over(settings, now)
        });
        for (subject, seen) in all {
            let (is_old, notice) = match &seen.condition {
                Condition::Failing(failing) => {
                    let is_news = failing.is_news || met.contains(&subject.1);
                    (is_early && !is_news, Notice::Failed(failing.why))
                }
                // Objects are known whole before the first look, where what agents say comes by and by.
                Condition::Unusable(_) => (is_first, Notice::Unusable),
                Condition::Recovering | Condition::Warm(_) => continue,
            };
            let mut entry = Entry::new(seen, now);
            if is_old {
                entry.said(notice, now);
            }
            self.entries.insert(subject, entry);
        }
    }

    /// Another leads: what was to be said for a while has been said.
    pub(crate) fn follow(&mut self, settings: &EventSettings, now: Moment) {
        for entry in self.entries.values_mut() {
            if let Some((_, notice)) = entry.due(settings).filter(|(due, _)| *due + INTERREGNUM <= now) {
                entry.said(notice, now);
            }
        }
    }

    /// What is to be said now, whoever waits longest first.
    pub(crate) fn next(&mut self, settings: &EventSettings, now: Moment) -> Vec<WorkloadEvent> {
        while self.sent.front().is_some_and(|sent| *sent + MINUTE <= now) {
            self.sent.pop_front();
        }
        let due = |(subject, entry): (&Subject, &Entry)| {
            entry.due(settings).filter(|(due, _)| *due <= now).map(|(due, notice)| (due, subject.clone(), notice))
        };
        let mut all: Vec<(Moment, Subject, Notice)> = self.entries.iter().filter_map(due).collect();
        all.sort_by(|(a, of_a, _), (b, of_b, _)| (a, of_a).cmp(&(b, of_b)));
        let room = usize::try_from(settings.per_minute).unwrap_or(usize::MAX).saturating_sub(self.sent.len());
        let mut events = Vec::new();
        for (at, (_, subject, notice)) in all.into_iter().enumerate() {
            let Some(entry) = self.entries.get_mut(&subject) else { continue };
            if at >= room {
                self.limited += u64::from(!std::mem::replace(&mut entry.is_limited, true));
                continue;
            }
            self.sent.push_back(now);
            (entry.flight, entry.is_limited) = (Some(notice), false);
            let (note, uid, count) = (entry.text(notice), entry.seen.uid.clone(), entry.count.saturating_add(1));
            let (workload, id) = subject;
            events.push(WorkloadEvent { workload, uid, id, notice, note, count });
        }
        events
    }

    /// Learns how it went. What an API server will never take is left until it would be repeated.
    pub(crate) fn posted(
        &mut self,
        subject: &Subject,
        result: Result<(), Reason>,
        now: Moment,
        backoff: &Backoff,
        rng: &mut Rng,
    ) {
        let Some(entry) = self.entries.get_mut(subject) else { return };
        let Some(notice) = entry.flight.take() else { return };
        match result {
            Ok(()) | Err(Reason::Forbidden | Reason::Invalid | Reason::Conflict) => entry.said(notice, now),
            Err(_) => {
                entry.failures = entry.failures.saturating_add(1);
                entry.retry = now + backoff.equal_jitter(entry.failures, rng);
            }
        }
    }

    /// How many images of workloads fail now.
    pub(crate) fn failing(&self) -> usize {
        self.entries.values().filter(|entry| matches!(entry.seen.condition, Condition::Failing(_))).count()
    }

    /// How many Events are on their way.
    pub(crate) fn in_flight(&self) -> usize {
        self.entries.values().filter(|entry| entry.flight.is_some()).count()
    }

    /// How many Events wait for room in their minute.
    pub(crate) fn waiting(&self) -> usize {
        self.entries.values().filter(|entry| entry.is_limited).count()
    }

    /// How many ever did.
    pub(crate) fn limited(&self) -> u64 {
        self.limited
    }
}
