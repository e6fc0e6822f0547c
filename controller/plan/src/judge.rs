//! The evidence rule: what a report proves (`protocol.md` section 3).
//!
//! Owns what a report says of the images of a set it is about. Nodes that say the same share one [`Content`], and nodes
//! that speak of the same set share one [`IdSet`], so that a large cluster at rest costs little. Pure values; nothing
//! here forgets anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use shared::image::Digest;
use shared::message::{self, Inventory};
use shared::name::{ImageKey, PoolId};
use shared::pool_set::{PoolSummary, SetDigest};
use shared::reason::Reason;
use shared::state::ImageState;

/// What an agent last proved about an image on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageEvidence {
    /// Its state.
    pub(crate) state: ImageState,
    /// Why, where there is a reason.
    pub(crate) why: Option<Reason>,
    /// What is there, if it is not what the intent names.
    pub(crate) digest: Option<Arc<Digest>>,
}

impl ImageEvidence {
    fn warm(digest: Option<Arc<Digest>>) -> Self {
        Self { state: ImageState::Warm, why: None, digest }
    }

    /// Whether it is not warm, and why is for people to mend.
    pub(crate) fn is_failing(&self) -> bool {
        matches!(self.state, ImageState::Failed | ImageState::Refused)
    }
}

/// What a report says of one image of a set it is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// This.
    Is(ImageEvidence),
    /// That it is not warm, and not what it is instead.
    NotWarm,
    /// Nothing.
    Open,
}

impl Word {
    /// What it makes known.
    pub(crate) fn evidence(self) -> Option<ImageEvidence> {
        match self {
            Self::Is(evidence) => Some(evidence),
            Self::NotWarm => Some(ImageEvidence { state: ImageState::Pending, why: None, digest: None }),
            Self::Open => None,
        }
    }
}

/// What a report says: its lists, without names and counters of its node.
#[derive(Debug)]
pub(crate) struct Content {
    /// Tells contents apart.
    pub(crate) number: u64,
    lists: Lists,
}

#[derive(Debug, PartialEq, Eq)]
struct Lists {
    exceptions: BTreeMap<Arc<ImageKey>, ImageEvidence>,
    /// Sorted; `None` if the exceptions are listed instead.
    warm: Option<Box<[Arc<ImageKey>]>>,
    /// Sorted.
    digests: Box<[(Arc<ImageKey>, Arc<Digest>)]>,
    complete: bool,
}

impl Content {
    /// What it says of an image of a set it is about.
    pub(crate) fn of(&self, id: &ImageKey) -> Word {
        let lists = &self.lists;
        if let Some(exception) = lists.exceptions.get(id) {
            return Word::Is(exception.clone());
        }
        let is_warm = match &lists.warm {
            None => lists.complete,
            Some(warm) => warm.binary_search_by(|there| there.as_ref().cmp(id)).is_ok(),
        };
        if is_warm {
            let at = lists.digests.binary_search_by(|(there, _)| there.as_ref().cmp(id)).ok();
            let digest = at.and_then(|at| lists.digests.get(at)).map(|(_, digest)| Arc::clone(digest));
            Word::Is(ImageEvidence::warm(digest))
        } else if lists.complete {
            Word::NotWarm
        } else {
            Word::Open
        }
    }

    /// Whether it covers its sets; if not, only what is listed is proven.
    pub(crate) fn is_complete(&self) -> bool {
        self.lists.complete
    }

    /// The images it says to have failed.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &ImageKey> {
        self.lists.exceptions.iter().filter(|(_, evidence)| evidence.is_failing()).map(|(id, _)| id.as_ref())
    }

    /// The images it names.
    pub(crate) fn listed(&self) -> impl Iterator<Item = &ImageKey> {
        let warm = self.lists.warm.iter().flatten();
        self.lists.exceptions.keys().chain(warm).map(AsRef::as_ref)
    }
}

/// A set that a pool was, by name.
#[derive(Debug)]
pub(crate) struct IdSet {
    /// Tells sets apart.
    pub(crate) number: u64,
    /// Sorted, with the sequences of then.
    ids: Box<[(ImageKey, u64)]>,
}

impl IdSet {
    /// Sequence of an image in it.
    pub(crate) fn seq(&self, id: &ImageKey) -> Option<u64> {
        let at = self.ids.binary_search_by(|(there, _)| there.cmp(id)).ok()?;
        self.ids.get(at).map(|(_, seq)| *seq)
    }

    /// Its images.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &ImageKey> {
        self.ids.iter().map(|(id, _)| id)
    }
}

/// Everything that is shared, found by what it is. Holds nothing alive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared {
    next: u64,
    contents: BTreeMap<SetDigest, Vec<Weak<Content>>>,
    sets: BTreeMap<(PoolId, u64, SetDigest), Weak<IdSet>>,
    keys: BTreeMap<ImageKey, Weak<ImageKey>>,
    digests: BTreeMap<Digest, Weak<Digest>>,
    /// How many entries make it worth to look for those that nobody holds any more.
    sweep_at: usize,
}

/// Fewer entries than this are never swept.
const SWEEP_MIN: usize = 4_096;

impl Shared {
    /// What an inventory says. Two nodes share it only if every word is equal: an agent is never trusted about another.
    pub(crate) fn content(&mut self, inventory: &Inventory, digest: SetDigest) -> Arc<Content> {
        let lists = self.lists(inventory);
        let same = self.contents.get(&digest).into_iter().flatten().filter_map(Weak::upgrade);
        if let Some(content) = same.into_iter().find(|c| c.lists == lists) {
            return content;
        }
        let content = Arc::new(Content { number: self.number(), lists });
        let entry = self.contents.entry(digest).or_default();
        entry.retain(|weak| weak.strong_count() > 0);
        entry.push(Arc::downgrade(&content));
        content
    }

    fn lists(&mut self, inventory: &Inventory) -> Lists {
        let mut exceptions = BTreeMap::new();
        let mut warm = None;
        match &inventory.content {
            message::Content::Except(list) => {
                for e in list {
                    let digest = e.digest.as_ref().map(|d| self.digest(d));
                    exceptions.insert(self.key(&e.id), ImageEvidence { state: e.st, why: e.why, digest });
                }
            }
            message::Content::WarmIds(list) => {
                let mut keys: Vec<Arc<ImageKey>> = list.iter().map(|id| self.key(id)).collect();
                keys.sort();
                warm = Some(keys.into());
            }
        }
        for e in &inventory.not_warm {
            let digest = e.digest.as_ref().map(|d| self.digest(d));
            exceptions.insert(self.key(&e.id), ImageEvidence { state: e.st, why: e.why, digest });
        }
        let digests = inventory.digests.iter().map(|(id, d)| (self.key(id), self.digest(d))).collect();
        Lists { exceptions, warm, digests, complete: inventory.complete }
    }

    /// A set by name; `look_up` finds it the first time.
    pub(crate) fn set(
        &mut self,
        pool: &PoolId,
        summary: &PoolSummary,
        look_up: impl FnOnce() -> Option<Vec<(ImageKey, u64)>>,
    ) -> Option<Arc<IdSet>> {
        let name = (pool.clone(), summary.count, summary.digest);
        if let Some(set) = self.sets.get(&name).and_then(Weak::upgrade) {
            return Some(set);
        }
        let set = Arc::new(IdSet { ids: look_up()?.into(), number: self.number() });
        self.sets.insert(name, Arc::downgrade(&set));
        Some(set)
    }

    /// The numbers of all sets that are held and have an image.
    pub(crate) fn sets_with(&self, id: &ImageKey) -> BTreeSet<u64> {
        let held = self.sets.values().filter_map(Weak::upgrade);
        held.filter(|set| set.seq(id).is_some()).map(|set| set.number).collect()
    }

    /// The stream is another: its sequences mean something else.
    pub(crate) fn forget_sets(&mut self) {
        self.sets.clear();
    }

    /// One copy of a digest.
    pub(crate) fn digest(&mut self, digest: &Digest) -> Arc<Digest> {
        if let Some(there) = self.digests.get(digest).and_then(Weak::upgrade) {
            return there;
        }
        let new = Arc::new(digest.clone());
        self.digests.insert(digest.clone(), Arc::downgrade(&new));
        new
    }

    fn key(&mut self, id: &ImageKey) -> Arc<ImageKey> {
        if let Some(there) = self.keys.get(id).and_then(Weak::upgrade) {
            return there;
        }
        let new = Arc::new(id.clone());
        self.keys.insert(id.clone(), Arc::downgrade(&new));
        new
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Forgets what nobody holds any more, once in a while.
    pub(crate) fn tidy(&mut self) {
        let len = |s: &Self| s.contents.len() + s.sets.len() + s.keys.len() + s.digests.len();
        if len(self) < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        self.contents.retain(|_, list| {
            list.retain(|weak| weak.strong_count() > 0);
            !list.is_empty()
        });
        self.sets.retain(|_, weak| weak.strong_count() > 0);
        self.keys.retain(|_, weak| weak.strong_count() > 0);
        self.digests.retain(|_, weak| weak.strong_count() > 0);
        self.sweep_at = len(self) * 2;
    }
}
