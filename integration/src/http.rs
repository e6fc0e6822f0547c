//! A plain HTTP/1.1 client for loopback: owns one request and its whole answer. No TLS, no redirects, no retries.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// No answer on loopback takes longer, unless it never comes.
const LIMIT: Duration = Duration::from_secs(30);

/// A client with its own connections.
#[derive(Clone, Debug)]
pub struct Http {
    pool: Pool<HttpConnector, Full<Bytes>>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body of an answer with a 2xx status.
    pub fn success(self) -> Result<Bytes> {
        ensure!(self.status.is_success(), "{}: {}", self.status, String::from_utf8_lossy(&self.body));
        Ok(self.body)
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}

impl Http {
    /// A client without connections yet.
    pub fn new() -> Self {
        Self { pool: Pool::builder(TokioExecutor::new()).build_http() }
    }

    /// GET.
    pub async fn get(&self, url: &str) -> Result<Answer> {
        self.send(Method::GET, url, &[], Bytes::new()).await
    }

    /// Any method, headers and body.
    pub async fn send(&self, method: Method, url: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Answer> {
        let shown = format!("{method} {url}");
        let uri: Uri = url.parse().with_context(|| shown.clone())?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).with_context(|| format!("{shown}: header {name}"))?;
            request.headers_mut().insert(name, HeaderValue::try_from(*value).with_context(|| shown.clone())?);
        }
        let whole = async {
            let answer = self.pool.request(request).await?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, anyhow::Error>(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(LIMIT, whole).await.with_context(|| shown.clone())?.context(shown)
    }

    /// `Ok` if a GET of `url` answers with a 2xx status: what an admin or health port is asked.
    pub async fn answers(&self, url: &str) -> Result<()> {
        self.get(url).await?.success().map(drop)
    }
}
