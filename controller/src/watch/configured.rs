//! Workloads of configured kinds.
//!
//! Owns what the `JSONPath`s of a kind find in an object. What one of them finds and cannot be used spoils only itself.

use std::fmt::Write as _;

use cluster_plan::input::{ContainerImage, Part, Workload, WorkloadKey, WorkloadKind};
use kube::core::{ApiResource, GroupVersionKind};
use serde::Deserialize as _;
use serde_json::Value;
use serde_json_path::{JsonPath, NormalizedPath, PathElement};
use shared::label::{PRIORITY_ANNOTATION, WARM_ANNOTATION};

use super::form::{PodSpec, Template};
use super::object::Meta;
use super::template::{annotation, constraint, images, of_object};
use super::workload::Workloads;
use crate::config::KindSettings;

/// What is wrong with a `JSONPath`, if anything is.
pub fn path_problem(path: &str) -> Option<String> {
    JsonPath::parse(path).err().map(|error| error.to_string())
}

/// One kind.
#[derive(Debug)]
pub struct Configured {
    kind: WorkloadKind,
    resource: ApiResource,
    templates: Vec<JsonPath>,
    images: Vec<JsonPath>,
    workload_ref: Option<JsonPath>,
    ended: Vec<JsonPath>,
}

impl Configured {
    /// A kind of a configuration that was found right: a path that is wrong finds nothing.
    pub fn new(settings: &KindSettings) -> Self {
        let KindSettings { group, version, kind, templates, images, workload_ref, ended, .. } = settings;
        let kind = GroupVersionKind::gvk(group, version, kind);
        let paths = |list: &[String]| list.iter().filter_map(|path| JsonPath::parse(path).ok()).collect();
        Self {
            kind: settings.workload_kind(),
            resource: ApiResource::from_gvk_with_plural(&kind, &settings.plural()),
            templates: paths(templates),
            images: paths(images),
            workload_ref: workload_ref.as_deref().and_then(|path| JsonPath::parse(path).ok()),
            ended: paths(ended),
        }
    }

    fn read(&self, meta: &Meta, object: &Value) -> Workload {
        let mut workload = of_object(meta);
        workload.ended = self.ended.iter().any(|path| !path.query(object).is_empty());
        let mut parts = Vec::new();
        for located in self.templates.iter().flat_map(|path| path.query_located(object)) {
            let at = place(located.location());
            match template(located.node()) {
                Ok(None) => {}
                Ok(Some((template, spec))) => {
                    let inner = &template.metadata.annotations;
                    let priority = || annotation(inner, PRIORITY_ANNOTATION);
                    workload.priority = workload.priority.take().or_else(priority);
                    parts.push(Part {
                        images: images(&format!("{at} "), &spec),
                        runtime_class: spec.runtime_class_name.clone(),
                        constraint: constraint(spec),
                        template_warm: annotation(inner, WARM_ANNOTATION),
                        at,
                    });
                }
                Err(problem) => workload.problems.push(format!("{at}: {problem}")),
            }
        }
        if !parts.is_empty() {
            let Part { at: _, images, constraint, template_warm, runtime_class } = parts.remove(0);
            workload.runtime_class = runtime_class;
            (workload.images, workload.constraint, workload.template_warm) = (images, constraint, template_warm);
        }
        workload.more = parts;
        for located in self.images.iter().flat_map(|path| path.query_located(object)) {
            let position = place(located.location());
            match located.node() {
                Value::Null => {}
                Value::String(text) if text.is_empty() || is_placeholder(text) => {}
                Value::String(text) => workload.images.push(ContainerImage { position, image: text.clone() }),
                _ => workload.problems.push(format!("{position}: is no image reference but {}", located.node())),
            }
        }
        workload.images.retain(|image| !is_placeholder(&image.image));
        let references = self.workload_ref.iter().flat_map(|path| path.query_located(object));
        for located in references.filter(|located| !located.node().is_null()) {
            if let Some(of) = referred(located.node(), &meta.namespace) {
                workload.template_of = Some(of);
            } else {
                let at = place(located.location());
                workload.problems.push(format!("{at}: is no reference with apiVersion, kind and name"));
            }
        }
        workload
    }
}

/// Something that a controller fills in later: Argo's `{{inputs.parameters.x}}`, Tekton's `$(params.x)`.
fn is_placeholder(text: &str) -> bool {
    text.contains("{{") || text.contains("$(")
}

/// A pod template, or a pod spec; nothing if there is none.
fn template(node: &Value) -> Result<Option<(Template, PodSpec)>, String> {
    if node.is_null() {
        return Ok(None);
    }
    if !node.is_object() {
        return Err("is neither a pod template nor a pod spec".to_owned());
    }
    let words = |error: serde_json::Error| error.to_string();
    if node.get("containers").is_some() {
        let spec = PodSpec::deserialize(node).map_err(words)?;
        return Ok(Some((Template::default(), spec)));
    }
    let mut template = Template::deserialize(node).map_err(words)?;
    Ok(template.spec.take().map(|spec| (template, spec)))
}

fn referred(node: &Value, namespace: &str) -> Option<WorkloadKey> {
    let text = |field: &str| node.get(field).and_then(Value::as_str);
    let group = text("apiVersion")?.rsplit_once('/').map_or("", |(group, _)| group);
    let kind = WorkloadKind::of(group, text("kind")?);
    Some(WorkloadKey { kind, namespace: namespace.to_owned(), name: text("name")?.to_owned() })
}

/// `spec.workerGroupSpecs[0].template`.
fn place(path: &NormalizedPath<'_>) -> String {
    let mut place = String::new();
    for element in path.iter() {
        match element {
            PathElement::Name(name) if place.is_empty() => place.push_str(name),
            PathElement::Name(name) => {
                place.push('.');
                place.push_str(name);
            }
            PathElement::Index(index) => {
                // Writing to a String cannot fail.
                let _ = write!(place, "[{index}]");
            }
        }
    }
    place
}

impl Workloads for Configured {
    type Form = Value;

    fn kind(&self) -> &WorkloadKind {
        &self.kind
    }

    fn api(&self) -> ApiResource {
        self.resource.clone()
    }

    fn workload(&self, meta: &Meta, object: Value) -> Result<Workload, String> {
        Ok(self.read(meta, &object))
    }
}

#[cfg(test)]
mod tests;
