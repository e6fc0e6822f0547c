//! The configuration file while the process runs.
//!
//! Owns noticing another content (by looking, since a mounted `ConfigMap` is swapped by symbolic links), and what becomes
//! of it: another `select` is a fact, other keys need a restart and it is said, a file that is wrong changes nothing.

use std::path::{Path, PathBuf};

use cluster_plan::Fact;
use daemon::config::{self, ConfigError};
use daemon::driver::Inbox;
use daemon::supervise::Shutdown;
use serde_json::Value;
use tracing::{debug, info, warn};

use super::{ControllerConfig, ENVIRONMENT};

/// Looks at the file `path`, from which `running` was read, until the shutdown.
pub async fn watch(path: PathBuf, running: ControllerConfig, inbox: Inbox<Fact>, shutdown: Shutdown) {
    let mut reloader = Reloader::new(path, running);
    let mut tick = tokio::time::interval(reloader.running.reload);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        if let Some(fact) = reloader.look() {
            inbox.send(fact).await;
        }
    }
}

/// What was read last, and what runs.
struct Reloader {
    path: PathBuf,
    /// Content at the last look; `None` before the first, and while it cannot be read.
    seen: Option<String>,
    running: ControllerConfig,
}

/// What a file with another content means.
enum News {
    /// Nothing that matters.
    None,
    /// Another selection, or keys that need a restart, or both.
    Changed { selection: Option<Box<ControllerConfig>>, restart: Vec<String> },
}

impl Reloader {
    fn new(path: PathBuf, running: ControllerConfig) -> Self {
        // Not read here: the file may have changed since `running` was.
        Self { path, seen: None, running }
    }

    /// One look. Reading a small local file does not block for long.
    fn look(&mut self) -> Option<Fact> {
        let content = read(&self.path);
        if content == self.seen {
            return None;
        }
        let news = self.news(content.as_deref());
        self.seen = content;
        let file = self.path.display();
        match news {
            Ok(News::None) => {
                debug!(%file, "the configuration file says what runs");
                None
            }
            Ok(News::Changed { selection, restart }) => {
                if !restart.is_empty() {
                    warn!(%file, keys = restart.join(", "), "these keys changed and take effect only after a restart");
                }
                let next = *selection?;
                info!(%file, select = ?next.select, "another selection is taken in");
                self.running.select = next.select;
                Some(Fact::Selection(self.running.selection()))
            }
            Err(error) => {
                warn!(%file, %error, "the configuration file changed and is wrong; the one before stays");
                None
            }
        }
    }

    fn news(&self, content: Option<&str>) -> Result<News, ConfigError> {
        let next: ControllerConfig = match content {
            Some(text) => config::read(&self.path, text, ENVIRONMENT)?,
            // It says why it cannot be read.
            None => config::load(&self.path, ENVIRONMENT)?,
        };
        let restart = keys_that_differ(&self.running, &next);
        let selection = (next.select != self.running.select).then(|| Box::new(next));
        if selection.is_none() && restart.is_empty() {
            Ok(News::None)
        } else {
            Ok(News::Changed { selection, restart })
        }
    }
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Top-level keys with another value, `select` apart.
fn keys_that_differ(a: &ControllerConfig, b: &ControllerConfig) -> Vec<String> {
    let fields = |config: &ControllerConfig| match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (a, b) = (fields(a), fields(b));
    b.into_iter().filter(|(key, value)| key != "select" && a.get(key) != Some(value)).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests;
