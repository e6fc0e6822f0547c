//! Namespaces.
//!
//! Owns the reduction of a Namespace to what selection needs.

use std::collections::BTreeMap;

use cluster_plan::Fact;
use cluster_plan::fact::{Change, Source};
use cluster_plan::input::Namespace as View;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use shared::label::WARM_ANNOTATION;

use super::source::Watched;

impl Watched for Namespace {
    type Key = String;
    type View = View;

    const SOURCE: Source = Source::Namespaces;

    fn key(meta: &ObjectMeta) -> Option<String> {
        meta.name.clone()
    }

    fn view(self) -> Result<View, String> {
        let warm = self.metadata.annotations.as_ref().and_then(|a| a.get(WARM_ANNOTATION)).cloned();
        Ok(View { uid: self.metadata.uid.unwrap_or_default(), warm, labels: self.metadata.labels.unwrap_or_default() })
    }

    fn listed(list: BTreeMap<String, Result<View, String>>) -> Fact {
        Fact::Namespaces(list)
    }

    fn changed(change: Change<String, View>) -> Fact {
        Fact::Namespace(change)
    }
}
