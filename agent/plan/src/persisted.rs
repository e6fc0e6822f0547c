//! What survives a restart of the agent, on a host path.
//!
//! Owns the file's form. Counts as a first read for pulling and verifying, never for releasing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::message::{Assignment, Intent};
use shared::name::{ImageKey, PoolId};

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
    /// The counter of events and inventories at the time of writing.
    #[serde(default)]
    pub n: u64,
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
