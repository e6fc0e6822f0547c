//! Who belongs to whom.
//!
//! Owns which of all objects is a workload of its own: the top controller counts, what it controls does not, and what
//! nobody controls counts itself. Adds to a workload what stands below it and its own template does not name, and gives it the template
//! that it refers to. Decides by UID, and never that an owner is gone before every source has delivered its first full list.
//!
//! What comes out are workloads as [`crate::select`] reads them; what goes in is what the API server shows.

mod beyond;
mod extra;
mod part;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::image::Reference;
use shared::machine::Moment;
use shared::name::ImageKey;

use self::extra::Extras;
use crate::fact::Change;
use crate::input::{ContainerImage, Controller, Replica, Workload, WorkloadKey, WorkloadKind};

/// How long an owner that nobody has seen must have been missing: two watches may tell in another order than it
/// happened, and Kubernetes collects what an owner leaves behind within this time.
const GRACE: Duration = Duration::from_secs(5);
/// An owner's owner's … owner is looked at so many times: Kubernetes forbids no circles.
const DEPTH: usize = 8;

type Changes = Vec<Change<WorkloadKey, Workload>>;

/// Since when the owner of an object is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Nobody has looked yet.
    Unseen,
    Since(Moment),
    /// For so long that it is gone.
    Gone,
}

/// Every object that can be a workload or stand between one and its Pods.
#[derive(Debug, Clone, Default)]
pub(crate) struct Family {
    /// Kinds that are watched beside the built-in ones.
    kinds: BTreeSet<WorkloadKind>,
    /// Last good content, and whether the newest is good.
    objects: BTreeMap<WorkloadKey, Member>,
    /// Direct children by owner.
    children: BTreeMap<WorkloadKey, BTreeSet<WorkloadKey>>,
    /// Who uses the template of whom.
    users: BTreeMap<WorkloadKey, BTreeSet<WorkloadKey>>,
    /// What the Pods of each controller show.
    replicas: BTreeMap<Controller, Vec<Replica>>,
    /// What stands below a workload that its own template does not name, by top controller.
    extras: BTreeMap<WorkloadKey, Extras>,
    /// Objects whose owner is of a watched kind and is not there; of Pods their controller.
    missing: BTreeMap<WorkloadKey, Missing>,
    /// The same of Pods, which have no object of their own here.
    stray: BTreeMap<Controller, Missing>,
    /// What was last said, by object.
    said: BTreeMap<WorkloadKey, BTreeSet<WorkloadKey>>,
    linger: Duration,
    /// Whether somebody has looked since every source was complete.
    was_complete: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Member {
    good: Option<Workload>,
    invalid: Option<String>,
}

impl Family {
    pub(crate) fn new(kinds: BTreeSet<WorkloadKind>, linger: Duration) -> Self {
        Self { kinds, linger, ..Self::default() }
    }

    /// How many objects of a kind there are, whether they count or not; of Pods those that are told one by one.
    pub(crate) fn count(&self, kind: &WorkloadKind) -> usize {
        self.objects.keys().filter(|key| key.kind == *kind).count()
    }

    /// Takes one change of one object.
    pub(crate) fn change(&mut self, change: Change<WorkloadKey, Workload>, now: Moment) -> Changes {
        let mut dirty = BTreeSet::new();
        self.take(change, &mut dirty);
        self.settle(dirty, now)
    }

    /// Takes a full list of a kind: what is not in it is gone.
    pub(crate) fn replace(
        &mut self,
        kind: &WorkloadKind,
        list: BTreeMap<WorkloadKey, Result<Workload, String>>,
        now: Moment,
    ) -> Changes {
        let mut dirty = BTreeSet::new();
        let gone: Vec<WorkloadKey> =
            self.objects.keys().filter(|key| key.kind == *kind && !list.contains_key(key)).cloned().collect();
        for key in gone {
            self.take(Change::Remove(key), &mut dirty);
        }
        for (key, content) in list {
            self.take(Change::Upsert(key, content), &mut dirty);
        }
        self.settle(dirty, now)
    }

    /// Takes what the Pods of one controller show.
    pub(crate) fn replicas(&mut self, change: Change<Controller, Vec<Replica>>, now: Moment) -> Changes {
        let mut dirty = BTreeSet::new();
        self.take_replicas(change, &mut dirty);
        self.settle(dirty, now)
    }

    /// Takes what the Pods of all controllers show.
    pub(crate) fn replace_replicas(&mut self, list: BTreeMap<Controller, Vec<Replica>>, now: Moment) -> Changes {
        let mut dirty = BTreeSet::new();
        let gone: Vec<Controller> = self.replicas.keys().filter(|of| !list.contains_key(of)).cloned().collect();
        for of in gone {
            self.take_replicas(Change::Remove(of), &mut dirty);
        }
        for (of, replicas) in list {
            self.take_replicas(Change::Upsert(of, Ok(replicas)), &mut dirty);
        }
        self.settle(dirty, now)
    }

    /// Looks at what time alone changes, once every source is complete.
    pub(crate) fn look(&mut self, now: Moment) -> Changes {
        let grace = if std::mem::replace(&mut self.was_complete, true) { GRACE } else { Duration::ZERO };
        let mut dirty = BTreeSet::new();
        let is_gone = |missing: &mut Missing| {
            if *missing == Missing::Unseen {
                *missing = Missing::Since(now);
            }
            let is_gone = matches!(*missing, Missing::Since(at) if at + grace <= now);
            if is_gone {
                *missing = Missing::Gone;
            }
            is_gone
        };
        for (key, missing) in &mut self.missing {
            if is_gone(missing) {
                dirty.insert(key.clone());
            }
        }
        for (of, missing) in &mut self.stray {
            if is_gone(missing) {
                dirty.insert(of.key.clone());
            }
        }
        dirty.extend(self.extras.iter().filter(|(_, extras)| extras.has_ended(now)).map(|(key, _)| key.clone()));
        self.settle(dirty, now)
    }

    /// When time alone changes something.
    pub(crate) fn due(&self) -> Option<Moment> {
        let missing = self.missing.values().chain(self.stray.values()).filter_map(|missing| match missing {
            Missing::Unseen => Some(Moment::default()),
            Missing::Since(at) => Some(*at + GRACE),
            Missing::Gone => None,
        });
        missing.chain(self.extras.values().filter_map(Extras::due)).min()
    }

    /// Where an image stands below a workload whose own template does not name it.
    pub(crate) fn position(&self, key: &WorkloadKey, id: &ImageKey) -> Option<&str> {
        let is_it = |image: &&ContainerImage| Reference::parse(&image.image).is_ok_and(|r| r.key() == *id);
        let object = WorkloadKey { name: key.object_name().to_owned(), ..key.clone() };
        Some(self.extras.get(&object)?.images().find(is_it)?.position.as_str())
    }

    fn take(&mut self, change: Change<WorkloadKey, Workload>, dirty: &mut BTreeSet<WorkloadKey>) {
        let (key, content) = match change {
            Change::Upsert(key, content) => (key, Some(content)),
            Change::Remove(key) => (key, None),
        };
        self.touch(&key, dirty);
        let old = self.objects.remove(&key);
        if let Some(good) = old.as_ref().and_then(|member| member.good.as_ref()) {
            unlink(&mut self.children, good.owner_key(&key), &key);
            unlink(&mut self.users, good.template_of.clone(), &key);
        }
        let member = match content {
            None => None,
            Some(Ok(good)) => Some(Member { good: Some(good), invalid: None }),
            Some(Err(text)) => Some(Member { good: old.and_then(|member| member.good), invalid: Some(text) }),
        };
        if let Some(member) = member {
            if let Some(good) = &member.good {
                link(&mut self.children, good.owner_key(&key), &key);
                link(&mut self.users, good.template_of.clone(), &key);
            }
            self.objects.insert(key.clone(), member);
        }
        self.touch(&key, dirty);
    }

    fn take_replicas(&mut self, change: Change<Controller, Vec<Replica>>, dirty: &mut BTreeSet<WorkloadKey>) {
        match change {
            Change::Upsert(of, Ok(replicas)) => {
                self.touch(&of.key, dirty);
                self.replicas.insert(of, replicas);
            }
            Change::Upsert(_, Err(_)) => {}
            Change::Remove(of) => {
                self.touch(&of.key, dirty);
                self.replicas.remove(&of);
                self.stray.remove(&of);
            }
        }
    }

    /// Everybody whose standing may follow from this object.
    fn touch(&self, key: &WorkloadKey, dirty: &mut BTreeSet<WorkloadKey>) {
        dirty.insert(self.top(key));
        let mut next = vec![(key.clone(), 0)];
        while let Some((key, depth)) = next.pop() {
            if depth < DEPTH {
                next.extend(self.children.get(&key).into_iter().flatten().map(|child| (child.clone(), depth + 1)));
            }
            dirty.extend(self.users.get(&key).into_iter().flatten().cloned());
            dirty.insert(key);
        }
    }

    fn is_watched(&self, kind: &WorkloadKind) -> bool {
        !matches!(kind, WorkloadKind::Other(_)) || self.kinds.contains(kind)
    }

    /// The object of this name if it is the one with this UID; one whose content was never good may be.
    fn is_there(&self, key: &WorkloadKey, uid: &str) -> bool {
        self.objects.get(key).is_some_and(|member| member.good.as_ref().is_none_or(|good| good.uid == uid))
    }

    /// The owner of an object, if it is of a watched kind; whether it is there.
    fn owner(&self, key: &WorkloadKey) -> Option<(WorkloadKey, bool)> {
        let good = self.objects.get(key)?.good.as_ref()?;
        let owner = good.owner.as_ref().filter(|owner| self.is_watched(&owner.kind))?;
        let of = good.owner_key(key)?;
        let is_there = self.is_there(&of, &owner.uid);
        Some((of, is_there))
    }

    /// The highest owner that is there.
    fn top(&self, key: &WorkloadKey) -> WorkloadKey {
        let mut top = key.clone();
        for _ in 0..DEPTH {
            match self.owner(&top) {
                Some((owner, true)) => top = owner,
                _ => break,
            }
        }
        top
    }

    /// Works out what is to be said of some objects.
    fn settle(&mut self, dirty: BTreeSet<WorkloadKey>, now: Moment) -> Changes {
        let mut changes = Vec::new();
        for key in dirty {
            let effective = self.effective(&key, now);
            let mut before = self.said.remove(&key).unwrap_or_default();
            let mut after = BTreeSet::new();
            for (key, content) in effective {
                before.remove(&key);
                after.insert(key.clone());
                changes.push(Change::Upsert(key, content));
            }
            changes.extend(before.into_iter().map(Change::Remove));
            if !after.is_empty() {
                self.said.insert(key, after);
            }
        }
        changes
    }

    /// The workloads that an object amounts to.
    fn effective(&mut self, key: &WorkloadKey, now: Moment) -> Vec<(WorkloadKey, Result<Workload, String>)> {
        let mut all = self.strays(key);
        let owner = self.owner(key);
        if matches!(owner, Some((_, false))) {
            self.missing.entry(key.clone()).or_insert(Missing::Unseen);
        } else {
            self.missing.remove(key);
        }
        let Some(member) = self.objects.get(key) else {
            self.extras.remove(key);
            return all;
        };
        let Some(good) = member.good.clone() else {
            all.extend(member.invalid.clone().map(|text| (key.clone(), Err(text))));
            return all;
        };
        let counts = !good.ended
            && match owner {
                None => true,
                Some((_, true)) => false,
                Some((_, false)) => !good.deleting && self.missing.get(key) == Some(&Missing::Gone),
            };
        let invalid = member.invalid.clone();
        if counts {
            let shown = self.shown_beyond(key, &good);
            let extras = self.extras.entry(key.clone()).or_default();
            extras.show(&good.uid, shown, now, self.linger);
            let extra = extras.by_constraint();
            if extras.is_empty() {
                self.extras.remove(key);
            }
            let template = self.template_of(&good).cloned();
            all.extend(part::parts(key, good, template, extra));
        } else {
            self.extras.remove(key);
        }
        // Last: what is wrong is said of what counted, or of the object itself.
        if let Some(text) = invalid {
            all.push((key.clone(), Err(text)));
        }
        all
    }

    /// Pods whose controller is gone count themselves.
    fn strays(&mut self, key: &WorkloadKey) -> Vec<(WorkloadKey, Result<Workload, String>)> {
        let range = Controller { key: key.clone(), uid: String::new() }..;
        let of_key = self.replicas.range(range).take_while(|(of, _)| of.key == *key);
        let (mut counting, mut stray, mut at_home) = (Vec::new(), Vec::new(), Vec::new());
        for (of, replicas) in of_key {
            if self.is_there(&of.key, &of.uid) {
                at_home.push(of.clone());
                continue;
            }
            stray.push(of.clone());
            if self.stray.get(of) == Some(&Missing::Gone) {
                let pod = |replica: &Replica| WorkloadKey {
                    kind: WorkloadKind::Pod,
                    namespace: key.namespace.clone(),
                    name: replica.pod.clone(),
                };
                let alive = replicas.iter().filter(|replica| !replica.view.deleting);
                counting.extend(alive.map(|replica| (pod(replica), Ok(replica.view.clone()))));
            }
        }
        for of in at_home {
            self.stray.remove(&of);
        }
        for of in stray {
            self.stray.entry(of).or_insert(Missing::Unseen);
        }
        counting
    }

    fn template_of(&self, workload: &Workload) -> Option<&Workload> {
        self.objects.get(workload.template_of.as_ref()?)?.good.as_ref()
    }
}

type Links = BTreeMap<WorkloadKey, BTreeSet<WorkloadKey>>;

fn link(links: &mut Links, to: Option<WorkloadKey>, from: &WorkloadKey) {
    if let Some(to) = to {
        links.entry(to).or_default().insert(from.clone());
    }
}

fn unlink(links: &mut Links, to: Option<WorkloadKey>, from: &WorkloadKey) {
    let Some(to) = to else { return };
    if let Some(linked) = links.get_mut(&to) {
        linked.remove(from);
        if linked.is_empty() {
            links.remove(&to);
        }
    }
}

#[cfg(test)]
mod tests;
