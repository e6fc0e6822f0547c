//! The command line of `warm-controller`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use controller::app;
use controller::cleanup::{self, Extent};
use controller::config::{ControllerConfig, ENVIRONMENT};
use controller::doctor;
use controller::init_nats::{self, Wanted};
use daemon::{config, telemetry, tls};
use tokio::runtime::Runtime;

/// Watches workloads, publishes which image belongs on which node, and labels nodes with what is proven.
#[derive(Parser)]
#[command(name = "warm-controller", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs until SIGTERM.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Takes away what is left on Nodes, in our namespace and, if asked to, in NATS, once the release is gone.
    Cleanup {
        /// The configuration file of the controller.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// A Secret in our namespace that goes too; may be given several times.
        #[arg(long = "secret", value_name = "NAME")]
        secrets: Vec<String>,
        /// A `DaemonSet` as JSON, which takes away what the agents left on the hosts; run on each node and deleted.
        #[arg(long, value_name = "FILE")]
        agents: Option<PathBuf>,
        /// The three buckets go too, with everything in them.
        #[arg(long)]
        buckets: bool,
        /// What is left after this time stays, and is said.
        #[arg(long, value_name = "TIME", default_value = "2m", value_parser = shared::duration::parse)]
        limit: Duration,
    },
    /// Makes the keys and passwords of the NATS that comes with the chart; what is there stays.
    InitNats {
        /// Where the Secrets are.
        #[arg(long, value_name = "NAMESPACE")]
        namespace: String,
        /// The release, for the labels of new Secrets.
        #[arg(long, value_name = "RELEASE")]
        instance: String,
        /// The Secret with the seeds, for the controllers.
        #[arg(long, value_name = "NAME")]
        identity: Option<String>,
        /// The Secret with their public halves, for the servers.
        #[arg(long, value_name = "NAME", requires = "identity")]
        server: Option<String>,
        /// The Secret with the passwords of people.
        #[arg(long, value_name = "NAME")]
        users: Option<String>,
        /// A kubeconfig; without one the Pod's service account.
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
    },
    /// Says whether the installation works: NATS, buckets, who leads, agents. Changes nothing.
    Doctor {
        /// The configuration file of the controller.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// What is not well is looked at again for this time.
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = shared::duration::parse)]
        limit: Duration,
    },
    /// Says everything that is wrong with a configuration file.
    CheckConfig {
        /// The configuration file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    tls::install_crypto_provider();
    let done = match Cli::parse().command {
        Command::Run { config } => run(config),
        Command::Cleanup { config, secrets, agents, buckets, limit } => {
            extent(agents.as_deref(), secrets, buckets).and_then(|extent| clean(&config, &extent, limit))
        }
        Command::InitNats { namespace, instance, identity, server, users, kubeconfig } => {
            init(&Wanted { namespace, instance, identity, server, users }, kubeconfig.as_deref())
        }
        Command::Doctor { config, limit } => examine(&config, limit),
        Command::CheckConfig { file } => check(&file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(path: PathBuf) -> anyhow::Result<()> {
    let config: ControllerConfig = config::load(&path, ENVIRONMENT)?;
    let log = telemetry::init(&config.log)?;
    Ok(runtime()?.block_on(app::run(path, config, log))?)
}

fn extent(agents: Option<&Path>, secrets: Vec<String>, buckets: bool) -> anyhow::Result<Extent> {
    let read = |path: &Path| {
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no DaemonSet as JSON", path.display()))
    };
    Ok(Extent { agents: agents.map(read).transpose()?, secrets, buckets })
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn clean(path: &Path, extent: &Extent, limit: Duration) -> anyhow::Result<()> {
    let config: ControllerConfig = config::load(path, ENVIRONMENT)?;
    let removed = runtime()?.block_on(cleanup::run(&config, extent, limit))?;
    println!("{removed}");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn init(wanted: &Wanted, kubeconfig: Option<&Path>) -> anyhow::Result<()> {
    for line in runtime()?.block_on(init_nats::run(wanted, kubeconfig))? {
        println!("{line}");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn examine(path: &Path, limit: Duration) -> anyhow::Result<()> {
    let config: ControllerConfig = config::load(path, ENVIRONMENT)?;
    let report = runtime()?.block_on(doctor::examine(&config, limit));
    println!("{report}");
    anyhow::ensure!(report.works(), "the installation does not work");
    Ok(())
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime cannot be started")
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn check(file: &Path) -> anyhow::Result<()> {
    config::check::<ControllerConfig>(file, ENVIRONMENT)?;
    println!("{}: ok", file.display());
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a command that fails says why where people look, with or without logs")]
fn complain(error: &anyhow::Error) {
    eprintln!("warm-controller: {error:#}");
}
