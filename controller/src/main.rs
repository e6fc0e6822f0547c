//! The command line of `warm-controller`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use controller::app;
use controller::config::{ControllerConfig, ENVIRONMENT};
use daemon::{config, telemetry, tls};

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
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime cannot be started")?;
    Ok(runtime.block_on(app::run(path, config, log))?)
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn check(file: &std::path::Path) -> anyhow::Result<()> {
    config::check::<ControllerConfig>(file, ENVIRONMENT)?;
    println!("{}: ok", file.display());
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a command that fails says why where people look, with or without logs")]
fn complain(error: &anyhow::Error) {
    eprintln!("warm-controller: {error:#}");
}
