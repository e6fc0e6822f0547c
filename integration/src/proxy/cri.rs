//! A gRPC proxy in front of a container runtime's socket: owns passing calls on, byte for byte whatever they are, doing
//! faults to those a rule names, and logging all of them. It knows CRI only where it is told to lie (`cri::lie`).

pub mod fault;
pub mod lie;

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

use super::http::Body;
use super::log::{self, Entry, RequestLog};
use super::rules::{RuleId, Rules};
use fault::{CriFault, CriRule};

/// Calls that name one image: of these alone the request is read.
const ABOUT_AN_IMAGE: &[&str] = &["ImageStatus", "PullImage", "RemoveImage"];

/// A proxy in front of one runtime.
pub struct CriProxy {
    socket: PathBuf,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    target: PathBuf,
    log: RequestLog,
    rules: Rules<CriRule>,
}

impl CriProxy {
    /// Listens on `socket` and passes everything on to `target`. Must be called within a tokio runtime.
    pub fn start(socket: &Path, target: &Path, log: &RequestLog) -> Result<Self> {
        if std::fs::symlink_metadata(socket).is_ok_and(|file| file.file_type().is_socket()) {
            std::fs::remove_file(socket).with_context(|| format!("removing {}", socket.display()))?;
        }
        let listener = UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
        let shared = Arc::new(Shared { target: target.to_owned(), log: log.clone(), rules: Rules::default() });
        let server = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { socket: socket.to_owned(), shared, server })
    }

    /// Where clients connect to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The calls so far: `path` is the method alone, as in `PullImage`, and `query` the image it names.
    pub fn log(&self) -> &RequestLog {
        &self.shared.log
    }

    /// How many calls of a method there were so far.
    pub fn count(&self, method: &str) -> usize {
        self.shared.log.count(|call| call.path == method)
    }

    /// Adds a rule; of several that fit a call the first added is taken.
    pub fn add(&self, rule: CriRule) -> RuleId {
        self.shared.rules.add(rule)
    }

    /// Takes one rule away; what it held back goes on.
    pub fn remove(&self, id: RuleId) {
        self.shared.rules.remove(id);
    }

    /// Takes all rules away.
    pub fn heal(&self) {
        self.shared.rules.clear();
    }
}

impl Drop for CriProxy {
    fn drop(&mut self) {
        // Its connections are in a set that goes with the task.
        self.server.abort();
    }
}

async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(stream, Arc::clone(&shared)));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection to the runtime for each of a client, so that both break together.
async fn connection(client: UnixStream, shared: Arc<Shared>) {
    let Ok(runtime) = UnixStream::connect(&shared.target).await else {
        return;
    };
    let executor = TokioExecutor::new();
    let Ok((sender, runtime)) = hyper::client::conn::http2::handshake(executor, TokioIo::new(runtime)).await else {
        return;
    };
    let service = service_fn(|call| {
        let (shared, sender) = (Arc::clone(&shared), sender.clone());
        async move { shared.answer(call, sender).await }
    });
    let served =
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(client), service);
    // An error here is a fault that was asked for, or a side that went away.
    tokio::select! {
        _ = served => {}
        _ = runtime => {}
    }
}

impl Shared {
    /// An error breaks the call off without a status.
    async fn answer(&self, call: Request<Incoming>, runtime: SendRequest<Body>) -> Result<Response<Body>> {
        let method = call.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let (call, image) = read(call, &method).await?;
        let mut entry = self.log.open(|number| record(number, &method, &image));
        let (rule, fault) = self.rules.meet(|rule| rule.takes(&method, &image)).unzip();
        entry.update(|line| line.fault = fault.as_ref().map(|fault| format!("{fault:?}")));
        match &fault {
            Some(CriFault::Status(code, message)) => {
                entry.complete();
                return refusal(*code as i32, message);
            }
            Some(CriFault::Hang) => self.rules.gone(rule).await,
            Some(CriFault::Delay(by)) => tokio::time::sleep(*by).await,
            Some(CriFault::TruncateAfter(_) | CriFault::Lie(_)) | None => {}
        }
        let (head, body) = pass_on(call, runtime).await?.into_parts();
        entry.update(|line| line.status = Some(head.status.as_u16()));
        let body = match fault {
            Some(CriFault::Lie(lie)) => lying(body, &method, &image, &lie).await?,
            Some(CriFault::TruncateAfter(limit)) => truncated(body, limit),
            _ => body,
        };
        Ok(Response::from_parts(head, logged(body, entry)))
    }
}

/// Which image a call names; the call is whole again afterwards.
async fn read(call: Request<Incoming>, method: &str) -> Result<(Request<Body>, String)> {
    let (head, body) = call.into_parts();
    let body = body.map_err(anyhow::Error::from).boxed_unsync();
    if !ABOUT_AN_IMAGE.contains(&method) {
        return Ok((Request::from_parts(head, body), String::new()));
    }
    let bytes = body.collect().await?.to_bytes();
    let image = lie::image_named(&message_of(&bytes)?)?;
    Ok((Request::from_parts(head, whole(bytes)), image))
}

async fn pass_on(call: Request<Body>, mut runtime: SendRequest<Body>) -> Result<Response<Body>> {
    runtime.ready().await.context("the connection to the runtime")?;
    let answer = runtime.send_request(call).await.context("asking the runtime")?;
    Ok(answer.map(|body| body.map_err(anyhow::Error::from).boxed_unsync()))
}

/// The answer with what the lie makes of its one message. An answer without a message (a refusal) stays.
async fn lying(body: Body, method: &str, image: &str, lie: &lie::Lie) -> Result<Body> {
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    let bytes = collected.to_bytes();
    let bytes = if bytes.is_empty() { bytes } else { frame(&lie.tell(method, image, &message_of(&bytes)?)?)? };
    let frames = std::iter::once(Frame::data(bytes)).chain(trailers.map(Frame::trailers));
    Ok(StreamBody::new(futures::stream::iter(frames.map(Ok))).boxed_unsync())
}

/// The message of a body that holds exactly one (gRPC over HTTP/2: a flag, four bytes of length, the message).
fn message_of(body: &Bytes) -> Result<Bytes> {
    let (head, message) = body.split_at_checked(5).context("a gRPC message without a head")?;
    ensure!(head.first() == Some(&0), "a compressed gRPC message");
    let length = u32::from_be_bytes(head.get(1..).unwrap_or_default().try_into()?);
    ensure!(usize::try_from(length)? == message.len(), "{length} bytes announced, {} are there", message.len());
    Ok(body.slice(5..))
}

fn frame(message: &[u8]) -> Result<Bytes> {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.extend_from_slice(&[0]);
    framed.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
    framed.extend_from_slice(message);
    Ok(framed.freeze())
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// The first bytes, then the call breaks off.
fn truncated(body: Body, limit: usize) -> Body {
    let frames = futures::stream::unfold(Some((body, limit)), async |state| {
        let (mut body, left) = state?;
        let next = async { body.frame().await?.ok()?.into_data().ok() };
        match next.await.filter(|_| left > 0) {
            Some(data) => {
                let data = data.slice(..data.len().min(left));
                let left = left - data.len();
                Some((Ok(Frame::data(data)), Some((body, left))))
            }
            None => Some((Err(anyhow!("truncated")), None)),
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The body, whose end (or the client's loss of interest) ends the line in the log.
fn logged(body: Body, entry: Entry) -> Body {
    let frames = futures::stream::unfold((body, entry), async |(mut body, mut entry)| {
        let Some(frame) = body.frame().await else {
            entry.complete();
            return None;
        };
        if frame.as_ref().is_ok_and(Frame::is_trailers) {
            // Nobody asks for more after the trailers.
            entry.complete();
        }
        Some((frame, (body, entry)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A status without a message (gRPC over HTTP/2, "Trailers-Only").
fn refusal(code: i32, message: &str) -> Result<Response<Body>> {
    let mut answer = Response::new(whole(Bytes::new()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(code));
    headers.insert("grpc-message", HeaderValue::try_from(message).context("the message of a fault")?);
    Ok(answer)
}

fn record(number: usize, method: &str, image: &str) -> log::Request {
    log::Request {
        number,
        at: Instant::now(),
        time: SystemTime::now(),
        node: "runtime".into(),
        method: "POST".into(),
        path: method.into(),
        query: image.into(),
        user_agent: String::new(),
        authorized: false,
        status: None,
        bytes: 0,
        took: None,
        complete: false,
        fault: None,
    }
}
