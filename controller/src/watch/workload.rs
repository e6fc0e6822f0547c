//! Workloads that Kubernetes brings, Pods apart: one row a kind.
//!
//! Owns where a kind has its pod template, and when one of its objects has ended. Which of them count is the machine's.

use std::collections::BTreeMap;

use cluster_plan::Fact;
use cluster_plan::fact::{Change, Source};
use cluster_plan::input::{Workload, WorkloadKey, WorkloadKind};
use kube::core::ApiResource;
use kube::core::GroupVersionKind;
use serde::Deserialize;

use super::form::Template;
use super::object::{Meta, or_default};
use super::source::{self, Watched};
use super::template;

/// A kind with one pod template.
#[derive(Debug)]
pub struct Templated {
    kind: WorkloadKind,
    plural: &'static str,
}

/// Every one.
pub const TEMPLATED: [Templated; 7] = [
    Templated { kind: WorkloadKind::Deployment, plural: "deployments" },
    Templated { kind: WorkloadKind::StatefulSet, plural: "statefulsets" },
    Templated { kind: WorkloadKind::DaemonSet, plural: "daemonsets" },
    Templated { kind: WorkloadKind::ReplicaSet, plural: "replicasets" },
    Templated { kind: WorkloadKind::ReplicationController, plural: "replicationcontrollers" },
    Templated { kind: WorkloadKind::Job, plural: "jobs" },
    Templated { kind: WorkloadKind::CronJob, plural: "cronjobs" },
];

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
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(deserialize_with = "or_default")]
    template: Template,
    #[serde(deserialize_with = "or_default")]
    job_template: JobTemplate,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct JobTemplate {
    #[serde(deserialize_with = "or_default")]
    spec: JobSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct JobSpec {
    #[serde(deserialize_with = "or_default")]
    template: Template,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type", deserialize_with = "or_default")]
    kind: String,
    #[serde(deserialize_with = "or_default")]
    status: String,
}

impl Status {
    /// A Job that has ended, whichever way, starts no Pod any more.
    fn has_ended(&self) -> bool {
        self.conditions.iter().any(|c| c.status == "True" && matches!(c.kind.as_str(), "Complete" | "Failed"))
    }
}

impl Workloads for Templated {
    type Form = Form;

    fn kind(&self) -> &WorkloadKind {
        &self.kind
    }

    fn api(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.kind.group(), "v1", self.kind.name());
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }

    fn workload(&self, meta: &Meta, form: Form) -> Result<Workload, String> {
        let ended = self.kind == WorkloadKind::Job && form.status.has_ended();
        let template = match self.kind {
            WorkloadKind::CronJob => form.spec.job_template.spec.template,
            _ => form.spec.template,
        };
        template::of_template(meta, template).map(|workload| Workload { ended, ..workload })
    }
}

/// Workloads of one kind, to be watched.
pub trait Workloads: Send + 'static {
    /// What is decoded of an object.
    type Form: source::Form;

    /// The kind.
    fn kind(&self) -> &WorkloadKind;

    /// Where the API server has it.
    fn api(&self) -> ApiResource;

    /// What matters of one, or what is wrong with it.
    fn workload(&self, meta: &Meta, form: Self::Form) -> Result<Workload, String>;
}

impl<T: Workloads> Watched for T {
    type Form = T::Form;
    type Key = WorkloadKey;
    type View = Workload;

    fn source(&self) -> Source {
        Source::Workloads(self.kind().clone())
    }

    fn resource(&self) -> ApiResource {
        self.api()
    }

    fn key(&self, meta: &Meta) -> Option<WorkloadKey> {
        key(self.kind(), meta)
    }

    fn view(&self, meta: &Meta, form: T::Form) -> Option<Result<Workload, String>> {
        Some(self.workload(meta, form))
    }

    fn is_evaluated(&self) -> bool {
        true
    }

    fn evaluated(&self, view: &mut Workload, results: BTreeMap<String, Result<bool, String>>) {
        view.expressions = results;
    }

    fn listed(&self, list: BTreeMap<WorkloadKey, Result<Workload, String>>) -> Fact {
        Fact::Workloads(self.kind().clone(), list)
    }

    fn changed(&self, change: Change<WorkloadKey, Workload>) -> Fact {
        Fact::Workload(change)
    }
}

/// Of an object in a namespace.
pub(super) fn key(kind: &WorkloadKind, meta: &Meta) -> Option<WorkloadKey> {
    let is_named = !(meta.name.is_empty() || meta.namespace.is_empty());
    is_named.then(|| WorkloadKey { kind: kind.clone(), namespace: meta.namespace.clone(), name: meta.name.clone() })
}

#[cfg(test)]
mod tests;
