//! Objects with everything that the API server shows of them, for expressions.
//!
//! Owns that a whole object is kept only where an expression asks for it, and only until it is reduced.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::source::Watched;

/// What a watch decodes an object to: the object alone, or with everything that is shown of it.
pub trait Decoded<K>: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static {
    /// The object, and everything that is shown of it if that was asked for.
    fn into_parts(self) -> (K, Option<Value>);
}

impl<K: Watched> Decoded<K> for K {
    fn into_parts(self) -> (K, Option<Value>) {
        (self, None)
    }
}

/// An object with everything that is shown of it.
#[derive(Debug, Clone)]
pub struct Whole<K> {
    object: K,
    whole: Value,
}

impl<K: Watched> Decoded<K> for Whole<K> {
    fn into_parts(mut self) -> (K, Option<Value>) {
        // What is listed does not say what it is.
        if let Value::Object(fields) = &mut self.whole {
            fields.insert("apiVersion".to_owned(), json!(K::api_version(&())));
            fields.insert("kind".to_owned(), json!(K::kind(&())));
        }
        (self.object, Some(self.whole))
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Whole<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let whole = Value::deserialize(deserializer)?;
        let object = K::deserialize(&whole).map_err(D::Error::custom)?;
        Ok(Self { object, whole })
    }
}

impl<K: Resource<DynamicType = ()>> Resource for Whole<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind(at: &()) -> Cow<'_, str> {
        K::kind(at)
    }

    fn group(at: &()) -> Cow<'_, str> {
        K::group(at)
    }

    fn version(at: &()) -> Cow<'_, str> {
        K::version(at)
    }

    fn plural(at: &()) -> Cow<'_, str> {
        K::plural(at)
    }

    fn meta(&self) -> &ObjectMeta {
        self.object.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.object.meta_mut()
    }
}
