//! What survives a restart of the agent, on a host path.
//!
//! Owns the file's form. Counts as a first read for pulling and verifying, never for releasing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::image::Digest;
use shared::message::{Assignment, Intent};
use shared::name::{ImageKey, PoolId};
use shared::reason::Reason;
use shared::state::ImageState;

use crate::age::millis;

/// The version of the file's form; another one is ignored, as if there were no file.
pub const VERSION: u32 = 1;

/// The file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Persisted {
    /// [`VERSION`].
    pub v: u32,
    /// The epoch of assignment and pools.
    #[serde(default)]
    pub epoch: Option<String>,
    /// The highest term seen in that epoch.
    #[serde(default)]
    pub term: u64,
    /// The last assignment.
    #[serde(default)]
    pub assignment: Option<Assignment>,
    /// Each pool's head and intents.
    #[serde(default)]
    pub pools: BTreeMap<PoolId, PersistedPool>,
    /// Images this agent pulled, by canonical reference: the only ones it may ever remove.
    #[serde(default)]
    pub ledger: BTreeMap<String, LedgerEntry>,
    /// Wanted images that something stands in the way of, or that were evicted lately.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub setbacks: BTreeMap<ImageKey, Setback>,
    /// Wanted images that are pulled again from time to time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refreshed: BTreeMap<ImageKey, Refreshed>,
    /// The counter of events and inventories at the time of writing.
    #[serde(default)]
    pub n: u64,
    /// When it was written, by this machine's clock: what has passed since is taken off what is to be waited for. A clock
    /// that was set back makes a wait start anew, one that was set forward ends it; neither changes a count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<jiff::Timestamp>,
}

impl Persisted {
    /// Attempts at these canonical references began after it was written.
    pub fn begin(&mut self, images: impl IntoIterator<Item = String>) {
        for image in images {
            let setback = self.setbacks.entry(ImageKey::of(&image));
            setback.or_insert_with(|| Setback::begun(image)).begun = true;
        }
    }
}

/// What went wrong with a wanted image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setback {
    /// What was tried: the canonical reference,
    pub image: String,
    /// the digest wanted,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// and the names of the secrets. If another is wanted by now, an attempt at this says nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Attempts that failed in a row.
    pub tries: u32,
    /// An attempt began of which no success is known: what the runtime holds under that name may be unfinished.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
    /// How the last one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastAttempt>,
    /// Evictions, each within an hour of the one before.
    #[serde(default)]
    pub evictions: u32,
    /// How long ago the last one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evicted_ms: Option<u64>,
    /// For how long no attempt starts because of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
}

/// When an image is pulled again, since its tag may have moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refreshed {
    /// The period that the next one was planned for; 0 if none is planned.
    #[serde(default)]
    pub every_ms: u64,
    /// How long ago its last pull was, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ago_ms: Option<u64>,
    /// Refreshes that failed in a row.
    #[serde(default)]
    pub tries: u32,
    /// For how long the next one does not start.
    #[serde(default)]
    pub wait_ms: u64,
}

impl Refreshed {
    /// The same after `passed` without this agent.
    pub(crate) fn later(mut self, passed: Duration) -> Self {
        let passed = millis(passed);
        self.ago_ms = self.ago_ms.map(|ms| ms.saturating_add(passed));
        self.wait_ms = self.wait_ms.saturating_sub(passed);
        self
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastAttempt {
    /// `failed` or `refused`.
    pub st: ImageState,
    /// Why.
    pub why: Reason,
    /// Since when the image is in that state. For people.
    pub since: jiff::Timestamp,
    /// For how long the next one does not start.
    pub wait_ms: u64,
}

impl Setback {
    /// An attempt began, and that is all that is known.
    pub(crate) fn begun(image: String) -> Self {
        Self {
            image,
            digest: None,
            secrets: Vec::new(),
            tries: 0,
            begun: true,
            last: None,
            evictions: 0,
            evicted_ms: None,
            hold_ms: None,
        }
    }

    /// The same after `passed` without this agent.
    pub(crate) fn later(mut self, passed: Duration) -> Self {
        let passed = millis(passed);
        if let Some(last) = &mut self.last {
            last.wait_ms = last.wait_ms.saturating_sub(passed);
        }
        self.hold_ms = self.hold_ms.map(|ms| ms.saturating_sub(passed));
        self.evicted_ms = self.evicted_ms.map(|ms| ms.saturating_add(passed));
        self
    }
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PersistedPool {
    /// Last sequence taken in.
    pub head: u64,
    /// Live intents with their sequences; `None` where the stored value could not be decoded.
    pub intents: BTreeMap<ImageKey, PersistedIntent>,
    /// Kept though the last full read did not show them, or of an older epoch while `head` is 0: not withdrawn, not
    /// part of the pool's set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub retained: BTreeMap<ImageKey, Intent>,
}

/// One intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PersistedIntent {
    /// Its sequence.
    pub seq: u64,
    /// Its last good content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
}

/// An image this agent pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    /// The runtime's id of the image at the time.
    pub runtime_id: String,
    /// When.
    pub pulled: jiff::Timestamp,
    /// Size as the runtime reported it.
    pub bytes: u64,
    /// For how long nobody had wanted it at the time of writing; none while somebody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwanted_ms: Option<u64>,
}
