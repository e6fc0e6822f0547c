//! Namespaces.
//!
//! Owns the reduction of a Namespace to what selection needs.

use std::collections::BTreeMap;

use cluster_plan::Fact;
use cluster_plan::fact::{Change, Source};
use cluster_plan::input::Namespace as View;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::ApiResource;
use serde::de::IgnoredAny;
use shared::label::WARM_ANNOTATION;

use super::object::Meta;
use super::source::Watched;
use super::template::annotation;

/// Every Namespace.
#[derive(Debug)]
pub struct Namespaces;

impl Watched for Namespaces {
    type Form = IgnoredAny;
    type Key = String;
    type View = View;

    fn source(&self) -> Source {
        Source::Namespaces
    }

    fn resource(&self) -> ApiResource {
        ApiResource::erase::<Namespace>(&())
    }

    fn key(&self, meta: &Meta) -> Option<String> {
        Some(meta.name.clone())
    }

    fn view(&self, meta: &Meta, _: IgnoredAny) -> Option<Result<View, String>> {
        let warm = annotation(&meta.annotations, WARM_ANNOTATION);
        Some(Ok(View { uid: meta.uid.clone(), warm, labels: meta.labels.clone() }))
    }

    fn listed(&self, list: BTreeMap<String, Result<View, String>>) -> Fact {
        Fact::Namespaces(list)
    }

    fn changed(&self, change: Change<String, View>) -> Fact {
        Fact::Namespace(change)
    }
}
