//! Logs: one line an event on stderr, text or JSON, with a filter that can be changed while running.
//!
//! Owns the subscriber. Never counts: that is `metrics`.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

/// What is logged unless configured: our own lines; the NATS client's are said again, better, by `bus`.
pub const DEFAULT_FILTER: &str = "info,async_nats=off";

/// The shape of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: an object a line.
    #[default]
    Json,
}

/// The `log:` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogSettings {
    /// `json` or `text`.
    pub format: LogFormat,
    /// Which lines: `info`, `debug`, `info,daemon::bus=debug` …
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::default(), filter: DEFAULT_FILTER.to_owned() }
    }
}

impl crate::config::Validate for LogSettings {
    fn problems(&self, found: &mut crate::config::Problems) {
        if let Err(why) = parse(&self.filter) {
            found.add("filter", why);
        }
    }
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("log.filter: {0}")]
    Filter(String),
    /// A subscriber is there already.
    #[error("logging is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Changes the filter of the running process.
#[derive(Clone)]
pub struct LogHandle {
    reload: reload::Handle<EnvFilter, Registry>,
    current: Arc<Mutex<String>>,
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").field("filter", &self.filter()).finish_non_exhaustive()
    }
}

impl LogHandle {
    /// One that changes nothing, for tests of what holds a handle.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        let (_layer, reload) = reload::Layer::new(EnvFilter::new("info"));
        Self { reload, current: Arc::default() }
    }

    /// The filter now.
    pub fn filter(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes another filter.
    ///
    /// # Errors
    /// Says what is wrong with it; the old one stays.
    pub fn set_filter(&self, filter: &str) -> Result<(), String> {
        let parsed = parse(filter)?;
        self.reload.reload(parsed).map_err(|error| error.to_string())?;
        filter.trim().clone_into(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

/// Starts logging to stderr.
pub fn init(settings: &LogSettings) -> Result<LogHandle, TelemetryError> {
    let (subscriber, handle) = build(settings, std::io::stderr, std::io::stderr().is_terminal())?;
    subscriber.try_init()?;
    Ok(handle)
}

fn build<W>(
    settings: &LogSettings,
    writer: W,
    is_terminal: bool,
) -> Result<(impl tracing::Subscriber + Send + Sync + use<W>, LogHandle), TelemetryError>
where
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = parse(&settings.filter).map_err(TelemetryError::Filter)?;
    let (filter, reload) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match settings.format {
        LogFormat::Text => lines.with_ansi(is_terminal).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    let current = Arc::new(Mutex::new(settings.filter.trim().to_owned()));
    Ok((tracing_subscriber::registry().with(filter).with(lines), LogHandle { reload, current }))
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    let filter = filter.trim();
    if filter.is_empty() {
        return Err("is empty; give a level such as `info`, or `info,daemon::bus=debug`".to_owned());
    }
    EnvFilter::builder().parse(filter).map_err(|error| {
        format!("`{filter}` is not a log filter ({error}); give a level such as `info`, or `info,daemon::bus=debug`")
    })
}

#[cfg(test)]
#[path = "telemetry_tests.rs"]
mod tests;
