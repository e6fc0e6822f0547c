//! Workloads: one implementation a kind.
//!
//! Owns which objects count as workloads. A child whose controller is watched is none; neither is a Pod that has ended
//! or that the kubelet mirrors from a file.

use std::collections::BTreeMap;

use cluster_plan::Fact;
use cluster_plan::fact::{Change, Source};
use cluster_plan::input::{Workload, WorkloadKey, WorkloadKind};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher;

use super::source::Watched;
use super::template;

/// On the API server's copy of a Pod that a kubelet runs from a file.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

macro_rules! with_template {
    ($kind:ident, |$object:ident| $template:expr) => {
        impl Watched for $kind {
            type Key = WorkloadKey;
            type View = Workload;

            const SOURCE: Source = Source::Workloads(WorkloadKind::$kind);
            const IS_EVALUATED: bool = true;

            fn key(meta: &ObjectMeta) -> Option<WorkloadKey> {
                key(WorkloadKind::$kind, meta)
            }

            fn counts(meta: &ObjectMeta) -> bool {
                !has_controller(meta)
            }

            fn view(self) -> Result<Workload, String> {
                let $object = self;
                let template: Option<PodTemplateSpec> = $template;
                template::of_template(&$object.metadata, template.unwrap_or_default())
            }

            fn evaluated(view: &mut Workload, results: BTreeMap<String, Result<bool, String>>) {
                view.expressions = results;
            }

            fn listed(list: BTreeMap<WorkloadKey, Result<Workload, String>>) -> Fact {
                Fact::Workloads(WorkloadKind::$kind, list)
            }

            fn changed(change: Change<WorkloadKey, Workload>) -> Fact {
                Fact::Workload(change)
            }
        }
    };
}

with_template!(Deployment, |object| Some(object.spec.template));
with_template!(StatefulSet, |object| Some(object.spec.template));
with_template!(DaemonSet, |object| Some(object.spec.template));
with_template!(ReplicaSet, |object| object.spec.template);
with_template!(ReplicationController, |object| object.spec.and_then(|spec| spec.template));
with_template!(Job, |object| object.spec.map(|spec| spec.template));
with_template!(CronJob, |object| object.spec.job_template.spec.map(|spec| spec.template));

impl Watched for Pod {
    type Key = WorkloadKey;
    type View = Workload;

    const SOURCE: Source = Source::Workloads(WorkloadKind::Pod);
    const IS_EVALUATED: bool = true;

    fn config() -> watcher::Config {
        // A Pod that ends leaves the watch as if it were deleted. Controllers cannot be asked for by a selector.
        watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed")
    }

    fn key(meta: &ObjectMeta) -> Option<WorkloadKey> {
        key(WorkloadKind::Pod, meta)
    }

    fn counts(meta: &ObjectMeta) -> bool {
        let is_mirror = meta.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR_ANNOTATION));
        !has_controller(meta) && !is_mirror
    }

    fn view(self) -> Result<Workload, String> {
        let spec = self.spec.ok_or("spec is missing")?;
        Ok(template::of_pod(&self.metadata, spec))
    }

    fn evaluated(view: &mut Workload, results: BTreeMap<String, Result<bool, String>>) {
        view.expressions = results;
    }

    fn listed(list: BTreeMap<WorkloadKey, Result<Workload, String>>) -> Fact {
        Fact::Workloads(WorkloadKind::Pod, list)
    }

    fn changed(change: Change<WorkloadKey, Workload>) -> Fact {
        Fact::Workload(change)
    }
}

fn has_controller(meta: &ObjectMeta) -> bool {
    meta.owner_references.iter().flatten().any(|owner| owner.controller == Some(true))
}

fn key(kind: WorkloadKind, meta: &ObjectMeta) -> Option<WorkloadKey> {
    Some(WorkloadKey { kind, namespace: meta.namespace.clone()?, name: meta.name.clone()? })
}

#[cfg(test)]
mod tests;
