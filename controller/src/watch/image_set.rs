//! Sets of images.
//!
//! Owns the reduction of an `ImageSet` to what the machine needs, its status included: what is shown decides what is
//! written.

use std::collections::BTreeMap;

use cluster_plan::Fact;
use cluster_plan::fact::{Change, Source};
use cluster_plan::input::{
    Constraint, ContainerImage, ImageSet as View, MatchExpression, NodeSelectorTerm, Operator, SetKey, TaintEffect,
    Toleration, TolerationOperator, Workload,
};
use cluster_plan::set::SetStatus;
use kube::core::ApiResource;
use serde::Deserialize;
use shared::label::WARM_ANNOTATION;

use super::object::Meta;
use super::source::Watched;
use crate::api::image_set::{self as api, ImageSet, ImageSetSpec};

/// Every set.
#[derive(Debug)]
pub struct ImageSets;

/// What is decoded of one.
#[derive(Debug, Clone, Deserialize)]
pub struct Form {
    spec: ImageSetSpec,
    status: Option<SetStatus>,
}

impl Watched for ImageSets {
    type Form = Form;
    type Key = SetKey;
    type View = View;

    fn source(&self) -> Source {
        Source::Sets
    }

    fn resource(&self) -> ApiResource {
        ApiResource::erase::<ImageSet>(&())
    }

    fn key(&self, meta: &Meta) -> Option<SetKey> {
        Some(SetKey { namespace: meta.namespace.clone(), name: meta.name.clone() })
    }

    fn view(&self, meta: &Meta, form: Form) -> Option<Result<View, String>> {
        let generation = meta.generation.unwrap_or_default();
        Some(Ok(View { wants: wants(meta, form.spec), generation, status: form.status }))
    }

    fn listed(&self, list: BTreeMap<SetKey, Result<View, String>>) -> Fact {
        Fact::Sets(list)
    }

    fn changed(&self, change: Change<SetKey, View>) -> Fact {
        Fact::Set(change)
    }
}

fn wants(meta: &Meta, spec: ImageSetSpec) -> Workload {
    let namespace = &meta.namespace;
    let image = |(at, image): (usize, api::ImageReference)| ContainerImage {
        position: format!("spec.images[{at}]"),
        image: image.0,
    };
    let terms: Vec<NodeSelectorTerm> = spec.node_selector_terms.into_iter().map(term).collect();
    Workload {
        uid: meta.uid.clone(),
        images: spec.images.into_iter().enumerate().map(image).collect(),
        constraint: Constraint {
            node_selector: spec.node_selector,
            affinity: (!terms.is_empty()).then_some(terms),
            tolerations: spec.tolerations.into_iter().map(toleration).collect(),
            ..Constraint::default()
        },
        warm: meta.annotations.get(WARM_ANNOTATION).cloned(),
        priority: Some(spec.priority.to_string()),
        max_nodes: spec.max_nodes.map(|most| most.to_string()),
        secrets: spec.pull_secrets.into_iter().map(|secret| format!("{namespace}/{}", secret.name)).collect(),
        refresh: spec.refresh,
        is_suspended: spec.suspend,
        is_named: true,
        ..Workload::default()
    }
}

fn term(term: api::Term) -> NodeSelectorTerm {
    let expressions = |list: Vec<api::Expression>| list.into_iter().map(expression).collect();
    NodeSelectorTerm {
        match_expressions: expressions(term.match_expressions),
        match_fields: expressions(term.match_fields),
    }
}

fn expression(expression: api::Expression) -> MatchExpression {
    let operator = match expression.operator {
        api::Operator::In => Operator::In,
        api::Operator::NotIn => Operator::NotIn,
        api::Operator::Exists => Operator::Exists,
        api::Operator::DoesNotExist => Operator::DoesNotExist,
        api::Operator::Gt => Operator::Gt,
        api::Operator::Lt => Operator::Lt,
    };
    MatchExpression { key: expression.key, operator, values: expression.values.into_iter().collect() }
}

fn toleration(toleration: api::Toleration) -> Toleration {
    Toleration {
        key: Some(toleration.key).filter(|key| !key.is_empty()),
        operator: match toleration.operator {
            api::TolerationOperator::Equal => TolerationOperator::Equal,
            api::TolerationOperator::Exists => TolerationOperator::Exists,
        },
        value: toleration.value,
        effect: toleration.effect.map(|effect| match effect {
            api::Effect::NoSchedule => TaintEffect::NoSchedule,
            api::Effect::PreferNoSchedule => TaintEffect::PreferNoSchedule,
            api::Effect::NoExecute => TaintEffect::NoExecute,
        }),
    }
}

#[cfg(test)]
mod tests {
    use cluster_plan::input::TaintEffect;
    use serde_json::json;

    use super::*;

    fn view(spec: &serde_json::Value) -> View {
        let object = json!({
            "apiVersion": "warm-images.dev/v1alpha1", "kind": "ImageSet",
            "metadata": { "name": "base", "namespace": "shop", "uid": "u", "generation": 4, "annotations": { WARM_ANNOTATION: "true" } },
            "spec": spec,
        });
        let (meta, form) = (object["metadata"].clone(), object);
        let meta: Meta = serde_json::from_value(meta).unwrap();
        ImageSets.view(&meta, serde_json::from_value(form).unwrap()).unwrap().unwrap()
    }

    #[test]
    fn what_a_set_asks_for_is_asked_of_nodes_as_a_pod_would() {
        let view = view(&json!({
            "images": ["a:1", "b:2"],
            "nodeSelector": { "disk": "ssd" },
            "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "gpu", "operator": "Exists" }] }],
            "tolerations": [{ "operator": "Exists" }, { "key": "gpu", "value": "yes", "effect": "NoSchedule" }],
            "pullSecrets": [{ "name": "registry" }],
            "priority": 70,
            "refresh": "1h30m",
            "suspend": true,
        }));
        let wants = view.wants;
        assert_eq!((view.generation, wants.uid.as_str(), wants.is_suspended), (4, "u", true));
        let positions: Vec<_> = wants.images.iter().map(|i| (i.position.as_str(), i.image.as_str())).collect();
        assert_eq!(positions, [("spec.images[0]", "a:1"), ("spec.images[1]", "b:2")]);
        assert_eq!((wants.secrets, wants.priority.as_deref()), (vec!["shop/registry".to_owned()], Some("70")));
        assert_eq!((wants.warm.as_deref(), wants.refresh.as_deref()), (Some("true"), Some("1h30m")));
        let Constraint { node_selector, affinity, tolerations, .. } = wants.constraint;
        assert_eq!(node_selector["disk"], "ssd");
        let exists = MatchExpression { key: "gpu".to_owned(), operator: Operator::Exists, values: [].into() };
        let term = NodeSelectorTerm { match_expressions: [exists].into(), match_fields: [].into() };
        assert_eq!(affinity, Some(vec![term]));
        assert!(tolerations.contains(&Toleration {
            key: None,
            operator: TolerationOperator::Exists,
            value: String::new(),
            effect: None
        }));
        assert!(tolerations.contains(&Toleration {
            key: Some("gpu".to_owned()),
            operator: TolerationOperator::Equal,
            value: "yes".to_owned(),
            effect: Some(TaintEffect::NoSchedule)
        }));
    }

    #[test]
    fn what_is_not_said_asks_nothing() {
        let view = view(&json!({ "images": ["a"] }));
        assert_eq!(view.wants.constraint, Constraint::default());
        assert_eq!((view.wants.priority.as_deref(), view.wants.is_suspended), (Some("50"), false));
        assert_eq!((view.wants.refresh, view.status), (None, None));
    }
}
