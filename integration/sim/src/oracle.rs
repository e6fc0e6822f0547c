//! What is wanted where, said naively.
//!
//! Owns the truth that plans are compared with. Shares no code with the planner.

use std::collections::BTreeSet;

use shared::image::Reference;
use shared::label;
use shared::name::ImageKey;

use super::api::{NodeObject, Wish};
use super::node::reference;
use super::schedule::Place;
use super::universe::Universe;

/// The key of an image.
pub(super) fn key(image: usize) -> Option<ImageKey> {
    Reference::parse(&reference(image)).ok().map(|reference| reference.key())
}

/// Whether pods of such a place may land on a node.
pub(super) fn lands(place: Place, node: usize, object: &NodeObject) -> bool {
    match place {
        Place::Anywhere => !object.kind.tainted,
        Place::Ssd => object.kind.ssd && !object.kind.tainted,
        Place::Tolerant => true,
        Place::Node(there) => there == node,
    }
}

impl Universe {
    /// The images wanted on a node, as the API server has it.
    pub(super) fn wanted(&self, node: usize) -> BTreeSet<usize> {
        let Some(object) = self.api.nodes.get(&node) else { return BTreeSet::new() };
        let sets = self.api.sets.values().map(|set| &set.wish);
        let wishes = self.workload_wishes().chain(sets).filter(|wish| lands(wish.place, node, object));
        wishes.flat_map(|wish| wish.images.iter().copied()).collect()
    }

    /// Those of them that are to be pulled: what only suspended sets want is kept, and not pulled.
    pub(super) fn to_be_pulled(&self, node: usize) -> BTreeSet<usize> {
        let Some(object) = self.api.nodes.get(&node) else { return BTreeSet::new() };
        let sets = self.api.sets.values().filter(|set| !set.is_suspended).map(|set| &set.wish);
        let wishes = self.workload_wishes().chain(sets).filter(|wish| lands(wish.place, node, object));
        wishes.flat_map(|wish| wish.images.iter().copied()).collect()
    }

    /// The images wanted by anybody anywhere.
    pub(super) fn wanted_by_anybody(&self) -> BTreeSet<usize> {
        let sets = self.api.sets.values().map(|set| &set.wish);
        self.workload_wishes().chain(sets).flat_map(|wish| wish.images.iter().copied()).collect()
    }

    /// What workloads want. Sets are named by hand: their namespace has no say.
    fn workload_wishes(&self) -> impl Iterator<Item = &Wish> {
        self.api.wishes.values().filter(|_| !self.api.opted_out)
    }

    /// Notes since when what is wanted where.
    pub(super) fn wants_changed(&mut self) {
        let now = self.now;
        let wanted: BTreeSet<(usize, usize)> = (0..self.hosts.len())
            .flat_map(|node| self.wanted(node).into_iter().map(move |image| (node, image)))
            .collect();
        let since = &mut self.api.wanted_since;
        since.retain(|pair, _| wanted.contains(pair));
        for pair in wanted {
            since.entry(pair).or_insert(now);
        }
    }

    /// The labels of ours that a node should have: what is wanted and there.
    pub(super) fn labels_due(&self, node: usize) -> Vec<(String, String)> {
        let Some(host) = self.hosts.get(node) else { return Vec::new() };
        let wanted = self.wanted(node).into_iter();
        let sets = self.set_labels_due(node);
        wanted
            .filter_map(|image| {
                let held = host.images.get(&reference(image))?;
                Some((label::image_label(&key(image)?), label::image_label_value(&held.digest)))
            })
            .chain(sets)
            .collect()
    }
}
