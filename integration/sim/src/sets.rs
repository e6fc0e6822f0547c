//! Sets of images: the objects, their status as server-side apply writes it, and what must hold of both.
//!
//! Owns the truth that status and labels of sets are compared with. Shares no code with the planner.

use std::collections::{BTreeMap, BTreeSet};

use cluster_plan::Fact;
use cluster_plan::effect::SetStatusWrite;
use cluster_plan::fact::{Change, Source};
use cluster_plan::input::{ImageSet, SetKey};
use cluster_plan::set::SetStatus;
use shared::label;
use shared::reason::Reason;

use super::api::{NAMESPACE, Wish, workload};
use super::check::Invariant;
use super::dice::About;
use super::node::reference;
use super::oracle;
use super::process::Who;
use super::queue::{MS, SEC, Us};
use super::universe::Universe;

/// Shortest time between two writes of a status.
pub(super) const WINDOW: Us = 2 * SEC;

/// How often a set that follows its tags has them looked up: the least that is allowed,
const REFRESH: &str = "1m";
/// and how soon after a pull the next may come at the earliest.
pub(super) const LEAST: Us = 54 * SEC;

/// A set.
#[derive(Debug, Clone)]
pub(super) struct SetObject {
    uid: String,
    generation: i64,
    pub(super) wish: Wish,
    pub(super) is_suspended: bool,
    is_refreshed: bool,
    status: Option<SetStatus>,
}

/// What is remembered to judge what is written of sets.
#[derive(Debug, Default)]
pub(super) struct SetMemory {
    /// Everything that each set ever wanted.
    versions: BTreeMap<usize, Vec<BTreeSet<usize>>>,
    /// When each process last wrote the status of a set, by its incarnation and the object.
    written: BTreeMap<(usize, u64, String), Us>,
}

fn key(name: usize) -> SetKey {
    SetKey { namespace: NAMESPACE.to_owned(), name: format!("s{name}") }
}

fn number(key: &SetKey) -> Option<usize> {
    key.name.strip_prefix('s')?.parse().ok()
}

fn view(set: &SetObject) -> ImageSet {
    let mut wants = workload(&set.wish);
    wants.uid.clone_from(&set.uid);
    wants.is_suspended = set.is_suspended;
    wants.is_named = true;
    wants.refresh = set.is_refreshed.then(|| REFRESH.to_owned());
    ImageSet { wants, generation: set.generation, status: set.status.clone() }
}

impl Universe {
    pub(super) fn list_sets(&self) -> Fact {
        Fact::Sets(self.api.sets.iter().map(|(name, set)| (key(*name), Ok(view(set)))).collect())
    }

    fn set_changed(&mut self, name: usize) {
        let change = match self.api.sets.get(&name) {
            Some(set) => Change::Upsert(key(name), Ok(view(set))),
            None => Change::Remove(key(name)),
        };
        self.changed(&Source::Sets, &Fact::Set(change));
    }

    /// A set is made or changed.
    pub(super) fn make_set(&mut self, name: usize, wish: Wish, (is_suspended, is_refreshed): (bool, bool)) {
        self.checks.sets.versions.entry(name).or_default().push(wish.images.iter().copied().collect());
        let uid = self.api.next_uid();
        let new = SetObject { uid, generation: 0, wish: wish.clone(), is_suspended, is_refreshed, status: None };
        let set = self.api.sets.entry(name).or_insert(new);
        let said = (&set.wish, set.is_suspended, set.is_refreshed);
        if set.generation == 0 || said != (&wish, is_suspended, is_refreshed) {
            set.generation += 1;
        }
        (set.wish, set.is_suspended, set.is_refreshed) = (wish, is_suspended, is_refreshed);
        self.set_changed(name);
    }

    /// No set follows its tags any more: else there is no rest.
    pub(super) fn end_refreshes(&mut self) {
        let sets: Vec<_> = self.api.sets.iter().filter(|(_, set)| set.is_refreshed).collect();
        let sets: Vec<_> = sets.into_iter().map(|(name, set)| (*name, set.wish.clone(), set.is_suspended)).collect();
        for (name, wish, is_suspended) in sets {
            self.make_set(name, wish, (is_suspended, false));
        }
    }

    /// A set is deleted.
    pub(super) fn drop_set(&mut self, name: usize) {
        if self.api.sets.remove(&name).is_some() {
            self.set_changed(name);
        }
    }

    /// Somebody writes into the status of a set.
    pub(super) fn edit_status(&mut self, name: usize) {
        if let Some(status) = self.api.sets.get_mut(&name).and_then(|set| set.status.as_mut()) {
            status.warm += 1;
            status.images.clear();
            self.set_changed(name);
        }
    }

    /// A status on its way, and the answer on the way back.
    pub(super) fn write_set_status(&mut self, number: usize, incarnation: u64, write: SetStatusWrite) {
        let who = Who::Controller(number);
        let rng = self.dice.about(About::Api(who));
        let (there, back) = (rng.u64(MS..10 * MS), rng.u64(MS..10 * MS));
        self.after(there, move |u| {
            let set = write.set.clone();
            let result = u.apply_status(write);
            u.after(back, move |u| {
                let fact = Fact::SetStatusWritten { set, result, retry_after: None };
                u.reach(who, Box::new(move |u| u.tell_controller(number, incarnation, fact)));
            });
        });
    }

    fn apply_status(&mut self, write: SetStatusWrite) -> Result<(), Reason> {
        if self.api.is_down() {
            return Err(Reason::Network);
        }
        let name = number(&write.set).ok_or(Reason::Invalid)?;
        let Some(set) = self.api.sets.get_mut(&name).filter(|set| set.uid == write.uid) else {
            return Err(Reason::Conflict);
        };
        if set.status.as_ref() == Some(&write.status) {
            return Ok(());
        }
        let text = format!("{} of {} warm", write.status.warm, write.status.desired);
        set.status = Some(write.status);
        self.say(|| format!("api          the status of set {name} says {text}"));
        self.set_changed(name);
        Ok(())
    }

    /// A replica writes a status: not too often.
    pub(super) fn check_set_status(&mut self, number: usize, write: &SetStatusWrite) {
        let Some(incarnation) = self.incarnation(Who::Controller(number)) else { return };
        let now = self.now;
        let before = self.checks.sets.written.insert((number, incarnation, write.uid.clone()), now);
        // The machine's clock counts whole milliseconds.
        if let Some(before) = before.filter(|before| before + WINDOW > now + MS) {
            let text = format!(
                "controller-{number} writes the status of {} {} ms after the last",
                write.set,
                (now - before) / MS
            );
            self.violated(Invariant::SetStatusRate, text);
        }
    }

    /// A node gets the label of a set: everything of some version of it must have been vouched for there.
    pub(super) fn check_set_label(&mut self, node: usize, uid: &str, label: &str) {
        let claimed = |image: &usize| {
            oracle::key(*image).is_some_and(|id| self.checks.claims.iter().any(|(u, i, _)| u == uid && *i == id))
        };
        let of = |name: &usize| label::set_label(NAMESPACE, &key(*name).name) == label;
        let versions = self.checks.sets.versions.iter().find(|(name, _)| of(name)).map(|(_, versions)| versions);
        let is_vouched_for = versions.is_some_and(|versions| versions.iter().any(|images| images.iter().all(claimed)));
        if !is_vouched_for {
            let text = format!("node-{node} ({uid}) gets {label}, and no agent of it has vouched for all of the set");
            self.violated(Invariant::LabelEvidence, text);
        }
    }

    /// The labels of sets that a node should have: those that are for it, and all of which is there.
    pub(super) fn set_labels_due(&self, node: usize) -> Vec<(String, String)> {
        let (Some(host), Some(object)) = (self.hosts.get(node), self.api.nodes.get(&node)) else { return Vec::new() };
        let is_whole = |wish: &Wish| wish.images.iter().all(|image| host.images.contains_key(&reference(*image)));
        let due = self.api.sets.iter().filter(|(_, set)| oracle::lands(set.wish.place, node, object));
        due.filter(|(_, set)| is_whole(&set.wish))
            .map(|(name, _)| (label::set_label(NAMESPACE, &key(*name).name), label::SET_VALUE.to_owned()))
            .collect()
    }

    /// What is not yet said of a set as it is.
    pub(super) fn lacks_status(&self) -> Option<String> {
        self.api.sets.iter().find_map(|(name, set)| {
            let Some(status) = &set.status else { return Some(format!("set {name} has no status")) };
            let images: BTreeSet<usize> = set.wish.images.iter().copied().collect();
            let nodes = self.api.nodes.iter().filter(|(node, object)| oracle::lands(set.wish.place, **node, object));
            let (mut desired, mut warm) = (0, 0);
            for host in nodes.filter_map(|(node, _)| self.hosts.get(*node)) {
                desired += images.len();
                warm += images.iter().filter(|image| host.images.contains_key(&reference(**image))).count();
            }
            let is_ready = desired > 0 && desired == warm;
            let wanted = (set.generation, whole(desired), whole(warm), 0, is_ready);
            // Every agent runs, so of each pair something is known.
            let told = (status.observed_generation, status.desired, status.warm, status.unknown, status.is_ready());
            (told != wanted).then(|| format!("set {name} is told to be {told:?} and is {wanted:?}"))
        })
    }
}

fn whole(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
