//! An object of the API server, decoded as far as it matters.
//!
//! Owns how little is kept of it, and that one which cannot be decoded spoils only itself: its metadata is read on its own.
//! (kube's `DeserializeGuard` makes a tree of the whole object first, and of it again a copy.)

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// What matters of the metadata of any object. What is `null` is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Empty: it is in none.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// Its UID.
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
    /// Where a watch is taken up after it.
    pub resource_version: Option<String>,
    /// Which version of the wish.
    pub generation: Option<i64>,
    /// Its labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// Who owns it.
    #[serde(deserialize_with = "or_default")]
    pub owner_references: Vec<OwnerReference>,
    /// Since when it is being deleted.
    pub deletion_timestamp: Option<String>,
}

/// `meta/v1 OwnerReference`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the words of meta/v1 OwnerReference")]
pub struct OwnerReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub controller: Option<bool>,
}

/// `null` is as good as absent.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// Some object: its metadata, and its content if that could be decoded.
#[derive(Clone)]
pub struct Object<F> {
    /// Its metadata.
    pub meta: Meta,
    /// What is decoded of it, or what is wrong.
    pub content: Result<F, String>,
    /// All of it, as it came.
    pub text: Box<RawValue>,
    for_kube: ObjectMeta,
}

impl<F: fmt::Debug> fmt::Debug for Object<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("meta", &self.meta).field("content", &self.content).finish_non_exhaustive()
    }
}

impl<'de, F: DeserializeOwned> Deserialize<'de> for Object<F> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Identity {
            #[serde(default)]
            metadata: Meta,
        }
        let text = Box::<RawValue>::deserialize(from)?;
        let Identity { metadata: meta } = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        let content = serde_json::from_str(text.get()).map_err(|error| words(&error));
        // kube looks at nothing else.
        let for_kube = ObjectMeta { resource_version: meta.resource_version.clone(), ..ObjectMeta::default() };
        Ok(Self { meta, content, text, for_kube })
    }
}

/// Without the place in the text, which changes whenever anything in the object does.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned())
}

impl<F> Resource for Object<F> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.for_kube
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.for_kube
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Deserialize)]
    struct Form {
        spec: Vec<u8>,
    }

    fn read(text: &str) -> Object<Form> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_cannot_be_decoded_keeps_its_identity_and_says_the_same_wherever_it_stands() {
        let good = read(r#"{"metadata":{"name":"a","resourceVersion":"7"},"spec":[1],"status":{"x":1}}"#);
        assert_eq!((good.meta.name.as_str(), good.content.unwrap().spec), ("a", vec![1]));
        assert_eq!(good.for_kube.resource_version.as_deref(), Some("7"));
        let bad = read(r#"{"metadata":{"name":"a","uid":"u"},"spec":"no list"}"#);
        let moved = read("{\"metadata\":{\"name\":\"a\",\"labels\":{\"x\":\"y\"}},\n\n\"spec\":\"no list\"}");
        assert_eq!(bad.meta.uid, "u");
        let text = bad.content.unwrap_err();
        assert!(text.contains("no list") && !text.contains("line"), "{text}");
        assert_eq!(moved.content.unwrap_err(), text);
    }

    #[test]
    fn null_is_as_good_as_absent() {
        let read = read(r#"{"metadata":{"name":"a","namespace":null,"labels":null,"ownerReferences":null},"spec":[]}"#);
        assert_eq!(read.meta, Meta { name: "a".to_owned(), ..Meta::default() });
    }

    #[test]
    fn an_object_in_a_list_and_in_a_watch_is_decoded_alike() {
        let object = r#"{"metadata":{"name":"a"},"spec":[2]}"#;
        let list = format!(r#"{{"kind":"L","apiVersion":"v1","metadata":{{}},"items":[{object}]}}"#);
        let list: kube::core::ObjectList<Object<Form>> = serde_json::from_str(&list).unwrap();
        let event = format!(r#"{{"type":"ADDED","object":{object}}}"#);
        let event: kube::core::WatchEvent<Object<Form>> = serde_json::from_str(&event).unwrap();
        let kube::core::WatchEvent::Added(watched) = event else { panic!("{event:?}") };
        assert_eq!(list.items[0].content.as_ref().unwrap().spec, watched.content.unwrap().spec);
    }
}
