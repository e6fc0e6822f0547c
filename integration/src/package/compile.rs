//! Compiling a program for an image: owns the flags, static and with no path of this machine, and what was really built.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use cargo_metadata::camino::Utf8PathBuf;
use cargo_metadata::{Message, Metadata, MetadataCommand, PackageId};

use super::Component;
use crate::xtask::cargo_command;

/// glibc and all: an image has nothing else. Its resolver has files and DNS compiled in, and asks for no library for them.
const STATIC: &str = "-Ctarget-feature=+crt-static";

/// Symbols are most of a program that is not optimised.
const STRIPPED: &str = "-Cstrip=symbols";

/// A program, and what it was made of.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Whose it is.
    pub component: Component,
    /// Where it is.
    pub program: PathBuf,
    /// What `rustc` calls the machines it is for.
    pub triple: String,
    /// The version of `rustc`, whose standard library is in it.
    pub rustc: String,
    /// Every package that was compiled for it, with its features.
    pub(super) built: BTreeMap<PackageId, Vec<String>>,
    /// All packages there are.
    pub(super) metadata: Metadata,
}

impl Compiled {
    /// For a release, from the work tree `source` into `target`. Equal sources and tools give equal bytes, wherever both
    /// folders are.
    pub fn release(component: Component, source: &Path, target: &Path) -> Result<Self> {
        let (source, target) = (absolute(source)?, absolute(target)?);
        let rustc = Rustc::ask(&source)?;
        let from = |folder: &Path, name: &str| format!("--remap-path-prefix={}={name}", folder.display());
        // Of two that fit the last one counts, and the target folder may be below the sources.
        let flags = [
            STATIC.to_owned(),
            from(&cargo_home()?, "/cargo"),
            from(&source, "/warm-images"),
            from(&target, "/target"),
        ];
        let mut command = cargo_command(&["build", "--locked", "--release", "--target", &rustc.host]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| changes_programs(name)) {
            command.env_remove(name);
        }
        // With `--target` they are for the program alone, not for what runs while it is built.
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")).current_dir(&source);
        command.arg("--target-dir").arg(&target).args(which(component));
        Self::run(component, command, rustc, &source)
    }

    /// For a cluster on this machine: not optimised. What it depends on is shared with every other build of the work tree,
    /// because the flags are for the last step alone.
    pub fn local(component: Component) -> Result<Self> {
        let source = crate::xtask::root();
        let shared = metadata(&source, &[])?.target_directory;
        let mut command = cargo_command(&["rustc", "--locked", "--quiet"]);
        // In a folder of its own: whoever builds the same program otherwise neither finds this one nor replaces it.
        command.env("CARGO_BUILD_BUILD_DIR", &shared).arg("--target-dir").arg(shared.join("images"));
        command.args(which(component)).args(["--", STATIC, STRIPPED]);
        Self::run(component, command, Rustc::ask(&source)?, &source)
    }

    fn run(component: Component, mut command: Command, rustc: Rustc, source: &Path) -> Result<Self> {
        let said = || format!("building {}", component.program());
        let mut child = command.stdout(Stdio::piped()).spawn().context("starting cargo").with_context(said)?;
        let output = child.stdout.take().context("the output of cargo")?;
        let mut built = BTreeMap::new();
        let mut program = None;
        for message in Message::parse_stream(BufReader::new(output)) {
            if let Message::CompilerArtifact(artifact) = message.context("reading what cargo says")? {
                program = artifact.executable.or(program);
                built.insert(artifact.package_id, artifact.features);
            }
        }
        let status = child.wait().context("waiting for cargo")?;
        if !status.success() {
            bail!("{}: cargo ended with {status}", said());
        }
        let program = program.map(Utf8PathBuf::into_std_path_buf).with_context(|| format!("{}: no program", said()))?;
        let metadata = metadata(source, &["--filter-platform", &rustc.host])?;
        let known = |id: &PackageId| metadata.packages.iter().any(|package| package.id == *id);
        ensure!(built.keys().all(known), "cargo compiled a package that it does not know of");
        Ok(Self { component, program, triple: rustc.host, rustc: rustc.version, built, metadata })
    }
}

/// Which program, and that cargo says what it compiles.
fn which(component: Component) -> [&'static str; 5] {
    ["--package", component.name(), "--bin", component.program(), "--message-format=json-render-diagnostics"]
}

/// Variables with which a person may change how cargo compiles.
fn changes_programs(name: &std::ffi::OsStr) -> bool {
    let prefixes = ["CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_BUILD_", "CFLAGS", "HOST_CFLAGS", "TARGET_CFLAGS"];
    name.to_str().is_some_and(|name| name == "RUSTFLAGS" || prefixes.iter().any(|prefix| name.starts_with(prefix)))
}

fn metadata(source: &Path, more: &[&str]) -> Result<Metadata> {
    let options = ["--locked"].iter().chain(more).map(ToString::to_string).collect::<Vec<_>>();
    let mut command = MetadataCommand::new();
    command.current_dir(source).other_options(options);
    command.exec().context("asking cargo which packages there are")
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))?;
    path.canonicalize().with_context(|| path.display().to_string())
}

fn cargo_home() -> Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home).context("neither CARGO_HOME nor HOME is set")
}

/// What the compiler says of itself.
struct Rustc {
    host: String,
    version: String,
}

impl Rustc {
    fn ask(folder: &Path) -> Result<Self> {
        let answer = Command::new("rustc").arg("-vV").current_dir(folder).output().context("running rustc -vV")?;
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        let line = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found.map(str::to_owned).with_context(|| format!("`rustc -vV` says no {name}"))
        };
        Ok(Self { host: line("host")?, version: line("release")? })
    }
}
