//! Nodes.
//!
//! Owns the reduction of a Node to what landing, warming and labelling need: of its status only the pressure
//! conditions and, in coarse steps, what it can give, so that the kubelet's heartbeats are no facts.

use std::collections::BTreeMap;

use cluster_plan::Fact;
use cluster_plan::fact::{Change, Source};
use cluster_plan::input::{Capacity, Node as View, Taint, TaintEffect};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use shared::label;
use shared::message::assignment::Pressure;
use shared::name::NodeName;

use super::quantity;
use super::source::Watched;

/// The taint that a cordoned node gets.
const CORDON_TAINT: &str = "node.kubernetes.io/unschedulable";

impl Watched for Node {
    type Key = NodeName;
    type View = View;

    const SOURCE: Source = Source::Nodes;

    fn key(meta: &ObjectMeta) -> Option<NodeName> {
        // The API server admits no other names (apimachinery, RFC 1123 subdomain).
        NodeName::parse(meta.name.as_deref()?).ok()
    }

    fn view(self) -> Result<View, String> {
        let (our_labels, labels) =
            self.metadata.labels.unwrap_or_default().into_iter().partition(|(key, _)| label::is_ours(key));
        let spec = self.spec.unwrap_or_default();
        let taints = spec.taints.unwrap_or_default();
        let status = self.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let capacity = status.allocatable.map(|there| {
            let get = |name: &str| there.get(name);
            let (cpu, memory) = (get("cpu").and_then(quantity::milli), get("memory").and_then(quantity::units));
            Capacity::of(cpu, memory, quantity::extended(&there))
        });
        let is_cordoned = spec.unschedulable == Some(true) || taints.iter().any(|taint| taint.key == CORDON_TAINT);
        let pressure = conditions
            .iter()
            .filter(|condition| condition.status == "True")
            .filter_map(|condition| match condition.type_.as_str() {
                "DiskPressure" => Some(Pressure::Disk),
                "PIDPressure" => Some(Pressure::Pid),
                _ => None,
            })
            .collect();
        Ok(View {
            uid: self.metadata.uid.unwrap_or_default(),
            labels,
            our_labels,
            taints: taints
                .into_iter()
                .map(|t| Taint { effect: taint_effect(&t.effect), key: t.key, value: t.value.unwrap_or_default() })
                .collect(),
            deleting: self.metadata.deletion_timestamp.is_some(),
            pressure,
            unschedulable: is_cordoned,
            capacity: capacity.unwrap_or_default(),
        })
    }

    fn listed(list: BTreeMap<NodeName, Result<View, String>>) -> Fact {
        Fact::Nodes(list)
    }

    fn changed(change: Change<NodeName, View>) -> Fact {
        Fact::Node(change)
    }
}

/// The word of a taint's or a toleration's effect.
pub(super) fn taint_effect(word: &str) -> TaintEffect {
    match word {
        "NoSchedule" => TaintEffect::NoSchedule,
        "PreferNoSchedule" => TaintEffect::PreferNoSchedule,
        "NoExecute" => TaintEffect::NoExecute,
        _ => TaintEffect::Unknown,
    }
}

#[cfg(test)]
mod tests;
