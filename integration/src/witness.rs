//! What the Nodes showed while a test disturbed the installation: owns a watch that sees every version of them, so that a
//! label that was away for a moment is seen, and judging them by two rules: a label that was there may not go, and an image
//! is asked of the registry no more once its label is there. It changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use shared::image::Reference;
use shared::label;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::cluster::REGISTRY;
use crate::eventually::eventually;
use crate::image::Published;
use crate::proxy::log::{Request, RequestLog};

/// A version of a Node is seen within this time, on a busy machine.
const CATCH_UP: Duration = Duration::from_secs(20);

/// One version of one Node.
#[derive(Clone, Debug)]
struct Sight {
    at: Instant,
    node: String,
    version: String,
    labels: BTreeMap<String, String>,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Book {
    sights: Vec<Sight>,
    /// How many times the Nodes were listed: what lies between two lists is not seen.
    lists: usize,
}

/// Sees every version of every Node until it is dropped, as long as the API server runs.
pub struct Witness {
    nodes: Api<Node>,
    book: Arc<Mutex<Book>>,
    watch: JoinHandle<()>,
}

impl Witness {
    /// Begins to watch, with a client that may list and watch Nodes. Returns once every Node was seen as it is now.
    pub async fn start(client: Client) -> Result<Self> {
        let nodes: Api<Node> = Api::all(client);
        let book: Arc<Mutex<Book>> = Arc::default();
        let (begun, begins) = oneshot::channel();
        let watch = tokio::spawn(see(nodes.clone(), Arc::clone(&book), begun));
        let witness = Self { nodes, book, watch };
        tokio::time::timeout(CATCH_UP, begins).await.context("the witness sees no Nodes")??;
        Ok(witness)
    }

    /// Waits until every Node has been seen as it is now.
    pub async fn catch_up(&self) -> Result<()> {
        let now = self.nodes.list(&kube::api::ListParams::default()).await.context("listing the nodes")?;
        for node in now {
            let (name, version) = (node.name_any(), node.resource_version().unwrap_or_default());
            eventually(format!("the witness has seen {name} at {version}"), CATCH_UP, async || {
                // It may have moved on since.
                let number = |text: &str| text.parse::<u64>().unwrap_or_default();
                lock(&self.book).sights.iter().any(|s| s.node == name && number(&s.version) >= number(&version))
            })
            .await?;
        }
        ensure!(lock(&self.book).lists == 1, "the witness had to begin anew, and has not seen everything");
        Ok(())
    }

    /// Labels of ours in every version of the Node since the start, the oldest first; the one at the start is left out.
    pub async fn versions(&self, node: &str) -> Result<Vec<BTreeMap<String, String>>> {
        self.catch_up().await?;
        let book = lock(&self.book);
        Ok(book.sights.iter().filter(|sight| sight.node == node).skip(1).map(|sight| sight.labels.clone()).collect())
    }

    /// Fails if a label of one of these images was seen on one of these nodes, and then was not.
    pub async fn none_lost(&self, nodes: &[&str], images: &[&Published]) -> Result<()> {
        self.catch_up().await?;
        let book = lock(&self.book);
        let sights = &book.sights;
        for (node, image) in nodes.iter().flat_map(|node| images.iter().map(move |image| (*node, *image))) {
            let key = key_of(image)?;
            let mut was_there = false;
            for sight in sights.iter().filter(|sight| sight.node == node) {
                let is_there = sight.labels.contains_key(&key);
                ensure!(is_there || !was_there, "{node} lost the label of {} at {}", image.repository, sight.version);
                was_there |= is_there;
            }
            ensure!(was_there, "{node} never had the label of {}", image.repository);
        }
        Ok(())
    }

    /// Fails if a node that showed an image's label asked the registry for that image later: it held it already. And if a
    /// label has another value than the digest of the image.
    pub async fn none_asked_for_again(&self, requests: &RequestLog, images: &[&Published]) -> Result<()> {
        self.catch_up().await?;
        let book = lock(&self.book);
        let sights = &book.sights;
        let nodes: BTreeSet<&str> = sights.iter().map(|sight| sight.node.as_str()).collect();
        for (node, image) in nodes.iter().flat_map(|node| images.iter().map(move |image| (*node, *image))) {
            let key = key_of(image)?;
            let expected = label::image_label_value(&shared::image::Digest::parse(&image.digest)?);
            let mut shown =
                sights.iter().filter(|s| s.node == node).filter_map(|s| Some((s.at, s.labels.get(&key)?))).peekable();
            let Some((since, _)) = shown.peek().copied() else { continue };
            for (_, value) in shown {
                ensure!(
                    *value == expected,
                    "{node} said {value} of {}, whose digest is {}",
                    image.by_tag(REGISTRY),
                    image.digest
                );
            }
            let again = requests.select(|r| r.node == node && is_of(r, image) && r.at > since);
            ensure!(again.is_empty(), "{node} held {} and asked for it again: {again:?}", image.repository);
        }
        Ok(())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

async fn see(nodes: Api<Node>, book: Arc<Mutex<Book>>, begun: oneshot::Sender<()>) {
    let mut begun = Some(begun);
    let mut events = pin!(watcher(nodes, Config::default()));
    while let Some(event) = events.next().await {
        // An error is retried by the watcher itself, from where it was; if it cannot, it lists again.
        let node = match event {
            Ok(Event::Apply(node) | Event::InitApply(node)) => node,
            Ok(Event::InitDone) => {
                lock(&book).lists += 1;
                if let Some(begun) = begun.take() {
                    let _ = begun.send(());
                }
                continue;
            }
            Ok(Event::Init | Event::Delete(_)) | Err(_) => continue,
        };
        let (at, name, version) = (Instant::now(), node.name_any(), node.resource_version().unwrap_or_default());
        let mut labels = node.metadata.labels.unwrap_or_default();
        labels.retain(|key, _| label::is_ours(key));
        lock(&book).sights.push(Sight { at, node: name, version, labels });
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a request is for this image, and not for another one of its repository.
fn is_of(request: &Request, image: &Published) -> bool {
    let named = [&image.tag, &image.digest, &image.id].into_iter().chain(&image.layers);
    request.is_of(&image.repository) && named.into_iter().any(|name| request.path.ends_with(&format!("/{name}")))
}

fn key_of(image: &Published) -> Result<String> {
    Ok(label::image_label(&Reference::parse(&image.by_tag(REGISTRY))?.key()))
}
