//! `ImageSet`: images that somebody names by hand.
//!
//! Owns the custom resource as people write it, with what is wrong with a value: the API server refuses that by the rules
//! that stand here, with its field path. The chart's definition is made from these types. What a set means is the
//! machine's; its status has the machine's own form.

#![allow(clippy::duplicated_attributes, reason = "columns of one type are not the same column")]

use std::collections::BTreeMap;

use cluster_plan::set::SetStatus;
use kube::{CustomResource, CustomResourceExt as _, Resource as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The API group of all custom resources of ours.
pub const GROUP: &str = "warm-images.dev";
/// Plural, as in the path.
pub const PLURAL: &str = "imagesets";

/// Images that are kept warm on all nodes that are asked for, whatever runs there.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "warm-images.dev",
    version = "v1alpha1",
    kind = "ImageSet",
    plural = "imagesets",
    shortname = "imgset",
    category = "warm-images",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    status = "SetStatus",
    doc = "Images that are kept warm on nodes, named by hand. Beside what workloads want, which needs no set.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desired"),
    printcolumn(name = "Warm", type_ = "integer", json_path = ".status.warm"),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.pending"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes", priority = 1),
    printcolumn(name = "Refused", type_ = "integer", json_path = ".status.refused", priority = 1),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ImageSetSpec {
    /// The images, as a pod would name them. Each is kept by itself: one that cannot be pulled delays no other. A
    /// reference without a tag means `latest`, one without a registry means docker.io.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-list-type" = "set"))]
    pub images: Vec<ImageReference>,
    /// Labels that a node must have, all of them. Empty: every node that the other fields admit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 64,
        "additionalProperties" = {
            "type": "string", "maxLength": 63, "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        },
        "x-kubernetes-validations" = [{
            "rule": "self.all(k, k.size() <= 317 && k.matches(\"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$\"))",
            "message": "every key must be a label key: [prefix/]name, the name at most 63 of a-z, A-Z, 0-9, -, _ and .",
        }]
    ))]
    pub node_selector: BTreeMap<String, String>,
    /// More ways to choose nodes, as in a pod's required node affinity: a node must match at least one of the terms, beside
    /// `nodeSelector`. Empty: no such condition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub node_selector_terms: Vec<Term>,
    /// Taints that do not matter, as in a pod. Without any, tainted nodes get none of the images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Secrets with registry credentials, in the set's own namespace. Today only their names are handed on: images that need
    /// credentials are pulled with those the node itself has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub pull_secrets: Vec<SecretName>,
    /// Which images come first where not all can be pulled at once, or labelled: the highest number. An image that is wanted
    /// by several has the highest of theirs.
    #[serde(default = "usual_priority")]
    #[schemars(range(min = 0, max = 100))]
    pub priority: i32,
    /// Keep the images on so many of the nodes at most, spread over zones. Absent: on all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_nodes: Option<i32>,
    /// How often each node looks up again what the tags have become, and pulls what has moved, as `6h`: a little more or less
    /// each time, once everything missing is there. It costs the registry one request for a manifest a node, image and
    /// period. Of several sets with the same image the shortest counts, without suspended ones; references with a digest do
    /// not move. Absent: an image is pulled once a node, and again when it has gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-validations" = [{
            "rule": "self.matches(\"^([0-9]+[hms])+$\") && duration(self) >= duration(\"1m\")",
            "message": "must be a duration of at least one minute, as 6h or 1h30m",
        }])
    )]
    pub refresh: Option<String>,
    /// While true nothing is pulled for this set. What is there stays, is still kept and still labelled; workloads and other
    /// sets that want the same images get them.
    #[serde(default)]
    pub suspend: bool,
}

fn usual_priority() -> i32 {
    i32::from(shared::message::intent::DEFAULT_PRIORITY)
}

/// The reference of an image. What the rule lets through and is none all the same is said in the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.matches(\"^[A-Za-z0-9._:/@+\\\\[\\\\]-]+$\") && !self.contains(\"://\") && !self.endsWith(\":\") && !self.endsWith(\"/\") && self.matches(\"^([^/]*[.:A-Z][^/]*/)?[^A-Z:@]+(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@[A-Za-z0-9+._-]+:[0-9a-fA-F]{32,})?$\")",
    "message": "must be an image reference: [host[:port]/]path[:tag][@digest], the path in lower case",
}]))]
pub struct ImageReference(#[schemars(length(min = 1, max = 1_024))] pub String);

/// The name of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretName {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// A term of `nodeSelectorTerms`: every expression must hold. One without any matches nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Term {
    /// Over the node's labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<Expression>,
    /// Over the node's fields, of which `metadata.name` is the only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_fields: Vec<Expression>,
}

/// A condition on a label or field of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(self.operator in [\"Exists\", \"DoesNotExist\"]) == (!has(self.values) || self.values.size() == 0)",
    "message": "In, NotIn, Gt and Lt need values, Exists and DoesNotExist take none",
    "fieldPath": ".values",
}, {
    "rule": "!(self.operator in [\"Gt\", \"Lt\"]) || (has(self.values) && self.values.size() == 1 && self.values[0].matches(\"^-?[0-9]+$\"))",
    "message": "Gt and Lt take one whole number",
    "fieldPath": ".values",
}]))]
pub struct Expression {
    /// Key of the label, or path of the field.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How to compare.
    pub operator: Operator,
    /// With what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub values: Vec<String>,
}

/// How an expression compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the words of core/v1 NodeSelectorOperator")]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

/// A taint that does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.operator == \"Exists\" || (has(self.key) && self.key.size() > 0)",
    "message": "must be Exists where there is no key",
    "fieldPath": ".operator",
}, {
    "rule": "self.operator != \"Exists\" || !has(self.value) || self.value.size() == 0",
    "message": "must be empty where the operator is Exists",
    "fieldPath": ".value",
}]))]
pub struct Toleration {
    /// Key of the taint. Empty, with `Exists`: every taint.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 317))]
    pub key: String,
    /// How to compare with the taint's value.
    #[serde(default)]
    pub operator: TolerationOperator,
    /// The taint's value, for `Equal`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub value: String,
    /// The taint's effect. Absent: every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
}

/// How a toleration compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the words of core/v1 TolerationOperator")]
pub enum TolerationOperator {
    #[default]
    Equal,
    Exists,
}

/// What a taint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the words of core/v1 TaintEffect")]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

/// As an object of the kind says it.
pub fn api_version() -> String {
    ImageSet::api_version(&()).into_owned()
}

/// The definition, as the chart installs it. A set's name becomes part of a label, so it is a DNS label, which a name of an
/// object need not be.
pub fn definition() -> Value {
    // Made of types alone: it always serialises.
    let mut crd = serde_json::to_value(ImageSet::crd()).unwrap_or_default();
    if let Some(Value::Object(properties)) = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties") {
        let name = json!({ "type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" });
        properties.insert("metadata".to_owned(), json!({ "type": "object", "properties": { "name": name } }));
        properties.values_mut().for_each(in_one_line);
        // Nobody but the controller says how a set is doing, the API server neither.
        properties.get_mut("status").map(without_defaults);
    }
    crd
}

/// Descriptions are broken into lines for the source alone.
fn in_one_line(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            object.values_mut().for_each(in_one_line);
        }
        Value::Array(list) => list.iter_mut().for_each(in_one_line),
        _ => {}
    }
}

fn without_defaults(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.remove("default");
            object.values_mut().for_each(without_defaults);
        }
        Value::Array(list) => list.iter_mut().for_each(without_defaults),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
