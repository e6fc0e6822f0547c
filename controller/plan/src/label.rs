//! Which labels of ours a Node is to have.
//!
//! Owns what evidence allows: a label appears on proof, goes on proof of absence or when nobody wants the image, and
//! stays where nothing is known. Never knows when a patch may be sent: that is [`crate::pace`]'s.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use shared::image::Digest;
use shared::label;
use shared::name::ImageKey;
use shared::state::ImageState;

use crate::judge::Images;
use crate::settings::{LabelMode, LabelSettings};

/// The labels of a Node, or those of them that are ours.
pub(crate) type Labels = BTreeMap<String, String>;

/// The images wanted on a node: highest priority, and the digest that the intent names.
pub(crate) type Wanted<'a> = BTreeMap<&'a ImageKey, (u8, Option<&'a Digest>)>;

/// All labels of ours that a Node showing `shown` is to have.
pub(crate) fn decide(shown: &Labels, wanted: &Wanted<'_>, images: Option<&Images>, settings: &LabelSettings) -> Labels {
    if settings.mode == LabelMode::None {
        return Labels::new();
    }
    let mut decided = Labels::new();
    let mut candidates: Vec<(Reverse<u8>, bool, &ImageKey, String)> = Vec::new();
    for (id, (priority, digest)) in wanted {
        let there = shown.get(&label::image_label(id));
        let value = match images.and_then(|i| i.get(*id)) {
            Some(evidence) if evidence.state == ImageState::Warm => {
                let proven = evidence.digest.as_ref().or(*digest).map(label::image_label_value);
                proven.or_else(|| there.cloned())
            }
            Some(_) => None,
            None => there.cloned(),
        };
        if let Some(value) = value {
            candidates.push((Reverse(*priority), there.is_none(), id, value));
        }
    }
    // At equal priority those that are there stay, so that nothing flaps at the edge of the budget.
    candidates.sort();
    let kept = candidates.into_iter().take(settings.max_per_node);
    decided.extend(kept.map(|(_, _, id, value)| (label::image_label(id), value)));
    // Labels of sets are not this module's to judge.
    let of_sets = shown.iter().filter(|(key, _)| !key.starts_with(label::IMAGE_PREFIX));
    decided.extend(of_sets.map(|(key, value)| (key.clone(), value.clone())));
    decided
}
