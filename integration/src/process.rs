//! Child processes of a test: owns their start, log, signals and end. A child never outlives the test, however that ends.
//! It knows nothing of what the programs do.

mod output;
mod spawner;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::eventually::{Observation, eventually};
use crate::http::Http;
use crate::launch::{self, Machine, Mounts};
use crate::run::RunDir;

pub use output::{Output, output};

/// Lines of a log that an error repeats.
const TAIL: usize = 15;

/// What to run and how; the same value starts it again.
#[derive(Clone, Debug)]
pub struct Invocation {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(String, OsString)>,
    folder: Option<PathBuf>,
    mounts: Mounts,
    machine: Machine,
}

impl Invocation {
    /// `name` is the name of the log; of two invocations with one name in one run the later appends.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            folder: None,
            mounts: Mounts::Shared,
            machine: Machine::Host,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A variable. Of the caller's environment the child sees `PATH` and the temporary folder only.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// The working folder; the run's folder if none is given.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Which mounts the child sees; without this those of the test.
    #[must_use]
    pub fn mounts(mut self, mounts: Mounts) -> Self {
        self.mounts = mounts;
        self
    }

    /// On which machine of the test it runs; without this on the one the test itself is on.
    #[must_use]
    pub fn machine(mut self, machine: Machine) -> Self {
        self.machine = machine;
        self
    }

    fn command(&self, run: &RunDir) -> Result<std::process::Command> {
        let machine = match (&self.machine, run.network()) {
            // The thread that forks may be in another network than the test.
            (Machine::Host, Some(network)) => &Machine::Network(network.path()),
            (machine, _) => machine,
        };
        let mut command = launch::command(&self.program, &self.mounts, machine)?;
        command.args(&self.args).env_clear();
        for name in ["PATH", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", run.home())
            .envs(self.envs.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.as_deref().unwrap_or_else(|| run.path()))
            .stdin(Stdio::null());
        // A group of its own: a Ctrl-C at the terminal reaches the test first, and one signal reaches grandchildren.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(command)
    }
}

/// Longest that the kernel takes to stop every thread of a process.
const STOPPED: Duration = Duration::from_secs(5);

/// Whether every thread has taken the stop signal: state `T` after the name, which may itself hold anything.
fn all_stopped(tasks: &std::path::Path) -> Result<bool> {
    for task in std::fs::read_dir(tasks).with_context(|| tasks.display().to_string())? {
        let stat = std::fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
        if stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('T')) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A running (or just ended) child with its log. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    run: Arc<RunDir>,
    invocation: Invocation,
    child: Option<Child>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it; output goes to the log of its name in the run's folder.
    pub fn start(run: &Arc<RunDir>, invocation: Invocation) -> Result<Self> {
        let mut process = Self { run: Arc::clone(run), invocation, child: None, ended: None };
        process.start_again()?;
        Ok(process)
    }

    /// Starts it again after it ended.
    pub fn start_again(&mut self) -> Result<()> {
        let name = &self.invocation.name;
        ensure!(self.child.is_none(), "{name} is running already");
        let path = self.log();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        let mut command = self.invocation.command(&self.run)?;
        command.stdout(log.try_clone().context("sharing the log")?).stderr(log);
        self.child = Some(spawner::spawn(command).with_context(|| format!("starting {name}"))?);
        self.ended = None;
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.invocation.name
    }

    /// Its log; restarts append.
    pub fn log(&self) -> PathBuf {
        self.run.log(&self.invocation.name)
    }

    /// What it wrote so far.
    pub fn log_text(&self) -> String {
        read_lossy(&self.log())
    }

    /// Its process id while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The invocation, to be changed before the next start.
    pub fn invocation_mut(&mut self) -> &mut Invocation {
        &mut self.invocation
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if let Some(child) = &mut self.child {
            self.ended = child.try_wait().with_context(|| format!("asking after {}", self.invocation.name))?;
            if self.ended.is_some() {
                self.child = None;
            }
        }
        Ok(self.ended)
    }

    /// An error with the end of the log if it does not run any more.
    pub fn check(&mut self) -> Result<()> {
        match self.ended()? {
            None if self.child.is_some() => Ok(()),
            None => bail!("{} was not started", self.name()),
            Some(status) => {
                let how = status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
                let end = tail(&self.log_text(), TAIL);
                bail!("{} ended ({how}); the end of {}:\n{end}", self.name(), self.log().display())
            }
        }
    }

    /// Waits until `look` shows that the part answers; gives up at once when the process ends.
    pub async fn until_ready<O: Observation>(
        &mut self,
        limit: Duration,
        mut look: impl AsyncFnMut() -> O,
    ) -> Result<O::Value> {
        let name = self.invocation.name.clone();
        eventually(format!("{name} answers"), limit, async || {
            match self.check() {
                // Its end is an answer, too: there is nothing more to wait for.
                Err(dead) => Ok(Some(Err(dead))),
                Ok(()) => look().await.judge().map(|value| Some(Ok(value))).map_err(|state| anyhow!(state)),
            }
        })
        .await
        .with_context(|| format!("the log is {}", self.log().display()))?
    }

    /// Waits until a GET of `url` (an admin port) answers with a 2xx status; gives up at once when the process ends.
    pub async fn until_answers(&mut self, url: &str, limit: Duration) -> Result<()> {
        let http = Http::new();
        self.until_ready(limit, async || http.answers(url).await).await
    }

    /// Waits until it has ended by itself.
    pub async fn until_ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let name = self.invocation.name.clone();
        eventually(format!("{name} ends"), limit, async || self.ended()).await
    }

    /// SIGKILL, to the whole group, and reaped.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        if let Some(mut child) = self.child.take() {
            self.ended = Some(child.wait().with_context(|| format!("waiting for {}", self.name()))?);
        }
        Ok(())
    }

    /// SIGTERM, then waits for the end; an error (and SIGKILL) if that takes longer than `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let ended = self.until_ended(limit).await;
        self.kill()?;
        ended
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        // The signal is sent, not taken: on a busy machine another thread of the process may still answer.
        let tasks = PathBuf::from(format!("/proc/{}/task", self.id().context("it has ended")?));
        let start = std::time::Instant::now();
        while !all_stopped(&tasks)? {
            ensure!(start.elapsed() < STOPPED, "{} does not stop", self.name());
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// SIGCONT after a pause.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGHUP: most servers read their configuration again.
    pub fn hang_up(&self) -> Result<()> {
        self.signal(Signal::HUP)
    }

    /// SIGKILL and a new start with the same invocation.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.start_again()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let id = self.id().with_context(|| format!("{} does not run", self.name()))?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).context("reading the process's status")?;
        let kilobytes: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|value| value.trim().strip_suffix(" kB"))
            .and_then(|value| value.parse().ok())
            .context("no VmRSS in the process's status")?;
        Ok(kilobytes * 1024)
    }

    /// Processor time that it has used so far, of all its threads.
    pub fn cpu_time(&self) -> Result<Duration> {
        let id = self.id().with_context(|| format!("{} does not run", self.name()))?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).context("reading the process's times")?;
        // After the name, which may itself hold anything: state is the first field, user and system time the 12th and 13th.
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        let ticks = after.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(child) = &self.child else {
            return Ok(());
        };
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        match kill_process_group(group, signal) {
            // Ended by itself and not yet reaped here: nothing is left to signal.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("signalling {}", self.name())),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // There is nobody to tell, and the kernel kills it with this process anyway.
        let _ = self.kill();
    }
}

/// The last lines of a log, indented for an error message.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let last = all.get(all.len().saturating_sub(lines)..).unwrap_or_default();
    last.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn read_lossy(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
