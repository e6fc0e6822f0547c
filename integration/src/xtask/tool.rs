//! Programs of cargo's own kind that a command needs: owns their pinned installation into the cache. Never on the machine's
//! PATH, so that a version somebody else installed is never met.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{cargo, say};

/// A program from crates.io, of one version.
pub(crate) struct Tool {
    /// Of the crate and of its program.
    pub(crate) name: &'static str,
    /// Exactly.
    pub(crate) version: &'static str,
    /// How long a build takes, for whoever waits.
    pub(crate) takes: &'static str,
}

impl Tool {
    /// Its path; built once.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        let Self { name, version, takes } = self;
        let folder = crate::parts::cache()?.join(format!("{name}-{version}"));
        let program = folder.join("bin").join(name);
        if !program.is_file() {
            say(&format!("building {name} {version} once ({takes} on two cores)"));
            let (root, version) = (folder.display().to_string(), format!("{name}@{version}"));
            let target = folder.join("target");
            let target_folder = target.display().to_string();
            cargo(&["install", "--quiet", "--locked", &version, "--root", &root, "--target-dir", &target_folder], &[])?;
            // What it was built from is not needed again.
            std::fs::remove_dir_all(&target).with_context(|| format!("removing {}", target.display()))?;
        }
        Ok(program)
    }
}
