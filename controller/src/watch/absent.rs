//! Kinds that need not be installed.
//!
//! Owns what is needed to be sure that the API server has no such kind, and the wait until it has. Being sure takes two
//! answers: one of several API servers may not have heard of a new kind yet.

use std::time::Duration;

use kube::Client;
use kube::core::ApiResource;
use kube::runtime::watcher;
use tracing::{debug, info, warn};

/// Between two answers.
const TWICE: Duration = Duration::from_secs(2);

/// Whether an error may mean that there is no such kind. Who may not list it is told so before the kind is looked for.
pub(super) fn may_be(error: &watcher::Error) -> bool {
    use watcher::Error as E;
    let (E::InitialListFailed(cause) | E::WatchStartFailed(cause) | E::WatchFailed(cause)) = error else {
        return matches!(error, E::WatchError(status) if status.code == 404);
    };
    matches!(cause, kube::Error::Api(status) if matches!(status.code, 403 | 404))
}

/// What the API server says of a kind.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Served,
    /// It has none by this name.
    Absent,
    /// It has it by another plural.
    Otherwise(String),
    /// It does not say.
    None,
}

async fn ask(client: &Client, resource: &ApiResource) -> Answer {
    let list = match resource.group.as_str() {
        "" => client.list_core_api_resources(&resource.version).await,
        _ => client.list_api_group_resources(&resource.api_version).await,
    };
    match list {
        Ok(list) => {
            let mut named = list.resources.iter().filter(|r| !r.name.contains('/') && r.kind == resource.kind);
            if list.resources.iter().any(|r| r.name == resource.plural) {
                return Answer::Served;
            }
            named.next().map_or(Answer::Absent, |other| Answer::Otherwise(other.name.clone()))
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Answer::Absent,
        Err(error) => {
            debug!(kind = resource.kind, %error, "the API server does not say whether it has this kind");
            Answer::None
        }
    }
}

/// Whether a kind is known not to be there, and was said to be.
#[derive(Debug, Default)]
pub(super) struct Absence {
    is_said: bool,
}

impl Absence {
    /// Whether the API server says twice that it has no such kind.
    pub(super) async fn is_sure(&self, client: &Client, resource: &ApiResource) -> bool {
        for round in 0..2 {
            if round > 0 {
                tokio::time::sleep(TWICE).await;
            }
            match ask(client, resource).await {
                Answer::Absent => {}
                Answer::Otherwise(plural) => {
                    warn!(
                        kind = resource.kind,
                        group = resource.group,
                        plural = resource.plural,
                        "the API server calls this kind `{plural}`: write `plural: {plural}` in discover.kinds"
                    );
                    return false;
                }
                Answer::Served | Answer::None => return false,
            }
        }
        true
    }

    /// Waits until the API server has it.
    pub(super) async fn outlast(&mut self, client: &Client, resource: &ApiResource, look_again: Duration) {
        let (kind, api_version) = (&resource.kind, &resource.api_version);
        if !std::mem::replace(&mut self.is_said, true) {
            info!(kind, api_version, "the cluster does not have this kind; it is looked for every {look_again:?}");
        }
        loop {
            tokio::time::sleep(look_again).await;
            if ask(client, resource).await == Answer::Served {
                return;
            }
        }
    }

    /// It is there.
    pub(super) fn over(&mut self, resource: &ApiResource) {
        if std::mem::take(&mut self.is_said) {
            info!(kind = resource.kind, api_version = resource.api_version, "the cluster has this kind now");
        }
    }
}
