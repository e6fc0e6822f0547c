//! Headers of a message, in both directions.
//!
//! Owns the translation from and to the client's map. Never knows what a header means, the server's own apart.

use std::str::FromStr as _;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use shared::message::header;

use super::BusError;

/// Headers of a message that came in.
#[derive(Debug, Clone, Default)]
pub struct Headers(Option<HeaderMap>);

impl Headers {
    pub(super) fn new(map: Option<HeaderMap>) -> Self {
        Self(map)
    }

    /// The first value of `name`; names are taken as written.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name)?.first().map(HeaderValue::as_str)
    }

    /// The last value of `name`: the server appends its own to those of the sender.
    pub(super) fn last(&self, name: &str) -> Option<&str> {
        self.all(name)?.last().map(HeaderValue::as_str)
    }

    /// A number that the server appended.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.last(name)?.parse().ok()
    }

    /// Whether it carries `Nats-Stream`: on core NATS a sign of forgery, since only a stream's answer has it.
    pub fn has_stream_header(&self) -> bool {
        self.get(header::STREAM).is_some()
    }

    fn all(&self, name: &str) -> Option<&Vec<HeaderValue>> {
        // By iteration, since the map's own look-up makes a name first and refuses some with a panic.
        self.0.as_ref()?.iter().find(|(key, _)| AsRef::<str>::as_ref(*key) == name).map(|(_, values)| values)
    }
}

/// Headers to send, for `what`.
pub(super) fn outgoing<'a>(
    what: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<HeaderMap, BusError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let invalid = || BusError::invalid(what, format!("header {name} cannot be sent"));
        let key = HeaderName::from_str(name).map_err(|_| invalid())?;
        let value = HeaderValue::from_str(value).map_err(|_| invalid())?;
        map.append(key, value);
    }
    Ok(map)
}
