//! Which images of which workloads fail, and whether those that did are warm everywhere again.
//!
//! Owns the count of nodes by image and workload. When people are told is [`crate::notice`]'s.

use std::collections::{BTreeMap, BTreeSet};

use shared::machine::Moment;
use shared::name::{ImageKey, NodeName, PoolId};
use shared::reason::Reason;
use shared::state::ImageState;

use super::World;
use crate::abreast::abreast;
use crate::bucket::IntentsBucket;
use crate::effect::Effect;
use crate::evidence::{Agent, ClassName, NodeEvidence};
use crate::input::WorkloadKey;
use crate::judge::ImageEvidence;
use crate::notice::{self, Condition, Failing, Seen, Subject};
use crate::place;
use crate::select::{OfNamespace, Reading};

/// Heartbeats after the first look within which old news may arrive.
const OLD_NEWS: u32 = 3;

/// How an image is on some nodes.
#[derive(Debug, Clone, Default)]
struct Tally<'a> {
    nodes: usize,
    warm: usize,
    failing: BTreeMap<Reason, usize>,
    example: Option<&'a NodeName>,
    is_news: bool,
}

/// Nodes that agree in what whole sets prove.
struct Group<'a> {
    members: Vec<(&'a NodeName, &'a NodeEvidence)>,
    pools: &'a [PoolId],
    tallies: BTreeMap<ImageKey, Tally<'a>>,
}

impl<'a> Tally<'a> {
    /// Counts nodes, of which `example` is one, that say the same.
    fn add(&mut self, evidence: Option<&ImageEvidence>, example: &'a NodeName, nodes: usize) {
        self.nodes += nodes;
        let Some(evidence) = evidence.filter(|_| nodes > 0) else { return };
        if evidence.state == ImageState::Warm {
            self.warm += nodes;
        } else if evidence.is_failing() {
            *self.failing.entry(evidence.why.unwrap_or(Reason::Unknown)).or_default() += nodes;
            self.example = self.example.into_iter().chain([example]).min();
        }
    }

    fn join(&mut self, other: &Self) {
        self.nodes += other.nodes;
        self.warm += other.warm;
        for (why, nodes) in &other.failing {
            *self.failing.entry(*why).or_default() += nodes;
        }
        self.example = self.example.into_iter().chain(other.example).min();
        self.is_news |= other.is_news;
    }

    fn condition(&self) -> Condition {
        // The first of the table, where two are as frequent.
        let most = self.failing.iter().max_by_key(|(why, nodes)| (**nodes, std::cmp::Reverse(**why)));
        match (most, self.example) {
            (Some((why, _)), Some(example)) => Condition::Failing(Failing {
                why: *why,
                nodes: self.failing.values().sum(),
                of: self.nodes,
                example: example.clone(),
                is_news: self.is_news,
            }),
            _ if self.nodes > 0 && self.warm == self.nodes => Condition::Warm(self.nodes),
            _ => Condition::Recovering,
        }
    }
}

impl Group<'_> {
    /// Counts the members, for every image that there is a tally of.
    fn count(&mut self, intents: &IntentsBucket) {
        let mut alone: BTreeMap<&ImageKey, usize> = BTreeMap::new();
        for (name, node) in self.members.iter().copied() {
            for (id, evidence) in node.singles() {
                if let Some(tally) = self.tallies.get_mut(id) {
                    tally.add(Some(evidence), name, 1);
                    tally.is_news |= evidence.is_failing() && node.is_news(id);
                    *alone.entry(id).or_default() += 1;
                }
            }
        }
        for (id, tally) in &mut self.tallies {
            let rest = self.members.len() - alone.get(id).copied().unwrap_or(0);
            let example = self.members.iter().find(|(_, node)| !node.is_single(id)).filter(|_| rest > 0);
            if let Some((example, node)) = example {
                tally.add(node.proven(id, intents).map(|(evidence, _)| evidence).as_ref(), example, rest);
            }
        }
    }
}

impl World {
    /// Looks at every image that fails or did, and tells of it if this is who writes.
    pub(super) fn tell_of_trouble(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let settings = &self.settings.events;
        if !settings.enabled || !self.sees_buckets() {
            return;
        }
        let patience = self.settings.timing.heartbeat * OLD_NEWS;
        let mut seen = self.trouble();
        seen.extend(self.unusable());
        self.notices.see(seen, settings, patience, now);
        if self.leadership.leads().is_some() {
            let events = self.notices.next(settings, now);
            effects.extend(events.into_iter().map(|event| Effect::PostEvent(Box::new(event))));
        } else {
            self.notices.follow(settings, now);
        }
    }

    /// Every image of a workload that fails somewhere or is remembered.
    fn trouble(&self) -> BTreeMap<Subject, Seen> {
        let (groups, images) = self.groups();
        let Some(rules) = self.rules.as_ref().filter(|_| !images.is_empty()) else {
            return BTreeMap::new();
        };
        let mut judged: BTreeMap<&str, OfNamespace<'_>> = BTreeMap::new();
        let mut tallies: BTreeMap<(&PoolId, &ImageKey), Tally<'_>> = BTreeMap::new();
        let mut all = BTreeMap::new();
        for (key, reading) in self.workloads.good() {
            let mut concerned = reading.images().filter(|(id, _)| images.contains(*id)).peekable();
            if concerned.peek().is_none() {
                continue;
            }
            let name = key.namespace.as_str();
            let of_namespace = judged.entry(name).or_insert_with(|| rules.of_namespace(&self.namespaces, name));
            let Ok(judged) = of_namespace.workload(reading) else { continue };
            for (id, image) in concerned.filter(|(_, image)| judged.image(image).is_ok()) {
                let tally = tallies.entry((reading.pool(), id)).or_insert_with(|| self.tally(&groups, reading, id));
                let (uid, image) = (reading.uid().to_owned(), image.image.clone());
                all.insert((key.clone(), id.clone()), Seen { uid, image, condition: tally.condition() });
            }
        }
        all
    }

    /// Every wanted workload of which a part cannot be used.
    fn unusable(&self) -> BTreeMap<Subject, Seen> {
        let of = |(key, problems): (&WorkloadKey, &Vec<String>)| {
            let uid = self.workloads.get(key)?.uid().to_owned();
            let condition = Condition::Unusable(problems.join("; "));
            Some(((key.clone(), notice::of_workload()), Seen { uid, image: String::new(), condition }))
        };
        self.plan.problems.iter().filter_map(of).collect()
    }

    /// The nodes that have ever said anything, in groups, with the counts of all images that fail or are remembered.
    fn groups(&self) -> (Vec<Group<'_>>, BTreeSet<ImageKey>) {
        let mut groups: BTreeMap<ClassName, Group<'_>> = BTreeMap::new();
        let mut images: BTreeSet<ImageKey> = self.notices.images().cloned().collect();
        let planned = self.plan.nodes.iter().filter(|(_, planned)| planned.stays);
        for (name, planned, evidence) in abreast(planned, self.evidence.iter()) {
            let Some(evidence) = evidence.filter(|e| e.agent() != Agent::Missing) else { continue };
            let group = groups.entry(ClassName::of(Some(evidence), &planned.pools)).or_insert_with(|| {
                let is_proven =
                    |id: &&ImageKey| evidence.proven(id, &self.intents).is_some_and(|(e, _)| e.is_failing());
                images.extend(evidence.reported_failures().filter(is_proven).cloned());
                Group { members: Vec::new(), pools: &planned.pools, tallies: BTreeMap::new() }
            });
            group.members.push((name, evidence));
            images.extend(evidence.singles().filter(|(_, e)| e.is_failing()).map(|(id, _)| id.clone()));
        }
        let mut groups: Vec<Group<'_>> = groups.into_values().collect();
        for group in &mut groups {
            let is_wanted = |id: &&ImageKey| self.plan.wants_in(group.pools, id);
            let wanted = images.iter().filter(is_wanted).map(|id| (id.clone(), Tally::default()));
            group.tallies = wanted.collect();
            group.count(&self.intents);
        }
        (groups, images)
    }

    /// The nodes of a workload, as far as an image is wanted there.
    fn tally<'a>(&'a self, groups: &[Group<'a>], reading: &Reading, id: &ImageKey) -> Tally<'a> {
        let mut sum = Tally::default();
        let is_pool = self.plan.pools.contains_key(reading.pool());
        for group in groups {
            let Some(tally) = group.tallies.get(id) else { continue };
            if group.pools.contains(reading.pool()) {
                sum.join(tally);
            } else if !is_pool {
                // All that is wanted there is wanted everywhere: its nodes are to be found one by one.
                for (name, node) in group.members.iter().copied() {
                    if self.nodes.get(name).is_some_and(|there| place::is_eligible(reading.constraint(), name, there)) {
                        let evidence = node.of(id, &self.intents);
                        sum.add(evidence.as_ref(), name, 1);
                        sum.is_news |= evidence.is_some_and(|e| e.is_failing()) && node.is_news(id);
                    }
                }
            }
        }
        sum
    }
}
