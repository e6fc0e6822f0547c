//! The pinned real parts: owns which programs there are, where their cache is and what its key is made of. Building one is
//! in `build`; running one is for `process`. What is pinned stands in `parts/go.mod` and `parts/dns/go.mod`, nowhere else.

mod build;
mod helm3;
mod tool;
mod toolchain;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use tool::Module;
use toolchain::Toolchain;

pub use helm3::{HELM3, helm3};
pub use tool::Tool;

const GO_MOD: &str = include_str!("../parts/go.mod");

/// The folder of built parts for what is pinned now.
#[derive(Clone, Debug)]
pub struct Parts {
    bin: PathBuf,
}

impl Parts {
    /// Builds those of `tools` that are missing; takes milliseconds when none is. Progress goes to standard error. Two
    /// runs at once do not disturb each other: the second waits and finds the parts built.
    pub fn ensure(tools: &[Tool]) -> Result<Self> {
        let folder = cache()?;
        let toolchain = Toolchain::find(&folder)?;
        let home = folder.join(key(&toolchain)?);
        let parts = Self { bin: home.join("bin") };
        if parts.missing(tools).is_empty() {
            return Ok(parts);
        }
        std::fs::create_dir_all(&parts.bin).with_context(|| format!("creating {}", parts.bin.display()))?;
        let path = home.join("lock");
        let lock = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        if lock.try_lock().is_err() {
            progress("another run builds the parts, waiting for it");
            lock.lock().with_context(|| format!("locking {}", path.display()))?;
        }
        let missing = parts.missing(tools);
        for (done, tool) in missing.iter().enumerate() {
            let name = tool.name();
            progress(&format!("building {name} ({} of {})", done + 1, missing.len()));
            let start = Instant::now();
            build::build(&toolchain, *tool, &home).with_context(|| format!("building {name}"))?;
            progress(&format!("built    {name} in {:.1} s", start.elapsed().as_secs_f64()));
        }
        Ok(parts)
    }

    /// All parts, see [`Self::ensure`].
    pub fn all() -> Result<Self> {
        Self::ensure(Tool::ALL)
    }

    /// The folder of the programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The program of a tool that was asked for.
    pub fn path(&self, tool: Tool) -> Result<PathBuf> {
        let path = self.bin.join(tool.name());
        ensure!(
            path.is_file(),
            "{} is not built: ask for it in Parts::ensure, or run `cargo xtask parts {0}`",
            tool.name()
        );
        Ok(path)
    }

    /// A program appears under its name only when it is whole (see `build`), so its presence is the marker.
    fn missing(&self, tools: &[Tool]) -> Vec<Tool> {
        tools.iter().copied().filter(|tool| !self.bin.join(tool.name()).is_file()).collect()
    }
}

/// Outside the work tree: a clean checkout finds what an earlier one built.
pub fn cache() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
    let folder = cache.context("neither XDG_CACHE_HOME nor HOME says where a cache may be")?.join("warm-images-parts");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

/// Everything that a built program depends on.
fn key(toolchain: &Toolchain) -> Result<String> {
    let mut hash = Sha256::new();
    let modules = Module::ALL.iter().flat_map(|module| module.files()).map(|(_, content)| *content);
    let (flags, environment) = (build::flags()?.join("\n"), build::environment().join("\n"));
    for content in modules.chain([toolchain.identity.as_str(), &flags, &environment]) {
        hash.update(content);
        hash.update([0]);
    }
    let mut key = hex::encode(hash.finalize());
    key.truncate(16);
    Ok(key)
}

/// The version that `parts/go.mod` requires of a module.
fn pinned(module: &str) -> Result<&'static str> {
    GO_MOD
        .lines()
        .filter_map(|line| line.trim().strip_prefix(module)?.strip_prefix(' '))
        .find_map(|rest| rest.split_whitespace().next().filter(|word| word.starts_with('v')))
        .with_context(|| format!("parts/go.mod pins no {module}"))
}

fn progress(line: &str) {
    // Past the test harness's capture: a person who waits for minutes must see why.
    let _ = writeln!(std::io::stderr(), "parts: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_a_tool_of_the_pinned_module() {
        for tool in Tool::ALL.iter().filter(|tool| tool.module() == Module::Parts) {
            let line = format!("\t{}\n", tool.package());
            assert!(GO_MOD.contains(&line), "{} lacks a tool directive in parts/go.mod", tool.package());
            assert_eq!(Tool::from_name(tool.name()), Ok(*tool));
        }
    }

    #[test]
    fn a_pinned_version_is_read_from_the_module_file() {
        assert!(pinned("k8s.io/kubernetes").is_ok_and(|version| version.starts_with("v1.")));
        assert!(pinned("example.org/absent").is_err());
    }
}
