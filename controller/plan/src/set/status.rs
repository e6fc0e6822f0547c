//! The status of a set, as the API server keeps it.
//!
//! Owns its form; the custom resource's schema is made from these types. Every field is always written, so that whatever
//! somebody else writes there is overwritten.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most images that are listed, worst first.
pub const MOST_IMAGES: usize = 100;

/// Most nodes that are named for an image.
pub const MOST_NODES: usize = 5;

/// How a set is doing. Counts are of pairs of node and image, unless they say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SetStatus {
    /// The `metadata.generation` that this speaks of.
    pub observed_generation: i64,
    /// Nodes with an agent that the set is for.
    pub nodes: i64,
    /// Further nodes that it would be for, on which no agent has ever been heard. They are counted nowhere else.
    pub nodes_without_agent: i64,
    /// Images on nodes that should be warm.
    pub desired: i64,
    /// Of these: proven to be there.
    pub warm: i64,
    /// Of these: not yet, no longer, or not known.
    pub pending: i64,
    /// Of these: the last attempt failed; it is tried again.
    pub failed: i64,
    /// Of these: will not be pulled on that node, such as for lack of its platform.
    pub refused: i64,
    /// Of `pending`: nothing is known.
    pub unknown: i64,
    /// Size of the images whose size is known, each counted once.
    pub bytes: i64,
    /// How many images there are, those included that cannot be used.
    pub images_total: i64,
    /// The images, worst first, at most 100.
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub images: Vec<SetImage>,
    /// `Ready`: everything is warm. `Progressing`: something is still to come. `Degraded`: something fails, is refused, or
    /// cannot be used.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

impl SetStatus {
    /// Whether it says that everything is warm.
    pub fn is_ready(&self) -> bool {
        self.conditions.iter().any(|c| c.kind == "Ready" && c.status == ConditionStatus::True)
    }

    /// Takes from what is shown the sizes that nobody has told of again: they are told when an image is pulled, and a
    /// controller that has started since then has not heard them.
    pub(crate) fn keep_sizes(&mut self, shown: &Self) {
        for image in self.images.iter_mut().filter(|image| image.bytes == 0) {
            let was = shown.images.iter().find(|was| was.image == image.image);
            image.bytes = was.map_or(0, |was| was.bytes);
            self.bytes += image.bytes;
        }
        let lists_all = |status: &Self| usize::try_from(status.images_total).is_ok_and(|total| total <= MOST_IMAGES);
        if !lists_all(self) && self.observed_generation == shown.observed_generation {
            self.bytes = self.bytes.max(shown.bytes);
        }
    }
}

/// One image of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SetImage {
    /// The reference, as the set writes it.
    pub image: String,
    /// On how many nodes it should be.
    pub desired: i64,
    /// Where it is proven to be.
    pub warm: i64,
    /// Where it is not yet, no longer, or not known to be.
    pub pending: i64,
    /// Where the last attempt failed.
    pub failed: i64,
    /// Where it will not be pulled.
    pub refused: i64,
    /// Its size, if any runtime has told; 0 if not.
    pub bytes: i64,
    /// Why it is wanted nowhere: it cannot be used, or is left out by configuration. Empty if it is wanted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub problem: String,
    /// Why it is not warm, the most frequent first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub reasons: Vec<SetReason>,
    /// Nodes on which it is not warm, at most five, those on which it fails first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub not_warm_on: Vec<String>,
}

/// Why an image is not warm, and on how many nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SetReason {
    /// A reason, or a state that has none (`docs/reference/reasons.md`); `unknown-yet` where nothing is known.
    pub reason: String,
    /// On how many nodes.
    pub nodes: i64,
}

/// As `meta/v1 Condition`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, `Progressing` or `Degraded`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// One word of a few.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Since when `status` is what it is.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub last_transition_time: Timestamp,
    /// The `metadata.generation` that this speaks of.
    #[serde(default)]
    pub observed_generation: i64,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the words of meta/v1 ConditionStatus")]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}
