//! A snapshot as keys of the intents bucket.
//!
//! Owns the packing: zlib over the body, whose checksum tells a damaged one, cut into chunks that the bucket takes, then the
//! head. Never trusts a length that it was told.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use shared::message::{DecodeError, Message as _, PartialSnapshot, Snapshot, SnapshotHead};
use shared::name::PoolId;
use shared::subject::{IntentsKey, parse_snapshot_chunk, snapshot_chunk};

/// Bytes of one chunk: with its headers below what the bucket takes.
const CHUNK: usize = 48 * 1024;
/// Longest body that is taken, before compression.
const LONGEST: u64 = 128 * 1024 * 1024;

/// Why a snapshot is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Useless {
    /// A chunk is not there.
    #[error("chunk {number} of {of} is missing")]
    Missing {
        /// Which.
        number: u64,
        /// How many there should be.
        of: u64,
    },
    /// The chunks are damaged, or of different snapshots.
    #[error("it cannot be decompressed: {0}")]
    Damaged(#[from] io::Error),
    /// Head or body cannot be read, or do not belong together; or it is too long.
    #[error(transparent)]
    Form(#[from] DecodeError),
    /// The head speaks of another pool.
    #[error("its head is of pool {0}")]
    Foreign(PoolId),
}

/// The keys of a snapshot with their values, in the order in which they are to be written.
pub fn pack(snapshot: &Snapshot) -> Vec<(String, Bytes)> {
    let body = Bytes::from(deflate(&snapshot.body()));
    let mut keys: Vec<(String, Bytes)> = (0..body.len())
        .step_by(CHUNK)
        .zip(0..)
        .map(|(at, number)| {
            let chunk = body.slice(at..body.len().min(at + CHUNK));
            (snapshot_chunk(&snapshot.pool, number), chunk)
        })
        .collect();
    let head = snapshot.head(keys.len() as u64);
    keys.push((IntentsKey::Snapshot(snapshot.pool.clone()).to_string(), head.encode().into()));
    keys
}

/// The inverse, from what is stored under the keys of a pool's snapshot; `None` if there is none.
///
/// # Errors
/// Chunks are written one after the other, so some may be of another snapshot than the head; or somebody has spoilt one.
pub fn unpack<'a>(
    pool: &PoolId,
    stored: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<Option<Snapshot>, Useless> {
    let mut stored: BTreeMap<&str, &[u8]> = stored.collect();
    let Some(head) = stored.remove(IntentsKey::Snapshot(pool.clone()).to_string().as_str()) else {
        return Ok(None);
    };
    let head = SnapshotHead::decode(head)?;
    if head.pool != *pool {
        return Err(Useless::Foreign(head.pool));
    }
    let chunks: BTreeMap<u64, &[u8]> = stored
        .into_iter()
        .filter_map(|(key, chunk)| Some((parse_snapshot_chunk(key).filter(|(of, _)| of == pool)?.1, chunk)))
        .collect();
    let mut packed = Vec::new();
    for number in 0..head.chunks {
        let chunk = chunks.get(&number).ok_or(Useless::Missing { number, of: head.chunks })?;
        packed.extend_from_slice(chunk);
    }
    // Line by line: the body is never held beside the intents that it becomes.
    let mut body = BufReader::new(ZlibDecoder::new(packed.as_slice()).take(LONGEST));
    let (mut snapshot, mut line) = (PartialSnapshot::of(head), Vec::new());
    while body.read_until(b'\n', &mut line)? > 0 {
        snapshot.take(&line)?;
        line.clear();
    }
    Ok(Some(snapshot.whole()?))
}

fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail; an empty body is refused by every reader.
    encoder.write_all(plain).and_then(|()| encoder.finish()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::message::{Intent, SnapshotIntent};
    use shared::name::ImageKey;

    use super::*;

    fn snapshot(images: u64) -> Snapshot {
        let intent = |n: u64| {
            // As incompressible as a digest.
            let image = format!("registry.test/{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17));
            let id = ImageKey::of(&image);
            let body = format!(r#"{{"v":1,"id":"{id}","image":"{image}"}}"#);
            SnapshotIntent { seq: n + 1, val: Arc::new(Intent::decode(body.as_bytes()).unwrap()) }
        };
        let intents = (0..images).map(intent).collect();
        Snapshot { epoch: "e".into(), term: 3, pool: PoolId::all(), head: images + 5, intents }
    }

    fn read(keys: &[(String, Bytes)]) -> Result<Option<Snapshot>, Useless> {
        unpack(&PoolId::all(), keys.iter().map(|(key, value)| (key.as_str(), value.as_ref())))
    }

    #[test]
    fn what_was_packed_comes_back_whatever_the_number_of_chunks() {
        assert_eq!(read(&[]).unwrap(), None);
        for (images, least) in [(0, 1), (1, 1), (5_000, 3)] {
            let keys = pack(&snapshot(images));
            assert!(keys.len() > least, "{}", keys.len());
            assert_eq!(keys.last().unwrap().0, "all.snap.head");
            assert!(keys.iter().all(|(_, value)| value.len() <= CHUNK));
            assert_eq!(read(&keys).unwrap(), Some(snapshot(images)));
        }
    }

    #[test]
    fn a_damaged_one_says_what_is_wrong() {
        let (keys, other) = (pack(&snapshot(5_000)), pack(&snapshot(5_001)));
        let with = |at: usize, value: &Bytes| {
            let mut keys = keys.clone();
            keys[at].1 = value.clone();
            read(&keys)
        };
        assert!(matches!(read(&keys[1..]), Err(Useless::Missing { number: 0, .. })));
        assert!(read(&keys[..keys.len() - 1]).unwrap().is_none(), "without a head there is none");
        let last = keys.len() - 2;
        assert!(
            matches!(with(last, &other[last].1), Err(Useless::Damaged(_) | Useless::Form(_))),
            "a chunk of another one"
        );
        assert!(matches!(with(keys.len() - 1, &other.last().unwrap().1), Err(Useless::Form(_))), "another head");
        assert!(matches!(with(keys.len() - 1, &Bytes::from_static(b"junk")), Err(Useless::Form(_))));
        let foreign = pack(&Snapshot { pool: PoolId::parse("auto-0123456789").unwrap(), ..snapshot(1) });
        assert!(matches!(with(keys.len() - 1, &foreign.last().unwrap().1), Err(Useless::Foreign(_))));
    }
}
