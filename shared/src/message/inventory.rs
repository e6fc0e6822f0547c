//! The inventory: an agent's full report, key `<n>.inv` of the nodes bucket.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::Message;
use crate::image::Digest;
use crate::name::{ImageKey, NodeName, PoolId};
use crate::pool_set::{PoolSummary, SetDigest};
use crate::reason::Reason;
use crate::state::ImageState;

/// Time to live of a stored inventory.
pub const INVENTORY_TTL: std::time::Duration = std::time::Duration::from_hours(48);

/// What a node holds of what is wanted there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// The node.
    pub node: NodeName,
    /// UID of the Node object, echoed from the assignment; empty before the first.
    pub uid: String,
    /// The boot of the machine.
    pub boot: String,
    /// The agent's version.
    pub agent: String,
    /// The run of the agent.
    pub inst: String,
    /// The agent's counter, shared with its events: the higher is the newer.
    pub n: u64,
    /// The epoch its pools are of.
    pub epoch: String,
    /// The exact set of each pool this report is about.
    pub pools: BTreeMap<PoolId, PoolSummary>,
    /// What is not warm, or what is: the shorter.
    #[serde(flatten)]
    pub content: Content,
    /// Whether every intent of the pools is covered; if not, only what is listed is proven.
    pub complete: bool,
    /// Beside [`Content::WarmIds`] of a report that had no room for everything: what is not warm, as far as that fits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_warm: Vec<Exception>,
    /// How many images there was no room for. Nothing is said of those. For people.
    #[serde(default, skip_serializing_if = "is_none")]
    pub left_out: u64,
    /// Digest of each warm image where the intent has none or another.
    #[serde(default)]
    pub digests: BTreeMap<ImageKey, Digest>,
    /// The image file system.
    #[serde(default)]
    pub disk: Disk,
    /// The container runtime.
    #[serde(default)]
    pub runtime: Runtime,
    /// For people.
    pub ts: jiff::Timestamp,
}

/// The shorter of two lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Content {
    /// Every intent is warm except these.
    Except(Vec<Exception>),
    /// Only these are warm.
    WarmIds(Vec<ImageKey>),
}

/// An image that is not warm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    /// The image's key.
    pub id: ImageKey,
    /// Its state.
    pub st: ImageState,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Reason>,
    /// Since when, for people.
    pub since: jiff::Timestamp,
    /// The digest that is there, if it is not the resolved one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Size, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Attempts so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries: Option<u32>,
    /// When the next is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<jiff::Timestamp>,
}

/// Bytes of the image file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Used.
    pub used: u64,
    /// Free to an ordinary process.
    pub free: u64,
    /// No pull starts above this many bytes used.
    pub mark: u64,
}

/// The container runtime as it names itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    /// `containerd`, `cri-o`.
    pub name: String,
    /// Its version.
    pub version: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls gets a reference")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

impl Message for Inventory {
    const KIND: &'static str = "inventory";
}

impl Inventory {
    /// Digest over what is evidence: content, its completeness, `notWarm` and `digests`, without times and counters, so
    /// that moving heads and retries cost no put. A heartbeat that repeats it advances this inventory's pools.
    pub fn evidence_digest(&self) -> SetDigest {
        evidence_digest(&self.content, &self.not_warm, self.complete, &self.digests)
    }
}

/// See [`Inventory::evidence_digest`].
pub fn evidence_digest(
    content: &Content,
    not_warm: &[Exception],
    complete: bool,
    digests: &BTreeMap<ImageKey, Digest>,
) -> SetDigest {
    let mut text = String::from(if complete { "complete\n" } else { "partial\n" });
    match content {
        Content::Except(exceptions) => text.extend(lines(exceptions)),
        Content::WarmIds(ids) => {
            let mut lines: Vec<String> = ids.iter().map(|id| format!("w {id}\n")).collect();
            lines.sort();
            text.extend(lines);
        }
    }
    text.extend(lines(not_warm));
    text.extend(digests.iter().map(|(id, digest)| format!("d {id} {digest}\n")));
    SetDigest(xxh3_64(text.as_bytes()))
}

fn lines(exceptions: &[Exception]) -> Vec<String> {
    let line = |e: &Exception| {
        let digest = e.digest.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("x {} {} {} {digest}\n", e.id, e.st, e.why.map(Reason::as_str).unwrap_or_default())
    };
    let mut lines: Vec<String> = exceptions.iter().map(line).collect();
    lines.sort();
    lines
}
