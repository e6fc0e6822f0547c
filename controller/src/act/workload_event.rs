//! A Kubernetes Event on a workload.
//!
//! Owns the object, and its name: the same workload, image and notice give the same name, so that what another controller,
//! or this one before a restart, has said already is counted on as a series and not said twice. (kube's `Recorder`
//! remembers for six minutes, in one process, and takes two images of a workload for one.)

use std::collections::BTreeMap;

use cluster_plan::Fact;
use cluster_plan::effect::{Notice, WorkloadEvent};
use cluster_plan::input::WorkloadKind;
use daemon::metrics::{Outcome, effect_done};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use shared::name::ImageKey;

use super::Peers;
use super::apply::{self, Failed};
use super::outcome::of_kubernetes;
use crate::api::failure;
use crate::leader::tenure::Tenure;

/// `reportingController` of every Event.
pub(super) const REPORTER: &str = "warm-images.dev/controller";
/// The API server takes notes of this many bytes at most.
const LONGEST: usize = 1_024;
/// What is left of a workload's name, so that the Event's has room for the rest in 253 bytes.
const NAME: usize = 180;

/// Posts it once, as long as the tenure lasts.
pub(super) async fn post(peers: Peers, tenure: Tenure, kind: &'static str, event: WorkloadEvent) {
    let workload = &event.workload;
    let result = apply::once(&tenure, ("an Event", workload), create_or_count(&peers, &event), failure::reason).await;
    let result = result.map_err(|refusal| refusal.reason);
    let failure = result.err();
    effect_done(kind, failure.map_or(Outcome::Ok, of_kubernetes), failure);
    peers.inbox.send(Fact::EventPosted { workload: event.workload, id: event.id, result }).await;
}

async fn create_or_count(peers: &Peers, event: &WorkloadEvent) -> Result<(), Failed> {
    let events: Api<Event> = Api::namespaced(peers.kube.clone(), &event.workload.namespace);
    let api_version = api_version(&event.workload.kind, &peers.api_versions);
    let object = object(event, api_version, &peers.instance, Timestamp::now());
    match events.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let name = object.metadata.name.unwrap_or_default();
            // The least that the API server takes for a series.
            let count = event.count.max(2);
            let series = EventSeries { count: i32::try_from(count).unwrap_or(i32::MAX), last_observed_time: now() };
            let patch = Patch::Merge(json!({ "series": series }));
            events.patch(&name, &PatchParams::default(), &patch).await?;
            Ok(())
        }
        other => Ok(other.map(drop)?),
    }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

fn object(event: &WorkloadEvent, api_version: String, instance: &str, now: Timestamp) -> Event {
    let WorkloadEvent { workload, uid, id, notice, note, .. } = event;
    let regarding = ObjectReference {
        api_version: Some(api_version),
        kind: Some(workload.kind.name().to_owned()),
        namespace: Some(workload.namespace.clone()),
        name: Some(workload.object_name().to_owned()),
        uid: Some(uid.clone()),
        ..ObjectReference::default()
    };
    let (type_, action) = match notice {
        Notice::Failed(_) => ("Warning", "Pulling"),
        Notice::Recovered => ("Normal", "Pulled"),
        Notice::Unusable => ("Warning", "Reading"),
    };
    Event {
        metadata: ObjectMeta {
            name: Some(name(workload.object_name(), uid, id, *notice)),
            namespace: Some(workload.namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(type_.to_owned()),
        reason: Some(notice.reason().to_owned()),
        action: Some(action.to_owned()),
        note: Some(cut(note, LONGEST).to_owned()),
        regarding: Some(regarding),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

fn api_version(kind: &WorkloadKind, configured: &BTreeMap<WorkloadKind, String>) -> String {
    match (configured.get(kind), kind.group()) {
        (Some(configured), _) => configured.clone(),
        (None, "") => "v1".to_owned(),
        (None, group) => format!("{group}/v1"),
    }
}

/// As `kubectl` knows names of Events: that of the object, a dot, and what tells them apart.
fn name(workload: &str, uid: &str, id: &ImageKey, notice: Notice) -> String {
    let why = match notice {
        Notice::Failed(why) => why.as_str(),
        Notice::Recovered => "recovered",
        Notice::Unusable => "invalid",
    };
    let object = uid.split('-').next().unwrap_or_default();
    format!("{}.{object}.{id}.{why}", cut(workload, NAME).trim_end_matches(['.', '-']))
}

/// At most so many bytes of a text.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use shared::name::NodeName;
    use shared::reason::Reason;

    use super::*;

    #[test]
    fn the_same_trouble_has_the_same_name_and_any_name_is_one_that_kubernetes_takes() {
        let id = ImageKey::of("registry.example/a:1");
        let uid = "3f0c9a52-52f4-4a83-9d3b-5b2a2f1f0d11";
        let failed = Notice::Failed(Reason::RegistryUnavailable);
        let long = "a.".repeat(126) + "a";
        for workload in ["web", long.as_str()] {
            let name = name(workload, uid, &id, failed);
            assert!(NodeName::parse(&name).is_ok(), "{name}");
            assert_eq!(name, super::name(workload, uid, &id, failed));
            assert_ne!(name, super::name(workload, uid, &id, Notice::Recovered));
            assert_ne!(name, super::name(workload, uid, &ImageKey::of("b"), failed));
            assert_ne!(name, super::name(workload, "another", &id, failed));
        }
        assert_eq!(cut("ää", 3), "ä");
    }
}
