//! A node: its runtime, its disk, its images, and the registry they come from.
//!
//! Owns the truth about what is where. Never asks a machine.

use std::collections::{BTreeMap, BTreeSet};

use node_plan::fact::{Observation, PullFailure, PulledImage, Removal, RuntimeImage, Space};
use node_plan::gc::is_used;
use node_plan::{Fact, NodeState, Persisted};
use shared::image::{Digest, Reference};
use shared::name::{ImageKey, NodeName, PoolId};
use shared::reason::Reason;

use super::dice::About;
use super::process::{Process, Who};
use super::queue::{Deed, MS, Us};
use super::sabotage::Sabotage;
use super::schedule::Answer;
use super::universe::Universe;

/// One image that a runtime holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) digest: Digest,
    /// A container uses it.
    pub(super) is_used: bool,
    pub(super) is_pinned: bool,
    /// The agent has pulled it.
    pub(super) is_ours: bool,
    pub(super) names: Names,
}

/// By what it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Its tag and its digest, or the digest alone.
    All,
    /// Its tag: a pull was cut off before the digest was written.
    Tag,
}

/// One machine.
pub(super) struct Host {
    pub(super) node: NodeName,
    pub(super) is_joined: bool,
    pub(super) agent: Option<Process<NodeState>>,
    pub(super) incarnations: u64,
    pub(super) boots: u64,
    /// Each fresh disk makes it another machine.
    pub(super) file: Option<Box<Persisted>>,
    pub(super) older: Option<Box<Persisted>>,
    /// Notes of pulls beside the file, by the number of the pull.
    pub(super) begun: BTreeMap<String, u64>,
    pub(super) images: BTreeMap<String, Held>,
    /// Ours that the kubelet evicted, and when, of which no list has told the agent: should somebody else pull one again
    /// meanwhile, nobody can tell.
    pub(super) unseen: BTreeMap<String, Us>,
    pub(super) runtime_down: u32,
    /// Nothing can be written any more.
    pub(super) is_full: bool,
    /// What others have written.
    pub(super) others: u64,
    /// Pulls in flight of the agent that runs now, by number.
    pub(super) pulls: BTreeMap<ImageKey, u64>,
    pub(super) pull_count: u64,
    /// Pools subscribed to.
    pub(super) standing: BTreeSet<PoolId>,
    pub(super) skew: i64,
    /// What sabotage has told it.
    pub(super) whispered: Vec<shared::message::Beat>,
}

impl Host {
    pub(super) fn new(number: usize) -> Option<Self> {
        Some(Self {
            node: NodeName::parse(&format!("node-{number}")).ok()?,
            is_joined: false,
            agent: None,
            incarnations: 0,
            boots: 0,
            file: None,
            older: None,
            begun: BTreeMap::new(),
            images: BTreeMap::new(),
            unseen: BTreeMap::new(),
            runtime_down: 0,
            is_full: false,
            others: 0,
            pulls: BTreeMap::new(),
            pull_count: 0,
            standing: BTreeSet::new(),
            skew: 0,
            whispered: Vec::new(),
        })
    }

    /// Another machine of the same name.
    pub(super) fn renew(&mut self) {
        (self.file, self.older) = (None, None);
        self.begun.clear();
        self.images.clear();
        (self.is_full, self.others) = (false, 0);
        self.boots += 1;
    }

    fn listing(&self) -> Vec<RuntimeImage> {
        self.images.iter().filter_map(|(image, held)| runtime_image(image, held)).collect()
    }

    /// The image file system: room for some more images than there are, if nobody else takes it.
    fn space(&self) -> Space {
        let used = (self.images.len() as u64 * IMAGE + self.others).min(DISK);
        Space { used, free: DISK - used }
    }
}

/// What an image takes.
const IMAGE: u64 = 1_000_000;
/// What fits on the disk of a node.
pub(super) const DISK: u64 = 20 * IMAGE;

/// An image as the runtime shows it.
fn runtime_image(canonical: &str, held: &Held) -> Option<RuntimeImage> {
    let digest = &held.digest;
    let reference = Reference::parse(canonical).ok()?;
    let named = (held.names == Names::All).then(|| format!("{}@{digest}", reference.repository()));
    Some(RuntimeImage {
        runtime_id: digest.to_string(),
        repo_tags: reference.tag().map(|_| canonical.to_owned()).into_iter().collect(),
        repo_digests: named.into_iter().collect(),
        bytes: IMAGE,
        pinned: held.is_pinned,
    })
}

/// The registry.
#[derive(Default)]
pub(super) struct Registry {
    answers: BTreeMap<usize, Answer>,
    moved: BTreeMap<usize, u8>,
}

/// Every fourth image is named by its digest.
fn is_by_digest(image: usize) -> bool {
    image % 4 == 3
}

fn digest(image: usize, version: u8) -> Option<Digest> {
    Digest::parse(&format!("sha256:{}", format!("{:02x}{version:02x}", image & 0xff).repeat(16))).ok()
}

/// The reference of an image as workloads name it; it is canonical.
pub(super) fn reference(image: usize) -> String {
    match digest(image, 0) {
        Some(digest) if is_by_digest(image) => format!("registry.example/app/i{image}@{digest}"),
        _ => format!("registry.example/app/i{image}:1"),
    }
}

/// The inverse of [`reference()`].
pub(super) fn number(reference: &str) -> Option<usize> {
    let rest = reference.strip_prefix("registry.example/app/i")?;
    rest.split([':', '@']).next()?.parse().ok()
}

impl Registry {
    pub(super) fn set(&mut self, image: usize, answer: Answer) {
        self.answers.insert(image, answer);
    }

    pub(super) fn answer(&self, image: usize) -> Answer {
        self.answers.get(&image).copied().unwrap_or(Answer::Good)
    }

    /// The registry is well again; what is missing stays so.
    pub(super) fn heal(&mut self) {
        self.answers.retain(|_, answer| *answer == Answer::Missing);
    }

    pub(super) fn move_tag(&mut self, image: usize) {
        if !is_by_digest(image) {
            let version = self.moved.entry(image).or_default();
            *version = version.wrapping_add(1);
        }
    }

    fn digest(&self, image: usize) -> Option<Digest> {
        digest(image, self.moved.get(&image).copied().unwrap_or(0))
    }
}

impl Universe {
    pub(super) fn host(&mut self, node: usize) -> Option<&mut Host> {
        self.hosts.get_mut(node)
    }

    fn runtime_wait(&mut self, node: usize, from: Us, to: Us) -> Us {
        self.dice.about(About::Runtime(node)).u64(from..to)
    }

    /// Lets something reach the agent of a node, if it is still the same one.
    fn later_at_agent(&mut self, node: usize, incarnation: u64, wait: Us, deed: impl FnOnce(&mut Self) + 'static) {
        let who = Who::Agent(node);
        let deed: Deed = Box::new(move |u| {
            if u.incarnation(who) == Some(incarnation) {
                deed(u);
            }
        });
        self.after(wait, move |u| u.reach(who, deed));
    }

    pub(super) fn list_images(&mut self, node: usize, incarnation: u64) {
        let (ask, answer) = (self.runtime_wait(node, MS, 10 * MS), self.runtime_wait(node, MS, 10 * MS));
        let asked = self.now;
        self.after(ask, move |u| {
            let Some(host) = u.host(node) else { return };
            let images = if host.runtime_down > 0 { Err(Reason::RuntimeUnavailable) } else { Ok(host.listing()) };
            let looked = u.now;
            u.later_at_agent(node, incarnation, answer, move |u| {
                u.checks.told_list(node, asked, images.as_deref().ok());
                if let Some(host) = u.host(node).filter(|_| images.is_ok()) {
                    host.unseen.retain(|_, evicted| *evicted > looked);
                }
                u.tell_agent(node, incarnation, Fact::Images(images));
            });
        });
    }

    pub(super) fn observe(&mut self, node: usize, incarnation: u64) {
        let wait = self.runtime_wait(node, MS, 20 * MS);
        self.later_at_agent(node, incarnation, wait, move |u| {
            let Some(host) = u.host(node) else { return };
            if host.runtime_down > 0 {
                return u.tell_agent(node, incarnation, Fact::Observed(Err(Reason::RuntimeUnavailable)));
            }
            let runtime = shared::message::Runtime { name: "simulated".to_owned(), version: "1".to_owned() };
            let observation = Observation { space: Some(host.space()), runtime };
            u.tell_agent(node, incarnation, Fact::Observed(Ok(observation)));
        });
    }

    /// The names of what containers use.
    fn names_in_use(&self, node: usize) -> BTreeSet<String> {
        if self.sabotage == Some(Sabotage::RemoveUsed) {
            return BTreeSet::new();
        }
        let images = self.hosts.get(node).into_iter().flat_map(|host| &host.images);
        images.filter(|(_, held)| held.is_used).map(|(image, _)| image.clone()).collect()
    }

    pub(super) fn list_containers(&mut self, node: usize, incarnation: u64) {
        let (ask, answer) = (self.runtime_wait(node, MS, 10 * MS), self.runtime_wait(node, MS, 10 * MS));
        self.after(ask, move |u| {
            let is_down = u.host(node).is_none_or(|host| host.runtime_down > 0);
            let used = if is_down { Err(Reason::RuntimeUnavailable) } else { Ok(u.names_in_use(node)) };
            u.later_at_agent(node, incarnation, answer, move |u| u.tell_agent(node, incarnation, Fact::InUse(used)));
        });
    }

    /// Looks once more and removes, as the agent's executor does.
    pub(super) fn remove(
        &mut self,
        node: usize,
        incarnation: u64,
        image: String,
        decided: Box<RuntimeImage>,
        is_dry_run: bool,
    ) {
        let (ask, answer) = (self.runtime_wait(node, MS, 20 * MS), self.runtime_wait(node, MS, 10 * MS));
        self.later_at_agent(node, incarnation, ask, move |u| {
            let result = u.try_to_remove(node, &image, &decided, is_dry_run);
            u.later_at_agent(node, incarnation, answer, move |u| {
                u.tell_agent(node, incarnation, Fact::Removed { image, result });
            });
        });
    }

    fn try_to_remove(
        &mut self,
        node: usize,
        image: &str,
        decided: &RuntimeImage,
        is_dry_run: bool,
    ) -> Result<Removal, Reason> {
        let used = self.names_in_use(node);
        let host = self.host(node).filter(|host| host.runtime_down == 0).ok_or(Reason::RuntimeUnavailable)?;
        let Some(held) = host.images.get(image).cloned() else { return Ok(Removal::Removed) };
        let now = runtime_image(image, &held).ok_or(Reason::Unknown)?;
        if held.is_pinned || now != *decided {
            return Ok(Removal::Changed);
        }
        if is_used(&now, &used) {
            return Ok(Removal::Used);
        }
        if is_dry_run {
            return Ok(Removal::Planned);
        }
        host.images.remove(image);
        self.check_removal(node, image, &held);
        Ok(Removal::Removed)
    }

    /// Somebody else pulls an image.
    pub(super) fn preload(&mut self, node: usize, image: usize, is_pinned: bool) {
        let digest = self.registry.digest(image);
        let (Some(digest), Some(host)) = (digest, self.host(node)) else { return };
        let image = reference(image);
        let held =
            Held { digest, is_used: false, is_pinned, is_ours: host.unseen.contains_key(&image), names: Names::All };
        host.images.entry(image).or_insert(held);
    }

    /// A pull begins. It ends in the runtime whether or not anybody waits for it.
    pub(super) fn pull(
        &mut self,
        node: usize,
        incarnation: u64,
        id: ImageKey,
        image: String,
        (deadline, is_refresh): (Us, bool),
    ) {
        let Some(host) = self.host(node) else { return };
        host.pull_count += 1;
        let number = host.pull_count;
        host.pulls.insert(id.clone(), number);
        host.begun.insert(image.clone(), number);
        let took = self.runtime_wait(node, 20 * MS, 400 * MS);
        let began = self.now;
        let wait = match super::node::number(&image).map(|n| self.registry.answer(n)) {
            Some(Answer::Stalling) => deadline,
            Some(Answer::Good) => took,
            _ => took / 4,
        };
        self.after(wait.min(deadline), move |u| {
            let result = u.conclude(node, incarnation, &image, is_refresh);
            let took = std::time::Duration::from_micros(u.now - began);
            let result = match result {
                Ok((image, before)) => Ok(PulledImage { image, before, took }),
                Err(reason) => Err(PullFailure { reason, retry_after: None, took }),
            };
            u.end_pull(node, incarnation, number, id, result);
        });
    }

    /// What is held then, and the id of what was held under the reference right before.
    fn conclude(
        &mut self,
        node: usize,
        incarnation: u64,
        image: &str,
        is_refresh: bool,
    ) -> Result<(RuntimeImage, Option<String>), Reason> {
        let is_gone = self.incarnation(Who::Agent(node)) != Some(incarnation);
        let is_cut_off = is_gone && self.dice.about(About::Runtime(node)).u8(0..3) == 0;
        let number = number(image).ok_or(Reason::NotFound)?;
        let (answer, digest) = (self.registry.answer(number), self.registry.digest(number));
        let host = self.host(node).filter(|host| host.runtime_down == 0).ok_or(Reason::RuntimeUnavailable)?;
        // The runtime ends a pull whose caller is gone where it is. If no note is left nobody can tell.
        let is_cut_off = is_cut_off && !is_by_digest(number) && host.begun.contains_key(image);
        match answer {
            Answer::Good if host.is_full => Err(Reason::NoSpace),
            Answer::Good => {
                let digest = digest.ok_or(Reason::Unknown)?;
                let before = host.images.get(image);
                // What somebody else had pulled is not ours for being asked for once more, nor is what we follow their tag to.
                let is_new = |held: &Held| held.digest != digest && !is_refresh;
                let is_ours = before.is_none_or(|held| held.is_ours || is_new(held));
                let id = before.map(|held| held.digest.to_string());
                let was_whole = before.is_some_and(|held| held.names == Names::All);
                let held = Held {
                    digest,
                    is_used: before.is_some_and(|held| held.is_used),
                    is_pinned: before.is_some_and(|held| held.is_pinned),
                    is_ours,
                    names: if is_cut_off && !was_whole { Names::Tag } else { Names::All },
                };
                host.images.insert(image.to_owned(), held.clone());
                Ok((runtime_image(image, &held).ok_or(Reason::Unknown)?, id))
            }
            Answer::Missing => Err(Reason::NotFound),
            Answer::Throttled => Err(Reason::Throttled),
            Answer::Failing => Err(Reason::RegistryUnavailable),
            Answer::Stalling => Err(Reason::DeadlineExceeded),
        }
    }

    fn end_pull(
        &mut self,
        node: usize,
        incarnation: u64,
        number: u64,
        id: ImageKey,
        result: Result<PulledImage, PullFailure>,
    ) {
        let wait = self.runtime_wait(node, 50, 2 * MS);
        self.later_at_agent(node, incarnation, wait, move |u| {
            let Some(host) = u.host(node).filter(|host| host.pulls.get(&id) == Some(&number)) else { return };
            host.pulls.remove(&id);
            u.checks.told_pull(node, u.now, result.as_ref().ok().map(|pulled| &pulled.image));
            u.tell_agent(node, incarnation, Fact::Pulled { id, result });
        });
    }

    /// The call is dropped; what the runtime makes of it is its own business.
    pub(super) fn cancel_pull(&mut self, node: usize, incarnation: u64, id: &ImageKey) {
        let failure = PullFailure {
            reason: Reason::DeadlineExceeded,
            retry_after: None,
            took: std::time::Duration::from_millis(1),
        };
        if let Some(number) = self.host(node).and_then(|host| host.pulls.get(id).copied()) {
            self.end_pull(node, incarnation, number, id.clone(), Err(failure));
        }
    }

    pub(super) fn persist(&mut self, node: usize, incarnation: u64, persisted: Box<Persisted>) {
        let wait = self.dice.about(About::Disk(node)).u64(MS..8 * MS);
        let covered = self.host(node).map(|host| host.begun.clone()).unwrap_or_default();
        self.later_at_agent(node, incarnation, wait, move |u| {
            let Some(host) = u.host(node) else { return };
            let result = if host.is_full {
                Err(Reason::Storage)
            } else {
                host.older = host.file.replace(persisted);
                host.begun.retain(|image, number| covered.get(image) != Some(number));
                Ok(())
            };
            u.tell_agent(node, incarnation, Fact::Persisted(result));
        });
    }
}
