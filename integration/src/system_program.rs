//! Programs that the system has to bring, because they are no Go modules: owns finding them and saying how to get them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Where programs for root are, which a user's PATH may lack.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];

/// What gets all of them on Debian.
const REMEDY: &str = "apt-get install --no-install-recommends runc nftables iproute2 busybox-static";

/// The program of that name, or an error that says how to get it.
pub fn find(name: &str) -> Result<PathBuf> {
    folders()
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("a cluster with kubelets needs `{name}`, which is not there; on Debian: {REMEDY}"))
}

/// A `PATH` with `first` before all.
pub fn path(first: &Path) -> Result<OsString> {
    std::env::join_paths(std::iter::once(first.to_owned()).chain(folders())).context("a PATH")
}

fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(SYSTEM.map(PathBuf::from)).collect()
}
