//! The last step before a part runs: this program, started again by the harness, ties itself to its parent's life, takes
//! the namespaces it is to have, and becomes the part. It owns that step only; supervision is in `process`.

mod machine;

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, Signal, getgid, getppid, getuid, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// The first argument that turns `xtask` into the launcher.
const WORD: &str = "__launch";

pub use machine::Machine;

/// Exit code for a part that a signal ended.
const KILLED: i32 = 137;

/// Which mounts a part sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounts {
    /// Those of the test.
    Shared,
    /// Its own: what it mounts is seen by it alone and vanishes with it.
    Private,
    /// Its own, and in this folder a file system in memory of so many bytes.
    Disk(PathBuf, u64),
    /// Those of the process with this id.
    Of(u32),
}

impl Mounts {
    fn print(&self) -> OsString {
        match self {
            Self::Shared => "shared".into(),
            Self::Private => "private".into(),
            Self::Disk(folder, bytes) => {
                let mut text = OsString::from(format!("disk:{bytes}:"));
                text.push(folder);
                text
            }
            Self::Of(process) => format!("of:{process}").into(),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(match text.splitn(3, ':').collect::<Vec<_>>()[..] {
            ["shared"] => Self::Shared,
            ["private"] => Self::Private,
            ["disk", bytes, folder] => Self::Disk(folder.into(), bytes.parse().context("the size of the disk")?),
            ["of", process] => Self::Of(process.parse().context("the process whose mounts are shared")?),
            _ => bail!("`{text}` says nothing about mounts"),
        })
    }

    fn enter(&self) -> Result<()> {
        match self {
            Self::Shared => Ok(()),
            Self::Private => own_mounts(),
            Self::Disk(folder, bytes) => {
                own_mounts()?;
                let size = CString::new(format!("size={bytes}")).context("the size of the disk")?;
                mount("tmpfs", folder, "tmpfs", MountFlags::empty(), size.as_c_str())
                    .with_context(|| format!("mounting a file system in memory on {}", folder.display()))
            }
            Self::Of(process) => mounts_of(*process),
        }
    }
}

/// A command that runs `program`, dies with this process, and sees these mounts on that machine.
pub(crate) fn command(program: &std::path::Path, mounts: &Mounts, machine: &Machine) -> Result<Command> {
    let mut command = Command::new(launcher()?);
    command.arg(WORD).arg(std::process::id().to_string()).arg(mounts.print()).arg(machine.print()).arg(program);
    Ok(command)
}

/// Where the launcher is, once that is known.
static LAUNCHER: OnceLock<PathBuf> = OnceLock::new();

/// This program itself if it is `xtask`, or the `xtask` that cargo built beside the tests.
fn launcher() -> Result<&'static PathBuf> {
    if let Some(known) = LAUNCHER.get() {
        return Ok(known);
    }
    let me = std::env::current_exe().context("the path of this program")?;
    let beside = me.ancestors().skip(1).take(2).map(|folder| folder.join("xtask"));
    let found = std::env::var_os("CARGO_BIN_EXE_xtask")
        .map(PathBuf::from)
        .into_iter()
        .chain(beside)
        .find(|path| path.is_file())
        .context("the program `xtask` is not beside the tests; build it: cargo build -p integration --bin xtask")?;
    Ok(LAUNCHER.get_or_init(|| found))
}

/// Becomes the part if this process was started as the launcher; returns only if it was not, or could not. To be called
/// first thing by `xtask`, which is its own launcher from then on.
pub(crate) fn take_over() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_none_or(|word| word != WORD) {
        // Not by name: a build that replaces the file while this one runs must not change what is started.
        LAUNCHER.get_or_init(|| PathBuf::from(format!("/proc/{}/exe", std::process::id())));
        return None;
    }
    let Err(error) = become_part(args);
    // Standard error is the log of the part: the harness shows its end when a part does not come up.
    crate::xtask::say(&format!("launch: {error:#}"));
    Some(ExitCode::from(127))
}

fn become_part(mut args: impl Iterator<Item = OsString>) -> Result<std::convert::Infallible> {
    let parent: i32 = text(args.next())?.parse().context("the parent's process id")?;
    let mounts = Mounts::parse(&text(args.next())?)?;
    let machine = Machine::parse(&text(args.next())?)?;
    let program = args.next().context("the program to run")?;

    set_parent_process_death_signal(Some(Signal::KILL)).context("asking to die with the parent")?;
    // Asked too late when the parent is gone already.
    ensure!(getppid() == Pid::from_raw(parent), "the parent process ended before {} could start", program.display());
    if let Some(mut inside) = machine.enter().context("entering a machine of the test: run as root")? {
        // Who enters a process namespace stays outside; the children are inside.
        let status = inside.arg(program).args(args).status().context("starting a process of the machine")?;
        std::process::exit(status.code().unwrap_or(KILLED));
    }
    mounts.enter().context(
        "a container runtime must be allowed to mount: run as root, with CAP_SYS_ADMIN, or enable user namespaces",
    )?;
    let error = Command::new(&program).args(args).exec();
    bail!("starting {}: {error}", program.display())
}

fn text(arg: Option<OsString>) -> Result<String> {
    arg.and_then(|arg| arg.into_string().ok()).context("an argument is missing")
}

/// Mounts made from here on vanish with the process, however it ends, so no test can leave one behind.
fn own_mounts() -> Result<()> {
    let (uid, gid) = (getuid(), getgid());
    if uid.is_root() {
        unshare(UnshareFlags::NEWNS)?;
    } else {
        unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
        std::fs::write("/proc/self/setgroups", "deny").context("writing setgroups")?;
        std::fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw())).context("writing uid_map")?;
        std::fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw())).context("writing gid_map")?;
    }
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).context("making mounts private")
}

/// Joins the mounts that a part started by this test has made.
fn mounts_of(process: u32) -> Result<()> {
    let here = std::env::current_dir().context("the folder of this process")?;
    let mut kinds = vec![("mnt", LinkNameSpaceType::Mount)];
    if !getuid().is_root() {
        kinds.insert(0, ("user", LinkNameSpaceType::User));
    }
    for (name, kind) in kinds {
        let path = format!("/proc/{process}/ns/{name}");
        let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
        move_into_link_name_space(namespace.as_fd(), Some(kind)).with_context(|| format!("joining {path}"))?;
    }
    // Joining leads to the root of the other's tree.
    std::env::set_current_dir(here).context("going back to the folder of this process")
}

#[expect(deprecated, reason = "deprecated for the sake of UnshareFlags::FILES, which is never passed here")]
pub(crate) fn unshare(flags: UnshareFlags) -> Result<()> {
    rustix::thread::unshare(flags).context("a namespace of its own")
}
