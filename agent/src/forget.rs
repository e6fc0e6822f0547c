//! `warm-agent forget`: takes the state off a node that is to have no agent any more.
//!
//! Owns waiting for the last agent to end, since that writes the state once more. Never touches images: those are the
//! runtime's and the kubelet's.

use std::path::Path;

use crate::state_file::{StateError, StateFile};

/// Removes the state in `folder` once no agent uses it; says how many files there were. The folder itself stays: inside a
/// container it is a mount.
pub fn forget(folder: &Path) -> Result<usize, StateError> {
    let file = StateFile::new(folder);
    let _alone = file.alone()?;
    file.remove()
}
