//! The pinned real parts: owns which programs there are, where their cache is and what its key is made of. Building one is
//! in `build`; running one is for `process`. What is pinned stands in `parts/go.mod`, nowhere else.

mod build;
mod toolchain;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use toolchain::Toolchain;

const GO_MOD: &str = include_str!("../parts/go.mod");
const GO_SUM: &str = include_str!("../parts/go.sum");

/// A program of the pinned set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// The message server.
    NatsServer,
    /// Its command-line client.
    Nats,
    /// A registry (`crane registry serve`) and an image tool.
    Crane,
    /// The store of the API server.
    Etcd,
    /// The container runtime.
    Containerd,
    /// A command-line client of any container runtime.
    Crictl,
    /// What installs the chart.
    Helm,
    /// The Kubernetes API server.
    KubeApiserver,
    /// Its command-line client.
    Kubectl,
    /// The Kubernetes controllers.
    KubeControllerManager,
}

impl Tool {
    /// All of them, quick ones first: whoever waits for NATS need not wait for Kubernetes.
    pub const ALL: &'static [Self] = &[
        Self::NatsServer,
        Self::Crane,
        Self::Etcd,
        Self::Containerd,
        Self::Nats,
        Self::Crictl,
        Self::Helm,
        Self::KubeApiserver,
        Self::Kubectl,
        Self::KubeControllerManager,
    ];

    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NatsServer => "nats-server",
            Self::Nats => "nats",
            Self::Crane => "crane",
            Self::Etcd => "etcd",
            Self::Containerd => "containerd",
            Self::Crictl => "crictl",
            Self::Helm => "helm",
            Self::KubeApiserver => "kube-apiserver",
            Self::Kubectl => "kubectl",
            Self::KubeControllerManager => "kube-controller-manager",
        }
    }

    /// The Go package it is built from.
    fn package(self) -> &'static str {
        match self {
            Self::NatsServer => "github.com/nats-io/nats-server/v2",
            Self::Nats => "github.com/nats-io/natscli/nats",
            Self::Crane => "github.com/google/go-containerregistry/cmd/crane",
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::Containerd => "github.com/containerd/containerd/v2/cmd/containerd",
            Self::Crictl => "sigs.k8s.io/cri-tools/cmd/crictl",
            Self::Helm => "helm.sh/helm/v4/cmd/helm",
            Self::KubeApiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Self::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Self::KubeControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
        }
    }

    /// The program of that name.
    pub fn from_name(name: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|tool| tool.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|tool| tool.name()).collect();
            format!("no part `{name}`; there are {}", known.join(", "))
        })
    }
}

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
    for content in [GO_MOD, GO_SUM, &toolchain.identity, &build::flags()?.join("\n"), &build::environment().join("\n")]
    {
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
        for tool in Tool::ALL {
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
