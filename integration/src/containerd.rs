//! A real containerd as a node's runtime, for images only (no runc, shim or CNI is needed to pull): owns its process,
//! configuration and where registry names lead. What it pulls is the test's or the agent's business.

mod container;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::crictl::Crictl;
use crate::image::Platform;
use crate::launch::Mounts;
use crate::parts::{Parts, Tool};
use crate::process::{Invocation, Process};
use crate::run::RunDir;

/// The one image that every runtime here pins, as nodes do with the image of a pod's sandbox.
pub const PINNED: &str = "registry.test/pinned:1";

const READY: Duration = Duration::from_secs(30);

/// A path of a Unix socket may have so many bytes.
const SOCKET: usize = 107;

/// Unpacks in one go and keeps no mount: right wherever it works.
const OVERLAY: &str = "overlayfs";

/// Copies each layer's parent; for a folder that is on an overlay itself, where overlays cannot be stacked.
const NATIVE: &str = "native";

/// Plugins that need what a test machine may lack, or that start for nothing.
pub(crate) const DISABLED: &[&str] = &[
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.internal.v1.tracing",
    "io.containerd.image-verifier.v1.bindir",
];

/// A running containerd of one node.
pub struct Containerd {
    folder: PathBuf,
    socket: PathBuf,
    crictl: Crictl,
    process: Process,
    has_disk: bool,
}

impl Containerd {
    /// Starts the runtime of node `node`; each of `registries` is a name and where it leads by plain HTTP. A registry of any
    /// other name is refused at once on loopback: nothing leaves the machine.
    pub async fn start(
        run: &Arc<RunDir>,
        parts: &Parts,
        node: &str,
        registries: &[(&str, SocketAddr)],
    ) -> Result<Self> {
        Self::start_on(run, parts, node, registries, None).await
    }

    /// The same with what it stores on a disk of its own of so many bytes, in memory: only processes with its
    /// [`Self::mounts`] see it.
    pub async fn start_on(
        run: &Arc<RunDir>,
        parts: &Parts,
        node: &str,
        registries: &[(&str, SocketAddr)],
        disk: Option<u64>,
    ) -> Result<Self> {
        let folder = run.folder(node)?;
        let socket = folder.join("containerd.sock");
        let longest = format!("{}.ttrpc", socket.display());
        ensure!(longest.len() <= SOCKET, "{longest} is too long for a Unix socket; set TMPDIR to a shorter folder");
        let config = folder.join("containerd.toml");
        std::fs::write(&config, configuration(&folder, &socket)?).context("writing containerd's configuration")?;
        let crictl = Crictl::new(run, parts, node, &socket)?;
        let invocation = Invocation::new(format!("containerd-{node}"), parts.path(Tool::Containerd)?)
            .arg("--config")
            .arg(config)
            .args(["--log-level", "info"])
            .mounts(disk.map_or(Mounts::Private, |bytes| Mounts::Disk(store(&folder), bytes)));
        std::fs::create_dir_all(store(&folder)).context("creating containerd's store")?;
        write_hosts(&folder, "_default", SocketAddr::from(([127, 0, 0, 1], 1)))?;
        for (name, address) in registries {
            write_hosts(&folder, name, *address)?;
        }
        let mut containerd =
            Self { folder, socket, crictl, process: Process::start(run, invocation)?, has_disk: disk.is_some() };
        containerd.until_ready().await?;
        Ok(containerd)
    }

    /// Its socket, for CRI.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its folder; everything it stores is below.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The mounts of whoever must see the disk its images are on.
    pub fn mounts(&self) -> Mounts {
        match self.process.id() {
            Some(id) if self.has_disk => Mounts::Of(id),
            _ => Mounts::Shared,
        }
    }

    /// Fills its own disk with a file until so many percent are used.
    pub fn fill_to(&self, percent: u64) -> Result<()> {
        ensure!(self.has_disk, "this runtime has no disk of its own");
        let process = self.process.id().context("the runtime does not run")?;
        let store = store(&self.folder);
        let seen = Path::new("/proc").join(process.to_string()).join("root").join(store.strip_prefix("/")?);
        let filler = seen.join("filler");
        // It grows or shrinks in one go: nobody sees the disk emptier than before or after.
        let mut file = File::options().create(true).append(true).open(&filler).context("opening the filler")?;
        let size = file.metadata().context("the size of the filler")?.len();
        let disk = rustix::fs::statvfs(&seen).with_context(|| format!("the file system of {}", seen.display()))?;
        let total = disk.f_blocks * disk.f_frsize;
        let others = (total - disk.f_bavail * disk.f_frsize).saturating_sub(size);
        let wanted = (total * percent / 100).saturating_sub(others);
        match usize::try_from(wanted.saturating_sub(size))? {
            0 => file.set_len(wanted).context("freeing the disk"),
            more => file.write_all(&vec![1; more]).context("filling the disk"),
        }
    }

    /// A client of its CRI.
    pub fn crictl(&self) -> &Crictl {
        &self.crictl
    }

    /// Lets the registry `name` lead elsewhere from the next pull on.
    pub fn route(&self, name: &str, to: SocketAddr) -> Result<()> {
        write_hosts(&self.folder, name, to)
    }

    /// Waits until CRI answers.
    pub async fn until_ready(&mut self) -> Result<()> {
        let crictl = &self.crictl;
        // Listing images needs the image service and the store behind it; `version` would answer earlier.
        self.process.until_ready(READY, async || crictl.images().await.map(drop)).await
    }

    /// Its process, to kill, pause and start again; images stay on disk.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// SIGKILL and start; returns when CRI answers.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.restart()?;
        self.until_ready().await
    }
}

fn store(folder: &Path) -> PathBuf {
    folder.join("root")
}

fn configuration(folder: &Path, socket: &Path) -> Result<String> {
    let (folder, socket) = (folder.display(), socket.display());
    let disabled = DISABLED.iter().map(|plugin| format!("\"{plugin}\"")).collect::<Vec<_>>().join(", ");
    let Platform { os, architecture } = Platform::here();
    let snapshotter = snapshotter(&folder.to_string())?;
    let mut config = String::new();
    write!(
        config,
        r#"version = 3
root = "{folder}/root"
state = "{folder}/state"
oom_score = 0
disabled_plugins = [{disabled}]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins.'io.containerd.internal.v1.opt']
  path = "{folder}/opt"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "{snapshotter}"
  use_local_image_pull = false
  stats_collect_period = 1
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    test = "{PINNED}"
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = "{folder}/certs.d"
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "{os}/{architecture}"
  snapshotter = "{snapshotter}"
[plugins.'io.containerd.cri.v1.runtime']
  enable_cdi = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{folder}/cni"]
    conf_dir = "{folder}/cni"
"#
    )?;
    Ok(config)
}

pub(crate) fn snapshotter(folder: &str) -> Result<&'static str> {
    /// The number of overlay file systems (linux/magic.h).
    const OVERLAYFS: u64 = 0x794c_7630;
    let below = rustix::fs::statfs(folder).with_context(|| format!("the file system of {folder}"))?;
    let is_stacked = u64::try_from(below.f_type) == Ok(OVERLAYFS);
    let is_root = rustix::process::getuid().is_root();
    Ok(if is_stacked || !is_root { NATIVE } else { OVERLAY })
}

pub(crate) fn write_hosts(folder: &Path, registry: &str, address: SocketAddr) -> Result<()> {
    let folder = folder.join("certs.d").join(registry);
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let hosts = format!(
        "server = \"http://{address}\"\n[host.\"http://{address}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    );
    // Renamed into place: a pull may read the old file or the new one, never half of it.
    let partial = folder.join("hosts.toml.partial");
    std::fs::write(&partial, hosts).context("writing hosts.toml")?;
    std::fs::rename(&partial, folder.join("hosts.toml")).context("renaming hosts.toml")
}
