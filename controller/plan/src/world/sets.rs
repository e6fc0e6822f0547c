//! Sets: learning what they want, and what people are told of them.
//!
//! Owns which nodes a set is for, the counts of its status, and that a status is not made worse by what nobody has said yet.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::label;
use shared::machine::{Moment, Now};
use shared::name::{ImageKey, NodeName, PoolId};
use shared::reason::Reason;
use shared::state::ImageState;

use super::World;
use super::labels::is_for;
use crate::effect::{Effect, SetStatusWrite};
use crate::evidence::{Agent, Classes};
use crate::fact::{Change, Source};
use crate::input::{Constraint, ImageSet, SetKey};
use crate::judge::ImageEvidence;
use crate::place;
use crate::select::{Reading, Rules};
use crate::set::{Circumstances, MOST_IMAGES, SetImage, SetStatus, SetView, Tally, conditions};

/// Heartbeats after the beginning within which what is known of agents may be incomplete.
const OLD_NEWS: u32 = 3;

/// Nodes that agree in what whole sets prove.
struct Group<'a> {
    members: Vec<&'a NodeName>,
    pools: &'a [PoolId],
    /// Sorted by node.
    alone: BTreeMap<&'a ImageKey, Vec<(&'a NodeName, Cow<'a, ImageEvidence>)>>,
}

/// Those of a group that a set is for, sorted.
struct Part<'g, 'a> {
    class: usize,
    group: &'g Group<'a>,
    members: Vec<&'a NodeName>,
}

/// What is planned and known of all nodes, for the status of sets.
struct Picture<'a> {
    classes: Classes<'a>,
    groups: BTreeMap<usize, Group<'a>>,
    without_agent: Vec<(&'a NodeName, &'a [PoolId])>,
}

impl World {
    /// A set is there, is another, or has gone.
    pub(super) fn set_changed(&mut self, change: Change<SetKey, ImageSet>) -> bool {
        let key = match &change {
            Change::Upsert(key, _) | Change::Remove(key) => key.clone(),
        };
        let owner = key.workload();
        let before = (self.sets.get(&key).cloned(), self.constraint_of(&key));
        let is_synced = self.synced.contains(&Source::Sets);
        let (wants, view) = match change {
            Change::Remove(_) => (Change::Remove(owner), Change::Remove(key.clone())),
            Change::Upsert(_, Err(text)) => {
                (Change::Upsert(owner, Err(text.clone())), Change::Upsert(key.clone(), Err(text)))
            }
            Change::Upsert(_, Ok(set)) => {
                let mut view = SetView::of(&set);
                if is_synced {
                    view.follow(before.0.as_ref());
                }
                let reading = self.admit(&owner, set.wants);
                (Change::Upsert(owner, Ok(reading)), Change::Upsert(key.clone(), Ok(view)))
            }
        };
        let wants_otherwise = self.workloads.change(wants);
        let changed = self.sets.change(view);
        if wants_otherwise {
            self.stale.workloads.insert(key.workload());
        }
        if wants_otherwise || changed {
            self.set_differs(&key, before.0.as_ref(), before.1.as_ref());
        }
        wants_otherwise || changed
    }

    /// A full list of sets: what is not in it is gone.
    pub(super) fn sets_listed(&mut self, list: BTreeMap<SetKey, Result<ImageSet, String>>) -> bool {
        let gone: Vec<SetKey> = self.sets.keys().filter(|key| !list.contains_key(*key)).cloned().collect();
        let mut changed = false;
        for key in gone {
            changed |= self.set_changed(Change::Remove(key));
        }
        for (key, content) in list {
            changed |= self.set_changed(Change::Upsert(key, content));
        }
        self.synced.insert(Source::Sets) || changed
    }

    /// What follows of a set that is not what it was: another status to be told, other labels to be looked at.
    fn set_differs(&mut self, key: &SetKey, before: Option<&SetView>, constraint: Option<&Constraint>) {
        let now = self.sets.get(key);
        if before.map(|before| &before.uid) != now.map(|now| &now.uid) {
            self.status_pace.forget(key);
        }
        if before.map(|before| &before.status) != now.map(|now| &now.status) {
            self.status_pace.shows(key);
        }
        self.status_pace.touch();
        let new = self.constraint_of(key);
        let is_same = match (before, now) {
            (Some(before), Some(now)) => before.wants_the_same(now) && constraint == new.as_ref(),
            _ => false,
        };
        if is_same {
            return;
        }
        let label = label::set_label(&key.namespace, &key.name);
        let admits = |constraint: Option<&Constraint>, name: &NodeName, node| {
            constraint.is_some_and(|constraint| place::is_eligible(constraint, name, node))
        };
        for (name, node) in self.nodes.good() {
            let is_concerned = node.our_labels.contains_key(&label)
                || admits(constraint, name, node)
                || admits(new.as_ref(), name, node);
            if is_concerned {
                self.pace.touch(name);
            }
        }
    }

    fn constraint_of(&self, key: &SetKey) -> Option<Constraint> {
        self.workloads.get(&key.workload()).map(|reading| reading.constraint().clone())
    }

    /// Writes each status that differs from what is shown, within the pace.
    pub(super) fn tell_sets(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let (window, patience) = (self.settings.timing.set_status, self.settings.timing.write_backoff_max);
        if !self.status_pace.look(window, patience, now.mono) {
            return;
        }
        for (set, mut status, of) in self.set_statuses() {
            let Some(view) = self.sets.get(&set) else { continue };
            let shown = self.status_pace.shown(&set, view.status.as_ref());
            if let Some(shown) = shown {
                status.keep_sizes(shown);
            }
            status.conditions = conditions(&status, of, shown, now.wall);
            if shown == Some(&status) {
                continue;
            }
            let until = self.status_pace.waits_until(&set, window, now.mono);
            if let Some(until) = until.max(self.waits_for_agents(&status, shown, now.mono)) {
                self.status_pace.waits(until);
            } else {
                let uid = view.uid.clone();
                self.status_pace.sent(set.clone(), status.clone(), now.mono);
                effects.push(Effect::WriteSetStatus(Box::new(SetStatusWrite { set, uid, status })));
            }
        }
    }

    /// The write of a status ended.
    pub(super) fn set_status_written(
        &mut self,
        set: &SetKey,
        result: Result<(), Reason>,
        retry_after: Option<Duration>,
        now: Moment,
    ) -> bool {
        let (backoff, not_before) = (self.backoff(), now + retry_after.unwrap_or_default());
        self.status_pace.done(set, result, not_before, now, &backoff, &mut self.rng)
    }

    /// What this controller has not heard yet is no news: a status that is there is not made worse by it.
    fn waits_for_agents(&self, status: &SetStatus, shown: Option<&SetStatus>, now: Moment) -> Option<Moment> {
        let shown = shown.filter(|shown| shown.observed_generation == status.observed_generation)?;
        if status.unknown == 0 && status.nodes >= shown.nodes {
            return None;
        }
        let patience = self.settings.timing.heartbeat * OLD_NEWS;
        let heard = self.silence.listening().unwrap_or(now) + patience;
        (heard > now).then_some(heard)
    }

    /// The status of every set, but for its conditions.
    fn set_statuses(&self) -> Vec<(SetKey, SetStatus, Circumstances)> {
        if self.sets.good().next().is_none() {
            return Vec::new();
        }
        let picture = self.picture();
        let one = |(key, view): (&SetKey, &SetView)| {
            let reading = self.workloads.get(&key.workload())?;
            let (status, of) = self.set_status((key, view), reading, &picture);
            Some((key.clone(), status, of))
        };
        self.sets.good().filter_map(one).collect()
    }

    fn picture(&self) -> Picture<'_> {
        let mut classes = Classes::new(&self.plan, &self.evidence, &self.intents);
        let mut groups: BTreeMap<usize, Group<'_>> = BTreeMap::new();
        let mut without_agent = Vec::new();
        for (name, planned) in self.plan.nodes.iter().filter(|(_, planned)| planned.stays) {
            let Some(evidence) = self.evidence.get(name).filter(|e| e.agent() != Agent::Missing) else {
                without_agent.push((name, &planned.pools[..]));
                continue;
            };
            let Some((number, _)) = classes.of(name, &planned.pools) else { continue };
            let new = || Group { members: Vec::new(), pools: &planned.pools, alone: BTreeMap::new() };
            let group = groups.entry(number).or_insert_with(new);
            group.members.push(name);
            let mut alone: BTreeMap<_, _> = evidence.singles().map(|(id, word)| (id, Cow::Borrowed(word))).collect();
            for (id, why) in evidence.failures() {
                let proven = alone.get(id).map(AsRef::as_ref).or_else(|| classes.get(number)?.proven.get(id));
                // Until it is warm it fails: who told of each attempt would write at each.
                if proven.is_some_and(|word| word.state == ImageState::Pulling) {
                    let failed = ImageEvidence { state: ImageState::Failed, why: Some(why), digest: None };
                    alone.insert(id, Cow::Owned(failed));
                }
            }
            for (id, word) in alone {
                group.alone.entry(id).or_default().push((name, word));
            }
        }
        Picture { classes, groups, without_agent }
    }

    fn set_status(
        &self,
        (key, view): (&SetKey, &SetView),
        reading: &Reading,
        picture: &Picture<'_>,
    ) -> (SetStatus, Circumstances) {
        let is_for = |name: &NodeName, pools: &[PoolId]| is_for(&self.plan, &self.nodes, reading, name, pools);
        let parts: Vec<Part<'_, '_>> = picture
            .groups
            .iter()
            .map(|(class, group)| {
                let members = group.members.iter().copied().filter(|name| is_for(name, group.pools)).collect();
                Part { class: *class, group, members }
            })
            .collect();
        let without_agent = picture.without_agent.iter().filter(|(name, pools)| is_for(name, pools)).count();
        let nodes: usize = parts.iter().map(|part| part.members.len()).sum();
        let mut status = SetStatus {
            observed_generation: view.generation,
            nodes: whole(nodes),
            nodes_without_agent: whole(without_agent),
            images_total: whole(view.images.len()),
            ..SetStatus::default()
        };
        let (mut seen, mut unusable, mut unknown) = (BTreeSet::new(), 0, 0);
        for (written, read) in &view.images {
            let id = match read {
                Ok(id) if !seen.insert(id) => continue,
                Ok(id) => id,
                Err(problem) => {
                    unusable += 1;
                    status.images.push(Tally::default().told(written, None, problem));
                    continue;
                }
            };
            let tally = tally(id, &parts, &picture.classes);
            let mut image = tally.told(written, self.evidence.size(id), "");
            if image.desired == 0 && nodes > 0 {
                unusable += 1;
                image.problem = self.exclusion(key, reading, id);
            }
            unknown += tally.unknown();
            status.images.push(image);
        }
        status.unknown = whole(unknown);
        sum(&mut status);
        (status, Circumstances { is_suspended: view.is_suspended, unusable })
    }

    /// Why an image of a set is wanted nowhere: what the configuration says of it.
    fn exclusion(&self, key: &SetKey, reading: &Reading, id: &ImageKey) -> String {
        let judge = |rules: &Rules| match rules.of_namespace(&self.namespaces, &key.namespace).image(reading, id)? {
            Ok(_) => None,
            Err(exclusion) => Some(exclusion.to_string()),
        };
        let said = self.rules.as_ref().and_then(judge);
        said.unwrap_or_else(|| "no pool of the set's nodes can want it".to_owned())
    }
}

fn tally<'a>(id: &ImageKey, parts: &[Part<'_, 'a>], classes: &Classes<'_>) -> Tally<'a> {
    let mut tally = Tally::default();
    for Part { class, group, members } in parts {
        let Some(class) = classes.get(*class).filter(|class| class.wanted.contains_key(id)) else { continue };
        let alone: Vec<&(&NodeName, Cow<'_, ImageEvidence>)> =
            group.alone.get(id).into_iter().flatten().filter(|(name, _)| members.binary_search(name).is_ok()).collect();
        for (name, evidence) in alone.iter().copied() {
            tally.add(Some(evidence), 1, [*name]);
        }
        let others = members.iter().copied().filter(|name| alone.iter().all(|(single, _)| single != name));
        tally.add(class.proven.get(id), members.len() - alone.len(), others);
    }
    tally
}

/// Adds the images up, puts the worst first, and keeps as many as are told.
fn sum(status: &mut SetStatus) {
    let mut images = std::mem::take(&mut status.images);
    let of = |count: fn(&SetImage) -> i64| images.iter().map(count).sum::<i64>();
    status.desired = of(|image| image.desired);
    status.warm = of(|image| image.warm);
    status.pending = of(|image| image.pending);
    status.failed = of(|image| image.failed);
    status.refused = of(|image| image.refused);
    status.bytes = of(|image| image.bytes);
    images.sort_by_key(|image| (image.problem.is_empty(), -(image.failed + image.refused), -image.pending));
    images.truncate(MOST_IMAGES);
    status.images = images;
}

fn whole(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
