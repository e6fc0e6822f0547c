//! One watch of one kind of Kubernetes object, for ever.
//!
//! Owns listing, watching, retrying and the reduction of each object to a domain view; an object whose view did not
//! change is no fact (a Node's heartbeat is none). A list or watch that fails, is refused or is answered by "no such
//! kind" keeps the last content. Never decides what a view means.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cluster_plan::Fact;
use cluster_plan::fact::{Change, Source};
use daemon::driver::Inbox;
use daemon::metrics;
use daemon::supervise::Shutdown;
use futures::{Stream, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::backoff::Backoff;
use shared::metric;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::whole::{Decoded, Whole};
use crate::expression::Expressions;

/// Shorter than kube's own: after an outage of the API server every source is back within this.
const RETRY: Backoff = Backoff { base: Duration::from_millis(500), ceiling: Duration::from_secs(10) };

/// A kind that is watched: one implementation a kind.
pub trait Watched: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static {
    /// Names an object.
    type Key: Ord + Clone + fmt::Debug + Send;
    /// What matters of it.
    type View: Serialize + Send;

    /// The source it feeds.
    const SOURCE: Source;

    /// Whether expressions are evaluated over such objects.
    const IS_EVALUATED: bool = false;

    /// Restricts the watch where the API server can.
    fn config() -> watcher::Config {
        watcher::Config::default()
    }

    /// The key; needs the metadata alone, so that an object whose content is invalid can still be removed.
    fn key(meta: &ObjectMeta) -> Option<Self::Key>;

    /// Whether anything is to be known of the object; one that stops counting is removed.
    fn counts(_meta: &ObjectMeta) -> bool {
        true
    }

    /// The view, or what is wrong with the object.
    fn view(self) -> Result<Self::View, String>;

    /// Takes into the view what expressions say of the whole object.
    fn evaluated(_view: &mut Self::View, _results: BTreeMap<String, Result<bool, String>>) {}

    /// The fact of a full list.
    fn listed(list: BTreeMap<Self::Key, Result<Self::View, String>>) -> Fact;

    /// The fact of one change.
    fn changed(change: Change<Self::Key, Self::View>) -> Fact;
}

/// Turns the events of one watch into facts.
pub struct Reducer<K: Watched> {
    listing: BTreeMap<K::Key, Result<K::View, String>>,
    /// Digest of what was last said of each object; `None` before the first full list.
    said: Option<BTreeMap<K::Key, u64>>,
    expressions: Arc<Expressions>,
}

impl<K: Watched> Default for Reducer<K> {
    fn default() -> Self {
        Self { listing: BTreeMap::new(), said: None, expressions: Arc::default() }
    }
}

impl<K: Watched> Reducer<K> {
    /// Takes in one event; a fact if it says something new.
    pub fn take(&mut self, event: Event<DeserializeGuard<K>>) -> Option<Fact> {
        self.take_decoded(event)
    }

    /// Has these evaluated over what is listed from now on.
    pub fn evaluate(&mut self, expressions: Arc<Expressions>) {
        self.expressions = expressions;
    }

    /// As [`Self::take`], of whole objects too.
    pub fn take_decoded<D: Decoded<K>>(&mut self, event: Event<DeserializeGuard<D>>) -> Option<Fact> {
        match event {
            Event::Init => {
                self.listing.clear();
                None
            }
            Event::InitApply(object) => {
                let key = K::key(object.meta()).filter(|_| K::counts(object.meta()))?;
                self.listing.insert(key, content(object, &self.expressions));
                None
            }
            Event::InitDone => self.take_list(),
            Event::Apply(object) => self.take_object(object),
            Event::Delete(object) => self.forget(&K::key(object.meta())?),
        }
    }

    /// Whether a full list was delivered.
    pub fn is_synced(&self) -> bool {
        self.said.is_some()
    }

    fn take_list(&mut self) -> Option<Fact> {
        let list = std::mem::take(&mut self.listing);
        let said = Some(list.iter().map(|(key, content)| (key.clone(), digest(content))).collect());
        if self.said == said {
            return None;
        }
        self.said = said;
        Some(K::listed(list))
    }

    fn take_object<D: Decoded<K>>(&mut self, object: DeserializeGuard<D>) -> Option<Fact> {
        let key = K::key(object.meta())?;
        if !K::counts(object.meta()) {
            return self.forget(&key);
        }
        let content = content(object, &self.expressions);
        let digest = digest(&content);
        let said = self.said.get_or_insert_default();
        if said.get(&key) == Some(&digest) {
            return None;
        }
        said.insert(key.clone(), digest);
        Some(K::changed(Change::Upsert(key, content)))
    }

    fn forget(&mut self, key: &K::Key) -> Option<Fact> {
        self.said.as_mut()?.remove(key)?;
        Some(K::changed(Change::Remove(key.clone())))
    }
}

/// Where objects are reduced: afterwards nothing is left for an expression to look at.
fn content<K: Watched, D: Decoded<K>>(
    object: DeserializeGuard<D>,
    expressions: &Expressions,
) -> Result<K::View, String> {
    let (object, whole) = object.0.map_err(|invalid| invalid.error)?.into_parts();
    let mut view = object.view()?;
    if let Some(whole) = whole {
        K::evaluated(&mut view, expressions.evaluate(&whole));
    }
    Ok(view)
}

/// A digest instead of the view itself: views live once, in the machine.
fn digest<T: Serialize>(content: &Result<T, String>) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    // Views are maps with string keys, which always serialise.
    hasher.write(&serde_json::to_vec(content).unwrap_or_default());
    hasher.finish()
}

/// Watches until the shutdown. Each single watch ends after `timeout` (whole seconds), so that a dead connection is found
/// soon after: kube gives a watch up that says nothing for 5 s longer.
pub async fn run<K: Watched>(
    client: Client,
    timeout: Duration,
    expressions: watch::Receiver<Arc<Expressions>>,
    inbox: Inbox<Fact>,
    shutdown: Shutdown,
) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watch_for_ever::<K>(&client, timeout, expressions, &inbox) => {}
    }
}

async fn watch_for_ever<K: Watched>(
    client: &Client,
    timeout: Duration,
    mut expressions: watch::Receiver<Arc<Expressions>>,
    inbox: &Inbox<Fact>,
) {
    let config = K::config().timeout(u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX));
    let mut reducer = Reducer::<K>::default();
    let mut trouble = Trouble::new(K::SOURCE.as_str());
    loop {
        if K::IS_EVALUATED {
            reducer.evaluate(Arc::clone(&expressions.borrow_and_update()));
        }
        // A new watcher begins with a full list.
        if reducer.expressions.is_empty() {
            let events = watcher(Api::<DeserializeGuard<K>>::all(client.clone()), config.clone());
            follow(events, &mut reducer, &mut trouble, &mut expressions, inbox).await;
        } else {
            let events = watcher(Api::<DeserializeGuard<Whole<K>>>::all(client.clone()), config.clone());
            follow(events, &mut reducer, &mut trouble, &mut expressions, inbox).await;
        }
    }
}

/// Until everything is to be listed again.
async fn follow<K: Watched, D: Decoded<K>>(
    events: impl Stream<Item = Result<Event<DeserializeGuard<D>>, watcher::Error>>,
    reducer: &mut Reducer<K>,
    trouble: &mut Trouble,
    expressions: &mut watch::Receiver<Arc<Expressions>>,
    inbox: &Inbox<Fact>,
) {
    let evaluated = Arc::clone(&reducer.expressions);
    let mut events = pin!(events);
    loop {
        let event = tokio::select! {
            () = others(expressions, &evaluated), if K::IS_EVALUATED => return,
            event = events.next() => event,
        };
        match event {
            None => return,
            Some(Ok(event)) => {
                // `Init` only says that a list begins: it may fail yet.
                if !matches!(event, Event::Init) {
                    trouble.over();
                }
                if let Some(fact) = reducer.take_decoded(event) {
                    inbox.send(fact).await;
                }
            }
            Some(Err(error)) => {
                trouble.add(&error, reducer.is_synced()).await;
                if must_list_again(&error) {
                    return;
                }
            }
        }
    }
}

/// Until expressions are to be evaluated that are not among these.
async fn others(expressions: &mut watch::Receiver<Arc<Expressions>>, evaluated: &Expressions) {
    while expressions.changed().await.is_ok() {
        if !evaluated.cover(&expressions.borrow_and_update()) {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// The watcher keeps asking for a resource version that the server says it does not have (any more, or yet: a restored
/// etcd is behind).
pub(super) fn must_list_again(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if matches!(status.code, 400 | 410 | 504))
}

/// Failures in a row: counts, says and waits.
pub(super) struct Trouble {
    source: String,
    failures: u32,
    last: String,
    rng: fastrand::Rng,
}

impl Trouble {
    pub(super) fn new(source: &str) -> Self {
        Self { source: source.to_owned(), failures: 0, last: String::new(), rng: fastrand::Rng::new() }
    }

    pub(super) async fn add(&mut self, error: &watcher::Error, synced: bool) {
        let (source, text) = (self.source.as_str(), explain(error));
        metrics::count(metric::SOURCE_ERRORS, &[source], 1);
        self.failures = self.failures.saturating_add(1);
        let wait = RETRY.equal_jitter(self.failures, &mut self.rng);
        let kept = if synced { "what is known is kept" } else { "nothing is decided before the first full list" };
        if text == self.last {
            debug!(source, error = %text, retry_in = ?wait, "watching still fails");
        } else {
            warn!(source, error = %text, retry_in = ?wait, "watching fails; {kept}");
            self.last = text;
        }
        tokio::time::sleep(wait).await;
    }

    pub(super) fn over(&mut self) {
        if self.failures > 0 {
            info!(source = self.source.as_str(), failures = self.failures, "watching works again");
            self.failures = 0;
            self.last.clear();
        }
    }
}

/// One line with the cause, and what to do where that is known.
fn explain(error: &watcher::Error) -> String {
    use watcher::Error as E;
    let (doing, cause) = match error {
        E::InitialListFailed(cause) => ("list", cause),
        E::WatchStartFailed(cause) => ("start of watch", cause),
        E::WatchFailed(cause) => ("watch", cause),
        E::WatchError(status) => return format!("watch: {} ({})", status.message, status.code),
        E::NoResourceVersion => return error.to_string(),
    };
    match cause {
        kube::Error::Api(status) => {
            let hint = match status.code {
                401 => "; the controller's credentials are not accepted",
                403 => "; the controller's role lacks this right",
                404 => "; the cluster does not have this kind",
                _ => "",
            };
            format!("{doing}: {} ({}){hint}", status.message, status.code)
        }
        other => format!("{doing}: {}", with_causes(other)),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests;
