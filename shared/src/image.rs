//! Images as both sides name them.
//!
//! Owns three words read from outside: the reference of an image, the digest of its content and the platform it is for.
//! Never asks a registry or a runtime: everything here is text in, value out.

pub mod digest;
mod grammar;
pub mod platform;
pub mod reference;

pub use self::digest::{Digest, DigestError};
pub use self::platform::{Platform, PlatformError};
pub use self::reference::{Reference, ReferenceError};

use crate::text::{CLIP, shown};

/// The offending text as an error shows it.
fn clip(text: &str) -> String {
    shown(text, CLIP)
}
