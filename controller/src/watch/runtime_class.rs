//! `RuntimeClass` objects: what admission adds to the Pods that name one.

use std::collections::BTreeMap;

use cluster_plan::Fact;
use cluster_plan::fact::{Change, Source};
use cluster_plan::input::RuntimeClass as View;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::core::ApiResource;
use serde::Deserialize;

use super::object::{Meta, or_default};
use super::source::Watched;
use super::{form, quantity, template};

/// Every class.
#[derive(Debug)]
pub struct RuntimeClasses;

/// What is decoded of one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Form {
    #[serde(deserialize_with = "or_default")]
    scheduling: Scheduling,
    #[serde(deserialize_with = "or_default")]
    overhead: Overhead,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Scheduling {
    #[serde(deserialize_with = "or_default")]
    node_selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    tolerations: Vec<form::Toleration>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Overhead {
    #[serde(deserialize_with = "or_default")]
    pod_fixed: quantity::Resources,
}

impl Watched for RuntimeClasses {
    type Form = Form;
    type Key = String;
    type View = View;

    fn source(&self) -> Source {
        Source::RuntimeClasses
    }

    fn resource(&self) -> ApiResource {
        ApiResource::erase::<RuntimeClass>(&())
    }

    fn key(&self, meta: &Meta) -> Option<String> {
        Some(meta.name.clone())
    }

    fn view(&self, _: &Meta, class: Form) -> Option<Result<View, String>> {
        Some(Ok(View {
            node_selector: class.scheduling.node_selector,
            tolerations: class.scheduling.tolerations.into_iter().map(template::toleration).collect(),
            overhead: quantity::requests(&class.overhead.pod_fixed),
        }))
    }

    fn listed(&self, list: BTreeMap<String, Result<View, String>>) -> Fact {
        Fact::RuntimeClasses(list)
    }

    fn changed(&self, change: Change<String, View>) -> Fact {
        Fact::RuntimeClass(change)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scheduling_and_overhead_are_seen() {
        let object = json!({
            "metadata": { "name": "kata" },
            "handler": "kata",
            "overhead": { "podFixed": { "cpu": "250m", "memory": "160Mi" } },
            "scheduling": { "nodeSelector": { "runtime": "kata" }, "tolerations": [{ "key": "sandbox" }] },
        });
        let view = |json| RuntimeClasses.view(&Meta::default(), serde_json::from_value(json).unwrap()).unwrap();
        let seen = view(object).unwrap();
        assert_eq!(seen.node_selector, [("runtime".to_owned(), "kata".to_owned())].into());
        assert_eq!((seen.tolerations.len(), seen.overhead.cpu_milli, seen.overhead.memory), (1, 250, 160 << 20));
        let bare = json!({ "metadata": { "name": "runc" }, "handler": "runc" });
        assert_eq!(view(bare), Ok(View::default()));
    }
}
