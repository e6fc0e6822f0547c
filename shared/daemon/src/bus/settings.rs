//! The `nats:` section of both processes.
//!
//! Owns its keys, defaults and what is wrong with them. Never connects.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::ServerAddr;
use serde::{Deserialize, Serialize};

use crate::config::{Problems, SecretFile, Validate};

/// Where NATS is and how to log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NatsConfig {
    /// Servers, such as `nats://nats.nats.svc:4222`, or `tls://…` where TLS is a must. Others of the cluster are learned.
    pub urls: Vec<String>,
    /// User name, with `passwordFile`.
    pub user: Option<String>,
    /// File with the password, read at each connect.
    pub password_file: Option<SecretFile>,
    /// Credentials file (JWT and seed), read at each connect.
    pub creds_file: Option<SecretFile>,
    /// File with the seed of a user's nkey, read at each connect.
    pub nkey_seed_file: Option<SecretFile>,
    /// File with a token for the server's auth callout, such as a projected service-account token; read at each connect.
    pub token_file: Option<SecretFile>,
    /// TLS.
    pub tls: TlsConfig,
    /// Longest wait between two attempts. Waits double from a sixteenth of it; each, the first too, is drawn between zero
    /// and that, so that a fleet spreads.
    #[serde(with = "shared::duration")]
    pub reconnect_max: Duration,
    /// How long an answer may take.
    #[serde(with = "shared::duration")]
    pub request_timeout: Duration,
    /// How often a silent connection is tried; two failures end it.
    #[serde(with = "shared::duration")]
    pub ping_interval: Duration,
}

/// TLS to NATS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Certificates of the authority (PEM), instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate (PEM), with `keyFile`.
    pub cert_file: Option<PathBuf>,
    /// Our key (PEM), with `certFile`.
    pub key_file: Option<PathBuf>,
    /// Refuse servers without TLS.
    pub required: bool,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            urls: vec!["nats://127.0.0.1:4222".to_owned()],
            user: None,
            password_file: None,
            creds_file: None,
            nkey_seed_file: None,
            token_file: None,
            tls: TlsConfig::default(),
            reconnect_max: Duration::from_secs(30),
            request_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(20),
        }
    }
}

impl Validate for NatsConfig {
    fn problems(&self, found: &mut Problems) {
        if self.urls.is_empty() {
            found.add("urls", "is empty; name a server, such as nats://nats.nats.svc:4222");
        }
        for (index, url) in self.urls.iter().enumerate() {
            if let Err(why) = address(url) {
                found.add(&format!("urls[{index}]"), why);
            }
        }
        match (&self.user, &self.password_file) {
            (Some(_), None) if self.creds_file.is_none() => {
                found.add("user", "stands there without `passwordFile`; give both or neither");
            }
            (None, Some(_)) if self.creds_file.is_none() => {
                found.add("passwordFile", "stands there without `user`; give both or neither");
            }
            _ => {}
        }
        self.logins(found);
        for (key, value) in [
            ("reconnectMax", self.reconnect_max),
            ("requestTimeout", self.request_timeout),
            ("pingInterval", self.ping_interval),
        ] {
            if value < Duration::from_millis(1) {
                found.add(key, "must be longer than zero");
            }
        }
        found.secret("passwordFile", self.password_file.as_ref());
        found.secret("credsFile", self.creds_file.as_ref());
        found.secret("nkeySeedFile", self.nkey_seed_file.as_ref());
        found.secret("tokenFile", self.token_file.as_ref());
        found.section("tls", &self.tls);
    }
}

impl NatsConfig {
    /// There is one way to log in.
    fn logins(&self, found: &mut Problems) {
        let mut first = None;
        for (key, is_given) in [
            ("user", self.user.is_some()),
            ("passwordFile", self.password_file.is_some() && self.user.is_none()),
            ("credsFile", self.creds_file.is_some()),
            ("nkeySeedFile", self.nkey_seed_file.is_some()),
            ("tokenFile", self.token_file.is_some()),
        ] {
            match first {
                Some(first) if is_given => found.add(key, format!("stands beside `{first}`; keep one of the two")),
                None if is_given => first = Some(key),
                _ => {}
            }
        }
    }
}

impl Validate for TlsConfig {
    fn problems(&self, found: &mut Problems) {
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => found.add("certFile", "stands there without `keyFile`; give both or neither"),
            (None, Some(_)) => found.add("keyFile", "stands there without `certFile`; give both or neither"),
            _ => {}
        }
    }
}

/// Parses a server; the text of an error never repeats credentials.
pub(super) fn address(url: &str) -> Result<ServerAddr, String> {
    let usage = "write nats://host:port, or tls://host:port where TLS is a must";
    if url.contains('@') {
        return Err("has credentials in it; give `user` and `passwordFile`, or `credsFile`, instead".to_owned());
    }
    let address: ServerAddr = url.parse().map_err(|error| format!("`{url}` is not a server ({error}); {usage}"))?;
    if address.is_websocket() {
        return Err(format!("`{url}`: websockets are not supported; {usage}"));
    }
    if address.host().is_empty() {
        return Err(format!("`{url}` has no host; {usage}"));
    }
    Ok(address)
}
