//! The wiring, top to bottom, once.
//!
//! Owns the order in which the agent starts and stops. Decides nothing else.

mod show;

use std::collections::BTreeMap;
use std::path::Path;

use daemon::admin::{self, Admin, AdminError};
use daemon::bus::BusError;
use daemon::clock::Clock;
use daemon::driver::{self, DriverSettings};
use daemon::inspect::{self, View, inspect};
use daemon::metrics;
use daemon::record::{self, Recorded};
use daemon::supervise::{StoppedBecause, Tasks};
use daemon::telemetry::{self, TelemetryError};
use node_plan::{Beginning, Effect, Fact, Identity, NodeState, Settings};
use shared::machine::Machine as _;
use shared::metric::{self, Process};
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::act::{Dispatcher, World};
use crate::bus::Link;
use crate::config::AgentConfig;
use crate::cri::{self, Client, Sockets};
use crate::state_file::StateFile;
use show::Show;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// It does not know where it is.
    #[error("node: is missing; give the name of the Node, in a pod by the environment variable WARM_NODE_NAME")]
    NoNode,
    /// No logs.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// No attempt to connect could succeed.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// No admin HTTP.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A task ended.
    #[error(transparent)]
    Stopped(#[from] StoppedBecause),
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// Says why it cannot start, or which task's end stopped it.
pub async fn run(config: AgentConfig) -> Result<(), AppError> {
    let node = config.node.clone().ok_or(AppError::NoNode)?;
    let log = telemetry::init(&config.log)?;
    let counted = metrics::install();
    counted.start_at_zero(Process::Agent);
    metrics::gauge(metric::BUILD, &[VERSION], 1.0);
    let (tasks, shutdown) = Tasks::new();
    tasks.spawn("metrics", counted.clone().upkeep(shutdown.clone()));
    let clock = Clock::new();
    let inst = Uuid::new_v4();
    info!(version = VERSION, %node, %inst, cluster = %config.cluster_id, "warm-agent starts");

    // What is known from the last run, and the machine that knows it.
    let state = StateFile::new(&config.state_dir);
    let _in_use = state.hold();
    let persisted = state.load().await;
    let beginning = Beginning {
        identity: Identity {
            node: node.clone(),
            inst: inst.to_string(),
            boot: boot(),
            agent_version: VERSION.to_owned(),
        },
        settings: settings(&config),
        persisted,
        seed: inst.as_u64_pair().0,
    };
    let machine = record::begin(&config.record, VERSION, beginning, clock.now(), &tasks);

    // The world it acts on: neither runtime nor NATS needs to be there yet.
    let runtime = Client::new(cri::Settings {
        sockets: Sockets::new(config.runtime.socket.as_deref()),
        request_timeout: config.runtime.request_timeout,
        sandbox_namespace: config.runtime.sandbox_namespace.clone(),
        sandbox_uid: inst.to_string(),
    });
    let link = Link::connect(&config.nats, config.cluster_id.clone(), node, &tasks).await?;

    // The loop.
    let (inbox, facts) = driver::channel(driver::DEFAULT_INBOX);
    let world = World { runtime, link: link.clone(), state: state.clone() };
    let dispatcher = Dispatcher::new(world, inbox.clone(), clock, tasks.clone());
    let (ready, readiness) = watch::channel(Err("starting".to_owned()));
    let views: BTreeMap<&'static str, View<NodeState>> =
        BTreeMap::from([(inspect::MAIN, NodeState::summary as View<NodeState>)]);
    let (handle, inspector) = inspect(views, &inbox);
    let admin = Admin {
        live: inbox.liveness(&clock),
        ready: readiness,
        state: handle,
        metrics: counted,
        log,
        shutdown: shutdown.clone(),
    };
    admin::serve(&config.admin.listen, admin, &tasks).await?;
    let mut show = Show::new(link.status(), ready, inspector);
    let (ended, last) = oneshot::channel();
    tasks.spawn("loop", async move {
        let watch = move |machine: &Recorded<NodeState>, now| show.show(machine, now);
        let settings = DriverSettings::default();
        let machine = driver::run(machine, facts, dispatcher, settings, clock, watch, shutdown).await;
        // Nobody waits for it only when the process could not even start.
        let _ = ended.send(machine.into_inner());
    });
    link.start(&inbox, &tasks).await?;
    drop(inbox);

    // Until somebody wants it to stop: not ready, no new facts, effects end or are dropped; then what is known is kept
    // and what was said is sent.
    let stopped = tasks.run_until_signal(config.shutdown_grace).await;
    if let Ok(machine) = last.await {
        save_last(machine, &state, &config, &clock).await;
    }
    link.flush().await;
    stopped?;
    info!("warm-agent has stopped");
    Ok(())
}

fn settings(config: &AgentConfig) -> Settings {
    Settings {
        timing: config.timing.clone(),
        max_in_flight: config.pull.max_in_flight,
        final_after: config.pull.final_after,
        disk: config.disk,
        gc: config.gc.clone(),
    }
}

/// Asks the machine for the write that would come next: between two writes it waits, and there is no later.
async fn save_last(mut machine: NodeState, state: &StateFile, config: &AgentConfig, clock: &Clock) {
    let mut now = clock.now();
    // The write under way, if there was one, has ended with its lane.
    machine.apply(Fact::Persisted(Ok(())), now);
    now.mono = now.mono + config.timing.persist;
    let last = machine.step(now).into_iter().find_map(|effect| match effect {
        Effect::Persist(persisted) => Some(persisted),
        _ => None,
    });
    if let Some(persisted) = last
        && let Err(error) = state.save(&persisted).await
    {
        error!(reason = %error.reason(), "the last state is not kept: {error}");
    }
}

fn boot() -> String {
    match std::fs::read_to_string(Path::new(BOOT_ID)) {
        Ok(id) => id.trim().to_owned(),
        Err(error) => {
            warn!(path = BOOT_ID, %error, "the boot of this machine is not known");
            String::new()
        }
    }
}
