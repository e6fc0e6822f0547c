//! Compression of what is stored as a whole.
//!
//! Owns the format: zlib, whose checksum tells a damaged body. Never trusts a length that it was told.

use std::io::{self, Read as _, Write as _};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

/// Compresses.
pub fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail; an empty body is refused by every reader.
    encoder.write_all(plain).and_then(|()| encoder.finish()).unwrap_or_default()
}

/// Decompresses.
///
/// # Errors
/// It is damaged, or longer than `limit` bytes.
pub fn inflate(packed: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    ZlibDecoder::new(packed).take(limit.saturating_add(1)).read_to_end(&mut plain)?;
    if plain.len() as u64 > limit {
        return Err(io::Error::other(format!("it is longer than {limit} bytes")));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_comes_back_and_what_was_damaged_does_not() {
        let plain = "all.i.".repeat(10_000).into_bytes();
        let mut packed = deflate(&plain);
        assert!(packed.len() < plain.len() / 50);
        assert_eq!(inflate(&packed, plain.len() as u64).unwrap(), plain);
        assert!(inflate(&packed, plain.len() as u64 - 1).is_err(), "a bomb");
        assert!(inflate(&packed[..packed.len() - 1], 1_000_000).is_err(), "cut off");
        let last = packed.len() - 1;
        packed[last] ^= 1;
        assert!(inflate(&packed, 1_000_000).is_err(), "another checksum");
    }
}
