//! The Pods of the agents, for who lets agents into NATS.
//!
//! Owns the watch of the Pods of one service account in one namespace. Not a source of facts: the machine decides nothing
//! by them.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use daemon::supervise::{Shutdown, Tasks};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::watch;

use super::object::{Object, or_default};
use super::source::{Trouble, must_list_again};
use crate::identity::pods::{AgentPod, Known};

/// Whose Pods.
#[derive(Debug, Clone)]
pub struct Agents {
    /// Their namespace.
    pub namespace: String,
    /// Their service account.
    pub service_account: String,
}

/// What is decoded of one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Form {
    #[serde(deserialize_with = "or_default")]
    spec: Spec,
    #[serde(deserialize_with = "or_default")]
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: Option<String>,
}

/// Starts watching; each watch ends after `timeout` and is taken up again. What is known outlasts failures.
pub fn start(client: &Client, agents: Agents, timeout: Duration, tasks: &Tasks) -> watch::Receiver<Known> {
    let (told, known) = watch::channel(None);
    tasks.spawn("agent-pods", follow(client.clone(), agents, timeout, told, tasks.shutdown()));
    known
}

async fn follow(client: Client, agents: Agents, timeout: Duration, known: watch::Sender<Known>, shutdown: Shutdown) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watch_for_ever(&client, &agents, timeout, &known) => {}
    }
}

async fn watch_for_ever(client: &Client, agents: &Agents, timeout: Duration, known: &watch::Sender<Known>) {
    let resource = ApiResource::erase::<Pod>(&());
    let pods: Api<Object<Form>> = Api::namespaced_with(client.clone(), &agents.namespace, &resource);
    let config = watcher::Config::default()
        .fields(&format!("spec.serviceAccountName={}", agents.service_account))
        .timeout(u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX));
    let mut trouble = Trouble::new("agent-pods");
    let mut listing = BTreeMap::new();
    loop {
        let mut events = pin!(watcher(pods.clone(), config.clone()));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if !matches!(event, Event::Init) {
                        trouble.over();
                    }
                    take(event, &mut listing, known);
                }
                Err(error) => {
                    let is_synced = known.borrow().is_some();
                    trouble.add(&error, is_synced).await;
                    if must_list_again(&error) {
                        break;
                    }
                }
            }
        }
    }
}

fn take(event: Event<Object<Form>>, listing: &mut BTreeMap<String, AgentPod>, known: &watch::Sender<Known>) {
    match event {
        Event::Init => listing.clear(),
        Event::InitApply(pod) => listing.extend(entry(&pod)),
        Event::InitDone => {
            known.send_replace(Some(std::mem::take(listing)));
        }
        Event::Apply(pod) => {
            let (name, entry) = (pod.meta.name.clone(), entry(&pod));
            known.send_if_modified(|known| {
                let Some(pods) = known else { return false };
                match entry {
                    Some((name, entry)) => pods.insert(name, entry.clone()).as_ref() != Some(&entry),
                    None => pods.remove(&name).is_some(),
                }
            });
        }
        Event::Delete(pod) => {
            known.send_if_modified(|known| known.as_mut().is_some_and(|pods| pods.remove(&pod.meta.name).is_some()));
        }
    }
}

/// A Pod that runs somewhere. One that has ended or is being deleted needs to log in no more.
fn entry(pod: &Object<Form>) -> Option<(String, AgentPod)> {
    let Form { spec, status } = pod.content.as_ref().ok()?;
    if pod.meta.deletion_timestamp.is_some() || matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let (name, uid) = (pod.meta.name.clone(), pod.meta.uid.clone());
    (!name.is_empty() && !uid.is_empty()).then_some((name, AgentPod { uid, node: spec.node_name.clone()? }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str, more: &serde_json::Value) -> Object<Form> {
        let mut pod =
            json!({ "metadata": { "name": name, "uid": uid }, "spec": { "nodeName": "a", "containers": [] } });
        for (pointer, value) in more.as_object().unwrap() {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn pods_come_change_and_go() {
        let (known, seen) = watch::channel(None);
        let mut listing = BTreeMap::new();
        let mut tell = |event| take(event, &mut listing, &known);
        let uids = || {
            let seen = seen.borrow();
            seen.as_ref().map(|pods| pods.values().map(|pod| pod.uid.clone()).collect::<Vec<_>>())
        };
        let plain = || json!({});
        tell(Event::Init);
        tell(Event::InitApply(pod("x", "1", &plain())));
        tell(Event::InitApply(pod("pending", "2", &json!({ "/spec/nodeName": null }))));
        assert_eq!(uids(), None, "half a list is none");
        tell(Event::InitDone);
        assert_eq!(uids(), Some(vec!["1".to_owned()]));
        tell(Event::Apply(pod("x", "3", &plain())));
        tell(Event::Apply(pod("y", "4", &plain())));
        assert_eq!(uids(), Some(vec!["3".to_owned(), "4".to_owned()]));
        tell(Event::Apply(pod("y", "4", &json!({ "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z" }))));
        assert_eq!(uids(), Some(vec!["3".to_owned()]));
        tell(Event::Apply(pod("x", "3", &json!({ "/status": { "phase": "Failed" } }))));
        assert_eq!(uids(), Some(vec![]));
        tell(Event::Apply(pod("x", "5", &plain())));
        tell(Event::Delete(pod("x", "5", &plain())));
        assert_eq!(uids(), Some(vec![]));
    }
}
