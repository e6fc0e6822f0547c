//! A node's machine: owns its namespaces, its first process, its cgroups and its folder. What runs on it is started with
//! the machine's invocations and ends with it, containers too: the kernel ends all processes of a machine with its first.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use super::cgroup::Cgroup;
use crate::launch;
use crate::network::Network;
use crate::parts::Parts;
use crate::process::{Invocation, Process};
use crate::run::RunDir;
use crate::system_program;

const READY: Duration = Duration::from_secs(20);

/// Longest that the kernel takes to end everything on a machine.
const END: Duration = Duration::from_secs(10);

/// A machine. Fields drop in this order: cgroups can go once nothing runs in them.
pub(super) struct Machine {
    first: Process,
    cgroup: Cgroup,
    _network: Network,
    folder: PathBuf,
    path: std::ffi::OsString,
}

impl Machine {
    /// A machine in this network.
    pub(super) async fn start(run: &Arc<RunDir>, parts: &Parts, node: &str, network: Network) -> Result<Self> {
        let folder = run.folder(node)?;
        launch::Machine::folders(&folder)?;
        let id = run.path().file_name().and_then(|name| name.to_str()).context("the name of the run's folder")?;
        let cgroup = Cgroup::new(&format!("{id}-{node}"))?;
        let up = folder.join("run/up");
        // As the first process it inherits orphans; ignoring this signal is how it needs not wait for them.
        let script = "trap '' CHLD; echo up > /run/up; exec sleep infinity";
        let machine = launch::Machine::New { network: network.path(), folder: folder.clone() };
        let invocation = Invocation::new(format!("machine-{node}"), "/bin/sh").args(["-c", script]).machine(machine);
        let mut first = Process::start(run, invocation)?;
        first.until_ready(READY, async || up.is_file()).await?;
        Ok(Self { first, cgroup, _network: network, folder, path: system_program::path(parts.bin())? })
    }

    /// A program on this machine.
    pub(super) fn invocation(&self, name: String, program: impl Into<PathBuf>) -> Result<Invocation> {
        let launcher = self.first.id().ok_or_else(|| anyhow!("the machine is gone"))?;
        Ok(Invocation::new(name, program).env("PATH", &self.path).machine(launch::Machine::Of(launcher)))
    }

    /// The folder of what is its own: `run`, `lib` and `log` are its `/run`, `/var/lib` and `/var/log`.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The root of its pods' cgroups.
    pub(super) fn cgroup(&self) -> String {
        self.cgroup.name()
    }

    /// The number of its first process on the test's machine.
    fn first_process(&self) -> Option<u32> {
        let launcher = self.first.id()?;
        let children = std::fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let first = self.first_process();
        // There is nobody to tell.
        let _ = self.first.kill();
        let start = Instant::now();
        // The first process is the last to be gone: only then are files and cgroups nobody's.
        while first.is_some_and(is_running) && start.elapsed() < END {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn is_running(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
