//! The commands of `cargo xtask`: owns their names and how a failure is shown; each command is a file of its own.

mod bench;
mod fuzz;
mod generate;
mod images;
mod parts;
mod replay;
mod simulate;
mod test;
mod tool;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::launch;

pub(crate) use test::{cargo, cargo_command, root};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, runs and checks the project", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the pinned real parts (API server, NATS, container runtime, registry …) once, into a cache.
    Parts(parts::Args),
    /// Make the product's container images, static and from scratch, and hold them against their limits.
    Images(images::Args),
    /// Show the main job on a local cluster of real parts.
    Up(up::Args),
    /// Write the generated files.
    Generate,
    /// Run every check.
    Test(test::Args),
    /// Play a recording of a controller or an agent again, step by step.
    Replay(replay::Args),
    /// Run fuzz targets for a time (docs/fuzzing.md).
    Fuzz(fuzz::Args),
    /// Run both machines in a simulated universe, or replay one run.
    Simulate(simulate::Args),
    /// Measure on real parts; prints a table and one line of JSON.
    Bench(bench::Args),
}

/// Runs what the command line asks for; the exit code is 1 after an error, which is printed with its causes.
pub fn main() -> ExitCode {
    // The harness starts each part through this same program, because only the child itself can ask the kernel to be
    // killed together with its parent without unsafe code in the parent.
    if let Some(failure) = launch::take_over() {
        return failure;
    }
    let done = match Cli::parse().command {
        Command::Parts(args) => parts::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Up(args) => up::run(&args),
        Command::Generate => generate::run(),
        Command::Test(args) => test::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// One line to the person at the terminal.
pub(crate) fn say(line: &str) {
    use std::io::Write as _;
    // A closed terminal is no reason to stop a build.
    let _ = writeln!(std::io::stderr(), "{line}");
}
