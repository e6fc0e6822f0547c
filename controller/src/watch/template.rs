//! The part of a pod spec that matters, whatever kind of workload it stands in.
//!
//! Owns every image position and the constraint on nodes. Never normalises: what is written is handed on.

use std::collections::{BTreeMap, BTreeSet};

use cluster_plan::input::{
    Constraint, ContainerImage, MatchExpression, NodeSelectorTerm, Operator, Requests, Toleration, TolerationOperator,
    Workload,
};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use shared::label::{MAX_NODES_ANNOTATION, PRIORITY_ANNOTATION, WARM_ANNOTATION};

use super::node::taint_effect;
use super::quantity::{self, Resources};

/// What the kubelet labels every node with, and refuses pods by.
const OS_LABEL: &str = "kubernetes.io/os";

type Annotations = Option<BTreeMap<String, String>>;

/// The view of an object with a pod template.
pub(super) fn of_template(meta: &ObjectMeta, template: core::PodTemplateSpec) -> Result<Workload, String> {
    let spec = template.spec.ok_or("spec.template.spec is missing")?;
    let inner = template.metadata.and_then(|meta| meta.annotations);
    let object = &meta.annotations;
    Ok(Workload {
        uid: meta.uid.clone().unwrap_or_default(),
        images: images(&spec),
        runtime_class: spec.runtime_class_name.clone(),
        constraint: constraint(spec),
        warm: annotation(object, WARM_ANNOTATION),
        template_warm: annotation(&inner, WARM_ANNOTATION),
        priority: annotation(object, PRIORITY_ANNOTATION).or_else(|| annotation(&inner, PRIORITY_ANNOTATION)),
        max_nodes: annotation(object, MAX_NODES_ANNOTATION).or_else(|| annotation(&inner, MAX_NODES_ANNOTATION)),
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
        max_nodes: annotation(object, MAX_NODES_ANNOTATION),
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
    let requests = requests(&spec);
    let mut node_selector = spec.node_selector.unwrap_or_default();
    let os = spec.os.map(|os| os.name).filter(|os| !os.is_empty());
    let has_another = |os: String| *node_selector.entry(OS_LABEL.to_owned()).or_insert_with(|| os.clone()) != os;
    let is_torn = os.is_some_and(has_another);
    let required = spec
        .affinity
        .and_then(|affinity| affinity.node_affinity)
        .and_then(|node| node.required_during_scheduling_ignored_during_execution);
    Constraint {
        node_selector,
        affinity: match required {
            // A node of one system refuses pods of another: no node is of both.
            _ if is_torn => Some(Vec::new()),
            required => required.map(|selector| selector.node_selector_terms.into_iter().map(term).collect()),
        },
        tolerations: spec.tolerations.into_iter().flatten().map(toleration).collect(),
        node_name: spec.node_name.filter(|name| !name.is_empty()),
        requests,
        limit: None,
    }
}

/// What the scheduler reserves for one pod (`PodRequests` of component-helpers): its containers and sidecars together, or
/// an init container beside the sidecars before it, whichever is more; what the pod as a whole asks for instead; overhead.
fn requests(spec: &core::PodSpec) -> Requests {
    let mut sidecars = Requests::default();
    let mut most = Requests::default();
    for container in spec.init_containers.iter().flatten() {
        let mut one = of_container(container.resources.as_ref());
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&one);
        } else {
            one.add(&sidecars);
            most.at_least(&one);
        }
    }
    for container in &spec.containers {
        sidecars.add(&of_container(container.resources.as_ref()));
    }
    most.at_least(&sidecars);
    if let Some(whole) = &spec.resources {
        let named = named(whole);
        let of_whole = quantity::requests(&named);
        most.cpu_milli = if named.contains_key("cpu") { of_whole.cpu_milli } else { most.cpu_milli };
        most.memory = if named.contains_key("memory") { of_whole.memory } else { most.memory };
    }
    if let Some(overhead) = &spec.overhead {
        most.add(&quantity::requests(overhead));
    }
    most
}

fn of_container(resources: Option<&core::ResourceRequirements>) -> Requests {
    resources.map(|resources| quantity::requests(&named(resources))).unwrap_or_default()
}

/// Requests, and limits where nothing is requested: the API server fills them in so, in Pods and not in templates.
fn named(resources: &core::ResourceRequirements) -> Resources {
    let mut all = resources.limits.clone().unwrap_or_default();
    all.extend(resources.requests.iter().flatten().map(|(name, quantity)| (name.clone(), quantity.clone())));
    all
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
pub(super) fn toleration(toleration: core::Toleration) -> Toleration {
    let operator = match toleration.operator.as_deref() {
        None | Some("" | "Equal") => TolerationOperator::Equal,
        Some("Exists") => TolerationOperator::Exists,
        Some("Gt") => TolerationOperator::Gt,
        Some("Lt") => TolerationOperator::Lt,
        Some(_) => TolerationOperator::Unknown,
    };
    Toleration {
        key: toleration.key.filter(|key| !key.is_empty()),
        operator,
        value: toleration.value.unwrap_or_default(),
        effect: toleration.effect.filter(|effect| !effect.is_empty()).map(|effect| taint_effect(&effect)),
    }
}
