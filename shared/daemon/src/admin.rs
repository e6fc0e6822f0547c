//! Admin HTTP: is it alive, is it ready, what does it count, what does it think.
//!
//! Owns the server and its routes. Never changes the machine: the only thing that can be set is the log filter.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::driver::Liveness;
use crate::inspect::{InspectError, MAIN, StateHandle};
use crate::metrics::MetricsHandle;
use crate::supervise::{Shutdown, Tasks};
use crate::telemetry::LogHandle;

/// The loop has turned within this, or the process is not alive.
const ALIVE: Duration = Duration::from_secs(10);
const BODY: usize = 4 * 1_024;

/// Whether the process is ready, and what it does; otherwise what it waits for.
pub type Readiness = Result<String, String>;

/// What the routes show.
#[derive(Debug, Clone)]
pub struct Admin {
    /// `/livez`.
    pub live: Liveness,
    /// `/readyz`.
    pub ready: watch::Receiver<Readiness>,
    /// `/state` and `/state/<view>`.
    pub state: StateHandle,
    /// `/metrics`.
    pub metrics: MetricsHandle,
    /// `/log-level`.
    pub log: LogHandle,
    /// Not ready from then on.
    pub shutdown: Shutdown,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Not an address.
    #[error("admin.listen: `{listen}` is not an address with a port, such as 0.0.0.0:9180: {source}")]
    Address {
        /// What was configured.
        listen: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not free.
    #[error("admin.listen: cannot listen on {listen}: {source}; choose a free port")]
    Bind {
        /// What was configured.
        listen: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Listens on `listen` (`host:port`, port 0 for any) and serves until the shutdown. Returns the address it has.
pub async fn serve(listen: &str, admin: Admin, tasks: &Tasks) -> Result<SocketAddr, AdminError> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(listen)
        .await
        .map_err(|source| AdminError::Address { listen: listen.to_owned(), source })?
        .collect();
    let bind = |source| AdminError::Bind { listen: listen.to_owned(), source };
    let listener = TcpListener::bind(addresses.as_slice()).await.map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    info!(%address, "admin HTTP listens");
    let shutdown = admin.shutdown.clone();
    tasks.spawn("admin", async move {
        let stopping = shutdown.clone();
        let server = axum::serve(listener, router(admin));
        if let Err(error) = server.with_graceful_shutdown(async move { stopping.cancelled().await }).await {
            warn!(%error, "admin HTTP ended");
        }
    });
    Ok(address)
}

/// The routes, for a server that has its own listener.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .route("/log-level", get(log_level).put(set_log_level))
        .route("/state", get(state))
        .route("/state/{view}", get(state_view))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(Arc::new(admin))
}

async fn livez(State(admin): State<Arc<Admin>>) -> Response {
    match admin.live.since_turn() {
        Some(since) if since > ALIVE => {
            let text = format!("the loop has not turned for {} s\n", since.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
        _ => "ok\n".into_response(),
    }
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let ready = if admin.shutdown.is_cancelled() { Err("stopping".to_owned()) } else { admin.ready.borrow().clone() };
    match ready {
        Ok(text) => format!("{text}\n").into_response(),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reasons}\n")).into_response(),
    }
}

async fn render_metrics(State(admin): State<Arc<Admin>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render()).into_response()
}

async fn log_level(State(admin): State<Arc<Admin>>) -> String {
    format!("{}\n", admin.log.filter())
}

async fn set_log_level(State(admin): State<Arc<Admin>>, filter: String) -> Response {
    match admin.log.set_filter(&filter) {
        Ok(()) => {
            warn!(filter = filter.trim(), "the log filter was changed over admin HTTP");
            format!("{}\n", admin.log.filter()).into_response()
        }
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    }
}

async fn state(State(admin): State<Arc<Admin>>) -> Response {
    answer(admin.state.view(MAIN).await)
}

async fn state_view(State(admin): State<Arc<Admin>>, Path(view): Path<String>) -> Response {
    answer(admin.state.view(&view).await)
}

fn answer(view: Result<serde_json::Value, InspectError>) -> Response {
    match view {
        Ok(value) => Json(value).into_response(),
        Err(error @ InspectError::Unknown { .. }) => (StatusCode::NOT_FOUND, format!("{error}\n")).into_response(),
        Err(error @ InspectError::NoAnswer) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
