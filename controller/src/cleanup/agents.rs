//! What the agents left on the hosts.
//!
//! Owns the `DaemonSet` that takes it away: it is made, waited for on every node, and deleted. What its pods do is
//! `warm-agent forget`'s; how they are made is the chart's. It goes to the API server as it was written: nothing of a pod
//! template is known here.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::{DeleteParams, PostParams};
use kube::core::{ApiResource, DynamicObject, TypeMeta};
use kube::{Api, Client};
use serde::Deserialize;
use tokio::time::Instant;

use super::attempt::{InWords, until_done};
use crate::api::failure;

/// Nothing is waited for longer than this once the time is up.
const LAST: Duration = Duration::from_secs(10);

/// What matters of its status.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    observed_generation: Option<i64>,
    desired_number_scheduled: usize,
    number_ready: usize,
}

/// Why it is not done yet.
enum NotYet {
    Kube(kube::Error),
    Nodes { ready: usize, wanted: usize },
    There,
}

impl From<kube::Error> for NotYet {
    fn from(error: kube::Error) -> Self {
        Self::Kube(error)
    }
}

impl InWords for NotYet {
    fn in_words(&self) -> String {
        match self {
            Self::Kube(error) => failure::in_words(error),
            Self::Nodes { ready, wanted } => format!("done on {ready} of {wanted} nodes"),
            Self::There => "its pods have not ended".to_owned(),
        }
    }
}

/// Runs `set` on every node it fits, once; says how many those were. It is deleted in any case.
pub(super) async fn clear(
    client: &Client,
    namespace: &str,
    set: &DynamicObject,
    deadline: Instant,
) -> Result<usize, String> {
    let resource = ApiResource::erase::<DaemonSet>(&());
    let sets: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let set = &DynamicObject { types: Some(TypeMeta::resource::<DaemonSet>()), ..set.clone() };
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let cleared = until_done(deadline, "state on the hosts", async || run(&sets, name, set).await).await;
    // With its pods: when it is gone, so are they.
    let until = deadline.max(Instant::now() + LAST);
    let deleted = until_done(until, "the daemonset", async || delete(&sets, name).await).await;
    match (cleared, deleted) {
        (Ok(_), Err(why)) => Err(why),
        (Err(left), Err(why)) => Err(format!("{left}\n{why}")),
        (cleared, Ok(())) => cleared,
    }
}

async fn run(sets: &Api<DynamicObject>, name: &str, set: &DynamicObject) -> Result<usize, NotYet> {
    match sets.create(&PostParams::default(), set).await {
        Ok(_) => {}
        // By an earlier attempt.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error.into()),
    }
    let found = sets.get(name).await?;
    let status: Status =
        found.data.get("status").and_then(|status| Status::deserialize(status).ok()).unwrap_or_default();
    let (wanted, ready) = (status.desired_number_scheduled, status.number_ready);
    if status.observed_generation == found.metadata.generation && ready == wanted {
        Ok(wanted)
    } else {
        Err(NotYet::Nodes { ready, wanted })
    }
}

async fn delete(sets: &Api<DynamicObject>, name: &str) -> Result<(), NotYet> {
    match sets.delete(name, &DeleteParams::foreground()).await {
        Ok(_) => Err(NotYet::There),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}
