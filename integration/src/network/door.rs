//! A door out of a run's network: owns a loopback port of the machine that leads to one address inside, for a person's
//! `kubectl` or browser. Tests are inside and need none.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::Network;

/// An open door; dropping it closes it.
pub struct Door {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Door {
    /// Opens one that leads to `inside`; to be called inside.
    pub fn open(network: &Network, inside: SocketAddr) -> Result<Self> {
        // A socket stays in the network it was made in, whoever uses it.
        let listener = network.outside(|| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let listener = listener.context("a loopback port outside")?;
        listener.set_nonblocking(true).context("the socket of a door")?;
        let address = listener.local_addr().context("the address of a door")?;
        let listener = TcpListener::from_std(listener).context("the socket of a door")?;
        Ok(Self { address, task: tokio::spawn(serve(listener, inside)) })
    }

    /// Where it is, outside.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, inside: SocketAddr) {
    while let Ok((mut client, _)) = listener.accept().await {
        tokio::spawn(async move {
            // Who is inside may be gone: the client sees its connection closed.
            if let Ok(mut server) = TcpStream::connect(inside).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}
