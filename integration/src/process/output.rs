//! Short commands whose output is wanted: owns their run to the end within a limit. Long-running parts are `Process`.

use std::fs::File;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{Invocation, spawner};
use crate::eventually::eventually;
use crate::run::RunDir;

/// How a short command ended and what it said.
#[derive(Debug, Clone)]
pub struct Output {
    /// Name and arguments, for messages.
    pub command: String,
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a command that succeeded; otherwise an error that repeats what it said.
    pub fn success(self) -> Result<String> {
        let Self { command, status, stdout, stderr } = self;
        ensure!(status.success(), "{command}: {status}\n{stderr}{stdout}");
        Ok(stdout)
    }
}

/// Kills the command if whoever waited for it stopped waiting.
struct Guard(Option<std::process::Child>);

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else {
            return;
        };
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait();
    }
}

/// Runs a command to its end; one that takes longer than `limit` is killed and is an error.
pub async fn output(run: &RunDir, invocation: &Invocation, limit: Duration) -> Result<Output> {
    let args: Vec<_> = invocation.args.iter().map(|arg| arg.to_string_lossy()).collect();
    let shown = format!("{} {}", invocation.name, args.join(" "));
    // Files, not pipes: a full pipe would stop a command that nobody reads from.
    let capture = || tempfile::tempfile_in(run.path()).context("a file for the output of a command");
    let (stdout, stderr) = (capture()?, capture()?);
    let mut command = invocation.command(run)?;
    command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let mut guard = Guard(Some(spawner::spawn(command).with_context(|| format!("starting {shown}"))?));
    let status = eventually(format!("`{shown}` ends"), limit, async || {
        guard.0.as_mut().map_or(Ok(None), std::process::Child::try_wait)
    })
    .await?;
    // It has been reaped: its number may belong to somebody else by now.
    guard.0 = None;
    Ok(Output { command: shown, status, stdout: read(stdout)?, stderr: read(stderr)? })
}

fn read(mut file: File) -> Result<String> {
    use std::io::{Read as _, Seek as _};
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).context("reading the output of a command")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
