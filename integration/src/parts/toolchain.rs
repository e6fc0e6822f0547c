//! The Go tool chain: owns finding it and saying how to get one. It builds nothing.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::{GO_MOD, Module};

const REMEDY: &str = "install it from https://go.dev/dl (or the system's packages) and put its `bin` folder into PATH";

/// A Go tool chain that is new enough.
pub(super) struct Toolchain {
    /// Version, system and architecture it builds for, as one text.
    pub(super) identity: String,
    cache: PathBuf,
}

impl Toolchain {
    /// Asks `go` in the module's folder, where it also obeys the module's wish for a version.
    pub(super) fn find(cache: &Path) -> Result<Self> {
        let module = folder(cache, Module::Parts)?;
        let wanted = wanted_version()?;
        let asked = Command::new("go").args(["env", "GOVERSION", "GOOS", "GOARCH"]).current_dir(&module).output();
        let answer = match asked {
            Ok(answer) => answer,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("the real parts are built with Go {wanted} or newer, and `go` is not there: {REMEDY}")
            }
            Err(error) => return Err(error).context("running `go env`"),
        };
        let said = String::from_utf8_lossy(&answer.stderr);
        ensure!(
            answer.status.success(),
            "`go env` failed ({}): {said}; Go {wanted} is needed: {REMEDY}",
            answer.status
        );
        let identity = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        let found = identity.lines().next().and_then(|line| line.strip_prefix("go")).unwrap_or("of unknown version");
        ensure!(
            numbers(found) >= numbers(wanted),
            "the real parts need Go {wanted} or newer, this is Go {found}: {REMEDY}"
        );
        Ok(Self { identity, cache: cache.to_owned() })
    }

    /// The folder of a module's files.
    pub(super) fn module(&self, module: Module) -> Result<PathBuf> {
        folder(&self.cache, module)
    }
}

/// A module's files in a folder named after their content.
fn folder(cache: &Path, module: Module) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    for (_, content) in module.files() {
        hash.update(content);
        hash.update([0]);
    }
    let mut name = hex::encode(hash.finalize());
    name.truncate(16);
    let folder = cache.join(format!("module-{name}"));
    if !folder.is_dir() {
        let partial = tempfile::tempdir_in(cache).context("a folder for the module of the parts")?;
        for (file, content) in module.files() {
            std::fs::write(partial.path().join(file), content).with_context(|| format!("writing {file}"))?;
        }
        // Another run may have been quicker, with the same content.
        let renamed = std::fs::rename(partial.path(), &folder);
        ensure!(renamed.is_ok() || folder.is_dir(), "creating {}: {renamed:?}", folder.display());
    }
    Ok(folder)
}

/// The `go` line of `parts/go.mod`.
fn wanted_version() -> Result<&'static str> {
    let line = GO_MOD.lines().find_map(|line| line.strip_prefix("go "));
    line.map(str::trim).ok_or_else(|| anyhow!("parts/go.mod has no `go` line"))
}

/// `1.26.8` as numbers; what follows them (`rc1`, `-custom`) does not count.
fn numbers(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map(|part| part.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default())
        .map_while(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_compare_by_number() {
        assert!(numbers("1.26.10") > numbers("1.26.8"));
        assert!(numbers("1.27rc1") > numbers("1.26.8"));
        assert!(numbers("1.9.7") < numbers("1.26.8"));
        assert!(numbers("of unknown version") < numbers("1.26.8"));
    }
}
