//! What passed HTTP proxies: one log for all of them, in the order of arrival. It only records; it never decides.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::run::RunDir;

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its number in the log, from 0.
    pub number: usize,
    /// When it arrived, for differences.
    pub at: Instant,
    /// When it arrived, by the clock on the wall.
    pub time: SystemTime,
    /// The name of the proxy it came through: the node.
    pub node: String,
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Query; containerd puts the registry's name there (`ns=registry.test`).
    pub query: String,
    /// `User-Agent`.
    pub user_agent: String,
    /// Whether it carried credentials. Which ones is not kept.
    pub authorized: bool,
    /// The status that was answered, once it was.
    pub status: Option<u16>,
    /// Bytes of the answer's body that were passed on.
    pub bytes: u64,
    /// How long it took, once it is over.
    pub took: Option<Duration>,
    /// Whether the whole answer was passed on.
    pub complete: bool,
    /// The fault that was done to it, if any.
    pub fault: Option<String>,
}

impl Request {
    /// A read of a manifest or an index, by tag or digest.
    pub fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }

    /// A read of a layer or a config.
    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }

    /// Whether it is about this repository (without the registry's name).
    pub fn is_of(&self, repository: &str) -> bool {
        self.path
            .strip_prefix("/v2/")
            .and_then(|rest| rest.strip_prefix(repository))
            .is_some_and(|r| r.starts_with('/'))
    }
}

impl Request {
    /// One line for an error message.
    fn show(&self) -> String {
        let Self { node, method, path, bytes, .. } = self;
        let status = self.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        let end = if self.complete { "" } else { " (incomplete)" };
        let fault = self.fault.as_ref().map(|fault| format!(" {fault}")).unwrap_or_default();
        format!("{node} {method} {path} {status} {bytes} bytes{end}{fault}")
    }
}

/// The log, shared by proxies and tests.
#[derive(Clone, Debug, Default)]
pub struct RequestLog {
    requests: Arc<Mutex<Vec<Request>>>,
    file: Option<Arc<PathBuf>>,
}

impl RequestLog {
    /// A log that also stands in the run's folder beside the logs of the parts, for when the test fails.
    pub fn kept(run: &RunDir) -> Self {
        Self::kept_as(run, "requests")
    }

    /// The same under another name.
    pub fn kept_as(run: &RunDir, name: &str) -> Self {
        Self { requests: Arc::default(), file: Some(Arc::new(run.log(name))) }
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<Request> {
        self.lock().clone()
    }

    /// Those that `wanted` chooses.
    pub fn select(&self, wanted: impl Fn(&Request) -> bool) -> Vec<Request> {
        self.lock().iter().filter(|request| wanted(request)).cloned().collect()
    }

    /// How many `wanted` chooses.
    pub fn count(&self, wanted: impl Fn(&Request) -> bool) -> usize {
        self.lock().iter().filter(|request| wanted(request)).count()
    }

    /// Those that came through the proxy of that node.
    pub fn of_node(&self, node: &str) -> Vec<Request> {
        self.select(|request| request.node == node)
    }

    /// How many there are so far: a mark for [`Self::since`].
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing passed yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those from number `mark` on.
    pub fn since(&self, mark: usize) -> Vec<Request> {
        self.select(|request| request.number >= mark)
    }

    /// How many are being answered now.
    pub fn in_flight(&self) -> usize {
        self.count(|request| request.took.is_none())
    }

    /// The most that were being answered at one moment, of those that `wanted` chooses.
    pub fn most_at_once(&self, wanted: impl Fn(&Request) -> bool) -> usize {
        let chosen = self.select(wanted);
        let end = |request: &Request| request.took.map(|took| request.at + took);
        let running_at = |moment: Instant| {
            chosen.iter().filter(|request| request.at <= moment && end(request).is_none_or(|end| end > moment)).count()
        };
        chosen.iter().map(|request| running_at(request.at)).max().unwrap_or_default()
    }

    /// One line a request, for an error message.
    pub fn show(&self) -> String {
        self.lock().iter().map(Request::show).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn open(&self, request: impl FnOnce(usize) -> Request) -> Entry {
        let mut log = self.lock();
        let number = log.len();
        log.push(request(number));
        Entry { log: self.clone(), number, is_complete: false }
    }

    /// Appends the line of a request that is over to the file.
    fn write(&self, number: usize) {
        let Some(path) = &self.file else { return };
        let Some(request) = self.lock().get(number).cloned() else {
            return;
        };
        let since = request.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let line = format!("{:.3} {}\n", since.as_secs_f64(), request.show());
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path.as_path());
        // The folder goes before the last request does when a test ends; nobody misses that line.
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line of a request that is being answered; dropping it says that the request is over.
pub(super) struct Entry {
    log: RequestLog,
    number: usize,
    is_complete: bool,
}

impl Entry {
    pub(super) fn update(&mut self, change: impl FnOnce(&mut Request)) {
        if let Some(request) = self.log.lock().get_mut(self.number) {
            change(request);
        }
    }

    /// The whole answer has passed.
    pub(super) fn complete(&mut self) {
        self.is_complete = true;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let complete = self.is_complete;
        self.update(|request| {
            request.took = Some(request.at.elapsed());
            request.complete = complete;
        });
        self.log.write(self.number);
    }
}
