//! Loopback ports for parts that want to be told one: owns which ports are taken on this machine by any test, and keeps
//! a port for one part over its restarts. It never serves anything itself.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// Below the range that kernels use for outgoing connections (32768 and up), so none of those takes a port between the
/// moment it is chosen and the moment the part listens.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

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
                Ok(()) if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() => {
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

    /// `127.0.0.1:<number>`.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.number))
    }
}

/// Lock files, one a port; per user, because another user's files could not be opened. They stay: removing a lock file
/// would let two holders lock two files of one name.
fn folder() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("warm-ports-{}", rustix::process::getuid().as_raw()));
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}
