//! The configuration file while the process runs.
//!
//! Owns noticing another content (by looking, since a mounted `ConfigMap` is swapped by symbolic links), and what becomes
//! of it: another `select` is a fact, other keys need a restart and it is said, a file that is wrong changes nothing. Owns
//! which expressions are evaluated, and says whether the file is what runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster_plan::Fact;
use cluster_plan::input::Selection;
use daemon::config::{self, ConfigError};
use daemon::driver::Inbox;
use daemon::metrics;
use daemon::supervise::Shutdown;
use serde_json::Value;
use shared::metric;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{ControllerConfig, ENVIRONMENT};
use crate::expression::Expressions;

/// A selection that is not in use for longer is worth a word: listing takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// With whom the file is talked over.
pub struct Peers {
    /// Where facts go.
    pub inbox: Inbox<Fact>,
    /// The expressions that the watches evaluate.
    pub expressions: watch::Sender<Arc<Expressions>>,
    /// By what the machine judges.
    pub judged_by: watch::Receiver<Option<Selection>>,
}

/// The expressions of a configuration.
pub fn expressions(config: &ControllerConfig) -> Arc<Expressions> {
    Arc::new(Expressions::new(config.select.expressions()))
}

/// Looks at the file `path`, from which `running` was read, until the shutdown.
pub async fn watch(path: PathBuf, running: ControllerConfig, peers: Peers, shutdown: Shutdown) {
    let Peers { inbox, expressions, judged_by } = peers;
    let mut reloader = Reloader::new(path, running, expressions);
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
        let is_current = reloader.settle(judged_by.borrow().as_ref());
        metrics::gauge(metric::CONFIG_CURRENT, &[], f64::from(u8::from(is_current)));
    }
}

/// What was read last, and what runs.
struct Reloader {
    path: PathBuf,
    /// Content at the last look; `None` before the first, and while it cannot be read.
    seen: Option<String>,
    /// What was read last that was right.
    running: ControllerConfig,
    /// Whether that content cannot be used.
    is_wrong: bool,
    /// Its keys that need a restart.
    restart: Vec<String>,
    expressions: watch::Sender<Arc<Expressions>>,
    /// Since when a selection has not been taken into use; what is judged by before needs its own expressions as long.
    waits: Option<Waiting>,
}

struct Waiting {
    since: Instant,
    is_said: bool,
}

/// What a file with another content means.
enum News {
    /// Nothing that matters.
    None,
    /// Another selection, or keys that need a restart, or both.
    Changed { selection: Option<Box<ControllerConfig>>, restart: Vec<String> },
}

impl Reloader {
    fn new(path: PathBuf, running: ControllerConfig, expressions: watch::Sender<Arc<Expressions>>) -> Self {
        // Not read here: the file may have changed since `running` was.
        Self { path, seen: None, running, is_wrong: false, restart: Vec::new(), expressions, waits: None }
    }

    /// One look. Reading a small local file does not block for long.
    fn look(&mut self) -> Option<Fact> {
        let content = read(&self.path);
        if content.is_some() && content == self.seen {
            return None;
        }
        let was_wrong = self.is_wrong;
        let news = self.news(content.as_deref());
        let is_same = content == self.seen;
        self.seen = content;
        let file = self.path.display();
        match news {
            Ok(News::None) => {
                debug!(%file, "the configuration file says what runs");
                (self.is_wrong, self.restart) = (false, Vec::new());
                None
            }
            Ok(News::Changed { selection, restart }) => {
                if !restart.is_empty() {
                    warn!(%file, keys = restart.join(", "), "these keys changed and take effect only after a restart");
                }
                (self.is_wrong, self.restart) = (false, restart);
                let next = *selection?;
                info!(%file, select = ?next.select, "another selection is taken in");
                self.running.select = next.select;
                self.evaluate_too();
                self.waits = Some(Waiting { since: Instant::now(), is_said: false });
                Some(Fact::Selection(self.running.selection()))
            }
            Err(error) => {
                self.is_wrong = true;
                // A file that stays away is told of once.
                if !(is_same && was_wrong) {
                    warn!(%file, %error, "the configuration file changed and is wrong; the one before stays");
                }
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

    /// Has the new expressions evaluated beside those that are judged by until then.
    fn evaluate_too(&self) {
        let mut texts: BTreeSet<String> = self.expressions.borrow().texts();
        texts.extend(self.running.select.expressions().into_iter().map(ToOwned::to_owned));
        self.expressions.send_replace(Arc::new(Expressions::new(texts.iter().map(String::as_str))));
    }

    /// Takes note of what the machine judges by; says whether that is what the file says, all of it.
    fn settle(&mut self, judged_by: Option<&Selection>) -> bool {
        let is_in_use = judged_by == Some(&self.running.selection());
        if is_in_use && self.waits.take().is_some() {
            info!("the selection is in use");
            self.expressions.send_replace(expressions(&self.running));
        }
        if let Some(waiting) = &mut self.waits
            && !waiting.is_said
            && waiting.since.elapsed() > PATIENCE
        {
            waiting.is_said = true;
            warn!(
                "the selection is not in use yet: not every workload has been evaluated by its expressions; a kind may not \
                 be listable. The selection before stays"
            );
        }
        is_in_use && !self.is_wrong && self.restart.is_empty()
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
