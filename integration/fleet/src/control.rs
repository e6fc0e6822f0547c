//! What the fleet is told and asked: one JSON a line over a socket in the file system.
//!
//! Owns the words. One who asks at a time is enough.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use shared::name::ImageKey;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::Fleet;
use crate::board::{Arrivals, Glance};

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// Start so many more.
    Start(usize),
    /// Begin to wait for an intent at all members.
    Await(ImageKey),
    /// How far it has come.
    Arrivals,
    /// All members at a glance.
    Glance,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Done.
    Done,
    /// It cannot be done.
    Failed(String),
    /// To [`Command::Arrivals`].
    Arrivals(Arrivals),
    /// To [`Command::Glance`].
    Glance(Glance),
}

async fn obey(fleet: &mut Fleet, command: Command) -> Answer {
    match command {
        Command::Start(count) => match fleet.start(count).await {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Failed(error.to_string()),
        },
        Command::Await(key) => {
            fleet.board().await_all(key);
            Answer::Done
        }
        Command::Arrivals => Answer::Arrivals(fleet.board().arrivals()),
        Command::Glance => Answer::Glance(fleet.board().glance()),
    }
}

/// Obeys who connects to `socket`, one after the other, for ever.
///
/// # Errors
/// The socket cannot be used.
pub async fn serve(mut fleet: Fleet, socket: &Path) -> Result<()> {
    let listener = UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
    loop {
        let (stream, _) = listener.accept().await.context("accepting who asks")?;
        let (reading, mut writing) = stream.into_split();
        let mut lines = BufReader::new(reading).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = match serde_json::from_str(&line) {
                Ok(command) => obey(&mut fleet, command).await,
                Err(error) => Answer::Failed(error.to_string()),
            };
            let mut answer = serde_json::to_vec(&answer)?;
            answer.push(b'\n');
            if writing.write_all(&answer).await.is_err() {
                break;
            }
        }
    }
}

/// Asks a fleet.
pub struct Client {
    lines: tokio::io::Lines<BufReader<tokio::net::unix::OwnedReadHalf>>,
    writing: tokio::net::unix::OwnedWriteHalf,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).await.with_context(|| format!("connecting to {}", socket.display()))?;
        let (reading, writing) = stream.into_split();
        Ok(Self { lines: BufReader::new(reading).lines(), writing })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The fleet is gone, or cannot do it.
    pub async fn ask(&mut self, command: &Command) -> Result<Answer> {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        self.writing.write_all(&line).await.context("asking the fleet")?;
        let line =
            self.lines.next_line().await.context("reading the fleet's answer")?.context("the fleet has ended")?;
        match serde_json::from_str(&line)? {
            Answer::Failed(why) => anyhow::bail!("the fleet cannot do {command:?}: {why}"),
            answer => Ok(answer),
        }
    }
}
