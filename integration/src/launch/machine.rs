//! Machines of a test: namespaces in which a node's parts run as on a computer of their own. Owns how one is made and
//! entered; what runs on it is `kubernetes`'. When the process that made it goes, the kernel ends all that is inside.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::{WORD, unshare};

/// Folders that a machine has of its own: in the folder of the machine, and where it sees them.
const OWN: [(&str, &str); 3] = [("run", "/run"), ("lib", "/var/lib"), ("log", "/var/log")];

/// On which machine a part runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Machine {
    /// That of whoever starts it.
    Host,
    /// The same, but in another network.
    Network(PathBuf),
    /// A new one in this network, whose first process the part is; the folder holds what is its own.
    New {
        /// The network namespace.
        network: PathBuf,
        /// What it sees as `/run`, `/var/lib` and `/var/log`.
        folder: PathBuf,
    },
    /// The one that the launcher of this process id made.
    Of(u32),
    /// The new machine from the inside: the last step of making one.
    First,
}

impl Machine {
    /// Makes the folders that [`Self::New`] wants.
    pub fn folders(folder: &Path) -> Result<()> {
        for (name, _) in OWN {
            std::fs::create_dir_all(folder.join(name)).with_context(|| format!("creating {name}"))?;
        }
        Ok(())
    }

    pub(super) fn print(&self) -> OsString {
        let mut text = OsString::new();
        match self {
            Self::Host => text.push("host"),
            Self::First => text.push("first"),
            Self::Of(process) => text.push(format!("of:{process}")),
            Self::Network(path) => {
                text.push("network:");
                text.push(path);
            }
            Self::New { network, folder } => {
                text.push("new:");
                text.push(network);
                text.push(":");
                text.push(folder);
            }
        }
        text
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        Ok(match text.splitn(3, ':').collect::<Vec<_>>()[..] {
            ["host"] => Self::Host,
            ["first"] => Self::First,
            ["of", process] => Self::Of(process.parse().context("the process that made the machine")?),
            ["network", path] => Self::Network(path.into()),
            ["new", network, folder] => Self::New { network: network.into(), folder: folder.into() },
            _ => bail!("`{text}` is no machine"),
        })
    }

    /// Enters it. A command is what goes on inside, if this process cannot itself.
    pub(super) fn enter(&self) -> Result<Option<Command>> {
        match self {
            Self::Host => Ok(None),
            Self::First => {
                let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
                mount("proc", "/proc", "proc", flags, None).context("mounting /proc")?;
                Ok(None)
            }
            Self::Network(path) => {
                join(path, LinkNameSpaceType::Network)?;
                Ok(None)
            }
            Self::New { network, folder } => make(network, folder).map(Some),
            Self::Of(process) => join_all(*process).map(Some),
        }
    }
}

fn make(network: &Path, folder: &Path) -> Result<Command> {
    let me = Me::open()?;
    join(network, LinkNameSpaceType::Network)?;
    unshare(UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)?;
    let all = MountPropagationFlags::REC;
    mount_change("/", all | MountPropagationFlags::PRIVATE).context("making mounts private")?;
    for (name, place) in OWN {
        mount_bind(folder.join(name), place).with_context(|| format!("mounting {place}"))?;
    }
    // As on a real node: what a pod mounts under a shared volume is seen by others of the machine.
    mount_change("/", all | MountPropagationFlags::SHARED).context("sharing mounts in the machine")?;
    Ok(me.again(&Machine::First))
}

fn join_all(process: u32) -> Result<Command> {
    let me = Me::open()?;
    let here = std::env::current_dir().context("the folder of this process")?;
    let kinds = [
        ("net", LinkNameSpaceType::Network),
        ("ipc", LinkNameSpaceType::InterProcessCommunication),
        ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
        ("pid_for_children", LinkNameSpaceType::ProcessID),
        // Last: it changes what /proc means.
        ("mnt", LinkNameSpaceType::Mount),
    ];
    for (name, kind) in kinds {
        join(&PathBuf::from(format!("/proc/{process}/ns/{name}")), kind)?;
    }
    std::env::set_current_dir(here).context("going back to the folder of this process")?;
    Ok(me.again(&Machine::Host))
}

/// This program, whatever becomes of its name and of /proc.
struct Me(File);

impl Me {
    fn open() -> Result<Self> {
        File::open("/proc/self/exe").map(Self).context("opening this program")
    }

    fn again(self, machine: &Machine) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        // A process whose parent is outside its own namespace sees none: number 0.
        command.arg(WORD).arg("0").arg("shared").arg(machine.print());
        // To be open until the command has started; this process does nothing else any more.
        std::mem::forget(self.0);
        command
    }
}

fn join(path: &Path, kind: LinkNameSpaceType) -> Result<()> {
    let namespace = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    move_into_link_name_space(namespace.as_fd(), Some(kind)).with_context(|| format!("joining {}", path.display()))
}
