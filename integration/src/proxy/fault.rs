//! What an HTTP proxy is told to do to some requests: rules as data. Carrying them out is the proxy's.

use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use hyper::{HeaderMap, Method};
use regex::Regex;

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered with this status and headers; the server never sees it.
    Status(u16, Vec<(String, String)>),
    /// No answer until the rule is taken away; then it goes on as if nothing had been.
    Stall,
    /// The answer stops after so many bytes of the body, until the rule is taken away.
    StallAfter(u64),
    /// The connection ends after so many bytes of the body, fewer than announced.
    TruncateAfter(u64),
    /// One byte of the body is another one than the server sent.
    Alter,
    /// The connection ends without an answer.
    Cut,
    /// It reaches the server that much later.
    Delay(Duration),
    /// The body passes at so many bytes a second.
    Throttle(u64),
}

impl Fault {
    /// An answer with a bare status.
    pub fn status(status: u16) -> Self {
        Self::Status(status, Vec::new())
    }

    /// An answer with a status and a header: `429` with `Retry-After`, `401` with `WWW-Authenticate`.
    pub fn status_with(status: u16, header: &str, value: &str) -> Self {
        Self::Status(status, vec![(header.into(), value.into())])
    }
}

/// A fault and the requests it is for.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) path: Regex,
    pub(super) method: Option<Method>,
    pub(super) agent: Option<Regex>,
    /// Not for requests with this `Authorization`.
    pub(super) unless: Option<String>,
    pub(super) left: Option<u32>,
    pub(super) fault: Fault,
}

impl Rule {
    /// For requests whose path (with the query) matches the regular expression, as in `/manifests/` or `^/v2/team/app/`.
    pub fn new(path: &str, fault: Fault) -> Result<Self> {
        let path = Regex::new(path).with_context(|| format!("the path of a rule: {path}"))?;
        Ok(Self { path, method: None, agent: None, unless: None, left: None, fault })
    }

    /// A private repository: 401 with a challenge for requests on `path` that do not carry this user's password.
    pub fn private(path: &str, user: &str, password: &str) -> Result<Self> {
        let challenge = Fault::status_with(401, "WWW-Authenticate", "Basic realm=\"test\"");
        let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Ok(Self { unless: Some(format!("Basic {credentials}")), ..Self::new(path, challenge)? })
    }

    /// Only for this method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Only for clients whose `User-Agent` matches.
    pub fn user_agent(mut self, agent: &str) -> Result<Self> {
        self.agent = Some(Regex::new(agent).with_context(|| format!("the user agent of a rule: {agent}"))?);
        Ok(self)
    }

    /// Only for the first so many requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.left = Some(times);
        self
    }

    /// Whether the rule is for this request; counts down if it is.
    pub(super) fn takes(&mut self, method: &Method, path: &str, headers: &HeaderMap) -> bool {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let fits = self.left != Some(0)
            && self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.agent.as_ref().is_none_or(|wanted| wanted.is_match(header("user-agent")))
            && self.unless.as_ref().is_none_or(|excepted| excepted != header("authorization"))
            && self.path.is_match(path);
        if fits && let Some(left) = &mut self.left {
            *left -= 1;
        }
        fits
    }
}
