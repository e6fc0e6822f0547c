//! `warm-agent`: the command line.
//!
//! Owns arguments and exit codes: 0 stopped when asked to, 1 could not start or stopped by itself, 2 wrong usage or
//! configuration.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent::app;
use agent::config::{AgentConfig, ENVIRONMENT};
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// Pulls what its node is to hold, verifies it, reports it.
#[derive(Parser)]
#[command(name = "warm-agent", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Command {
    /// Run until SIGTERM (the default).
    Run(Run),
    /// Remove the state from a node that is to have no agent any more, once the last one has ended.
    Forget {
        /// The agent's `stateDir`.
        #[arg(long, value_name = "FOLDER")]
        state_dir: PathBuf,
        /// Then stay until SIGKILL, so that a pod of it counts as ready.
        #[arg(long)]
        stay: bool,
    },
    /// Say everything that is wrong with a configuration file, and do nothing else.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
}

#[derive(Args)]
struct Run {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/warm-images/agent.yaml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::CheckConfig { file }) => check(&file),
        Some(Command::Forget { state_dir, stay }) => forget(&state_dir, stay),
        Some(Command::Run(args)) => run(&args.config),
        None => run(&cli.run.config),
    }
}

fn check(file: &Path) -> ExitCode {
    match daemon::config::check::<AgentConfig>(file, &ENVIRONMENT) {
        Ok(()) => {
            // Whoever closed standard output does not want to know.
            let _ = writeln!(std::io::stdout(), "{}: ok", file.display());
            ExitCode::SUCCESS
        }
        Err(error) => complain(MISUSED, &error),
    }
}

fn forget(folder: &Path, stay: bool) -> ExitCode {
    match agent::forget::forget(folder) {
        Ok(removed) => {
            let _ = writeln!(std::io::stdout(), "{}: removed {removed} files", folder.display());
        }
        Err(error) => return complain(FAILED, &error),
    }
    if stay {
        // It wakes up for no reason now and then.
        loop {
            std::thread::park();
        }
    }
    ExitCode::SUCCESS
}

fn run(file: &Path) -> ExitCode {
    daemon::tls::install_crypto_provider();
    let config = match daemon::config::load::<AgentConfig>(file, &ENVIRONMENT) {
        Ok(config) => config,
        Err(error) => return complain(MISUSED, &error),
    };
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(FAILED, &format!("{error:#}")),
    }
}

fn serve(config: AgentConfig) -> anyhow::Result<()> {
    // Two threads: an agent is a guest on its node.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let ended = runtime.block_on(app::run(config));
    // Nothing is awaited any more: files are synced, tasks have ended.
    runtime.shutdown_background();
    ended.map_err(anyhow::Error::from)
}

fn complain(code: u8, what: &impl std::fmt::Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "warm-agent: {what}");
    ExitCode::from(code)
}
