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
use futures::StreamExt as _;
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use shared::backoff::Backoff;
use shared::metric;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::absent::{self, Absence};
use super::object::{Meta, Object};
use crate::expression::Expressions;

/// Shorter than kube's own: after an outage of the API server every source is back within this.
const RETRY: Backoff = Backoff { base: Duration::from_millis(500), ceiling: Duration::from_secs(10) };

/// What is decoded of an object.
pub trait Form: DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static {}

impl<T: DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static> Form for T {}

/// A kind whose objects are told one by one.
pub trait Watched: Send + 'static {
    /// What is decoded of an object.
    type Form: Form;
    /// Names an object.
    type Key: Ord + Clone + fmt::Debug + Send;
    /// What matters of it.
    type View: Serialize + Send;

    /// The source it feeds.
    fn source(&self) -> Source;

    /// Where the API server has it.
    fn resource(&self) -> ApiResource;

    /// The key; needs the metadata alone, so that an object whose content is invalid can still be removed.
    fn key(&self, meta: &Meta) -> Option<Self::Key>;

    /// The view, or what is wrong with the object. `None`: nothing is to be known of it, and if it was, it is removed.
    fn view(&self, meta: &Meta, form: Self::Form) -> Option<Result<Self::View, String>>;

    /// Whether expressions are evaluated over such objects.
    fn is_evaluated(&self) -> bool {
        false
    }

    /// Takes into the view what expressions say of the whole object.
    fn evaluated(&self, _view: &mut Self::View, _results: BTreeMap<String, Result<bool, String>>) {}

    /// The fact of a full list.
    fn listed(&self, list: BTreeMap<Self::Key, Result<Self::View, String>>) -> Fact;

    /// The fact of one change.
    fn changed(&self, change: Change<Self::Key, Self::View>) -> Fact;
}

/// Turns the events of one watch into facts.
pub trait Reduce: Send {
    /// What is decoded of an object.
    type Form: Form;

    /// The source it feeds.
    fn source(&self) -> Source;

    /// Where the API server has it.
    fn resource(&self) -> ApiResource;

    /// Restricts the watch where the API server can.
    fn config(&self) -> watcher::Config {
        watcher::Config::default()
    }

    /// Whether expressions are evaluated over its objects.
    fn is_evaluated(&self) -> bool {
        false
    }

    /// Has these evaluated over what is listed from now on.
    fn evaluate(&mut self, _expressions: &Arc<Expressions>) {}

    /// Takes in one event; facts if it says something new.
    fn take(&mut self, event: Event<Object<Self::Form>>) -> Vec<Fact>;

    /// Whether a full list was delivered.
    fn is_synced(&self) -> bool;
}

/// Tells objects one by one.
pub struct Reducer<K: Watched> {
    kind: K,
    listing: BTreeMap<K::Key, Result<K::View, String>>,
    /// Digest of what was last said of each object; `None` before the first full list.
    said: Option<BTreeMap<K::Key, u64>>,
    expressions: Arc<Expressions>,
}

impl<K: Watched> Reducer<K> {
    /// One that has said nothing yet.
    pub fn new(kind: K) -> Self {
        Self { kind, listing: BTreeMap::new(), said: None, expressions: Arc::default() }
    }

    /// Its kind.
    pub fn kind(&self) -> &K {
        &self.kind
    }

    fn content(&self, object: Object<K::Form>) -> Option<Result<K::View, String>> {
        let form = match object.content {
            Ok(form) => form,
            Err(text) => return Some(Err(text)),
        };
        let mut view = self.kind.view(&object.meta, form)?;
        // Afterwards nothing is left for an expression to look at.
        if let Ok(view) = &mut view
            && let Some(results) = results(&self.expressions, &self.kind.resource(), &object.text)
        {
            self.kind.evaluated(view, results);
        }
        Some(view)
    }

    fn take_list(&mut self) -> Option<Fact> {
        let list = std::mem::take(&mut self.listing);
        let said = Some(list.iter().map(|(key, content)| (key.clone(), digest(content))).collect());
        if self.said == said {
            return None;
        }
        self.said = said;
        Some(self.kind.listed(list))
    }

    fn take_object(&mut self, object: Object<K::Form>) -> Option<Fact> {
        let key = self.kind.key(&object.meta)?;
        let Some(content) = self.content(object) else {
            return self.forget(&key);
        };
        let digest = digest(&content);
        let said = self.said.get_or_insert_default();
        if said.get(&key) == Some(&digest) {
            return None;
        }
        said.insert(key.clone(), digest);
        Some(self.kind.changed(Change::Upsert(key, content)))
    }

    fn forget(&mut self, key: &K::Key) -> Option<Fact> {
        self.said.as_mut()?.remove(key)?;
        Some(self.kind.changed(Change::Remove(key.clone())))
    }
}

impl<K: Watched> Reduce for Reducer<K> {
    type Form = K::Form;

    fn source(&self) -> Source {
        self.kind.source()
    }

    fn resource(&self) -> ApiResource {
        self.kind.resource()
    }

    fn is_evaluated(&self) -> bool {
        self.kind.is_evaluated()
    }

    fn evaluate(&mut self, expressions: &Arc<Expressions>) {
        self.expressions = Arc::clone(expressions);
    }

    fn take(&mut self, event: Event<Object<K::Form>>) -> Vec<Fact> {
        let fact = match event {
            Event::Init => {
                self.listing.clear();
                None
            }
            Event::InitApply(object) => {
                let key = self.kind.key(&object.meta);
                if let (Some(key), Some(content)) = (key, self.content(object)) {
                    self.listing.insert(key, content);
                }
                None
            }
            Event::InitDone => self.take_list(),
            Event::Apply(object) => self.take_object(object),
            Event::Delete(object) => self.kind.key(&object.meta).and_then(|key| self.forget(&key)),
        };
        fact.into_iter().collect()
    }

    fn is_synced(&self) -> bool {
        self.said.is_some()
    }
}

/// What expressions say of a whole object; `None` if there are none.
pub(super) fn results(
    expressions: &Expressions,
    resource: &ApiResource,
    text: &RawValue,
) -> Option<BTreeMap<String, Result<bool, String>>> {
    if expressions.is_empty() {
        return None;
    }
    let mut whole: Value = serde_json::from_str(text.get()).unwrap_or_default();
    // What is listed does not say what it is.
    if let Value::Object(fields) = &mut whole {
        fields.insert("apiVersion".to_owned(), json!(resource.api_version));
        fields.insert("kind".to_owned(), json!(resource.kind));
    }
    Some(expressions.evaluate(&whole))
}

/// A digest instead of the view itself: views live once, in the machine.
pub(super) fn digest<T: Serialize>(content: &T) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    // Views are maps with string keys, which always serialise.
    hasher.write(&serde_json::to_vec(content).unwrap_or_default());
    hasher.finish()
}

/// How a source is watched.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Each single watch ends after this time (whole seconds), so that a dead connection is found soon after: kube gives a
    /// watch up that says nothing for 5 s longer.
    pub timeout: Duration,
    /// The kind need not be installed; if it is not, it is looked for again after this time.
    pub look_again: Option<Duration>,
}

/// Watches until the shutdown.
pub async fn run<R: Reduce>(
    reducer: R,
    client: Client,
    manner: Manner,
    expressions: watch::Receiver<Arc<Expressions>>,
    inbox: Inbox<Fact>,
    shutdown: Shutdown,
) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watch_for_ever(reducer, &client, manner, expressions, &inbox) => {}
    }
}

async fn watch_for_ever<R: Reduce>(
    mut reducer: R,
    client: &Client,
    manner: Manner,
    mut expressions: watch::Receiver<Arc<Expressions>>,
    inbox: &Inbox<Fact>,
) {
    let config = reducer.config().timeout(u32::try_from(manner.timeout.as_secs()).unwrap_or(u32::MAX));
    let resource = reducer.resource();
    let mut trouble = Trouble::new(reducer.source().as_str());
    let mut absence = Absence::default();
    loop {
        let evaluated = Arc::clone(&expressions.borrow_and_update());
        reducer.evaluate(&evaluated);
        // A new watcher begins with a full list.
        let api: Api<Object<R::Form>> = Api::all_with(client.clone(), &resource);
        let mut events = pin!(watcher(api, config.clone()));
        loop {
            let event = tokio::select! {
                () = others(&mut expressions, &evaluated), if reducer.is_evaluated() => break,
                event = events.next() => event,
            };
            let Some(event) = event else { break };
            match event {
                Ok(event) => {
                    // `Init` only says that a list begins: it may fail yet.
                    if !matches!(event, Event::Init) {
                        trouble.over();
                        absence.over(&resource);
                    }
                    for fact in reducer.take(event) {
                        inbox.send(fact).await;
                    }
                }
                Err(error) => {
                    if let Some(look_again) = manner.look_again.filter(|_| absent::may_be(&error))
                        && absence.is_sure(client, &resource).await
                    {
                        // As if it had been listed: there are none.
                        for event in [Event::Init, Event::InitDone] {
                            for fact in reducer.take(event) {
                                inbox.send(fact).await;
                            }
                        }
                        absence.outlast(client, &resource, look_again).await;
                        break;
                    }
                    trouble.add(&error, reducer.is_synced()).await;
                    if must_list_again(&error) || absent::may_be(&error) {
                        break;
                    }
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
