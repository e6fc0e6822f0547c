//! What holds for any sequence of facts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_plan::fact::{Change, IntentsDoc, Stored, StoredValue};
use cluster_plan::input::{Constraint, Selection, Workload};
use cluster_plan::{Effect, Fact, Timing};
use proptest::prelude::*;
use shared::label::parse_image_label;
use shared::machine::Machine as _;
use shared::name::{ImageKey, PoolId};
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::{ControlVerb, IntentsKey};

use super::stage::{Stage, key, name, node, tainted, tolerating, workload};

const IMAGES: [&str; 5] = ["nginx", "redis:7", "registry.example/a:1", "registry.example/b:1", "quay.io/c/d"];
const NODES: [&str; 3] = ["n0", "n1", "n2"];

/// Something that happens.
#[derive(Debug, Clone)]
enum Act {
    Want(u8, Vec<u8>, u8, Option<u8>),
    Withdraw(u8),
    Join(u8, u8),
    Leave(u8),
    Event(u8, u8, ImageState),
    Report(u8, Vec<u8>),
    Heartbeat(u8),
    Damage(u8),
    Reconnect,
    Wipe,
    Fail,
    Pass(u32),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let small = 0_u8..3;
    let images = prop::collection::vec(0_u8..5, 0..4);
    let act = prop_oneof![
        4 => (small.clone(), images.clone(), 0_u8..3, prop::option::of(0_u8..100)).prop_map(|(w, i, c, p)| Act::Want(w, i, c, p)),
        2 => small.clone().prop_map(Act::Withdraw),
        3 => (small.clone(), 0_u8..4).prop_map(|(n, k)| Act::Join(n, k)),
        1 => small.clone().prop_map(Act::Leave),
        4 => (small.clone(), 0_u8..5, prop::sample::select(&ImageState::ALL[..])).prop_map(|(n, i, s)| Act::Event(n, i, s)),
        3 => (small.clone(), images).prop_map(|(n, i)| Act::Report(n, i)),
        3 => small.clone().prop_map(Act::Heartbeat),
        1 => small.prop_map(Act::Damage),
        1 => Just(Act::Reconnect),
        1 => Just(Act::Wipe),
        1 => Just(Act::Fail),
        3 => (0_u32..40_000).prop_map(Act::Pass),
    ];
    prop::collection::vec(act, 1..40)
}

struct Play {
    stage: Stage,
    n: u64,
    /// Everything an agent ever said was warm, by Node UID.
    said_warm: BTreeSet<(String, ImageKey)>,
    patched: usize,
}

impl Play {
    fn new(echo_first: bool) -> Self {
        let mut stage = Stage::new();
        stage.echo_first = echo_first;
        stage.start();
        Self { stage, n: 0, said_warm: BTreeSet::new(), patched: 0 }
    }

    fn act(&mut self, act: &Act) {
        self.n += 1;
        let shown: BTreeMap<_, _> = self.stage.nodes.iter().map(|(k, v)| (k.clone(), v.our_labels.clone())).collect();
        self.perform(act);
        self.stage.run();
        self.check_labels(&shown);
    }

    fn perform(&mut self, act: &Act) {
        let stage = &mut self.stage;
        match act {
            Act::Want(w, images, constraint, priority) => {
                let images: Vec<&str> = images.iter().map(|i| IMAGES[*i as usize]).collect();
                let constraint = match constraint {
                    0 => Constraint::default(),
                    1 => tolerating("gpu"),
                    _ => Constraint { node_selector: [("disk".into(), "ssd".into())].into(), ..Constraint::default() },
                };
                let priority = priority.map(|p| p.to_string());
                stage.want(&format!("w{w}"), Workload { constraint, priority, ..workload(&images) });
            }
            Act::Withdraw(w) => drop(stage.withdraw(&format!("w{w}"))),
            Act::Join(n, kind) => {
                let n = NODES[*n as usize];
                let uid = format!("{n}-{}", kind % 2);
                let mut fresh = if *kind > 1 { tainted(&uid, "gpu") } else { node(&uid) };
                if *kind == 1 {
                    fresh.labels.insert("disk".into(), "ssd".into());
                }
                if let Some(there) = stage.nodes.get(&name(n)).filter(|t| t.uid == uid) {
                    fresh.our_labels = there.our_labels.clone();
                }
                stage.join(n, fresh);
            }
            Act::Leave(n) => drop(stage.leave(NODES[*n as usize])),
            Act::Event(n, i, st) => {
                let event = stage.event(NODES[*n as usize], IMAGES[*i as usize], self.n, *st);
                if *st == ImageState::Warm {
                    self.said_warm.insert((event.uid.clone(), event.id.clone()));
                }
                stage.learn(Fact::Event(Box::new(event)));
            }
            Act::Report(n, cold) => {
                let n = NODES[*n as usize];
                if stage.nodes.contains_key(&name(n)) {
                    let cold: Vec<&str> = cold.iter().map(|i| IMAGES[*i as usize]).collect();
                    let inventory = stage.inventory(n, self.n, &cold);
                    for id in inventory.digests.keys() {
                        self.said_warm.insert((inventory.uid.clone(), id.clone()));
                    }
                    stage.put(inventory);
                }
            }
            Act::Heartbeat(n) => {
                if let Some((_, inventory)) = stage.inventories.get(&name(NODES[*n as usize])).cloned() {
                    // Nothing changed since: what is wanted now and was warm then still is, and nothing else is wanted.
                    let heartbeat = stage.heartbeat(&inventory, self.n.min(inventory.n), &[]);
                    stage.learn(Fact::Heartbeat(heartbeat));
                }
            }
            Act::Damage(w) => {
                let id = key(IMAGES[*w as usize]);
                let key = IntentsKey::Intent(PoolId::all(), id);
                let seq = stage.intents.put(&key, None, Some(IntentsDoc::Definition(serde_json::json!(0)))).unwrap();
                stage.learn(Fact::IntentChanged(Stored { key, seq, value: StoredValue::Undecodable }));
            }
            Act::Reconnect | Act::Wipe => {
                stage.learn(Fact::Disconnected);
                if matches!(act, Act::Wipe) {
                    stage.intents = super::stage::Bucket::default();
                    stage.assign = super::stage::Bucket::default();
                    stage.inventories.clear();
                    stage.created = format!("stream-{}", self.n);
                }
                for fact in stage.reads() {
                    stage.learn(fact);
                }
                stage.learn(Fact::Connected);
            }
            Act::Fail => stage.faults.push(Reason::Timeout),
            Act::Pass(ms) => drop(stage.pass(Duration::from_millis(u64::from(*ms)))),
        }
    }

    /// No label without evidence: each was said to be warm by the agent of this very Node, or was there before.
    fn check_labels(&mut self, shown: &BTreeMap<shared::name::NodeName, BTreeMap<String, String>>) {
        for effect in &self.stage.log[self.patched..] {
            let Effect::LabelNode { node, uid, labels } = effect else {
                continue;
            };
            for (label, value) in labels {
                let id = parse_image_label(label).unwrap();
                let was_there = shown.get(node).is_some_and(|l| l.get(label) == Some(value));
                assert!(was_there || self.said_warm.contains(&(uid.clone(), id)), "{effect:?}");
            }
        }
        self.patched = self.stage.log.len();
    }

    /// Time enough for every wait to end.
    fn settle(&mut self) {
        self.stage.faults.clear();
        self.stage.pass(Duration::from_secs(200));
    }
}

/// What the buckets are to hold, as simply as it can be said.
fn expected(stage: &Stage) -> BTreeSet<(PoolId, ImageKey)> {
    let mut wanted = BTreeSet::new();
    for workload in stage.workloads.values() {
        for image in &workload.images {
            wanted.insert((workload.constraint.clone(), key(&image.image)));
        }
    }
    let in_all: BTreeSet<ImageKey> =
        wanted.iter().filter(|(c, _)| *c == Constraint::default()).map(|(_, id)| id.clone()).collect();
    let gpu = tolerating("gpu");
    let pool = |c: &Constraint| {
        if *c == Constraint::default() {
            PoolId::all()
        } else if *c == gpu {
            PoolId::auto(r#"{"tolerations":[{"effect":null,"key":"gpu","operator":"Exists","value":""}]}"#)
        } else {
            PoolId::auto(r#"{"nodeSelector":{"disk":"ssd"}}"#)
        }
    };
    let is_kept = |(c, id): &&(Constraint, ImageKey)| *c == gpu || *c == Constraint::default() || !in_all.contains(id);
    wanted.iter().filter(is_kept).map(|(c, id)| (pool(c), id.clone())).collect()
}

proptest! {
    #[test]
    fn whatever_happens_the_buckets_come_to_equal_the_plan(acts in acts(), echo_first in any::<bool>()) {
        let mut play = Play::new(echo_first);
        for act in &acts {
            play.act(act);
        }
        play.settle();
        let stage = &play.stage;
        let held: BTreeSet<(PoolId, ImageKey)> = stage.intents.live().into_iter().filter_map(|(k, doc)| match (k, doc) {
            (IntentsKey::Intent(pool, id), IntentsDoc::Intent(i)) if i.id == id => Some((pool, id)),
            (IntentsKey::Intent(..), other) => panic!("{other:?}"),
            _ => None,
        }).collect();
        prop_assert_eq!(&held, &expected(stage));
        let pools: BTreeSet<&PoolId> = held.iter().map(|(p, _)| p).collect();
        let live = stage.intents.live();
        let defined: BTreeSet<&PoolId> =
            live.keys().filter_map(|k| if let IntentsKey::Definition(p) = k { Some(p) } else { None }).collect();
        prop_assert_eq!(&defined, &pools);
        prop_assert!(stage.assign.live().keys().eq(stage.nodes.keys()));
        for assignment in stage.assign.live().values() {
            prop_assert!(assignment.pools.iter().all(|p| pools.contains(p)));
            prop_assert_eq!(&assignment.uid, &stage.nodes[&assignment.node].uid);
        }
        prop_assert!(stage.world.readiness().is_ok());
        for pool in pools {
            let said = stage.log.iter().rev().find_map(|e| match e {
                Effect::PublishBeat(b) if b.pool == *pool => Some(b.summary()),
                _ => None,
            });
            prop_assert_eq!(said, Some(stage.summary(pool)));
        }
    }

    #[test]
    fn after_everything_is_withdrawn_buckets_and_labels_are_empty(acts in acts(), echo_first in any::<bool>()) {
        let mut play = Play::new(echo_first);
        for act in &acts {
            play.act(act);
        }
        for w in 0..3 {
            play.act(&Act::Withdraw(w));
        }
        play.settle();
        let live = play.stage.intents.live();
        prop_assert_eq!(live.keys().collect::<Vec<_>>(), [&IntentsKey::Meta]);
        prop_assert!(play.stage.nodes.values().all(|n| n.our_labels.is_empty()));
        prop_assert!(play.stage.assign.live().values().all(|a| a.pools.is_empty()));
    }

    #[test]
    fn the_same_facts_at_the_same_times_give_the_same_effects(acts in acts()) {
        let (mut one, mut two) = (Play::new(false), Play::new(false));
        for act in &acts {
            one.act(act);
            two.act(act);
        }
        prop_assert_eq!(&one.stage.log, &two.stage.log);
        prop_assert_eq!(one.stage.world.summary(one.stage.now), two.stage.world.summary(two.stage.now));
    }

    #[test]
    fn more_excludes_only_ever_remove_wanted_pairs(acts in acts(), exclude in prop::sample::select(&["shop", "s*", "?hop", "other", "*"][..])) {
        let mut play = Play::new(false);
        for act in &acts {
            play.act(act);
        }
        let pairs = |stage: &Stage| -> BTreeSet<_> { stage.world.table().into_iter().map(|r| (r.image, r.node)).collect() };
        let before = pairs(&play.stage);
        let mut selection = Selection::default();
        selection.namespaces.exclude.push(exclude.to_owned());
        play.stage.learn(Fact::Selection(selection));
        prop_assert!(pairs(&play.stage).is_subset(&before));
    }

    #[test]
    fn explain_says_wanted_exactly_where_the_plan_wants_and_names_an_owner_there(
        acts in acts(),
        select in prop::sample::select(&[
            "{}",
            r#"{"exclude":[{"images":[{"contains":"1"}]}]}"#,
            r#"{"include":[{"images":[{"registry":"docker.io"}]},{"kinds":["Pod"]}]}"#,
            r#"{"exclude":[{"namespaces":["shop"],"kinds":["Deployment"]}]}"#,
            r#"{"priorities":[{"images":[{"regex":"[0-9]$"}],"priority":90}],"include":[{"namespaceSelector":{}}]}"#,
        ][..])
    ) {
        let mut play = Play::new(false);
        for act in &acts {
            play.act(act);
        }
        play.stage.learn(Fact::Selection(serde_json::from_str(select).unwrap()));
        let rows = play.stage.world.table();
        for image in IMAGES {
            for node in NODES {
                let question = serde_json::json!({ "image": image, "node": node }).to_string();
                let answer = play.stage.ask(ControlVerb::Explain, &question);
                let row = rows.iter().find(|r| r.node == name(node) && key(&r.image) == key(image));
                prop_assert_eq!(answer["wanted"].as_bool(), Some(row.is_some()), "{}", answer);
                prop_assert_eq!(answer["ownersTotal"].as_u64() > Some(0), row.is_some(), "{}", answer);
                let state = row.and_then(|r| r.state).map(ImageState::as_str);
                if row.is_some() {
                    prop_assert_eq!(answer["evidence"]["state"].as_str(), state, "{}", answer);
                }
                prop_assert!(answer["next"].as_str().is_some_and(|next| !next.is_empty()), "{}", answer);
            }
        }
    }

    #[test]
    fn the_order_in_which_objects_are_learnt_does_not_matter(acts in acts(), seed in any::<u64>()) {
        let mut play = Play::new(false);
        for act in acts.iter().filter(|a| matches!(a, Act::Want(..) | Act::Join(..))) {
            play.act(act);
        }
        let mut facts: Vec<Fact> = play.stage.workloads.iter()
            .map(|(k, w)| Fact::Workload(Change::Upsert(k.clone(), Ok(w.clone()))))
            .chain(play.stage.nodes.iter().map(|(k, n)| Fact::Node(Change::Upsert(k.clone(), Ok(n.clone())))))
            .collect();
        fastrand::Rng::with_seed(seed).shuffle(&mut facts);
        let mut again = Stage::new();
        again.start();
        for fact in facts {
            again.tell(fact);
        }
        again.world.step(again.now);
        prop_assert_eq!(again.world.table(), play.stage.world.table());
    }
}

#[test]
fn the_intervals_are_what_the_documentation_says() {
    let text = serde_json::to_string(&Timing::default()).unwrap();
    assert_eq!(
        text,
        r#"{"beat":"15s","spread":"10s","heartbeat":"30s","judge":"5s","labelWindow":"30s","setStatus":"5s","writeBackoff":"1s","writeBackoffMax":"1m","markerTtl":"3days"}"#
    );
}
