//! `cargo xtask test`: every check of the project, stage by stage, with the time of each. Owns the order and the list of
//! stages; a stage is a command that anybody can also type.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::say;
use super::tool::Tool;
use crate::parts::{self, Parts};
use crate::system_program;

const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2", takes: "some 3 minutes" };

/// Which checks to run.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Only these stages, by name; all of them when none is named.
    #[arg(value_enum)]
    stages: Vec<Stage>,
}

/// A check. The order is that of `ALL`: what is quick to fail comes first.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Stage {
    /// Formatting.
    Fmt,
    /// The real parts are built.
    Parts,
    /// Lints, warnings denied.
    Clippy,
    /// Documentation builds, warnings denied.
    Doc,
    /// Licences, bans, sources of dependencies.
    Deny,
    /// Tables, properties, layering: no real part.
    Unit,
    /// Both machines in a simulated universe: ten thousand schedules with faults.
    Simulation,
    /// Adapters against their real peers.
    Contract,
    /// Processes and real parts end to end.
    System,
}

impl Stage {
    const ALL: [Self; 9] = [
        Self::Fmt,
        Self::Parts,
        Self::Clippy,
        Self::Doc,
        Self::Deny,
        Self::Unit,
        Self::Simulation,
        Self::Contract,
        Self::System,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Parts => "parts",
            Self::Clippy => "clippy",
            Self::Doc => "doc",
            Self::Deny => "deny",
            Self::Unit => "unit",
            Self::Simulation => "simulation",
            Self::Contract => "contract",
            Self::System => "system",
        }
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Fmt => cargo(&["fmt", "--all", "--check"], &[]),
            Self::Parts => real_parts(),
            Self::Clippy => cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"], &[]),
            Self::Doc => cargo(
                &["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"],
                &[("RUSTDOCFLAGS", "-D warnings")],
            ),
            Self::Deny => deny(),
            Self::Unit => unit(),
            Self::Simulation => {
                // Its tests take their seeds on two threads themselves.
                let test = ["test", "--locked", "-p", "integration", "--test", SIMULATION];
                cargo(&[&test[..], &["--", "--test-threads", "1"]].concat(), &[])
            }
            Self::Contract => integration("contract_", "2"),
            Self::System => {
                system_program::ensure(&system_program::FOR_PODS)?;
                // Each test has a control plane, a NATS server and two runtimes of its own: two at a time fill two cores.
                integration("system_", "2")
            }
        }
    }
}

/// The test that is a stage of its own.
const SIMULATION: &str = "simulation";

pub(super) fn run(args: &Args) -> Result<()> {
    let stages: Vec<Stage> =
        Stage::ALL.into_iter().filter(|s| args.stages.is_empty() || args.stages.contains(s)).collect();
    let mut times = Vec::new();
    for stage in stages {
        say(&format!("==> {}", stage.name()));
        let start = Instant::now();
        let done = stage.run();
        times.push((stage.name(), start.elapsed(), done.is_ok()));
        if let Err(error) = done {
            print_times(&times)?;
            return Err(error.context(format!("stage `{}` failed; alone: cargo xtask test {0}", stage.name())));
        }
    }
    print_times(&times)
}

fn print_times(times: &[(&str, Duration, bool)]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{:<10} {:>8}  result", "stage", "seconds")?;
    for (name, took, passed) in times {
        writeln!(out, "{name:<10} {:>8.1}  {}", took.as_secs_f64(), if *passed { "passed" } else { "FAILED" })?;
    }
    let total: Duration = times.iter().map(|(_, took, _)| *took).sum();
    writeln!(out, "{:<10} {:>8.1}", "all", total.as_secs_f64())?;
    let passed = times.iter().filter(|(.., passed)| *passed).count();
    writeln!(out, "{passed} passed, {} failed", times.len().saturating_sub(passed))?;
    Ok(())
}

/// The top of the work tree.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Runs cargo in the work tree with the terminal as its own.
pub(crate) fn cargo(args: &[&str], envs: &[(&str, &str)]) -> Result<()> {
    let mut command = cargo_command(args);
    let status = command.envs(envs.iter().copied()).status();
    let status = status.with_context(|| format!("starting cargo {}", args.join(" ")))?;
    if !status.success() {
        bail!("cargo {} ended with {status}", args.join(" "));
    }
    Ok(())
}

/// cargo in the work tree.
pub(crate) fn cargo_command(args: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    // What cargo says of the package whose test or command this is: build scripts look at it, so that, were it handed on,
    // ring and everything above it would be built anew in each system test and again after it.
    let is_of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_of_package)) {
        command.env_remove(name);
    }
    command.args(args).current_dir(root());
    command
}

/// All of them, so that what cannot be had is said before anything takes long.
fn real_parts() -> Result<()> {
    system_program::ensure(&[&system_program::FOR_PODS[..], &system_program::FOR_METRICS].concat())?;
    parts::helm3()?;
    Parts::ensure(parts::Tool::ALL).map(drop)
}

fn unit() -> Result<()> {
    cargo(&["test", "--locked", "--workspace", "--exclude", "integration"], &[])?;
    let names = tests()?;
    let is_other = |n: &&String| n.starts_with("contract_") || n.starts_with("system_") || *n == SIMULATION;
    let rest: Vec<&str> = names.iter().filter(|n| !is_other(n)).map(String::as_str).collect();
    let mut args = vec!["test", "--locked", "-p", "integration", "--lib", "--bins"];
    for name in &rest {
        args.extend(["--test", name]);
    }
    cargo(&args, &[])
}

/// Runs the integration tests whose file begins with `prefix`; none is an error, so that a rename cannot hide them.
fn integration(prefix: &str, threads: &str) -> Result<()> {
    let names = tests()?;
    let chosen: Vec<&str> = names.iter().filter(|n| n.starts_with(prefix)).map(String::as_str).collect();
    if chosen.is_empty() {
        bail!("there is no integration/tests/{prefix}*.rs");
    }
    // The harness runs the programs that cargo has built last, so that a test never meets an older one.
    cargo(&["build", "--locked", "-p", "controller", "-p", "agent", "-p", "integration", "--bins"], &[])?;
    // All of them, so that one run tells everything that is wrong.
    let mut args = vec!["test", "--locked", "-p", "integration", "--no-fail-fast"];
    for name in &chosen {
        args.extend(["--test", name]);
    }
    args.extend(["--", "--test-threads", threads]);
    cargo(&args, &[])
}

fn tests() -> Result<Vec<String>> {
    let folder = root().join("integration/tests");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

fn deny() -> Result<()> {
    let program = CARGO_DENY.ensure()?;
    // It looks at crates for other platforms too, which no build here has downloaded.
    cargo(&["fetch", "--locked"], &[])?;
    let status = Command::new(&program)
        .args(["--offline", "--log-level", "error", "check", "licenses", "bans", "sources"])
        .current_dir(root())
        .status()
        .with_context(|| format!("starting {}", program.display()))?;
    if !status.success() {
        bail!("cargo deny ended with {status}; what is allowed and why stands in deny.toml");
    }
    Ok(())
}
