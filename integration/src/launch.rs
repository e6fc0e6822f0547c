//! The last step before a part runs: this program, started again by the harness, ties itself to its parent's life, takes
//! a mount namespace of its own where asked, and becomes the part. It owns that step only; supervision is in `process`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, Signal, getgid, getppid, getuid, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;

/// The first argument that turns `xtask` into the launcher.
const WORD: &str = "__launch";

/// A command that runs `program`, dies with this process, and sees mounts of its own if `private_mounts`.
pub(crate) fn command(program: &std::path::Path, private_mounts: bool) -> Result<Command> {
    let mut command = Command::new(launcher()?);
    command
        .arg(WORD)
        .arg(std::process::id().to_string())
        .arg(if private_mounts { "private-mounts" } else { "shared-mounts" })
        .arg(program);
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
    let private_mounts = text(args.next())? == "private-mounts";
    let program = args.next().context("the program to run")?;

    set_parent_process_death_signal(Some(Signal::KILL)).context("asking to die with the parent")?;
    // Asked too late when the parent is gone already.
    ensure!(getppid() == Pid::from_raw(parent), "the parent process ended before {} could start", program.display());
    if private_mounts {
        own_mounts().context(
            "a container runtime must be allowed to mount: run as root, with CAP_SYS_ADMIN, or enable user namespaces",
        )?;
    }
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

#[expect(deprecated, reason = "deprecated for the sake of UnshareFlags::FILES, which is never passed here")]
fn unshare(flags: UnshareFlags) -> Result<()> {
    rustix::thread::unshare(flags).context("a mount namespace")
}
