//! The task that writes a recording.
//!
//! Owns the file and its bound. Whatever fails here ends the recording with a line in the log, and nothing else.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::Value;
use shared::machine::{Kind, Now};
use shared::metric;
use tokio::fs::{self, File, OpenOptions};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::Entry;
use super::format::{Decided, End, Head, Line};
use super::redact::Redaction;
use crate::metrics;

/// Entries written at once.
const BATCH: usize = 256;
/// Kept free for the line that says why the recording ended.
const LAST_LINE: u64 = 64;

/// What the task needs.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    /// Most bytes of this file.
    pub(super) limit: u64,
    pub(super) redaction: Redaction,
    /// The loop had to drop an entry.
    pub(super) is_behind: Arc<AtomicBool>,
}

impl Writer {
    /// Writes until nobody sends any more, the file is full, or it cannot be written.
    pub(super) async fn run<F, E>(self, head: Head, entries: mpsc::Receiver<Entry<F, E>>)
    where
        F: Serialize + Send,
        E: Kind + Serialize + Send,
    {
        let path = self.path.display().to_string();
        info!(path, limit = self.limit, "facts are recorded");
        metrics::gauge(metric::RECORDING, &[], 1.0);
        match self.write(head, entries).await {
            Ok(End::Stopped) => info!(path, "the recording is complete"),
            Ok(end) => warn!(path, "the recording has ended: {}", end.as_str()),
            Err(error) => error!(path, "the recording has ended: it cannot be written: {error}"),
        }
        metrics::gauge(metric::RECORDING, &[], 0.0);
    }

    async fn write<F: Serialize, E: Kind + Serialize>(
        &self,
        head: Head,
        mut entries: mpsc::Receiver<Entry<F, E>>,
    ) -> io::Result<End> {
        let mut page = Page { file: open(&self.path, self.limit).await?, free: self.limit, waiting: Vec::new() };
        let mut has_room = page.add(&head)?;
        let mut batch = Vec::new();
        while has_room && entries.recv_many(&mut batch, BATCH).await > 0 {
            for line in self.lines(&mut batch) {
                has_room = has_room && page.add(&line)?;
            }
            page.flush().await?;
        }
        let end = if !has_room {
            End::Limit
        } else if self.is_behind.load(Ordering::Acquire) {
            End::Behind
        } else {
            End::Stopped
        };
        page.close(&Line::End { end }).await?;
        Ok(end)
    }

    /// Facts learned with one reading of the clock share a line.
    fn lines<F: Serialize, E: Kind + Serialize>(&self, batch: &mut Vec<Entry<F, E>>) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        for entry in batch.drain(..) {
            match entry {
                Entry::Learned(Now { mono, wall }, fact) => {
                    let fact: Value = self.redaction.fact(&fact);
                    match lines.last_mut() {
                        Some(Line::Learned { at, wall: w, facts }) if (*at, *w) == (mono, wall) => facts.push(fact),
                        _ => lines.push(Line::Learned { at: mono, wall, facts: vec![fact] }),
                    }
                }
                Entry::Decided(Now { mono: at, wall }, effects) => {
                    let free_text = self.redaction.free_text;
                    let effects = effects.iter().map(|effect| Decided::of(effect, free_text)).collect();
                    lines.push(Line::Decided { at, wall, effects });
                }
            }
        }
        lines
    }
}

/// The file, and what is about to be written to it.
struct Page {
    file: File,
    free: u64,
    waiting: Vec<u8>,
}

impl Page {
    /// Takes a line if there is room for it and for the last one.
    fn add(&mut self, line: &impl Serialize) -> io::Result<bool> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let bytes = text.len() as u64;
        let has_room = bytes + LAST_LINE <= self.free;
        if has_room {
            self.free -= bytes;
            self.waiting.append(&mut text);
        }
        Ok(has_room)
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.waiting).await?;
        self.file.flush().await?;
        metrics::count(metric::RECORDED_BYTES, &[], self.waiting.len() as u64);
        self.waiting.clear();
        Ok(())
    }

    async fn close(&mut self, last: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.waiting, last)?;
        self.waiting.push(b'\n');
        self.flush().await
    }
}

/// A new file that its owner alone may read. What was there is kept once beside it, unless it is larger than a recording
/// may be now: both together stay below the bound.
async fn open(path: &Path, limit: u64) -> io::Result<File> {
    let mut previous = path.as_os_str().to_owned();
    previous.push(".previous");
    match fs::metadata(path).await {
        Ok(found) if found.len() <= limit => fs::rename(path, &previous).await?,
        Ok(_) => fs::remove_file(path).await?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if fs::metadata(&previous).await.is_ok_and(|found| found.len() > limit) {
        fs::remove_file(&previous).await?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await
}
