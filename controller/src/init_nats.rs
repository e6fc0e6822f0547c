//! `warm-controller init-nats`: makes the keys and passwords of the NATS that comes with the chart.
//!
//! Owns which Secret gets what, in which order. What is there stays, so that it can be done again at any time; an upgrade
//! changes no key. Never shows a key.

use std::path::Path;
use std::time::Duration;

use crate::api::client::{ConnectError, connect};
use crate::api::secret::{SecretError, Secrets};
use crate::nats_keys::{complete_identity, complete_server, complete_users};

/// An API server that does not answer for so long does not answer: the Job is tried again.
const SILENCE: Duration = Duration::from_secs(20);

/// Names of what is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where.
    pub namespace: String,
    /// The release, for the labels of new Secrets.
    pub instance: String,
    /// The Secret with the seeds, for the controllers.
    pub identity: Option<String>,
    /// The Secret with the public halves of those, and what servers need beside, for the servers.
    pub server: Option<String>,
    /// The Secret with the passwords of people.
    pub users: Option<String>,
}

/// Not everything is there.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// No client for Kubernetes.
    #[error(transparent)]
    Kube(#[from] ConnectError),
    /// A Secret cannot be kept.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// Makes what is missing; a line for each Secret says what that was.
pub async fn run(wanted: &Wanted, kubeconfig: Option<&Path>) -> Result<Vec<String>, InitError> {
    let secrets = Secrets::new(connect(kubeconfig, SILENCE).await?, &wanted.namespace, &wanted.instance);
    let mut said = Vec::new();
    if let Some(name) = &wanted.identity {
        let identity = secrets.complete(name, complete_identity).await?;
        said.push(identity.to_string());
        if let Some(name) = &wanted.server {
            let server = secrets.complete(name, |found| complete_server(found, &identity.data)).await?;
            said.push(server.to_string());
        }
    }
    if let Some(name) = &wanted.users {
        said.push(secrets.complete(name, complete_users).await?.to_string());
    }
    Ok(said)
}
