//! The part of a pod spec that matters, whatever kind of workload it stands in.
//!
//! Owns every image position and the constraint on nodes. Never normalises: what is written is handed on.

use std::collections::{BTreeMap, BTreeSet};

use cluster_plan::input::{
    Constraint, ContainerImage, MatchExpression, NodeSelectorTerm, Operator, Toleration, TolerationOperator, Workload,
};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use shared::label::{PRIORITY_ANNOTATION, WARM_ANNOTATION};

use super::node::taint_effect;

type Annotations = Option<BTreeMap<String, String>>;

/// The view of an object with a pod template.
pub(super) fn of_template(meta: &ObjectMeta, template: core::PodTemplateSpec) -> Result<Workload, String> {
    let spec = template.spec.ok_or("spec.template.spec is missing")?;
    let inner = template.metadata.and_then(|meta| meta.annotations);
    let object = &meta.annotations;
    Ok(Workload {
        uid: meta.uid.clone().unwrap_or_default(),
        images: images(&spec),
        constraint: constraint(spec),
        warm: annotation(object, WARM_ANNOTATION),
        template_warm: annotation(&inner, WARM_ANNOTATION),
        priority: annotation(object, PRIORITY_ANNOTATION).or_else(|| annotation(&inner, PRIORITY_ANNOTATION)),
        labels: meta.labels.clone().unwrap_or_default(),
        ..Workload::default()
    })
}

/// The view of a bare Pod: it is its own template.
pub(super) fn of_pod(meta: &ObjectMeta, spec: core::PodSpec) -> Workload {
    let object = &meta.annotations;
    Workload {
        uid: meta.uid.clone().unwrap_or_default(),
        images: images(&spec),
        constraint: constraint(spec),
        warm: annotation(object, WARM_ANNOTATION),
        template_warm: None,
        priority: annotation(object, PRIORITY_ANNOTATION),
        labels: meta.labels.clone().unwrap_or_default(),
        ..Workload::default()
    }
}

fn annotation(annotations: &Annotations, key: &str) -> Option<String> {
    annotations.as_ref()?.get(key).cloned()
}

/// In the order in which the kubelet would need them; a container without an image (allowed in templates that
/// something completes later) has no position.
fn images(spec: &core::PodSpec) -> Vec<ContainerImage> {
    let init = spec.init_containers.iter().flatten().map(|c| (&c.name, c.image.as_ref()));
    let ordinary = spec.containers.iter().map(|c| (&c.name, c.image.as_ref()));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| (&c.name, c.image.as_ref()));
    let volumes =
        spec.volumes.iter().flatten().map(|v| (&v.name, v.image.as_ref().and_then(|source| source.reference.as_ref())));
    let positions = positions("initContainers", init)
        .chain(positions("containers", ordinary))
        .chain(positions("ephemeralContainers", ephemeral))
        .chain(positions("volumes", volumes));
    positions.collect()
}

fn positions<'a>(
    list: &'static str,
    items: impl Iterator<Item = (&'a String, Option<&'a String>)>,
) -> impl Iterator<Item = ContainerImage> {
    items.enumerate().filter_map(move |(index, (name, image))| {
        let image = image.filter(|text| !text.is_empty())?.clone();
        Some(ContainerImage { position: format!("{list}[{index}] \"{name}\""), image })
    })
}

fn constraint(spec: core::PodSpec) -> Constraint {
    let required = spec
        .affinity
        .and_then(|affinity| affinity.node_affinity)
        .and_then(|node| node.required_during_scheduling_ignored_during_execution);
    Constraint {
        node_selector: spec.node_selector.unwrap_or_default(),
        affinity: required.map(|selector| selector.node_selector_terms.into_iter().map(term).collect()),
        tolerations: spec.tolerations.into_iter().flatten().map(toleration).collect(),
        node_name: spec.node_name.filter(|name| !name.is_empty()),
    }
}

fn term(term: core::NodeSelectorTerm) -> NodeSelectorTerm {
    NodeSelectorTerm {
        match_expressions: expressions(term.match_expressions),
        match_fields: expressions(term.match_fields),
    }
}

fn expressions(list: Option<Vec<core::NodeSelectorRequirement>>) -> BTreeSet<MatchExpression> {
    let expression = |e: core::NodeSelectorRequirement| MatchExpression {
        operator: operator(&e.operator),
        key: e.key,
        values: e.values.into_iter().flatten().collect(),
    };
    list.into_iter().flatten().map(expression).collect()
}

fn operator(word: &str) -> Operator {
    match word {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        _ => Operator::Unknown,
    }
}

/// Empty key and effect mean "every" (core/v1 Toleration); an absent operator is `Equal`.
fn toleration(toleration: core::Toleration) -> Toleration {
    let operator = match toleration.operator.as_deref() {
        None | Some("" | "Equal") => TolerationOperator::Equal,
        Some("Exists") => TolerationOperator::Exists,
        Some(_) => TolerationOperator::Unknown,
    };
    Toleration {
        key: toleration.key.filter(|key| !key.is_empty()),
        operator,
        value: toleration.value.unwrap_or_default(),
        effect: toleration.effect.filter(|effect| !effect.is_empty()).map(|effect| taint_effect(&effect)),
    }
}
