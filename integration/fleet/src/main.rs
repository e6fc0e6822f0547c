//! `warm-fleet`: a fleet that is told what to do over a socket. Owns the command line.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use daemon::supervise::Tasks;
use fleet::{Config, Fleet, control};

/// Agents without nodes, for measuring.
#[derive(Parser)]
#[command(name = "warm-fleet", version)]
struct Cli {
    /// Their configuration, in JSON.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where to listen for commands.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    daemon::tls::install_crypto_provider();
    let text = std::fs::read(&cli.config).with_context(|| format!("reading {}", cli.config.display()))?;
    let config: Config = serde_json::from_slice(&text).with_context(|| cli.config.display().to_string())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let (tasks, _) = Tasks::new();
        let fleet = Fleet::new(config, tasks.clone());
        tokio::select! {
            served = control::serve(fleet, &cli.socket) => served,
            stopped = tasks.run_until_signal(std::time::Duration::ZERO) => stopped.map_err(anyhow::Error::from),
        }
    });
    runtime.shutdown_background();
    ended
}
