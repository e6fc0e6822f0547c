//! A network of a test's own: owns the namespace, which lives as long as this value and vanishes with the process, and
//! what `ip` sets up in it. Which addresses there are is `kubernetes`'.

mod door;

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::launch::{Machine, unshare};
use crate::process::{Invocation, output};
use crate::run::RunDir;
use crate::system_program;

pub use door::Door;

/// `ip` waits for nobody.
const LIMIT: Duration = Duration::from_secs(30);

/// A network namespace.
#[derive(Debug)]
pub struct Network {
    namespace: File,
    outside: File,
}

impl Network {
    /// A new one, which this thread and all threads it makes from now on are in.
    pub fn enter_new() -> Result<Self> {
        let outside = current()?;
        unshare(UnshareFlags::NEWNET).context("a network of its own: run as root")?;
        let namespace = current()?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("letting it forward packets")?;
        Ok(Self { namespace, outside })
    }

    /// A new one that nobody is in.
    pub fn new() -> Result<Self> {
        let thread = std::thread::spawn(Self::enter_new);
        thread.join().map_err(|_| anyhow!("the thread that makes a network panicked"))?
    }

    /// What to open to join it, for any process of this machine.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()).into()
    }

    /// Does something where the thread was that made this network.
    pub fn outside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(self.outside.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("going outside")?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs these commands of `ip` in it, one a line.
    pub async fn configure(&self, run: &RunDir, name: &str, commands: &[String]) -> Result<()> {
        let file = run.write(&format!("network/{name}"), commands.join("\n") + "\n")?;
        let invocation = Invocation::new("ip", system_program::find("ip")?)
            .arg("-batch")
            .arg(file)
            .machine(Machine::Network(self.path()));
        output(run, &invocation, LIMIT).await?.success().with_context(|| format!("setting up the network {name}"))?;
        Ok(())
    }
}

/// The network that this thread is in.
fn current() -> Result<File> {
    File::open("/proc/thread-self/ns/net").context("opening the network namespace")
}
