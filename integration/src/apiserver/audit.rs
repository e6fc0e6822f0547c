//! What our own processes asked of the API server: owns the audit policy and reading its log.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::json;

/// Names that our processes have, with certificates and as service accounts of the chart.
const PROCESSES: [&str; 2] = ["warm-images-controller", "warm-images-cleanup"];

/// A request of one of our processes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// Who, as the API server names it.
    pub user: String,
    /// `get`, `list`, `watch` …
    pub verb: String,
    /// API group; empty is core.
    pub group: String,
    /// Plural resource name, with a subresource as in `nodes/status`; or a path.
    pub resource: String,
    /// Whether it was allowed to.
    pub is_allowed: bool,
}

#[derive(Deserialize)]
struct Event {
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    user: User,
    #[serde(rename = "objectRef")]
    object: Option<Object>,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Object {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    api_group: String,
    subresource: Option<String>,
}

#[derive(Deserialize, Default)]
struct Annotations {
    #[serde(rename = "authorization.k8s.io/decision")]
    decision: Option<String>,
}

/// The policy: who asked what, of our processes alone.
pub(super) fn policy() -> String {
    let accounts = PROCESSES.map(|name| format!("system:serviceaccount:warm-images:{name}"));
    let users: Vec<&str> = PROCESSES.into_iter().chain(accounts.iter().map(String::as_str)).collect();
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{ "level": "Metadata", "users": users }, { "level": "None" }],
    })
    .to_string()
}

/// All requests so far, in order. A watch is there from its start.
pub(super) fn read(log: &Path) -> Result<Vec<Request>> {
    let text = match std::fs::read_to_string(log) {
        Ok(text) => text,
        // Nobody has asked anything yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", log.display())),
    };
    // The last line may be half written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| {
            let event: Event = match serde_json::from_str(line) {
                Ok(event) => event,
                Err(error) => return Err(error).with_context(|| format!("a line of the audit log: {line}")),
            };
            // A request to no resource is one to a path.
            let path = || Object { resource: path_of(&event.uri), ..Object::default() };
            let object = event.object.unwrap_or_else(path);
            let resource = match object.subresource {
                Some(sub) => format!("{}/{sub}", object.resource),
                None => object.resource,
            };
            Ok(Request {
                user: event.user.username,
                verb: event.verb,
                group: object.api_group,
                resource,
                is_allowed: event.annotations.decision.as_deref() == Some("allow"),
            })
        })
        .collect()
}

fn path_of(uri: &str) -> String {
    uri.split('?').next().unwrap_or_default().to_owned()
}
