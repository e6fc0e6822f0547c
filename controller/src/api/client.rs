//! The connection to the Kubernetes API.
//!
//! Owns where credentials come from, when a connection is dead, and that the client never retries by itself: watches own
//! their retries, every other request is tried once and its outcome is a fact.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("kube.kubeconfig: {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<KubeconfigError>,
    },
    /// Neither a kubeconfig nor a service account.
    #[error("no Kubernetes credentials: not in a Pod, and no kubeconfig given")]
    Infer(#[source] Box<InferConfigError>),
    /// The client cannot be made of them.
    #[error("Kubernetes client for {url}")]
    Client {
        /// The API server.
        url: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// Builds a client; nothing is sent yet. Without a path: the Pod's service account, or the usual kubeconfig. A request
/// that has no answer after `silence` fails, and so does an answer that pauses for longer: watches must end sooner.
pub async fn connect(kubeconfig: Option<&Path>, silence: Duration) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path)
            .await
            .map_err(|source| ConnectError::Kubeconfig { path: path.to_owned(), source: Box::new(source) })?,
        None => Config::infer().await.map_err(|source| ConnectError::Infer(Box::new(source)))?,
    };
    config.default_retry = false;
    config.connect_timeout = config.connect_timeout.map(|limit| limit.min(silence));
    config.read_timeout = Some(silence);
    // From the request on, not from when the connection was last used.
    config.reset_reader_on_write = true;
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| ConnectError::Client { url, source: Box::new(source) })
}

async fn from_file(path: &Path) -> Result<Config, KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}
