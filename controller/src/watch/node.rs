//! Nodes.
//!
//! Owns the reduction of a Node to what landing, warming and labelling need: of its status only the pressure
//! conditions and, in coarse steps, what it can give, so that the kubelet's heartbeats are no facts.

use std::collections::BTreeMap;

use cluster_plan::Fact;
use cluster_plan::fact::{Change, Source};
use cluster_plan::input::{Capacity, Node as View, Taint, TaintEffect};
use k8s_openapi::api::core::v1::Node;
use kube::core::ApiResource;
use serde::Deserialize;
use shared::label;
use shared::message::assignment::Pressure;
use shared::name::NodeName;

use super::object::{Meta, or_default};
use super::quantity::{self, Resources};
use super::source::Watched;

/// The taint that a cordoned node gets.
const CORDON_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Every Node.
#[derive(Debug)]
pub struct Nodes;

/// What is decoded of one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Form {
    #[serde(deserialize_with = "or_default")]
    spec: Spec,
    #[serde(deserialize_with = "or_default")]
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Spec {
    #[serde(deserialize_with = "or_default")]
    taints: Vec<TaintForm>,
    #[serde(deserialize_with = "or_default")]
    unschedulable: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct TaintForm {
    key: String,
    #[serde(deserialize_with = "or_default")]
    value: String,
    effect: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<Condition>,
    allocatable: Option<Resources>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Watched for Nodes {
    type Form = Form;
    type Key = NodeName;
    type View = View;

    fn source(&self) -> Source {
        Source::Nodes
    }

    fn resource(&self) -> ApiResource {
        ApiResource::erase::<Node>(&())
    }

    fn key(&self, meta: &Meta) -> Option<NodeName> {
        // The API server admits no other names (apimachinery, RFC 1123 subdomain).
        NodeName::parse(&meta.name).ok()
    }

    fn view(&self, meta: &Meta, node: Form) -> Option<Result<View, String>> {
        let (our_labels, labels) = meta.labels.clone().into_iter().partition(|(key, _)| label::is_ours(key));
        let conditions = node.status.conditions.iter().filter(|condition| condition.status == "True");
        let pressure = conditions
            .filter_map(|condition| match condition.kind.as_str() {
                "DiskPressure" => Some(Pressure::Disk),
                "PIDPressure" => Some(Pressure::Pid),
                _ => None,
            })
            .collect();
        let capacity = node.status.allocatable.map(|there| {
            let get = |name: &str| there.get(name);
            let (cpu, memory) = (get("cpu").and_then(quantity::milli), get("memory").and_then(quantity::units));
            Capacity::of(cpu, memory, quantity::extended(&there))
        });
        let unschedulable = node.spec.unschedulable || node.spec.taints.iter().any(|taint| taint.key == CORDON_TAINT);
        let taint = |t: TaintForm| Taint { effect: taint_effect(&t.effect), key: t.key, value: t.value };
        Some(Ok(View {
            uid: meta.uid.clone(),
            labels,
            our_labels,
            taints: node.spec.taints.into_iter().map(taint).collect(),
            deleting: meta.deletion_timestamp.is_some(),
            pressure,
            unschedulable,
            capacity: capacity.unwrap_or_default(),
        }))
    }

    fn listed(&self, list: BTreeMap<NodeName, Result<View, String>>) -> Fact {
        Fact::Nodes(list)
    }

    fn changed(&self, change: Change<NodeName, View>) -> Fact {
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
