//! An HTTP proxy in front of a registry (one a node) or of the Kubernetes API (whose TLS it speaks, as the user it is
//! given): owns passing requests on, doing faults to them, and logging. What a request means is nothing to it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, RANGE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::fault::{Fault, Rule};
use super::log::{self, RequestLog};
use super::passage::Passage;
use super::rules::{RuleId, Rules};
use crate::port::Port;

/// A body on its way.
pub(super) type Body = UnsyncBoxBody<Bytes, anyhow::Error>;

/// A proxy with a name, in front of one server.
pub struct HttpProxy {
    port: Port,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    name: String,
    server: Server,
    log: RequestLog,
    rules: Rules<Rule>,
}

/// Who is behind the proxy.
enum Server {
    /// A registry that speaks plain HTTP.
    Registry(SocketAddr, Box<Client<HttpConnector, Body>>),
    /// The API server, with the address and the identity of the client.
    Kubernetes(kube::Client),
}

impl HttpProxy {
    /// Starts passing everything on to the registry at `target`; requests are logged under `name`.
    pub async fn start(name: &str, target: SocketAddr, log: &RequestLog) -> Result<Self> {
        let client = Box::new(Client::builder(TokioExecutor::new()).build_http());
        Self::before(name, Server::Registry(target, client), log).await
    }

    /// Starts passing everything on to the API server, as the user that `client` is.
    pub async fn kubernetes(name: &str, client: kube::Client, log: &RequestLog) -> Result<Self> {
        Self::before(name, Server::Kubernetes(client), log).await
    }

    async fn before(name: &str, server: Server, log: &RequestLog) -> Result<Self> {
        let port = Port::free()?;
        let listener = port.listen().await?;
        let shared = Arc::new(Shared { name: name.into(), server, log: log.clone(), rules: Rules::default() });
        let server = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { port, shared, server })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The log it writes to, which other proxies may share.
    pub fn log(&self) -> &RequestLog {
        &self.shared.log
    }

    /// Adds a rule; of several that fit a request the first added is taken.
    pub fn add(&self, rule: Rule) -> RuleId {
        self.shared.rules.add(rule)
    }

    /// Takes one rule away; what it stalled goes on.
    pub fn remove(&self, id: RuleId) {
        self.shared.rules.remove(id);
    }

    /// Takes all rules away.
    pub fn heal(&self) {
        self.shared.rules.clear();
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        // Its connections are in a set that goes with the task.
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
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

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { shared.answer(request).await }
    });
    // An error here is a fault that was asked for, or a client that went away.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Shared {
    fn fault_for(&self, request: &Request<Incoming>) -> Option<(RuleId, Fault)> {
        let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
        self.rules.meet(|rule| {
            let takes = rule.takes(request.method(), &path, request.headers());
            takes.then(|| rule.fault.clone())
        })
    }

    /// An error ends the connection without an answer.
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let mut entry = self.log.open(|number| record(number, &self.name, &request));
        let (rule, fault) = self.fault_for(&request).unzip();
        entry.update(|line| line.fault = fault.as_ref().map(|fault| format!("{fault:?}")));
        match &fault {
            Some(Fault::Status(status, headers)) => {
                entry.update(|line| line.status = Some(*status));
                entry.complete();
                return refusal(*status, headers);
            }
            Some(Fault::Cut) => return Err(anyhow!("cut")),
            Some(Fault::Stall) => self.rules.gone(rule).await,
            Some(Fault::Delay(by)) => tokio::time::sleep(*by).await,
            Some(Fault::StallAfter(_) | Fault::TruncateAfter(_) | Fault::Throttle(_) | Fault::Alter) | None => {}
        }
        let Ok(answer) = self.pass_on(request).await else {
            entry.update(|line| line.status = Some(StatusCode::BAD_GATEWAY.as_u16()));
            entry.complete();
            return refusal(StatusCode::BAD_GATEWAY.as_u16(), &[]);
        };
        let (head, body) = answer.into_parts();
        entry.update(|line| line.status = Some(head.status.as_u16()));
        let active = self.rules.active();
        let passage = Passage { body, entry, fault, rule, active, passed: 0 };
        Ok(Response::from_parts(head, StreamBody::new(passage.stream()).boxed_unsync()))
    }

    async fn pass_on(&self, mut request: Request<Incoming>) -> Result<Response<Body>> {
        request.headers_mut().remove(HOST);
        match &self.server {
            Server::Registry(target, client) => {
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                *request.uri_mut() =
                    format!("http://{target}{path}").parse::<Uri>().context("the path of a request")?;
                let mut request = request.map(|body| body.map_err(anyhow::Error::from).boxed_unsync());
                if let Some(range) = closed_range(client, &request).await {
                    request.headers_mut().insert(RANGE, range);
                }
                let answer = client.request(request).await.context("asking the registry")?;
                Ok(answer.map(|body| body.map_err(anyhow::Error::from).boxed_unsync()))
            }
            Server::Kubernetes(client) => {
                // Its client takes whole bodies; what a client of the API sends is small.
                let (head, body) = request.into_parts();
                let body = body.collect().await.context("the body of a request")?.to_bytes();
                let request = Request::from_parts(head, kube::client::Body::from(body));
                let answer = client.send(request).await.context("asking the API server")?;
                Ok(answer.map(|body| body.map_err(anyhow::Error::from).boxed_unsync()))
            }
        }
    }
}

/// Clients go on with a broken download by `bytes=N-`, which `crane registry serve` refuses: it knows only ranges whose
/// end is given. Other registries know both, so the proxy turns the one into the other.
fn closed_range(
    client: &Client<HttpConnector, Body>,
    request: &Request<Body>,
) -> impl Future<Output = Option<HeaderValue>> + use<> {
    let start = request.headers().get(RANGE).and_then(|range| range.to_str().ok());
    let start = start.and_then(|range| Some(range.strip_prefix("bytes=")?.strip_suffix('-')?.to_owned()));
    let head = Request::head(request.uri().clone()).body(empty());
    let client = client.clone();
    async move {
        let start = start?;
        let answer = client.request(head.ok()?).await.ok()?;
        let size: u64 = answer.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
        HeaderValue::try_from(format!("bytes={start}-{}", size.checked_sub(1)?)).ok()
    }
}

fn record(number: usize, node: &str, request: &Request<Incoming>) -> log::Request {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    log::Request {
        number,
        at: Instant::now(),
        time: SystemTime::now(),
        node: node.into(),
        method: request.method().to_string(),
        path: request.uri().path().into(),
        query: request.uri().query().unwrap_or_default().into(),
        user_agent: header("user-agent").into(),
        authorized: request.headers().contains_key(AUTHORIZATION),
        status: None,
        bytes: 0,
        took: None,
        complete: false,
        fault: None,
    }
}

fn empty() -> Body {
    Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn refusal(status: u16, headers: &[(String, String)]) -> Result<Response<Body>> {
    let mut answer = Response::new(empty());
    *answer.status_mut() = StatusCode::from_u16(status).context("the status of a fault")?;
    for (name, value) in headers {
        let name = HeaderName::try_from(name).context("a header of a fault")?;
        answer.headers_mut().insert(name, HeaderValue::try_from(value).context("a header of a fault")?);
    }
    Ok(answer)
}
