//! The connection to the runtime.
//!
//! Owns one channel that connects when first needed and again after it broke, and the limits every call has. Never
//! retries: who asked decides.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};

use super::error::CriError;
use super::proto::image_service_client::ImageServiceClient;
use super::proto::runtime_service_client::RuntimeServiceClient;
use super::socket::Sockets;

/// What containerd and CRI-O are willing to send; tonic alone would stop at 4 MiB, some 4,000 images.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// How the client behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to connect.
    pub sockets: Sockets,
    /// Deadline of every call but a pull.
    pub request_timeout: Duration,
    /// Namespace of the sandbox a pull names: CRI-O chooses signature policy and credentials by it.
    pub sandbox_namespace: String,
    /// UID of that sandbox: which run of the agent asks.
    pub sandbox_uid: String,
}

/// A client of the runtime; clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) settings: Settings,
    channel: Channel,
}

impl Client {
    /// Does not connect yet. Must be called within a tokio runtime.
    pub fn new(settings: Settings) -> Self {
        let sockets = settings.sockets.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let sockets = sockets.clone();
            async move { sockets.connect().await }
        });
        // The authority is nobody's: `localhost` is what gRPC over a Unix socket uses.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Self { settings, channel }
    }

    pub(super) fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(super) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Waits for an ordinary call.
    pub(super) async fn ask<T>(
        &self,
        call: &'static str,
        image: &str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CriError> {
        within(self.settings.request_timeout, call, image, answer).await
    }
}

/// Waits for a call, and drops it after `limit`: the runtime then sees it cancelled.
pub(super) async fn within<T>(
    limit: Duration,
    call: &'static str,
    image: &str,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CriError> {
    match timeout(limit, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(CriError::new(call, image, &status)),
        Err(_) => Err(CriError::Deadline { call, after: limit }),
    }
}
