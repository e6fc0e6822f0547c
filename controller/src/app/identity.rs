//! The wiring of the auth callout: watch, keys, connection.

use std::sync::Arc;

use daemon::admin::Readiness;
use daemon::bus::BusError;
use daemon::supervise::Tasks;
use tokio::sync::watch;

use crate::api::token_keys::TokenKeys;
use crate::config::ControllerConfig;
use crate::identity::Callout;
use crate::identity::callout::Place;
use crate::identity::pods::AgentPods;
use crate::identity::pods::Known;
use crate::identity::ring::KeyRing;
use crate::watch::agent_pods::Agents;

/// Starts letting agents into NATS, if the configuration has the keys for it; says how that stands. `follow` starts the
/// watch of the agents' Pods.
pub(super) async fn start(
    config: &ControllerConfig,
    token_keys: TokenKeys,
    follow: impl FnOnce(Agents) -> watch::Receiver<Known>,
    instance: &str,
    tasks: &Tasks,
) -> Result<watch::Receiver<Readiness>, BusError> {
    let settings = &config.identity;
    if !settings.is_on() {
        let (always, ready) = watch::channel(Ok(String::new()));
        let shutdown = tasks.shutdown();
        // Kept, so that nobody takes its end for that of the process.
        tasks.spawn("identity", async move {
            shutdown.cancelled().await;
            drop(always);
        });
        return Ok(ready);
    }
    let namespace = config.pod_namespace.as_deref();
    let agents = Agents {
        namespace: settings.namespace.as_deref().or(namespace).unwrap_or_default().to_owned(),
        service_account: settings.service_account.clone(),
    };
    let known = follow(agents);
    let keys = Arc::new(KeyRing::new(token_keys));
    let place = Place { nats: &config.nats, cluster: &config.cluster_id, instance, namespace };
    let callout = Callout::connect(place, settings, keys, AgentPods::new(known), tasks).await?;
    let ready = callout.readiness();
    tasks.spawn("identity", callout.run(tasks.shutdown()));
    Ok(ready)
}
