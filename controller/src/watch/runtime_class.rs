//! `RuntimeClass` objects: what admission adds to the Pods that name one.

use std::collections::BTreeMap;

use cluster_plan::Fact;
use cluster_plan::fact::{Change, Source};
use cluster_plan::input::RuntimeClass as View;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::source::Watched;
use super::{quantity, template};

impl Watched for RuntimeClass {
    type Key = String;
    type View = View;

    const SOURCE: Source = Source::RuntimeClasses;

    fn key(meta: &ObjectMeta) -> Option<String> {
        meta.name.clone()
    }

    fn view(self) -> Result<View, String> {
        let scheduling = self.scheduling.unwrap_or_default();
        let overhead = self.overhead.and_then(|overhead| overhead.pod_fixed).unwrap_or_default();
        Ok(View {
            node_selector: scheduling.node_selector.unwrap_or_default(),
            tolerations: scheduling.tolerations.into_iter().flatten().map(template::toleration).collect(),
            overhead: quantity::requests(&overhead),
        })
    }

    fn listed(list: BTreeMap<String, Result<View, String>>) -> Fact {
        Fact::RuntimeClasses(list)
    }

    fn changed(change: Change<String, View>) -> Fact {
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
        let seen = serde_json::from_value::<RuntimeClass>(object).unwrap().view().unwrap();
        assert_eq!(seen.node_selector, [("runtime".to_owned(), "kata".to_owned())].into());
        assert_eq!((seen.tolerations.len(), seen.overhead.cpu_milli, seen.overhead.memory), (1, 250, 160 << 20));
        let bare = json!({ "metadata": { "name": "runc" }, "handler": "runc" });
        assert_eq!(serde_json::from_value::<RuntimeClass>(bare).unwrap().view(), Ok(View::default()));
    }
}
