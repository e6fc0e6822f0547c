//! What the API server publishes of its service-account tokens: issuer and keys (OIDC discovery, KEP 1393).
//!
//! Owns the two requests. Never keeps what they say.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kube::Client;
use serde::Deserialize;

use crate::identity::keys::Keys;
use crate::identity::ring::{Published, Source};

/// Of the API server; the `jwks_uri` of the discovery document can be an address that only others reach.
pub const KEYS: &str = "/openid/v1/jwks";
/// Says who issues.
pub const DISCOVERY: &str = "/.well-known/openid-configuration";
const LIMIT: Duration = Duration::from_secs(10);

/// Reads both from the API server.
pub struct TokenKeys {
    client: Client,
    issuer: Option<String>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

impl TokenKeys {
    /// Without an `issuer` it is read too.
    pub fn new(client: Client, issuer: Option<String>) -> Self {
        Self { client, issuer }
    }

    async fn get(&self, path: &str) -> Result<String, String> {
        let request = http::Request::get(path).body(Vec::new()).map_err(|error| format!("{path}: {error}"))?;
        match tokio::time::timeout(LIMIT, self.client.request_text(request)).await {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(kube::Error::Api(status))) => Err(format!("{path}: {} ({})", status.message, status.code)),
            Ok(Err(error)) => Err(format!("{path}: {error}")),
            Err(_) => Err(format!("{path}: no answer within {LIMIT:?}")),
        }
    }
}

impl Source for TokenKeys {
    fn read(&self) -> BoxFuture<'_, Result<Published, String>> {
        async move {
            let issuer = if let Some(issuer) = &self.issuer {
                issuer.clone()
            } else {
                let text = self.get(DISCOVERY).await?;
                let found: Discovery = serde_json::from_str(&text).map_err(|error| format!("{DISCOVERY}: {error}"))?;
                found.issuer
            };
            let keys = Keys::parse(&self.get(KEYS).await?).map_err(|error| format!("{KEYS}: {error}"))?;
            if keys.count() == 0 {
                return Err(format!("{KEYS}: no key of a kind that can be used (RSA, P-256, P-384)"));
            }
            Ok(Published { issuer, keys })
        }
        .boxed()
    }
}
