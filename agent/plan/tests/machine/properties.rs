//! What holds whatever is learned, in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use node_plan::fact::{Observation, PoolContent, PulledImage, RuntimeImage, Space, Stored, StoredIntent};
use node_plan::{Effect, Fact, NodeState, Settings};
use proptest::prelude::*;
use shared::machine::{Machine, Moment, Now};
use shared::message::{Assignment, Beat, Content, Delta, DeltaChange, DeltaEntry, Intent, Meta, Runtime};
use shared::name::{ImageKey, PoolId};
use shared::pool_set::SetDigest;
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::RequestVerb;

use crate::world::{brisk, failure, held, identity, intent, key, ms, pool, start};

const IMAGES: [&str; 5] = ["a", "b", "c", "d", "e"];
const POOLS: [&str; 3] = ["all", "auto-0123456789", "node-0123456789"];

/// How often what is there is pulled again, where that is wanted.
const PERIOD: u64 = 7;

fn wanted(name: &str) -> Intent {
    Intent { refresh_sec: (name > "b").then_some(PERIOD), ..intent(name) }
}

fn pools() -> impl Strategy<Value = PoolId> {
    prop::sample::select(&POOLS[..]).prop_map(pool)
}

fn images() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&IMAGES[..])
}

fn reasons() -> impl Strategy<Value = Reason> {
    let all: Vec<Reason> = Reason::ALL.iter().map(|(reason, _)| *reason).collect();
    prop::sample::select(all)
}

fn epochs() -> impl Strategy<Value = String> {
    prop_oneof![5 => Just("e1".to_owned()), 1 => Just("e2".to_owned())]
}

fn small() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 0..12_u64, 1 => Just(u64::MAX)]
}

fn deltas() -> impl Strategy<Value = Fact> {
    let entry = (small(), images(), any::<bool>()).prop_map(|(seq, name, is_put)| DeltaEntry {
        seq,
        id: key(name),
        change: if is_put { DeltaChange::Put(std::sync::Arc::new(wanted(name))) } else { DeltaChange::Del },
    });
    let entries = prop::option::of(prop::collection::vec(entry, 0..4));
    (pools(), epochs(), 1..3_u64, small(), small(), entries).prop_map(|(pool, epoch, term, prev, to, entries)| {
        Fact::Delta(Delta { pool, epoch, term, prev, to, spread_ms: 50, entries })
    })
}

fn contents() -> impl Strategy<Value = PoolContent> {
    let entry = (small(), images(), 0..8_u8).prop_map(|(seq, name, kind)| StoredIntent {
        id: key(name),
        seq,
        value: match kind {
            0 => None,
            1 => Some(Stored::Undecodable),
            _ => Some(Stored::Intent(std::sync::Arc::new(wanted(name)))),
        },
    });
    prop::collection::vec(entry, 0..6).prop_map(|entries| PoolContent { entries, snapshot: None })
}

fn assignments() -> impl Strategy<Value = Assignment> {
    let some = prop::collection::btree_set(pools(), 0..3);
    (some, 0..5_u64, 1..3_u64, any::<bool>()).prop_map(|(pools, rev, term, is_other)| Assignment {
        node: identity().node,
        uid: if is_other { "v" } else { "u" }.into(),
        pools: pools.into_iter().collect(),
        rev,
        pressure: vec![],
        limits: BTreeMap::new(),
        term,
    })
}

fn metas() -> impl Strategy<Value = Option<Meta>> {
    let meta = (epochs(), 1..3_u64).prop_map(|(epoch, term)| Meta {
        epoch,
        term,
        cluster: "c".into(),
        stream_created: "t".into(),
        by: "p".into(),
    });
    prop::option::weighted(0.9, meta)
}

fn lists() -> impl Strategy<Value = Vec<RuntimeImage>> {
    prop::collection::btree_set(images(), 0..5).prop_map(|names| names.into_iter().map(|n| held(n, n)).collect())
}

fn outcome<T: std::fmt::Debug + Clone>(
    good: impl Strategy<Value = T>,
    bad: impl Strategy<Value = Reason>,
) -> impl Strategy<Value = Result<T, Reason>> {
    prop_oneof![5 => good.prop_map(Ok), 1 => bad.prop_map(Err)]
}

fn pulleds() -> impl Strategy<Value = Fact> {
    (images(), outcome(Just(()), reasons())).prop_map(|(name, result)| Fact::Pulled {
        id: key(name),
        result: result.map(|()| PulledImage { image: held(name, name), before: None, took: ms(1) }).map_err(failure),
    })
}

/// Messages and changes that come by themselves.
fn news() -> impl Strategy<Value = Fact> {
    let beat = (pools(), epochs(), 1..3_u64, small(), 0..3_u64, prop_oneof![Just(0_u64), any::<u64>()]);
    prop_oneof![
        2 => Just(Fact::Connected),
        1 => Just(Fact::Disconnected),
        1 => Just(Fact::Gap),
        8 => deltas(),
        3 => beat.prop_map(|(pool, epoch, term, head, count, digest)| Fact::Beat(Beat {
            epoch, term, pool, head, count, digest: SetDigest(digest), spread_ms: 20, ts: start().wall,
        })),
        2 => (epochs(), assignments()).prop_map(|(epoch, assignment)| Fact::AssignmentCopy { epoch, assignment }),
        1 => (prop::sample::select(&RequestVerb::ALL[..]), ".{0,20}")
            .prop_map(|(verb, body)| Fact::Request { verb, body, reply: Some(1) }),
        1 => reasons().prop_map(|reason| Fact::Refused { kind: "delta", reason }),
        1 => (0..1_000_u64, 0..1_000_u64).prop_map(|(used, free)| Fact::Observed(Ok(Observation {
            space: Some(Space { used, free }), runtime: Runtime::default(),
        }))),
    ]
}

/// Outcomes, also of effects that never were.
fn outcomes() -> impl Strategy<Value = Fact> {
    prop_oneof![
        outcome(metas(), reasons()).prop_map(Fact::Meta),
        outcome(prop::option::of(assignments()), reasons()).prop_map(Fact::AssignmentRead),
        prop::collection::vec(pools(), 0..3).prop_map(Fact::Subscribed),
        (pools(), 0..30_u64, outcome(contents(), reasons())).prop_map(|(pool, read, result)| Fact::PoolRead {
            pool,
            read,
            result
        }),
        outcome(lists(), reasons()).prop_map(Fact::Images),
        pulleds(),
        outcome(Just(()), reasons()).prop_map(Fact::InventoryPut),
        outcome(Just(()), reasons()).prop_map(Fact::Persisted),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Learn(Fact),
    /// Answer the n-th open effect, with what stands there for its kind.
    Answer(usize, Answers),
    Pass(u16),
}

#[derive(Debug, Clone)]
struct Answers {
    meta: Result<Option<Meta>, Reason>,
    assignment: Result<Option<Assignment>, Reason>,
    content: Result<PoolContent, Reason>,
    list: Result<Vec<RuntimeImage>, Reason>,
    done: Result<(), Reason>,
}

fn answers() -> impl Strategy<Value = Answers> {
    (
        outcome(metas(), reasons()),
        outcome(prop::option::weighted(0.9, assignments()), reasons()),
        outcome(contents(), reasons()),
        outcome(lists(), reasons()),
        outcome(Just(()), reasons()),
    )
        .prop_map(|(meta, assignment, content, list, done)| Answers { meta, assignment, content, list, done })
}

fn orderly() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => news().prop_map(Step::Learn),
        6 => (0..6_usize, answers()).prop_map(|(n, answers)| Step::Answer(n, answers)),
        2 => (0..2_000_u16).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..120)
}

fn wild() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => news().prop_map(Step::Learn),
        3 => outcomes().prop_map(Step::Learn),
        2 => (0..20_000_u16).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..120)
}

/// Watches a machine and knows what it must never do.
struct Watch {
    node: NodeState,
    now: Now,
    limit: usize,
    open: Vec<Effect>,
    pulling: BTreeSet<ImageKey>,
    /// What the newest list and the pulls since it was asked for say is there.
    present: BTreeMap<ImageKey, Moment>,
    asked: Moment,
    /// When the last pull of what is wanted ended, and whether well.
    ended: BTreeMap<ImageKey, (Moment, bool)>,
    has_list: bool,
    last_n: u64,
    trace: Vec<Effect>,
    is_exact: bool,
}

impl Watch {
    fn new(limit: usize, seed: u64, is_exact: bool) -> Self {
        let settings = Settings { max_in_flight: limit, ..brisk() };
        Self {
            node: NodeState::new(identity(), settings, None, seed, start()),
            now: start(),
            limit,
            open: vec![],
            pulling: BTreeSet::new(),
            present: BTreeMap::new(),
            asked: Moment(0),
            ended: BTreeMap::new(),
            has_list: false,
            last_n: 0,
            trace: vec![],
            is_exact,
        }
    }

    fn make(&mut self, step: Step) {
        match step {
            Step::Learn(fact) => self.learn(fact),
            Step::Pass(millis) => {
                let at = self.now.mono + ms(millis.into());
                self.now = Now { mono: at, wall: self.now.wall + ms(millis.into()) };
            }
            Step::Answer(n, answers) => {
                if n < self.open.len() {
                    let effect = self.open.remove(n);
                    if let Some(fact) = answer(effect, answers) {
                        self.learn(fact);
                    }
                }
            }
        }
        self.decide();
    }

    fn learn(&mut self, fact: Fact) {
        match &fact {
            Fact::Images(Ok(list)) => {
                self.has_list = true;
                let asked = self.asked;
                self.present.retain(|_, ended| *ended >= asked);
                for image in list {
                    let id = ImageKey::of(&image.repo_tags[0]);
                    self.present.entry(id).or_insert(Moment(0));
                }
            }
            Fact::Pulled { id, result } => {
                self.pulling.remove(id);
                self.ended.insert(id.clone(), (self.now.mono, result.is_ok()));
                if result.is_ok() {
                    self.present.insert(id.clone(), self.now.mono);
                }
            }
            _ => {}
        }
        let _ = self.node.apply(fact, self.now);
    }

    /// Whatever is said to be warm is there.
    fn judge(&self, effect: &Effect) {
        let is_there = |id: &ImageKey| !self.is_exact || self.present.contains_key(id);
        match effect {
            Effect::PublishEvent(event) => assert!(event.st != ImageState::Warm || is_there(&event.id)),
            Effect::PutInventory(inventory) => {
                if let Content::WarmIds(ids) = &inventory.content {
                    assert!(ids.iter().all(is_there), "{ids:?}");
                }
                assert!(inventory.digests.keys().all(is_there), "{:?}", inventory.digests);
            }
            _ => {}
        }
    }

    /// Only what somebody wants refreshed is, and no more often than the period, or the backoff, allows.
    fn check_refresh(&self, id: &ImageKey) {
        assert!(IMAGES.iter().any(|name| key(name) == *id && wanted(name).refresh_sec.is_some()), "{id} stays");
        if let Some((ended, is_ok)) = self.ended.get(id) {
            let least = if *is_ok { ms(PERIOD * 900) } else { brisk().timing.pull_backoff / 2 };
            assert!(self.now.mono.since(*ended) >= least, "{id} is refreshed too soon");
        }
    }

    fn decide(&mut self) {
        let effects = self.node.step(self.now);
        for effect in &effects {
            self.judge(effect);
            match effect {
                Effect::Pull { id, is_refresh, .. } => {
                    assert!(self.has_list, "pulled before a list was seen");
                    assert!(self.pulling.insert(id.clone()), "{id} is in flight already");
                    assert!(!self.is_exact || *is_refresh == self.present.contains_key(id), "{id} is there, or is not");
                    if *is_refresh && self.is_exact {
                        self.check_refresh(id);
                    }
                    assert!(self.pulling.len() <= self.limit, "{} in flight", self.pulling.len());
                }
                Effect::ListImages => self.asked = self.now.mono,
                Effect::PublishEvent(event) => {
                    assert!(event.n > self.last_n);
                    self.last_n = event.n;
                }
                Effect::PutInventory(inventory) => {
                    assert!(inventory.n > self.last_n);
                    self.last_n = inventory.n;
                }
                _ => {}
            }
            for kind in [Effect::ReadMeta, Effect::ReadAssignment, Effect::ListImages] {
                assert!(!self.is_exact || *effect != kind || !self.open.contains(&kind), "{kind:?} twice at once");
            }
        }
        // What is wanted anew is new: nothing is remembered of it.
        let wanted: BTreeSet<&ImageKey> = self.node.wanted().collect();
        self.ended.retain(|id, _| wanted.contains(id));
        self.open.extend(effects.iter().filter(|effect| has_outcome(effect)).cloned());
        self.trace.extend(effects);
        assert_eq!(self.node.step(self.now), vec![], "a second step at the same time");
        assert!(self.node.next_due().is_none_or(|due| due > self.now.mono), "a step is due in the past");
        let _ = (self.node.summary(self.now), self.node.counts(), self.node.is_synced());
        let _ = self.node.explain(key("a").as_str(), self.now);
    }
}

fn has_outcome(effect: &Effect) -> bool {
    !matches!(
        effect,
        Effect::CancelPull(_)
            | Effect::Observe
            | Effect::PublishEvent(_)
            | Effect::PublishHeartbeat(_)
            | Effect::Reply { .. }
    )
}

fn answer(effect: Effect, answers: Answers) -> Option<Fact> {
    Some(match effect {
        Effect::ReadMeta => Fact::Meta(answers.meta),
        Effect::ReadAssignment => Fact::AssignmentRead(answers.assignment),
        Effect::Subscribe(pools) => Fact::Subscribed(pools),
        Effect::ReadPool { pool, read, .. } => Fact::PoolRead { pool, read, result: answers.content },
        Effect::Pull { id, image, .. } => {
            let name = image.trim_start_matches("registry.test/").trim_end_matches(":1").to_owned();
            let result = answers.done.map(|()| PulledImage { image: held(&name, &name), before: None, took: ms(1) });
            Fact::Pulled { id, result: result.map_err(failure) }
        }
        Effect::ListImages => Fact::Images(answers.list),
        Effect::PutInventory(_) => Fact::InventoryPut(answers.done),
        Effect::Persist(_) => Fact::Persisted(answers.done),
        _ => return None,
    })
}

proptest! {
    #[test]
    fn whatever_is_learned_limits_hold_and_what_is_present_is_pulled_by_a_due_refresh_alone(
        steps in orderly(), limit in 1..4_usize, seed in any::<u64>(),
    ) {
        let mut watch = Watch::new(limit, seed, true);
        for step in steps {
            watch.make(step);
        }
    }

    #[test]
    fn facts_that_make_no_sense_break_nothing(steps in wild(), limit in 0..4_usize, seed in any::<u64>()) {
        let mut watch = Watch::new(limit, seed, false);
        for step in steps {
            watch.make(step);
        }
    }

    #[test]
    fn the_same_facts_at_the_same_times_give_the_same_effects(steps in orderly(), seed in any::<u64>()) {
        let (mut one, mut other) = (Watch::new(2, seed, true), Watch::new(2, seed, true));
        for step in steps {
            one.make(step.clone());
            other.make(step);
        }
        prop_assert_eq!(one.trace, other.trace);
    }
}
