//! A micro service (NATS ADR-32): `nats micro ls` shows it, and one of its instances answers each request.
//!
//! Owns the endpoints and the way back to whoever asked. Never knows what is asked.

use std::collections::HashMap;

use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE, ServiceExt as _};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream, SelectAll};

use super::{Bus, BusError, Headers, headers};

/// What a service is.
#[derive(Debug, Clone)]
pub struct ServiceSpec<'a> {
    /// Its name: `A-Z a-z 0-9 - _`. Instances of one name share the requests.
    pub name: &'a str,
    /// Its version, semantic.
    pub version: &'a str,
    /// For people.
    pub description: &'a str,
    /// For people.
    pub metadata: &'a [(&'a str, &'a str)],
    /// What the subject of every endpoint begins with, without the last dot.
    pub prefix: &'a str,
    /// The last token of each endpoint's subject.
    pub endpoints: &'a [&'a str],
}

/// A service that is offered until it is dropped.
pub struct Service {
    inner: async_nats::service::Service,
    requests: SelectAll<BoxStream<'static, ServiceRequest>>,
}

/// A request to a service.
#[derive(Debug)]
pub struct ServiceRequest {
    request: async_nats::service::Request,
}

impl Bus {
    /// Offers a service; also works before there is a connection.
    pub async fn offer(&self, spec: &ServiceSpec<'_>) -> Result<Service, BusError> {
        let what = format!("offering the service {}", spec.name);
        let invalid = |error| BusError::invalid(&what, error);
        let metadata: HashMap<_, _> =
            spec.metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let builder = self.inner.client.service_builder().description(spec.description).metadata(metadata);
        let started = self.in_time(&what, builder.queue_group(spec.name).start(spec.name, spec.version)).await?;
        let inner = started.map_err(invalid)?;
        let group = inner.group(spec.prefix);
        let mut requests = SelectAll::new();
        for name in spec.endpoints {
            let added = group.endpoint_builder().name(name).add(name);
            let endpoint = self.in_time(&what, added).await?.map_err(invalid)?;
            requests.push(endpoint.map(|request| ServiceRequest { request }).boxed());
        }
        Ok(Service { inner, requests })
    }

    /// Answers a request. `error` is a short text that marks the answer as one, for clients that look at headers.
    pub async fn answer(&self, request: ServiceRequest, body: Bytes, error: Option<&str>) -> Result<(), BusError> {
        let subject = request.subject().to_owned();
        self.connected(&subject)?;
        let error = error.map(|text| text.replace(|c: char| c.is_control(), " "));
        let marks =
            error.iter().flat_map(|text| [(NATS_SERVICE_ERROR, text.as_str()), (NATS_SERVICE_ERROR_CODE, "400")]);
        let map = headers::outgoing(&subject, marks)?;
        let sent = self.in_time(&subject, request.request.respond_with_headers(Ok(body), map)).await?;
        sent.map_err(|error| BusError::invalid(&subject, error))
    }
}

impl Service {
    /// The next request; `None` when the process ends.
    pub async fn recv(&mut self) -> Option<ServiceRequest> {
        stream::StreamExt::next(&mut self.requests).await
    }

    /// Leaves the group: other instances get all requests.
    pub async fn stop(self) {
        // It fails only when the process ends.
        let _ = self.inner.stop().await;
    }
}

impl ServiceRequest {
    /// Its subject.
    pub fn subject(&self) -> &str {
        &self.request.message.subject
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        &self.request.message.payload
    }

    /// Whether a client sent it and waits. The server itself answers where a client told it to, which can be here: such
    /// a message has no reply subject, a status or the header of a stream.
    pub fn is_from_client(&self) -> bool {
        let message = &self.request.message;
        let from_stream = Headers::new(message.headers.clone()).has_stream_header();
        message.reply.is_some() && message.status.is_none() && !from_stream
    }
}
