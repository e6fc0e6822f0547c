//! Builds one part with Go: owns the flags and that a program appears whole or not at all. It neither chooses what to build
//! nor locks.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use super::toolchain::Toolchain;
use super::{Tool, pinned};
use crate::launch::{self, Machine, Mounts};
use crate::process;

/// Lines of a failed build that its error repeats.
const TAIL: usize = 20;

/// Arguments of `go build` that are the same for every part.
pub(super) fn flags() -> Result<Vec<String>> {
    let kubernetes = pinned("k8s.io/kubernetes")?;
    let [major, minor] = two_numbers(kubernetes)?;
    // Without these the programs call themselves v0.0.0 and clients refuse features.
    let mut link = String::from("-s -w");
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in
            [("gitVersion", kubernetes), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "archive")]
        {
            write!(link, " -X {package}.{name}={value}")?;
        }
    }
    let containerd = pinned("github.com/containerd/containerd/v2")?;
    let crictl = pinned("sigs.k8s.io/cri-tools")?;
    write!(link, " -X github.com/containerd/containerd/v2/version.Version={containerd}")?;
    write!(link, " -X sigs.k8s.io/cri-tools/pkg/version.Version={crictl}")?;
    // Debug information is stripped anyway; not making it saves 8 % of the time.
    let fixed = ["build", "-pgo=off", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags"];
    Ok(fixed.into_iter().map(str::to_owned).chain([link]).collect())
}

/// Variables for `go build`; GOGC trades memory for 4 % of the time.
pub(super) fn environment() -> [&'static str; 3] {
    ["CGO_ENABLED=0", "GOFLAGS=-mod=readonly -buildvcs=false", "GOGC=400"]
}

/// Builds `tool` into `home/bin` under its name.
pub(super) fn build(toolchain: &Toolchain, tool: Tool, home: &Path) -> Result<()> {
    let partial = home.join(format!("{}.partial", tool.name()));
    let log = home.join(format!("{}.log", tool.name()));
    let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    // Tied to this process: a run that is killed leaves no compiler behind.
    let status = launch::command(Path::new("go"), &Mounts::Shared, &Machine::Host)?
        .args(flags()?)
        .arg("-o")
        .arg(&partial)
        .arg(tool.package())
        .current_dir(toolchain.module(tool.module())?)
        .envs(environment().iter().filter_map(|pair| pair.split_once('=')))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .context("running `go build`")?;
    if !status.success() {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        bail!("`go build {}` ({status}), {}:\n{}", tool.package(), log.display(), process::tail(&text, TAIL));
    }
    // Whole and on disk before it gets its name, so a crash leaves no half program that looks built.
    File::open(&partial).and_then(|file| file.sync_all()).context("writing the program to disk")?;
    std::fs::rename(&partial, home.join("bin").join(tool.name())).context("giving the program its name")
}

/// `v1.36.3` -> `["1", "36"]`.
fn two_numbers(version: &str) -> Result<[&str; 2]> {
    let mut numbers = version.trim_start_matches('v').split('.');
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => Ok([major, minor]),
        _ => bail!("{version} is no version"),
    }
}
