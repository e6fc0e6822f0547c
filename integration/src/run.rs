//! The folder of one test run and its frame: owns where parts keep their files, the overall time limit, and that a failed
//! run leaves its logs and says where. It never starts a part.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use crate::network::Network;

/// Set to anything, every run folder stays.
const KEEP: &str = "WARM_KEEP_RUN";

/// Longest part of a test's name in the folder's name: paths of Unix sockets below it may have 107 bytes only.
const NAME: usize = 24;

/// A folder that is removed when the last owner goes, unless the test failed.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    keep: AtomicBool,
    network: OnceLock<Network>,
}

impl RunDir {
    /// A new folder under the system's temporary folder.
    pub fn new(name: &str) -> Result<Arc<Self>> {
        let short: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(NAME).collect();
        let path = tempfile::Builder::new()
            .prefix(&format!("warm-{short}-"))
            .tempdir()
            .context("creating the folder of the run")?
            .keep();
        let run = Self { path, keep: AtomicBool::new(std::env::var_os(KEEP).is_some()), network: OnceLock::new() };
        run.folder("log")?;
        run.folder("home")?;
        Ok(Arc::new(run))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder `name` inside, created if need be.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }

    /// Writes the file `name` inside and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Where the log of the part `name` goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.path.join("log").join(format!("{name}.log"))
    }

    /// An empty home folder, so that no part reads the settings of the person who runs the tests.
    pub fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// The network that the test and its parts are in, if it is not the machine's.
    pub fn network(&self) -> Option<&Network> {
        self.network.get()
    }

    /// Keeps the folder: the test failed in a way that is no panic.
    pub fn keep(&self) {
        self.keep.store(true, Ordering::Relaxed);
    }

    /// Logs, biggest last, as a person would want to open them.
    fn logs(&self) -> Vec<(u64, PathBuf)> {
        let mut logs: Vec<_> = std::fs::read_dir(self.path.join("log"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.len(), entry.path())))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        logs.sort();
        logs
    }
}

impl Drop for RunDir {
    #[expect(clippy::print_stderr, reason = "the test's captured output is where a person looks for the logs")]
    fn drop(&mut self) {
        if std::thread::panicking() || self.keep.load(Ordering::Relaxed) {
            eprintln!("the files of this run are kept: {}", self.path.display());
            for (bytes, path) in self.logs() {
                eprintln!("  {bytes:>9} bytes  {}", path.display());
            }
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("removing {}: {error}", self.path.display());
        }
    }
}

/// The number that the environment variable `name` has, or `usual`: what a test draws its choices from. Says which.
pub fn seed(name: &str, usual: u64) -> Result<u64> {
    let seed = match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is {text}, not a number"))?,
        Err(_) => usual,
    };
    said(&format!("{name}={seed}"));
    Ok(seed)
}

/// Prints a line for people, who see it when the test fails or with `-- --nocapture`.
#[expect(clippy::print_stderr, reason = "the test's captured output is where a person looks for it")]
pub fn said(line: &str) {
    eprintln!("{line}");
}

/// Says how long something took. A test never asserts it.
pub fn measured(what: &str, took: Duration) {
    said(&format!("measured: {what}: {:.1} s", took.as_secs_f64()));
}

/// Runs one test body in a folder and a runtime of its own. Every failure, be it an error, a panic or the time limit,
/// keeps the folder and prints its place.
pub fn scenario(name: &str, limit: Duration, body: impl AsyncFnOnce(Arc<RunDir>) -> Result<()>) -> Result<()> {
    run_in(&RunDir::new(name)?, name, limit, body)
}

/// The same in a network of its own, for the body and all parts: whatever listens there, nobody else reaches it.
pub fn scenario_in_network(
    name: &str,
    limit: Duration,
    body: impl AsyncFnOnce(Arc<RunDir>) -> Result<()> + Send,
) -> Result<()> {
    // The threads of the runtime are born into the network of the thread that makes them.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let run = RunDir::new(name)?;
            let network = Network::enter_new()?;
            run.network.get_or_init(|| network);
            run_in(&run, name, limit, body)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn run_in(
    run: &Arc<RunDir>,
    name: &str,
    limit: Duration,
    body: impl AsyncFnOnce(Arc<RunDir>) -> Result<()>,
) -> Result<()> {
    // Two threads: proxies must answer while the body waits in a blocking call.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let done = runtime.block_on(async {
        match tokio::time::timeout(limit, body(Arc::clone(run))).await {
            Ok(done) => done,
            Err(_) => Err(anyhow!("{name}: not done within {limit:?}")),
        }
    });
    if done.is_err() {
        run.keep();
    }
    runtime.shutdown_background();
    done
}
