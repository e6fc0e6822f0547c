//! Secrets that the chart's hook keeps: reading, and writing what they lack.
//!
//! Owns compare-and-set: who was first is kept. Never shows what is in one.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::nats_keys::{Data, KeyError};

/// Others may write at the same time: an older hook that still runs.
const TRIES: u32 = 5;

/// A Secret cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server refuses or does not answer.
    #[error("Secret {name} cannot be {doing}")]
    Kube {
        /// Its name.
        name: String,
        /// Read or written.
        doing: &'static str,
        /// Why.
        source: Box<kube::Error>,
    },
    /// What is in it is of no use.
    #[error("Secret {name}: {source}")]
    Key {
        /// Its name.
        name: String,
        /// Why.
        source: KeyError,
    },
    /// Somebody else writes it all the time.
    #[error("Secret {name} is written by somebody else at the same time, again and again")]
    Busy {
        /// Its name.
        name: String,
    },
}

/// A Secret that holds everything now. Shows nothing of what.
pub struct Completed {
    name: String,
    made: Vec<String>,
    /// What it holds.
    pub data: Data,
}

impl fmt::Display for Completed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.made.as_slice() {
            [] => write!(f, "Secret {}: everything is there", self.name),
            made => write!(f, "Secret {}: made {}", self.name, made.join(", ")),
        }
    }
}

/// The Secrets of a namespace.
pub struct Secrets {
    api: Api<Secret>,
    labels: BTreeMap<String, String>,
}

impl Secrets {
    /// Those of `namespace`; new ones get labels that say that they are of the release `instance`.
    pub fn new(client: Client, namespace: &str, instance: &str) -> Self {
        let labels = [
            ("app.kubernetes.io/instance", instance),
            ("app.kubernetes.io/managed-by", "warm-images"),
            ("app.kubernetes.io/part-of", "warm-images"),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Self { api: Api::namespaced(client, namespace), labels }
    }

    /// Makes the Secret `name` hold what `complete` makes of what it holds, and returns that. Labels and further keys of one
    /// that is there stay.
    pub async fn complete(
        &self,
        name: &str,
        complete: impl Fn(Data) -> Result<Data, KeyError>,
    ) -> Result<Completed, SecretError> {
        for _ in 0..TRIES {
            let failed = |doing, source| SecretError::Kube { name: name.to_owned(), doing, source: Box::new(source) };
            let found = self.api.get_opt(name).await.map_err(|error| failed("read", error))?;
            let held = found.as_ref().map(held).unwrap_or_default();
            let whole = complete(held.clone()).map_err(|source| SecretError::Key { name: name.to_owned(), source })?;
            if found.is_some() && whole == held {
                return Ok(Completed { name: name.to_owned(), made: Vec::new(), data: whole });
            }
            let made = whole.iter().filter(|(key, value)| held.get(*key) != Some(value));
            let made = made.map(|(key, _)| key.clone()).collect();
            match self.write(name, found, &whole).await {
                Ok(()) => return Ok(Completed { name: name.to_owned(), made, data: whole }),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(failed("written", error)),
            }
        }
        Err(SecretError::Busy { name: name.to_owned() })
    }

    async fn write(&self, name: &str, found: Option<Secret>, whole: &Data) -> kube::Result<()> {
        let data = whole.iter().map(|(key, value)| (key.clone(), ByteString(value.clone()))).collect();
        let params = PostParams::default();
        if let Some(found) = found {
            // With the version that was read: who was first is kept.
            let next = Secret { data: Some(data), ..found };
            return self.api.replace(name, &params, &next).await.map(drop);
        }
        let metadata =
            ObjectMeta { name: Some(name.to_owned()), labels: Some(self.labels.clone()), ..ObjectMeta::default() };
        let new = Secret { metadata, data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() };
        self.api.create(&params, &new).await.map(drop)
    }
}

fn held(secret: &Secret) -> Data {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}
