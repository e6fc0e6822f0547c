//! Looks into the running machine: named views, answered by the loop itself between two turns.
//!
//! Owns the request and its answer. Never keeps a copy of the machine, and costs nothing while nobody asks.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use shared::machine::Now;
use tokio::sync::{mpsc, oneshot};

use crate::driver::{Inbox, Waker};

const ROOM: usize = 16;
const PATIENCE: Duration = Duration::from_secs(5);

/// One view of a machine as JSON, at the time of the turn that answers.
pub type View<M> = fn(&M, Now) -> Value;

/// The view that `/state` itself shows.
pub const MAIN: &str = "";

struct Request {
    view: String,
    answer: oneshot::Sender<Value>,
}

/// Asks for views: for the admin server.
#[derive(Debug, Clone)]
pub struct StateHandle {
    requests: mpsc::Sender<Request>,
    waker: Waker,
    names: Vec<&'static str>,
}

/// Answers: belongs into the `watch` closure of [`crate::driver::run`].
#[derive(Debug)]
pub struct Inspector<M> {
    requests: mpsc::Receiver<Request>,
    views: BTreeMap<&'static str, View<M>>,
}

/// Why there is no view.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InspectError {
    /// No such name.
    #[error("there is no view `{view}`; there are: {known}")]
    Unknown {
        /// What was asked for.
        view: String,
        /// Every name.
        known: String,
    },
    /// The loop does not turn, or has ended.
    #[error("the loop does not answer")]
    NoAnswer,
}

/// Both ends for `views`; the one named [`MAIN`] is what `/state` shows.
pub fn inspect<M, F>(views: BTreeMap<&'static str, View<M>>, inbox: &Inbox<F>) -> (StateHandle, Inspector<M>) {
    let (sender, requests) = mpsc::channel(ROOM);
    let names = views.keys().copied().collect();
    (StateHandle { requests: sender, waker: inbox.waker(), names }, Inspector { requests, views })
}

impl StateHandle {
    /// The view of that name, as the machine is now.
    pub async fn view(&self, view: &str) -> Result<Value, InspectError> {
        if !self.names.contains(&view) {
            let known = self.names().collect::<Vec<_>>().join(", ");
            return Err(InspectError::Unknown { view: view.to_owned(), known });
        }
        let (answer, answered) = oneshot::channel();
        let request = Request { view: view.to_owned(), answer };
        let exchange = async {
            self.requests.send(request).await.ok()?;
            self.waker.wake();
            answered.await.ok()
        };
        tokio::time::timeout(PATIENCE, exchange).await.ok().flatten().ok_or(InspectError::NoAnswer)
    }

    /// The names of all views but [`MAIN`].
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().copied().filter(|name| *name != MAIN)
    }
}

impl<M> Inspector<M> {
    /// Answers whoever waits. Call it in every `watch`.
    pub fn answer(&mut self, machine: &M, now: Now) {
        while let Ok(Request { view, answer }) = self.requests.try_recv() {
            if let Some(view) = self.views.get(view.as_str()) {
                // Whoever asked may have left.
                let _ = answer.send(view(machine, now));
            }
        }
    }
}
