//! Who the runtime is, and how full the file system of its images.
//!
//! Owns `Version`, `ImageFsInfo` and `statvfs`: CRI tells where images lie and how much they use, never how much is left
//! (kubernetes.md 1.9).

use std::path::{Path, PathBuf};

use node_plan::fact::Space;
use rustix::fs::StatVfs;
use rustix::io::Errno;
use shared::message::Runtime;

use super::client::Client;
use super::error::CriError;
use super::proto;

/// The version of the kubelet's runtime API, as every kubelet sends it.
const API: &str = "v1";

impl Client {
    /// Its name and version.
    pub async fn version(&self) -> Result<Runtime, CriError> {
        let request = proto::VersionRequest { version: API.to_owned() };
        let version = self.ask("Version", "", self.runtime().version(request)).await?;
        Ok(Runtime { name: version.runtime_name, version: version.runtime_version })
    }

    /// Where the runtime says its images lie; `None` if it does not say.
    pub async fn image_mountpoint(&self) -> Result<Option<PathBuf>, CriError> {
        let request = proto::ImageFsInfoRequest {};
        let info = self.ask("ImageFsInfo", "", self.images().image_fs_info(request)).await?;
        Ok(mountpoint(info))
    }
}

/// Where an answer says that images lie.
pub fn mountpoint(info: proto::ImageFsInfoResponse) -> Option<PathBuf> {
    // The first entry is always the default snapshotter's.
    let first = info.image_filesystems.into_iter().next().and_then(|usage| usage.fs_id);
    first.map(|id| id.mountpoint).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The file system under the first of these paths that can be seen from here.
pub fn space_of(paths: &[&Path]) -> Result<Space, Errno> {
    let mut last = Errno::NOENT;
    for path in paths {
        match rustix::fs::statvfs(*path) {
            Ok(stat) => return Ok(space(&stat)),
            Err(errno) => last = errno,
        }
    }
    Err(last)
}

fn space(stat: &StatVfs) -> Space {
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let free = bytes(stat.f_bavail);
    // As the kubelet counts: what is reserved for root is as good as used.
    Space { used: bytes(stat.f_blocks).saturating_sub(free), free }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_path_that_can_be_seen_is_measured() {
        let space = space_of(&[Path::new("/nonexistent"), Path::new("/")]).unwrap();
        assert!(space.used > 0 && space.free > 0, "{space:?}");
    }

    #[test]
    fn no_path_that_can_be_seen_is_an_error() {
        assert_eq!(space_of(&[Path::new("/nonexistent")]).unwrap_err(), Errno::NOENT);
    }
}
