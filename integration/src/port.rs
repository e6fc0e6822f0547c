//! Loopback ports for parts that want to be told one: owns which ports are taken on this machine by any test, and keeps
//! a port for one part over its restarts. It never serves anything itself.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::net::{TcpListener, TcpSocket};

/// Below the range that kernels use for outgoing connections (32768 and up), so none of those takes a port between the
/// moment it is chosen and the moment the part listens.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
/// Much longer than a process that is being started keeps the sockets of the one that starts it.
const FREED: Duration = Duration::from_secs(10);
/// Time between two tries to listen.
const PAUSE: Duration = Duration::from_millis(5);

/// A loopback port that no other test of any process is given while this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// A port that nobody listens on and no other test holds.
    pub fn free() -> Result<Self> {
        let folder = folder()?;
        let start = fastrand::u16(RANGE);
        for number in (start..RANGE.end).chain(RANGE.start..start) {
            let path = folder.join(number.to_string());
            let lock = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
            match lock.try_lock() {
                Ok(()) if is_free(number) => {
                    return Ok(Self { number, _lock: lock });
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(error).context(format!("locking {}", path.display()));
                }
            }
        }
        bail!("no free loopback port in {RANGE:?}")
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Listens on it. A process that is being started holds every socket of this one until it has become its program,
    /// so a listener closed a moment ago may still be in the way.
    pub async fn listen(&self) -> Result<TcpListener> {
        let (address, start) = (self.address(), Instant::now());
        loop {
            match TcpListener::bind(address).await {
                Err(error) if error.kind() == ErrorKind::AddrInUse && start.elapsed() < FREED => {
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done.with_context(|| format!("listening on {address}")),
            }
        }
    }

    /// `127.0.0.1:<number>`.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.number))
    }
}

/// Whether nobody listens there. It is asked without listening: a listening socket that a child process inherits for a
/// moment would be in the way of the part that the port is for.
fn is_free(number: u16) -> bool {
    let bound = || -> std::io::Result<TcpSocket> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, number).into())?;
        Ok(socket)
    };
    bound().is_ok()
}

/// Lock files, one a port; per user, because another user's files could not be opened. They stay: removing a lock file
/// would let two holders lock two files of one name.
fn folder() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("warm-ports-{}", rustix::process::getuid().as_raw()));
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Calls `body` while four threads start processes without a pause.
    fn among_starting_processes(body: impl FnOnce() -> Result<()>) -> Result<()> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        drop(Command::new("true").status());
                    }
                });
            }
            let done = body();
            over.store(true, Ordering::Relaxed);
            done
        })
    }

    #[test]
    fn a_part_can_listen_on_its_port_while_others_are_started() -> Result<()> {
        among_starting_processes(|| {
            (0..1_000).try_for_each(|_| {
                let port = Port::free()?;
                std::net::TcpListener::bind(port.address()).map(drop).with_context(|| format!("{port:?}"))
            })
        })
    }

    #[test]
    fn a_listener_comes_back_while_processes_are_started() -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let port = Port::free()?;
        among_starting_processes(|| (0..500).try_for_each(|_| runtime.block_on(port.listen()).map(drop)))
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free() -> Result<()> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        anyhow::ensure!(!is_free(listener.local_addr()?.port()));
        Ok(())
    }
}
