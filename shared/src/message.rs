//! Everything that crosses NATS: JSON, camelCase, `"v":1`.
//!
//! Owns encoding, decoding and the version rule: unknown fields are ignored, a higher major is refused.
//! One file a message. Golden files in `shared/tests/golden/v1` keep every released message decodable.

pub mod assignment;
pub mod beat;
pub mod control;
pub mod delta;
pub mod event;
pub mod heartbeat;
pub mod intent;
pub mod inventory;
pub mod meta;
pub mod snapshot;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

pub use assignment::Assignment;
pub use beat::Beat;
pub use control::Control;
pub use delta::{Delta, DeltaChange, DeltaEntry};
pub use event::Event;
pub use heartbeat::Heartbeat;
pub use intent::Intent;
pub use inventory::{Content, Disk, Exception, Inventory, Runtime};
pub use meta::Meta;
pub use snapshot::{PartialSnapshot, Snapshot, SnapshotHead, SnapshotIntent};

use crate::text::shown;

/// The most characters of an error: it may repeat what the sender chose.
const LONGEST: usize = 400;

/// The major version this build speaks.
pub const SCHEMA: u32 = 1;

/// Header names. `Nats-*` are the server's.
pub mod header {
    /// Major version of the body.
    pub const SCHEMA: &str = "Warm-Schema";
    /// The epoch the sender is in.
    pub const EPOCH: &str = "Warm-Epoch";
    /// The term of the sending controller.
    pub const TERM: &str = "Warm-Term";
    /// `to` of the pool's previous delta.
    pub const PREV: &str = "Warm-Prev";
    /// Highest sequence this delta covers.
    pub const TO: &str = "Warm-To";
    /// Over how many milliseconds reads of what follows are to be spread.
    pub const SPREAD_MS: &str = "Warm-Spread-Ms";
    /// Time to live of a stored message.
    pub const TTL: &str = "Nats-TTL";
    /// Stands on a message that a stream delivered: never on one of ours.
    pub const STREAM: &str = "Nats-Stream";
}

/// Why a message cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON of the right shape.
    #[error("{what}: {}", shown(&source.to_string(), LONGEST))]
    Json {
        /// The message's kind.
        what: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A newer major.
    #[error("{what}: schema version {version} is newer than {SCHEMA}, which this build speaks; upgrade it")]
    Newer {
        /// The message's kind.
        what: &'static str,
        /// What was found.
        version: u32,
    },
    /// A delta without a header it must have, or with one that cannot be read.
    #[error("delta: header {name} is missing or is not a number")]
    Header {
        /// The header's name.
        name: &'static str,
    },
}

/// The kind of a message, one of [`KINDS`].
pub type KindWord = &'static str;

/// Every kind of message, for facts about messages that were dropped.
pub const KINDS: &[KindWord] = &[
    Assignment::KIND,
    Beat::KIND,
    Control::KIND,
    "delta",
    Event::KIND,
    Heartbeat::KIND,
    Intent::KIND,
    Inventory::KIND,
    Meta::KIND,
    SnapshotHead::KIND,
    "request",
    "definition",
];

/// Reads a kind back; a word that this build does not know is `unknown`.
pub fn kind_word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KindWord, D::Error> {
    let word = String::deserialize(deserializer)?;
    Ok(KINDS.iter().find(|kind| **kind == word).copied().unwrap_or("unknown"))
}

/// A message with a JSON body.
pub trait Message: Serialize + DeserializeOwned {
    /// The kind, for errors and metrics.
    const KIND: &'static str;

    /// JSON bytes with `"v":1` first.
    fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Versioned<'a, T> {
            v: u32,
            #[serde(flatten)]
            body: &'a T,
        }
        // Maps here have string keys and no type fails to serialise; an empty body is refused by every reader.
        serde_json::to_vec(&Versioned { v: SCHEMA, body: self }).unwrap_or_default()
    }

    /// Checks the version, then the shape.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let json = |source| DecodeError::Json { what: Self::KIND, source };
        let Version { v } = serde_json::from_slice(bytes).map_err(json)?;
        if v > SCHEMA {
            return Err(DecodeError::Newer { what: Self::KIND, version: v });
        }
        serde_json::from_slice(bytes).map_err(json)
    }
}
