//! The intent: "nodes of this pool should hold this image".

use serde::{Deserialize, Serialize};

use super::Message;
use crate::image::Digest;
use crate::name::ImageKey;
use crate::wave::Wave;

/// How many owners an intent names; `owners_total` counts the rest.
pub const MAX_OWNERS: usize = 16;

/// How many pull secrets an intent names: the first by name, so that many namespaces do not make it larger than a message
/// may be.
pub const MAX_SECRETS: usize = 128;

/// One key `<pool>.i.<id>` of the intents bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// The key's last token.
    pub id: ImageKey,
    /// Canonical pull reference: exactly what the pod will ask for, normalised.
    pub image: String,
    /// Whether the pod's text names no registry host; a runtime with short-name rules may resolve it elsewhere.
    #[serde(default)]
    pub unqualified: bool,
    /// What the reference resolves to, when it says so itself or the controller has resolved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// 0-100, higher first.
    #[serde(default = "default_priority")]
    pub priority: u8,
    /// Compressed size, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How much of the pool may pull now.
    #[serde(default)]
    pub wave: Wave,
    /// Up to [`MAX_SECRETS`] pull secrets as `namespace/name`: names, never credentials.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Whoever holds the image pulls it again after so many seconds, since its tag may have moved; absent if nobody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_sec: Option<u64>,
    /// How long the image is kept after withdrawal.
    #[serde(default)]
    pub keep: Keep,
    /// Up to [`MAX_OWNERS`] workloads as `Kind/namespace/name`, as of the last write.
    #[serde(default)]
    pub owners: Vec<String>,
    /// How many there are, as of the last write.
    #[serde(default)]
    pub owners_total: u64,
    /// The term that wrote this.
    #[serde(default)]
    pub term: u64,
}

/// The serde form of an intent that several hold: that of the intent.
pub mod counted {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::Intent;

    /// Writes the intent.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(intent: &Arc<Intent>, serializer: S) -> Result<S::Ok, S::Error> {
        Intent::serialize(intent, serializer)
    }

    /// Reads an intent that nobody else holds.
    ///
    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Intent>, D::Error> {
        Intent::deserialize(deserializer).map(Arc::new)
    }
}

/// Retention after withdrawal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keep {
    /// Seconds.
    #[serde(default)]
    pub grace_sec: u64,
}

/// The priority of an image whose workloads name none.
pub const DEFAULT_PRIORITY: u8 = 50;

fn default_priority() -> u8 {
    DEFAULT_PRIORITY
}

impl Message for Intent {
    const KIND: &'static str = "intent";
}

impl Intent {
    /// Whether the image is the one that the id stands for. Where it is not, somebody has written another image under the
    /// key of this one: what is pulled for it would be taken for the other.
    pub fn is_of_its_id(&self) -> bool {
        self.id == ImageKey::of(&self.image)
    }

    /// Whether both ask the same of a node. Owners and term are as of the last write and do not count: a scaled
    /// Deployment or a new leader must not rewrite the fleet's intents.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        self.id == other.id
            && self.image == other.image
            && self.unqualified == other.unqualified
            && self.digest == other.digest
            && self.priority == other.priority
            && self.bytes == other.bytes
            && self.wave == other.wave
            && self.secrets == other.secrets
            && self.refresh_sec == other.refresh_sec
            && self.keep == other.keep
    }
}
