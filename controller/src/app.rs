//! The wiring, top to bottom, once.
//!
//! Owns which part talks to which. Never decides; the only place that knows both the ways in and the ways out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cluster_plan::input::WorkloadKind;
use cluster_plan::{Beginning, Fact, Settings, SnapshotSettings, World};
use daemon::admin::{self, Admin, AdminError};
use daemon::bus::{Bus, BusError};
use daemon::clock::Clock;
use daemon::driver::{self, DEFAULT_INBOX, DriverSettings};
use daemon::inspect::inspect;
use daemon::metrics::{self, MetricsHandle};
use daemon::record::{self, Recorded};
use daemon::replies::Replies;
use daemon::supervise::{StoppedBecause, Tasks};
use daemon::telemetry::LogHandle;
use shared::metric::{self, Process};
use shared::subject::controller_inbox;
use tokio::sync::watch;
use tracing::info;
use uuid::Uuid;

use crate::act::Peers;
use crate::act::dispatch::Dispatcher;
use crate::api::client::{ConnectError, connect};
use crate::api::image_set;
use crate::api::token_keys::TokenKeys;
use crate::bus::questions::Questions;
use crate::bus::receive::Receiver;
use crate::bus::session::Session;
use crate::config::{ControllerConfig, reload};
use crate::leader;
use crate::readiness::{self, Parts};
use crate::views::{self, Show};
use crate::watch::{self as kubernetes, agent_pods};

mod identity;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// No client for Kubernetes.
    #[error(transparent)]
    Kube(#[from] ConnectError),
    /// Settings of NATS that no attempt could use.
    #[error(transparent)]
    Nats(#[from] BusError),
    /// No admin server.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A part ended.
    #[error(transparent)]
    Stopped(#[from] StoppedBecause),
}

/// Runs until SIGTERM, or until a part ends that should not. `path` is where `config` was read from.
pub async fn run(path: PathBuf, config: ControllerConfig, log: LogHandle) -> Result<(), AppError> {
    let (tasks, shutdown) = Tasks::new();
    let clock = Clock::new();
    let metrics = start_metrics(&tasks);
    let instance = config.pod_name.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    info!(version = VERSION, instance, cluster = %config.cluster_id, "warm-controller starts");

    // Peers.
    let kube = connect(config.kube.kubeconfig.as_deref(), config.kube.silence()).await?;
    let inbox_prefix = controller_inbox(&config.cluster_id, &instance);
    let (bus, status) =
        Bus::connect(&config.nats, &format!("warm-controller {instance}"), &inbox_prefix, &tasks).await?;

    // Ways in.
    let (inbox, facts) = driver::channel(DEFAULT_INBOX);
    inbox.send(Fact::Selection(config.selection())).await;
    let (expressions, evaluated) = watch::channel(reload::expressions(&config));
    let with_sets = config.sets.enabled;
    kubernetes::start(&kube, &config.discover, config.kube.watch_timeout, with_sets, &evaluated, &inbox, &tasks);
    let (seat, elector) =
        leader::stand(&config.leader, config.pod_namespace.as_deref(), &instance, &kube, &inbox).await;
    if let Some(elector) = &elector {
        tasks.spawn("election", Arc::clone(elector).run(shutdown.clone()));
    }
    let session = Session::new(&bus, &config.cluster_id, &config.buckets, inbox.clone(), &tasks);
    let troubles = session.troubles();
    tasks.spawn("buckets", session.run(shutdown.clone()));
    let receiver = Receiver::subscribe(&bus, &config.cluster_id, inbox.clone()).await?;
    tasks.spawn("agents", receiver.run(shutdown.clone()));
    let replies = Arc::new(Replies::default());
    let asked = Questions::offer(&bus, &config.cluster_id, &instance, inbox.clone(), Arc::clone(&replies)).await?;
    tasks.spawn("questions", asked.run(shutdown.clone()));
    let identity = identity::start(
        &config,
        TokenKeys::new(kube.clone(), config.identity.issuer.clone()),
        |agents| agent_pods::start(&kube, agents, config.kube.watch_timeout, &tasks),
        &instance,
        &tasks,
    )
    .await?;
    let (judged_sender, judged_by) = watch::channel(None);
    let reloading = reload::Peers { inbox: inbox.clone(), expressions, judged_by };
    tasks.spawn("config-reload", reload::watch(path, config.clone(), reloading, shutdown.clone()));

    // Ways out.
    let dispatcher = Dispatcher::new(
        Peers {
            bus: bus.clone(),
            cluster: config.cluster_id.clone(),
            kube,
            seat,
            inbox: inbox.clone(),
            questions: replies,
            instance: instance.clone(),
            marker_ttl: config.timing.marker_ttl,
            api_versions: Arc::new(api_versions(&config)),
        },
        &tasks,
    );

    // The loop between them, and how it is seen.
    let (state, inspector) = inspect(views::views(), &inbox);
    let (machine_ready, machine) = watch::channel(Err("starting".to_owned()));
    let (ready_sender, ready) = watch::channel(Err("starting".to_owned()));
    let parts = Parts { machine, nats: status, buckets: troubles, identity };
    tasks.spawn("readiness", readiness::follow(parts, ready_sender, shutdown.clone()));
    tasks.spawn("refresh", views::refresh(inbox.waker(), shutdown.clone()));
    let seen = Admin { live: inbox.liveness(&clock), ready, state, metrics, log, shutdown: shutdown.clone() };
    admin::serve(&config.admin.listen, seen, &tasks).await?;
    let mut show = Show { inspector, ready: machine_ready, judged_by: judged_sender, gauged: None };
    let machine = record::begin(&config.record, VERSION, beginning(&config, instance), clock.now(), &tasks);
    let settings = DriverSettings { window: config.step_window, ..DriverSettings::default() };
    tasks.spawn("loop", async move {
        let show = move |world: &Recorded<World>, now| show.show(world, now);
        driver::run(machine, facts, dispatcher, settings, clock, show, shutdown).await;
    });

    // The end: not ready, no more facts, effects finish; then the next may lead; NATS gets what was published.
    let ended = tasks.run_until_signal(config.shutdown_grace).await;
    if let Some(elector) = elector {
        elector.release().await;
    }
    bus.flush().await;
    info!("warm-controller ends");
    Ok(ended?)
}

fn start_metrics(tasks: &Tasks) -> MetricsHandle {
    let handle = metrics::install();
    handle.start_at_zero(Process::Controller);
    metrics::gauge(metric::BUILD, &[VERSION], 1.0);
    tasks.spawn("metrics-upkeep", handle.clone().upkeep(tasks.shutdown()));
    handle
}

/// Of sets and of configured kinds, for who writes about their objects.
fn api_versions(config: &ControllerConfig) -> BTreeMap<WorkloadKind, String> {
    let kinds = config.discover.kinds().into_iter();
    let configured = kinds.map(|(kind, settings)| (kind, format!("{}/{}", settings.group, settings.version)));
    configured.chain([(WorkloadKind::ImageSet, image_set::api_version())]).collect()
}

fn beginning(config: &ControllerConfig, instance: String) -> Beginning {
    let (timing, labels, events) = (config.timing.clone(), config.labels.clone(), config.events.clone());
    let target = config.target.clone();
    let version = VERSION.to_owned();
    let (kinds, linger) = (config.discover.kinds().into_keys().collect(), config.discover.linger);
    let sets = config.sets.enabled;
    let snapshots = SnapshotSettings::default();
    let settings = Settings { timing, labels, events, kinds, linger, target, sets, snapshots, instance, version };
    Beginning { settings, epoch: Uuid::new_v4().to_string(), seed: fastrand::u64(..) }
}
