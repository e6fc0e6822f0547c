//! What is wanted where, said naively.
//!
//! Owns the truth that plans are compared with. Shares no code with the planner.

use std::collections::BTreeSet;

use shared::image::Reference;
use shared::label;
use shared::name::ImageKey;

use super::node::reference;
use super::schedule::Place;
use super::universe::Universe;

/// The key of an image.
pub(super) fn key(image: usize) -> Option<ImageKey> {
    Reference::parse(&reference(image)).ok().map(|reference| reference.key())
}

impl Universe {
    /// The images wanted on a node, as the API server has it.
    pub(super) fn wanted(&self, node: usize) -> BTreeSet<usize> {
        let Some(object) = self.api.nodes.get(&node).filter(|_| !self.api.opted_out) else { return BTreeSet::new() };
        let lands = |place: Place| match place {
            Place::Anywhere => !object.kind.tainted,
            Place::Ssd => object.kind.ssd && !object.kind.tainted,
            Place::Tolerant => true,
            Place::Node(there) => there == node,
        };
        let wishes = self.api.wishes.values().filter(|wish| lands(wish.place));
        wishes.flat_map(|wish| wish.images.iter().copied()).collect()
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
        wanted
            .filter_map(|image| {
                let held = host.images.get(&reference(image))?;
                Some((label::image_label(&key(image)?), label::image_label_value(&held.digest)))
            })
            .collect()
    }
}
