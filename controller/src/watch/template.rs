//! The part of a pod spec that matters, whatever kind of workload it stands in.
//!
//! Owns every image position, the constraint on nodes, and who controls an object. Never normalises: what is written is
//! handed on.

use std::collections::{BTreeMap, BTreeSet};

use cluster_plan::input::{
    Constraint, ContainerImage, MatchExpression, NodeSelectorTerm, Operator, Owner, Requests, Toleration,
    TolerationOperator, Workload, WorkloadKind,
};
use shared::label::{MAX_NODES_ANNOTATION, PRIORITY_ANNOTATION, WARM_ANNOTATION};

use super::form::{self, Container, PodSpec, Template};
use super::node::taint_effect;
use super::object::Meta;
use super::quantity::{self, Resources};

/// What the kubelet labels every node with, and refuses pods by.
const OS_LABEL: &str = "kubernetes.io/os";

/// The view of an object with a pod template.
pub(super) fn of_template(meta: &Meta, template: Template) -> Result<Workload, String> {
    let spec = template.spec.ok_or("spec.template.spec is missing")?;
    let inner = &template.metadata.annotations;
    let of_object = of_object(meta);
    Ok(Workload {
        images: images("", &spec),
        runtime_class: spec.runtime_class_name.clone(),
        constraint: constraint(spec),
        template_warm: annotation(inner, WARM_ANNOTATION),
        max_nodes: of_object.max_nodes.clone().or_else(|| annotation(inner, MAX_NODES_ANNOTATION)),
        priority: of_object.priority.clone().or_else(|| annotation(inner, PRIORITY_ANNOTATION)),
        ..of_object
    })
}

/// The view of a Pod: it is its own template. Where its controller has had it put says nothing about its successor.
pub(super) fn of_pod(meta: &Meta, spec: PodSpec) -> Workload {
    let of_object = of_object(meta);
    let images = images("", &spec);
    let mut constraint = constraint(spec);
    if of_object.owner.is_some() {
        constraint.node_name = None;
    }
    Workload { images, constraint, ..of_object }
}

/// What the metadata of any object says.
pub(super) fn of_object(meta: &Meta) -> Workload {
    Workload {
        uid: meta.uid.clone(),
        warm: annotation(&meta.annotations, WARM_ANNOTATION),
        priority: annotation(&meta.annotations, PRIORITY_ANNOTATION),
        max_nodes: annotation(&meta.annotations, MAX_NODES_ANNOTATION),
        owner: owner(meta),
        deleting: meta.deletion_timestamp.is_some(),
        labels: meta.labels.clone(),
        ..Workload::default()
    }
}

/// Who controls an object, if anybody does.
pub(super) fn owner(meta: &Meta) -> Option<Owner> {
    let owner = meta.owner_references.iter().find(|owner| owner.controller == Some(true))?;
    let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    Some(Owner { kind: WorkloadKind::of(group, &owner.kind), name: owner.name.clone(), uid: owner.uid.clone() })
}

pub(super) fn annotation(annotations: &BTreeMap<String, String>, key: &str) -> Option<String> {
    annotations.get(key).cloned()
}

/// In the order in which the kubelet would need them; a container without an image (allowed in templates that
/// something completes later) has no position. `at` goes before each.
pub(super) fn images(at: &str, spec: &PodSpec) -> Vec<ContainerImage> {
    let of = |list: &'static str, containers: &[Container]| {
        let named = containers.iter().map(|c| (c.name.as_str(), c.image.as_str()));
        positions(at, list, named)
    };
    let mut images = of("initContainers", &spec.init_containers);
    images.extend(of("containers", &spec.containers));
    images.extend(of("ephemeralContainers", &spec.ephemeral_containers));
    let volumes = spec.volumes.iter().map(|v| (v.name.as_str(), v.image.reference.as_str()));
    images.extend(positions(at, "volumes", volumes));
    images
}

fn positions<'a>(at: &str, list: &'static str, items: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<ContainerImage> {
    let of = |(index, (name, image)): (usize, (&str, &str))| {
        (!(image.is_empty() || is_filled_in_later(name, image)))
            .then(|| ContainerImage { position: format!("{at}{list}[{index}] \"{name}\""), image: image.to_owned() })
    };
    items.enumerate().filter_map(of).collect()
}

/// Istio's gateways: its injector puts the proxy of its own version in the place of `auto`, and only Pods show which.
fn is_filled_in_later(container: &str, image: &str) -> bool {
    container == "istio-proxy" && image == "auto"
}

/// What a pod spec asks of a node.
pub(super) fn constraint(spec: PodSpec) -> Constraint {
    let requests = requests(&spec);
    let mut node_selector = spec.node_selector;
    let has_another = |os: String| *node_selector.entry(OS_LABEL.to_owned()).or_insert_with(|| os.clone()) != os;
    let is_torn = some(spec.os.name).is_some_and(has_another);
    let required = spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution;
    Constraint {
        node_selector,
        affinity: match required {
            // A node of one system refuses pods of another: no node is of both.
            _ if is_torn => Some(Vec::new()),
            required => required.map(|selector| selector.node_selector_terms.into_iter().map(term).collect()),
        },
        tolerations: spec.tolerations.into_iter().map(toleration).collect(),
        node_name: some(spec.node_name),
        requests,
        limit: None,
    }
}

/// What the scheduler reserves for one pod (`PodRequests` of component-helpers): its containers and sidecars together, or
/// an init container beside the sidecars before it, whichever is more; what the pod as a whole asks for instead; overhead.
fn requests(spec: &PodSpec) -> Requests {
    let mut sidecars = Requests::default();
    let mut most = Requests::default();
    for container in &spec.init_containers {
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

fn of_container(resources: Option<&form::ResourceRequirements>) -> Requests {
    resources.map(|resources| quantity::requests(&named(resources))).unwrap_or_default()
}

/// Requests, and limits where nothing is requested: the API server fills them in so, in Pods and not in templates.
fn named(resources: &form::ResourceRequirements) -> Resources {
    let mut all = resources.limits.clone().unwrap_or_default();
    all.extend(resources.requests.iter().flatten().map(|(name, quantity)| (name.clone(), quantity.clone())));
    all
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn term(term: form::Term) -> NodeSelectorTerm {
    NodeSelectorTerm {
        match_expressions: expressions(term.match_expressions),
        match_fields: expressions(term.match_fields),
    }
}

fn expressions(list: Vec<form::Requirement>) -> BTreeSet<MatchExpression> {
    let expression = |e: form::Requirement| MatchExpression {
        operator: operator(&e.operator),
        key: e.key,
        values: e.values.into_iter().collect(),
    };
    list.into_iter().map(expression).collect()
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
pub(super) fn toleration(toleration: form::Toleration) -> Toleration {
    let operator = match toleration.operator.as_str() {
        "" | "Equal" => TolerationOperator::Equal,
        "Exists" => TolerationOperator::Exists,
        "Gt" => TolerationOperator::Gt,
        "Lt" => TolerationOperator::Lt,
        _ => TolerationOperator::Unknown,
    };
    Toleration {
        key: some(toleration.key),
        operator,
        value: toleration.value,
        effect: some(toleration.effect).map(|effect| taint_effect(&effect)),
    }
}

#[cfg(test)]
mod tests;
