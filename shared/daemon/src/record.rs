//! Writes what a machine learned and decided to a file, from which it can be played again.
//!
//! Owns the recording: off unless configured, bounded, without free text and credentials, never in the way of the loop
//! and never a reason for the process to end. Playing it again is `cargo xtask replay`'s.

mod format;
mod redact;
mod write;

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use shared::machine::{Begin, Changed, Machine, Moment, Now};
use tokio::sync::mpsc;

use crate::config::{Problems, Validate};
use crate::supervise::Tasks;

pub use format::{Decided, End, FORMAT, Head, Line};

use redact::Redaction;
use write::Writer;

/// Facts and steps that may wait for the file. A machine that learns faster than that is not recorded any further.
const BACKLOG: usize = 16_384;
/// A smaller file could not even hold what a machine begins with.
const LEAST_BYTES: u64 = 64 * 1024;

/// `record:`: facts and effects, written down for a bug report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RecordSettings {
    /// The file, begun anew at each start; what was there before is kept once as `<path>.previous`. Absent: nothing is
    /// recorded.
    pub path: Option<PathBuf>,
    /// Most bytes of both files together. A recording that has reached half of it ends there.
    pub max_bytes: u64,
}

impl Default for RecordSettings {
    fn default() -> Self {
        Self { path: None, max_bytes: 64 * 1024 * 1024 }
    }
}

impl Validate for RecordSettings {
    fn problems(&self, found: &mut Problems) {
        if let Some(path) = &self.path
            && !path.is_absolute()
        {
            found.add("path", format!("`{}` is not an absolute path", path.display()));
        }
        if self.max_bytes < LEAST_BYTES {
            found.add("maxBytes", format!("{} is below {LEAST_BYTES} (64 KiB)", self.max_bytes));
        }
    }
}

/// Makes the machine of `beginning` at `now`, recorded if `settings` say so. `version` is that of the process.
pub fn begin<B: Begin>(
    settings: &RecordSettings,
    version: &str,
    beginning: B,
    now: Now,
    tasks: &Tasks,
) -> Recorded<B::Machine> {
    let sink = settings.path.clone().map(|path| {
        let redaction = Redaction::new(B::FREE_TEXT);
        let head = Head::of::<B>(version, now, redaction.fact(&beginning));
        let is_behind = Arc::new(AtomicBool::new(false));
        let (sender, entries) = mpsc::channel(BACKLOG);
        let writer = Writer { path, limit: settings.max_bytes / 2, redaction, is_behind: Arc::clone(&is_behind) };
        tasks.spawn_effect("recording", writer.run(head, entries));
        Sink { entries: Some(sender), is_behind }
    });
    Recorded { machine: beginning.begin(now), sink }
}

/// What goes to the file.
#[derive(Debug)]
enum Entry<F, E> {
    Learned(Now, F),
    Decided(Now, Vec<E>),
}

/// The way to the file; none once the recording has ended.
#[derive(Debug)]
struct Sink<F, E> {
    entries: Option<mpsc::Sender<Entry<F, E>>>,
    is_behind: Arc<AtomicBool>,
}

impl<F, E> Sink<F, E> {
    /// Never waits. `make` is not called when nobody writes any more.
    fn put(&mut self, make: impl FnOnce() -> Entry<F, E>) {
        let Some(entries) = &self.entries else { return };
        let error = match entries.try_reserve() {
            Ok(place) => {
                place.send(make());
                return;
            }
            Err(error) => error,
        };
        // A gap would make what follows worthless, so it ends here; the writer says so after the last entry.
        if matches!(error, mpsc::error::TrySendError::Full(())) {
            self.is_behind.store(true, Ordering::Release);
        }
        self.entries = None;
    }
}

/// A machine, and the recording of it if there is one.
#[derive(Debug)]
pub struct Recorded<M: Machine> {
    machine: M,
    sink: Option<Sink<M::Fact, M::Effect>>,
}

impl<M: Machine> Recorded<M> {
    /// The machine; its recording ends.
    pub fn into_inner(self) -> M {
        self.machine
    }
}

impl<M: Machine> Deref for Recorded<M> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.machine
    }
}

impl<M: Machine> Machine for Recorded<M> {
    type Fact = M::Fact;
    type Effect = M::Effect;

    fn apply(&mut self, fact: M::Fact, now: Now) -> Changed {
        if let Some(sink) = &mut self.sink {
            sink.put(|| Entry::Learned(now, fact.clone()));
        }
        self.machine.apply(fact, now)
    }

    fn step(&mut self, now: Now) -> Vec<M::Effect> {
        let effects = self.machine.step(now);
        if let Some(sink) = &mut self.sink {
            sink.put(|| Entry::Decided(now, effects.clone()));
        }
        effects
    }

    fn next_due(&self) -> Option<Moment> {
        self.machine.next_due()
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
