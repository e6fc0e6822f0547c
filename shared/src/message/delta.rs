//! The delta: changes of a pool, one JSON a line, with its range in headers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{DecodeError, Intent, SCHEMA, header};
use crate::name::{ImageKey, PoolId};
use crate::subject::IntentsKey;

/// Most entries of one delta; beyond them only the headers go out and agents read.
pub const MAX_ENTRIES: usize = 1_000;
/// Most bytes of one delta's body.
pub const MAX_BYTES: usize = 512 * 1024;

/// `delta.<pool>`. Covers the sequences after `prev` up to `to`. Its serde form is for recordings; what crosses NATS is
/// [`Delta::headers`] and [`Delta::body`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delta {
    /// The pool, from the subject.
    pub pool: PoolId,
    /// The epoch.
    pub epoch: String,
    /// The sending controller's term.
    pub term: u64,
    /// `to` of the pool's previous delta.
    pub prev: u64,
    /// Highest sequence covered.
    pub to: u64,
    /// Over how many milliseconds a read that this causes is to be spread.
    pub spread_ms: u64,
    /// The changes; `None` if they were too many to send: read instead.
    pub entries: Option<Vec<DeltaEntry>>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeltaEntry {
    /// Sequence in the intents stream.
    pub seq: u64,
    /// The intent's id.
    pub id: ImageKey,
    /// What became of it.
    pub change: DeltaChange,
}

/// What became of an intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeltaChange {
    /// Written.
    Put(#[serde(with = "super::intent::counted")] Arc<Intent>),
    /// Withdrawn.
    Del,
}

#[derive(Serialize, Deserialize)]
struct Line {
    seq: u64,
    op: Op,
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    val: Option<Intent>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Put,
    Del,
}

impl Delta {
    /// Header names and values.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        vec![
            (header::SCHEMA, SCHEMA.to_string()),
            (header::EPOCH, self.epoch.clone()),
            (header::TERM, self.term.to_string()),
            (header::PREV, self.prev.to_string()),
            (header::TO, self.to.to_string()),
            (header::SPREAD_MS, self.spread_ms.to_string()),
        ]
    }

    /// One JSON a line; empty if there are too many entries or bytes.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for entry in self.entries.iter().flatten().take(MAX_ENTRIES + 1) {
            let (op, val) = match &entry.change {
                DeltaChange::Put(intent) => (Op::Put, Some(Intent::clone(intent))),
                DeltaChange::Del => (Op::Del, None),
            };
            let key = IntentsKey::Intent(self.pool.clone(), entry.id.clone()).to_string();
            body.extend(serde_json::to_vec(&Line { seq: entry.seq, op, key, val }).unwrap_or_default());
            body.push(b'\n');
        }
        let too_many = self.entries.as_ref().is_some_and(|e| e.len() > MAX_ENTRIES);
        if too_many || body.len() > MAX_BYTES { Vec::new() } else { body }
    }

    /// The inverse of headers and body. An entry of another pool is an error: such a delta is forged or broken.
    pub fn decode<'a>(
        pool: &PoolId,
        header: impl Fn(&str) -> Option<&'a str>,
        body: &[u8],
    ) -> Result<Self, DecodeError> {
        let number =
            |name: &'static str| header(name).and_then(|v| v.parse::<u64>().ok()).ok_or(DecodeError::Header { name });
        let version = u32::try_from(number(header::SCHEMA)?).unwrap_or(u32::MAX);
        if version > SCHEMA {
            return Err(DecodeError::Newer { what: "delta", version });
        }
        let epoch = header(header::EPOCH).ok_or(DecodeError::Header { name: header::EPOCH })?.to_owned();
        let mut entries = Vec::new();
        for line in body.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            entries.push(decode_line(pool, line)?);
        }
        Ok(Self {
            pool: pool.clone(),
            epoch,
            term: number(header::TERM)?,
            prev: number(header::PREV)?,
            to: number(header::TO)?,
            spread_ms: number(header::SPREAD_MS).unwrap_or(0),
            entries: if entries.is_empty() { None } else { Some(entries) },
        })
    }
}

fn decode_line(pool: &PoolId, line: &[u8]) -> Result<DeltaEntry, DecodeError> {
    let json = |source| DecodeError::Json { what: "delta", source };
    let invalid = |text: String| json(serde::de::Error::custom(text));
    let Line { seq, op, key, val } = serde_json::from_slice(line).map_err(json)?;
    let id = match IntentsKey::parse(&key) {
        Some(IntentsKey::Intent(of, id)) if of == *pool => id,
        _ => return Err(invalid(format!("key `{key}` is no intent of pool {pool}"))),
    };
    let change = match (op, val) {
        (Op::Put, Some(intent)) if intent.id == id => DeltaChange::Put(Arc::new(intent)),
        (Op::Del, _) => DeltaChange::Del,
        _ => return Err(invalid(format!("put of `{key}` has no value, or one with another id"))),
    };
    Ok(DeltaEntry { seq, id, change })
}
