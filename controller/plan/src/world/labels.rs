//! Labels of nodes: what evidence, the plan and the sets make of them, as fast as they may be written.
//!
//! Owns which nodes are looked at together. What a Node is to have is [`crate::label`]'s, when it may be patched
//! [`crate::pace`]'s.

use std::collections::BTreeMap;

use shared::label;
use shared::machine::Moment;
use shared::name::{ImageKey, NodeName, PoolId};

use super::World;
use crate::effect::Effect;
use crate::evidence::{Class, Classes, Evidence, NodeEvidence};
use crate::input::{Node, SetKey, WorkloadKey};
use crate::judge::ImageEvidence;
use crate::known::Known;
use crate::label::{Decided, Labels, Ranking, SetOnNode};
use crate::pace::Pace;
use crate::place;
use crate::plan::Plan;
use crate::select::Reading;
use crate::set::{OnClass, SetView};
use crate::settings::LabelSettings;
use crate::silence::Silence;

/// How many nodes are looked at together at first, twice as many each time: there may be leave for few, and labels of a
/// class of nodes are ranked each time.
const LOOKED_AT: usize = 256;

/// A node that is looked at, and its planned pools.
type Looked<'a> = (&'a NodeName, &'a Node, &'a [PoolId]);

/// A set, for its label.
struct Labelled<'a> {
    label: String,
    view: &'a SetView,
    reading: &'a Reading,
}

/// What labels are made of, the pace apart.
struct Labeller<'a> {
    plan: &'a Plan,
    nodes: &'a Known<NodeName, Node>,
    evidence: &'a Evidence,
    settings: &'a LabelSettings,
    sets: Vec<Labelled<'a>>,
}

/// The same for the nodes of a class.
struct ForClass<'a> {
    ranking: Ranking<'a>,
    sets: Vec<(&'a Labelled<'a>, OnClass<'a>)>,
}

impl<'a> Labeller<'a> {
    fn new(
        plan: &'a Plan,
        nodes: &'a Known<NodeName, Node>,
        evidence: &'a Evidence,
        settings: &'a LabelSettings,
        sets: &'a Known<SetKey, SetView>,
        workloads: &'a Known<WorkloadKey, Reading>,
    ) -> Self {
        let labelled = |(key, view): (&SetKey, &'a SetView)| {
            let reading = workloads.get(&key.workload())?;
            Some(Labelled { label: label::set_label(&key.namespace, &key.name), view, reading })
        };
        Self { plan, nodes, evidence, settings, sets: sets.good().filter_map(labelled).collect() }
    }

    fn class<'c>(&'c self, class: &'c Class<'c>) -> ForClass<'c> {
        let sets = self.sets.iter().filter_map(|set| Some((set, OnClass::of(set.view, class)?))).collect();
        ForClass { ranking: Ranking::of(class, self.settings.mode), sets }
    }

    /// The labels of a node of the class that is planned in these pools and shows `shown`.
    fn decide(&self, class: &ForClass<'_>, name: &NodeName, pools: &[PoolId], shown: &Labels) -> Decided {
        let singles: BTreeMap<&ImageKey, &ImageEvidence> =
            self.evidence.get(name).into_iter().flat_map(NodeEvidence::singles).collect();
        let for_it = class.sets.iter().filter(|(set, _)| is_for(self.plan, self.nodes, set.reading, name, pools));
        let sets: Vec<SetOnNode<'_>> = for_it
            .map(|(set, on)| SetOnNode {
                label: &set.label,
                priority: set.reading.priority(),
                verdict: on.on(&singles),
            })
            .collect();
        class.ranking.decide(shown, &singles, &sets, self.settings)
    }

    /// Labels some nodes; says whether there is leave to look at more.
    fn label(
        &self,
        names: &[NodeName],
        classes: &mut Classes<'a>,
        pace: &mut Pace,
        silence: &Silence,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if !pace.has_token(now) {
            return false;
        }
        let mut by_class: BTreeMap<usize, Vec<Looked<'_>>> = BTreeMap::new();
        for name in names {
            let planned = self.plan.nodes.get(name).filter(|planned| planned.stays);
            let class = planned.and_then(|planned| Some((classes.of(name, &planned.pools)?.0, &planned.pools[..])));
            match (self.nodes.get(name), class) {
                (Some(node), Some((number, pools))) => by_class.entry(number).or_default().push((name, node, pools)),
                _ => pace.rest(name),
            }
        }
        for (class, nodes) in by_class {
            let Some(class) = classes.get(class).map(|class| self.class(class)) else {
                continue;
            };
            for (name, node, pools) in nodes {
                let shown = pace.shown(name, &node.our_labels);
                let Decided { labels, beyond } = if silence.has_given_up(name) {
                    Decided { labels: Labels::new(), beyond: 0 }
                } else {
                    self.decide(&class, name, pools, shown)
                };
                let rests = labels == *shown;
                pace.lacks_room(name, beyond);
                if rests {
                    pace.rest(name);
                } else if pace.has_token(now) {
                    pace.sent(name, labels.clone(), &node.our_labels, now);
                    let (node, uid) = (name.clone(), node.uid.clone());
                    effects.push(Effect::LabelNode { node, uid, labels });
                } else {
                    return false;
                }
            }
        }
        true
    }
}

/// Whether the images of a set are for a node that is planned in these pools.
pub(super) fn is_for(
    plan: &Plan,
    nodes: &Known<NodeName, Node>,
    reading: &Reading,
    name: &NodeName,
    pools: &[PoolId],
) -> bool {
    if plan.pools.contains_key(reading.pool()) && !plan.is_limited {
        return pools.contains(reading.pool());
    }
    // All that is wanted there is wanted everywhere, or is in a private pool: its nodes are found one by one.
    nodes.get(name).is_some_and(|node| place::is_eligible(reading.constraint(), name, node))
}

impl World {
    /// Labels the nodes that may be patched now.
    pub(super) fn label(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let timing = &self.settings.timing;
        let looked_at = self.pace.look(timing.label_window, timing.write_backoff_max, now);
        if looked_at.is_empty() {
            return;
        }
        let Self { plan, nodes, evidence, intents, settings, sets, workloads, pace, silence, .. } = self;
        let mut classes = Classes::new(plan, evidence, intents);
        let labeller = Labeller::new(plan, nodes, evidence, &settings.labels, sets, workloads);
        let (mut rest, mut size) = (looked_at.as_slice(), LOOKED_AT);
        while !rest.is_empty() {
            let (some, others) = rest.split_at(size.min(rest.len()));
            if !labeller.label(some, &mut classes, pace, silence, now, effects) {
                return;
            }
            (rest, size) = (others, size * 2);
        }
    }

    /// The labels that a Node is to have.
    pub(super) fn wanted_labels(&self, name: &NodeName) -> Option<Labels> {
        let (planned, node) = (self.plan.nodes.get(name)?, self.nodes.get(name)?);
        let mut classes = Classes::new(&self.plan, &self.evidence, &self.intents);
        let (_, class) = classes.of(name, &planned.pools).filter(|_| planned.stays)?;
        let settings = &self.settings.labels;
        let labeller = Labeller::new(&self.plan, &self.nodes, &self.evidence, settings, &self.sets, &self.workloads);
        Some(labeller.decide(&labeller.class(class), name, &planned.pools, &node.our_labels).labels)
    }
}
