//! The set of live intents of a pool, known by its head, count and digest.
//!
//! Owns the arithmetic both sides must share. `protocol.md` section 3, "Head and digest".

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use xxhash_rust::xxh3::xxh3_64;

use crate::name::{ImageKey, PoolId};

/// XOR of `xxh3_64(<pool>.i.<id> ‖ 8-byte big-endian sequence)` over a pool's live intents; 16 hex digits in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SetDigest(pub u64);

impl fmt::Display for SetDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for SetDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SetDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(de::Error::custom(format!("`{text}` is not a digest of 16 lower-case hex digits")));
        }
        u64::from_str_radix(&text, 16).map(Self).map_err(de::Error::custom)
    }
}

/// What names a pool's exact set: (count, digest), at a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PoolSummary {
    /// Last sequence of the intents *stream* that the sender has taken in.
    pub head: u64,
    /// Number of live intents.
    pub count: u64,
    /// Digest over them.
    pub digest: SetDigest,
}

impl PoolSummary {
    /// Whether both name the same set, whatever their heads.
    pub fn is_same_set(&self, other: &Self) -> bool {
        self.count == other.count && self.digest == other.digest
    }

    /// That of these ids of a pool, each of which comes once.
    pub fn over<'a>(pool: &PoolId, head: u64, ids: impl Iterator<Item = (&'a ImageKey, u64)>) -> Self {
        ids.fold(Self { head, ..Self::default() }, |mut summary, (id, sequence)| {
            summary.count += 1;
            summary.digest.0 ^= term(pool, id, sequence);
            summary
        })
    }
}

/// Live intents of one pool with their sequences; keeps count and digest in O(1) a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSet {
    pool: PoolId,
    sequences: BTreeMap<ImageKey, u64>,
    digest: SetDigest,
}

impl PoolSet {
    /// An empty set.
    pub fn new(pool: PoolId) -> Self {
        Self { pool, sequences: BTreeMap::new(), digest: SetDigest::default() }
    }

    /// Inserts or moves an id to `sequence`; gives the sequence it had.
    pub fn insert(&mut self, id: ImageKey, sequence: u64) -> Option<u64> {
        let new = term(&self.pool, &id, sequence);
        let old = self.sequences.get(&id).copied();
        if let Some(old) = old {
            self.digest.0 ^= term(&self.pool, &id, old);
        }
        self.digest.0 ^= new;
        self.sequences.insert(id, sequence);
        old
    }

    /// Removes an id; gives the sequence it had.
    pub fn remove(&mut self, id: &ImageKey) -> Option<u64> {
        let old = self.sequences.remove(id)?;
        self.digest.0 ^= term(&self.pool, id, old);
        Some(old)
    }

    /// The sequence of an id.
    pub fn get(&self, id: &ImageKey) -> Option<u64> {
        self.sequences.get(id).copied()
    }

    /// Ids and sequences in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (&ImageKey, u64)> {
        self.sequences.iter().map(|(id, seq)| (id, *seq))
    }

    /// Number of live intents.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// The summary at `head`.
    pub fn summary(&self, head: u64) -> PoolSummary {
        PoolSummary { head, count: self.sequences.len() as u64, digest: self.digest }
    }

    /// The summary over the ids whose sequence is at most `head`: what the set was if the rest came later.
    pub fn summary_up_to(&self, head: u64) -> PoolSummary {
        PoolSummary::over(&self.pool, head, self.iter().filter(|(_, sequence)| *sequence <= head))
    }
}

/// What one intent adds to the digest.
fn term(pool: &PoolId, id: &ImageKey, sequence: u64) -> u64 {
    let mut bytes = format!("{pool}.i.{id}").into_bytes();
    bytes.extend_from_slice(&sequence.to_be_bytes());
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> ImageKey {
        ImageKey::of(&format!("image-{n}"))
    }

    #[test]
    fn a_digest_is_sixteen_hex_digits_never_a_number() {
        assert_eq!(serde_json::to_string(&SetDigest(0xab)).unwrap(), "\"00000000000000ab\"");
        assert!(serde_json::from_str::<SetDigest>("171").is_err());
        assert!(serde_json::from_str::<SetDigest>("\"ab\"").is_err());
    }

    proptest! {
        #[test]
        fn incremental_equals_recomputed(ops in prop::collection::vec((0_u8..12, 1_u64..1000, any::<bool>()), 0..80)) {
            let mut set = PoolSet::new(PoolId::all());
            for (n, sequence, insert) in ops {
                if insert { set.insert(key(n), sequence); } else { set.remove(&key(n)); }
            }
            prop_assert_eq!(set.summary(9_999), PoolSummary { head: 9_999, ..set.summary_up_to(u64::MAX) });
            let mut again = PoolSet::new(PoolId::all());
            for (id, sequence) in set.iter() { again.insert(id.clone(), sequence); }
            prop_assert_eq!(again, set);
        }
    }

    #[test]
    fn removing_all_gives_the_empty_digest() {
        let mut set = PoolSet::new(PoolId::all());
        for n in 0..10 {
            set.insert(key(n), u64::from(n) + 1);
        }
        for n in 0..10 {
            set.remove(&key(n));
        }
        assert_eq!(set.summary(10), PoolSummary { head: 10, ..PoolSummary::default() });
    }
}
