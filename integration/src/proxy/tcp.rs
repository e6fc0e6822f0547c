//! A TCP proxy that can cut, stall and delay: owns connections and bytes between a client and one server. It never looks
//! into them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::port::Port;

/// What happens to connections and their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Delay(Duration),
    Stall,
    /// Connections with a lower number.
    StallBefore(usize),
    StallWay(Way),
    Cut,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client.
    ToServer,
    /// From the server.
    ToClient,
}

/// Chunks in flight per direction; beyond them the sender is held back as by a full socket.
const IN_FLIGHT: usize = 64;

/// A change of the mode takes effect within this time, or the harness is broken.
const CHANGE: Duration = Duration::from_secs(5);

/// What passed so far, of all connections together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that were accepted.
    pub accepted: usize,
    /// Connections that are open now.
    pub open: usize,
    /// Bytes from clients that the server was given.
    pub to_server: u64,
    /// Bytes from the server that clients were given.
    pub to_client: u64,
}

/// One connection, as logged.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// When it was accepted.
    pub at: Instant,
    /// How long it lasted, once it is over.
    pub took: Option<Duration>,
    /// Bytes from the client that the server was given.
    pub to_server: u64,
    /// Bytes from the server that the client was given.
    pub to_client: u64,
}

/// A proxy in front of one server, on a port of its own that stays the same.
pub struct TcpProxy {
    port: Arc<Port>,
    mode: watch::Sender<Mode>,
    listening: watch::Receiver<bool>,
    log: Log,
    server: JoinHandle<()>,
}

impl TcpProxy {
    /// Starts passing everything on to `target`.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let port = Arc::new(Port::free()?);
        let listener = port.listen().await?;
        let (mode, modes) = watch::channel(Mode::Pass);
        let (said, listening) = watch::channel(true);
        let log = Log::default();
        let front = Front { port: Arc::clone(&port), target, modes, listening: said, log: log.clone() };
        let server = tokio::spawn(front.serve(listener));
        Ok(Self { port, mode, listening, log, server })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Closes all connections and refuses new ones. Returns when no connection is left and new ones are refused.
    pub async fn cut(&self) -> Result<()> {
        self.mode.send_replace(Mode::Cut);
        self.until_listening(false).await
    }

    /// Connections stay and new ones are accepted, but no byte passes: a network that swallows packets.
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stall);
    }

    /// The connections that are open now stay, but no byte passes on them; later ones are not touched: a peer that died
    /// without a word and was replaced.
    pub fn stall_open(&self) {
        self.mode.send_replace(Mode::StallBefore(self.log.lock().len()));
    }

    /// No byte passes in one direction; what the other side says still arrives.
    pub fn stall_way(&self, way: Way) {
        self.mode.send_replace(Mode::StallWay(way));
    }

    /// Every byte arrives that much later, in both directions.
    pub fn delay(&self, by: Duration) {
        self.mode.send_replace(Mode::Delay(by));
    }

    /// Passes everything on again; bytes held back by `stall` come first. Returns when new connections are accepted.
    pub async fn heal(&self) -> Result<()> {
        self.mode.send_replace(Mode::Pass);
        self.until_listening(true).await
    }

    /// All connections so far, in the order in which they were accepted.
    pub fn connections(&self) -> Vec<Connection> {
        self.log.lock().clone()
    }

    /// What passed so far.
    pub fn traffic(&self) -> Traffic {
        let connections = self.log.lock();
        Traffic {
            accepted: connections.len(),
            open: connections.iter().filter(|connection| connection.took.is_none()).count(),
            to_server: connections.iter().map(|connection| connection.to_server).sum(),
            to_client: connections.iter().map(|connection| connection.to_client).sum(),
        }
    }

    async fn until_listening(&self, wanted: bool) -> Result<()> {
        let mut listening = self.listening.clone();
        let change = tokio::time::timeout(CHANGE, listening.wait_for(|now| *now == wanted)).await;
        change.context("the proxy takes too long to change")?.context("the proxy has ended")?;
        Ok(())
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        // Its connections are in a set that goes with the task.
        self.server.abort();
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Connection>>>);

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Line {
        let mut log = self.lock();
        log.push(Connection { at: Instant::now(), took: None, to_server: 0, to_client: 0 });
        Line { log: self.clone(), number: log.len() - 1 }
    }
}

/// The line of a connection; dropping it says that the connection is over.
struct Line {
    log: Log,
    number: usize,
}

impl Line {
    fn update(&self, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.log.lock().get_mut(self.number) {
            change(connection);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.update(|connection| connection.took = Some(connection.at.elapsed()));
    }
}

/// The accepting side.
struct Front {
    port: Arc<Port>,
    target: SocketAddr,
    modes: watch::Receiver<Mode>,
    listening: watch::Sender<bool>,
    log: Log,
}

impl Front {
    async fn serve(mut self, listener: TcpListener) {
        let mut listener = Some(listener);
        let mut connections = JoinSet::new();
        loop {
            let is_cut = *self.modes.borrow_and_update() == Mode::Cut;
            if is_cut {
                // Without a listener the kernel itself refuses, as it does for a server that is down.
                listener = None;
                // They see the mode themselves and end.
                while connections.join_next().await.is_some() {}
            } else if listener.is_none() {
                listener = self.port.listen().await.ok();
            }
            self.listening.send_replace(listener.is_some());
            tokio::select! {
                changed = self.modes.changed() => if changed.is_err() { return },
                Some(accepted) = accept(listener.as_ref()) => {
                    if let Ok(client) = accepted {
                        connections.spawn(connection(client, self.target, self.modes.clone(), self.log.open()));
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> Option<std::io::Result<TcpStream>> {
    Some(listener?.accept().await.map(|(stream, _)| stream))
}

async fn connection(mut client: TcpStream, target: SocketAddr, modes: watch::Receiver<Mode>, line: Line) {
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut cut = modes.clone();
    {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let gate = |way| Gate { modes: modes.clone(), number: line.number, way };
        let both = async {
            tokio::join!(
                pump(from_client, to_server, gate(Way::ToServer), |n| line.update(|line| line.to_server += n)),
                pump(from_server, to_client, gate(Way::ToClient), |n| line.update(|line| line.to_client += n)),
            )
        };
        tokio::select! {
            _ = both => return,
            _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
        }
    }
    // Reset, not closed in good order: that is how a lost server looks.
    let _ = client.set_zero_linger();
    let _ = server.set_zero_linger();
}

/// Moves bytes one way until the sender closes or the receiver is gone.
async fn pump(from: ReadHalf<'_>, to: WriteHalf<'_>, gate: Gate, passed: impl Fn(u64)) {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    tokio::join!(read(from, sender), write(to, receiver, gate, passed));
}

async fn read(mut from: ReadHalf<'_>, sender: mpsc::Sender<(Instant, Bytes)>) {
    loop {
        let mut chunk = BytesMut::with_capacity(64 * 1024);
        let got = tokio::select! {
            got = from.read_buf(&mut chunk) => got,
            // The receiver is gone: nobody wants more.
            () = sender.closed() => return,
        };
        if !matches!(got, Ok(1..)) || sender.send((Instant::now(), chunk.freeze())).await.is_err() {
            return;
        }
    }
}

async fn write(
    mut to: WriteHalf<'_>,
    mut receiver: mpsc::Receiver<(Instant, Bytes)>,
    mut gate: Gate,
    passed: impl Fn(u64),
) {
    while let Some((arrived, chunk)) = receiver.recv().await {
        gate.until_due(arrived).await;
        // Before, not after: whoever has received them finds them counted.
        passed(chunk.len() as u64);
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// What lets the bytes of one connection pass, in one direction.
struct Gate {
    modes: watch::Receiver<Mode>,
    /// The connection's.
    number: usize,
    way: Way,
}

impl Gate {
    /// Returns when the mode lets bytes pass that arrived then.
    async fn until_due(&mut self, arrived: Instant) {
        loop {
            let mode = *self.modes.borrow_and_update();
            let due = match mode {
                Mode::Pass => return,
                Mode::StallBefore(number) if self.number >= number => return,
                Mode::StallWay(stalled) if stalled != self.way => return,
                Mode::Delay(by) => arrived + by,
                // Not in this mode; a cut ends the whole connection.
                Mode::Stall | Mode::StallBefore(_) | Mode::StallWay(_) | Mode::Cut => {
                    arrived + Duration::from_hours(24)
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(due) => return,
                // An error says that the proxy is gone; the connection goes with it.
                changed = self.modes.changed() => if changed.is_err() { return },
            }
        }
    }
}
