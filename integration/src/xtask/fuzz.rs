//! `cargo xtask fuzz`: libFuzzer for a time around the checks of [`crate::outside`], with the pinned stable compiler.
//!
//! Owns the set-up: the pinned cargo-fuzz, where what is found lies, and how the small corpus of the repository is made of
//! it. `docs/fuzzing.md` says how a finding is mended.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::say;
use super::test::root;
use super::tool::Tool;
use crate::outside::{MOST_BYTES, MOST_FILES, TARGETS};

const CARGO_FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2", takes: "some 2 minutes" };

/// Bytes of the longest input: what is longer finds nothing new and is slow.
const MAX_LEN: &str = "4096";
/// Bytes of the longest input of the repository's corpus.
const MAX_KEPT: &str = "2048";

/// Which targets, for how long.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The targets, one after the other; all of them when none is named.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS.map(|(name, _)| name)))]
    targets: Vec<String>,
    /// How long each runs.
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// Do not run: add to the repository's corpus a sample of what earlier runs found that it does not reach.
    #[arg(long)]
    merge: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    compiler()?;
    let program = CARGO_FUZZ.ensure()?;
    let names = TARGETS.iter().map(|(name, _)| *name);
    for name in names.filter(|name| args.targets.is_empty() || args.targets.iter().any(|wanted| wanted == name)) {
        let target = Target::new(name)?;
        if args.merge { target.merge(&program)? } else { target.run(&program, args.seconds)? }
    }
    Ok(())
}

/// libFuzzer is C++ and built with it.
fn compiler() -> Result<()> {
    let program = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let answer = Command::new(&program).arg("--version").output();
    ensure!(
        answer.is_ok_and(|answer| answer.status.success()),
        "fuzzing builds libFuzzer, which needs a C++ compiler, and `{}` is not there: install one (Debian: g++), or name it \
         in CXX",
        program.to_string_lossy()
    );
    Ok(())
}

/// One target and its folders.
struct Target {
    name: &'static str,
    /// In the repository, small.
    kept: PathBuf,
    /// What runs find, outside the repository.
    found: PathBuf,
    /// Inputs that break something.
    artifacts: PathBuf,
}

impl Target {
    fn new(name: &'static str) -> Result<Self> {
        let work = root().join("target/fuzz");
        let target = Self {
            name,
            kept: root().join("integration/fuzz/corpus").join(name),
            found: work.join("corpus").join(name),
            artifacts: work.join("artifacts").join(name),
        };
        for folder in [&target.kept, &target.found, &target.artifacts] {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        Ok(target)
    }

    fn run(&self, program: &Path, seconds: u32) -> Result<()> {
        say(&format!("==> {} for {seconds} s", self.name));
        let mut options = vec![
            format!("-max_total_time={seconds}"),
            format!("-max_len={MAX_LEN}"),
            "-timeout=10".to_owned(),
            "-print_final_stats=1".to_owned(),
            format!("-artifact_prefix={}/", self.artifacts.display()),
        ];
        let dictionary = root().join("integration/fuzz/dictionaries").join(format!("{}.txt", self.name));
        if dictionary.is_file() {
            options.push(format!("-dict={}", dictionary.display()));
        }
        self.fuzz(program, &[&self.found, &self.kept], &options).with_context(|| {
            format!(
                "a finding of `{}`: the input lies in {}; put it into {}, where the test `corpora` runs it",
                self.name,
                self.artifacts.display(),
                self.kept.display()
            )
        })
    }

    fn merge(&self, program: &Path) -> Result<()> {
        say(&format!("==> {}: merging", self.name));
        let cover = tempfile::tempdir_in(root().join("target/fuzz")).context("a folder for what is merged")?;
        let options = ["-set_cover_merge=1", "-use_counters=0", &format!("-max_len={MAX_KEPT}")].map(str::to_owned);
        self.fuzz(program, &[cover.path(), &self.kept, &self.found], &options)?;
        let (kept, mut new) = (files(&self.kept)?, files(cover.path())?);
        new.retain(|(_, input)| !kept.iter().any(|(_, known)| known == input));
        new.sort_by_key(|(_, input)| input.len());
        let (mut count, mut bytes) = (kept.len(), kept.iter().map(|(_, input)| input.len()).sum::<usize>());
        // Evenly over the sizes: small inputs are the ones that are refused early.
        let step = new.len().div_ceil(MOST_FILES.saturating_sub(count).max(1)).max(1);
        for (name, input) in new.iter().rev().step_by(step) {
            if count < MOST_FILES && bytes + input.len() <= MOST_BYTES {
                std::fs::write(self.kept.join(name), input)
                    .with_context(|| format!("writing {}", self.kept.display()))?;
                (count, bytes) = (count + 1, bytes + input.len());
            }
        }
        say(&format!("    {count} inputs, {bytes} bytes"));
        Ok(())
    }

    fn fuzz(&self, program: &Path, corpora: &[&Path], options: &[String]) -> Result<()> {
        // Without a sanitizer: there is no unsafe code to watch, it is faster, and needs no nightly compiler.
        let fixed =
            ["run", "--fuzz-dir", "integration/fuzz", "--target-dir", "target/fuzz", "--sanitizer", "none", self.name];
        let arguments = fixed
            .iter()
            .map(OsString::from)
            .chain(corpora.iter().map(|corpus| corpus.as_os_str().to_owned()))
            .chain([OsString::from("--")])
            .chain(options.iter().map(OsString::from));
        let status = Command::new(program)
            .args(arguments)
            .current_dir(root())
            .status()
            .with_context(|| format!("starting {}", program.display()))?;
        if !status.success() {
            bail!("cargo fuzz ended with {status}");
        }
        Ok(())
    }
}

/// Names and content.
fn files(folder: &Path) -> Result<Vec<(OsString, Vec<u8>)>> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name(), std::fs::read(entry.path())?))
    };
    let all: std::io::Result<Vec<_>> = std::fs::read_dir(folder).and_then(|entries| entries.map(read).collect());
    all.with_context(|| format!("reading {}", folder.display()))
}
