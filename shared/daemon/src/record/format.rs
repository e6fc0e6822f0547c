//! The form of a recording: one JSON a line, the head first.
//!
//! Owns what the lines hold. Never reads nor writes a file.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::machine::{Begin, Kind, Moment, Now};
use xxhash_rust::xxh3::xxh3_64;

use super::redact;

/// The version of this form; one more when an older reader could not make sense of it.
pub const FORMAT: u32 = 1;

/// An effect with more bytes of JSON is known by its digest only.
const BODY: usize = 4_096;

/// The first line: everything the machine was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// [`FORMAT`].
    pub recording: u32,
    /// `controller` or `agent`.
    pub process: String,
    /// The version of the process.
    pub version: String,
    /// When the machine was made.
    pub at: Moment,
    /// The same for people, and for the times in messages.
    pub wall: Timestamp,
    /// What the machine was made of.
    pub beginning: Value,
}

impl Head {
    pub(super) fn of<B: Begin>(version: &str, now: Now, beginning: Value) -> Self {
        let (process, version) = (B::PROCESS.to_owned(), version.to_owned());
        Self { recording: FORMAT, process, version, at: now.mono, wall: now.wall, beginning }
    }

    /// The time the machine was made at.
    pub fn now(&self) -> Now {
        Now { mono: self.at, wall: self.wall }
    }
}

/// Any other line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// What was learned with one reading of the clock.
    Learned {
        /// When.
        at: Moment,
        /// The same for people.
        wall: Timestamp,
        /// In this order.
        facts: Vec<Value>,
    },
    /// A step, with what it decided.
    Decided {
        /// When.
        at: Moment,
        /// The same for people.
        wall: Timestamp,
        /// In this order.
        effects: Vec<Decided>,
    },
    /// The last line of a recording that did not end with its process.
    End {
        /// Why.
        end: End,
    },
}

/// Why a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The process stopped as it was asked to.
    Stopped,
    /// The file is as large as it may be.
    Limit,
    /// Facts came faster than they could be written.
    Behind,
}

impl End {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "the process stopped",
            Self::Limit => "the file was as large as it may be (record.maxBytes)",
            Self::Behind => "facts came faster than they could be written",
        }
    }
}

/// An effect as it is compared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Decided {
    /// Its kind.
    pub kind: String,
    /// `xxh3_64` of its JSON without free text, in 16 hex digits.
    pub digest: String,
    /// That JSON, if it is not too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
}

impl Decided {
    /// Of an effect that was decided, be it now or in a replay; `free_text` is [`Begin::FREE_TEXT`].
    pub fn of<E: Kind + Serialize>(effect: &E, free_text: &[&str]) -> Self {
        let body = redact::effect(effect, free_text);
        let text = body.to_string();
        let digest = format!("{:016x}", xxh3_64(text.as_bytes()));
        Self { kind: effect.kind().to_owned(), digest, body: (text.len() <= BODY).then_some(body) }
    }

    /// Whether both are of equal effects.
    pub fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.digest == other.digest
    }
}
