//! `cargo xtask up`: the main job on a local cluster of real parts, to be looked at. Owns which of two clusters that is.

mod cluster;
mod processes;
mod table;

use std::path::PathBuf;

use anyhow::Result;

/// How to show it.
#[derive(clap::Args)]
pub(super) struct Args {
    /// End when everything wanted is warm and labelled (exit code 0), or after two minutes (exit code 1).
    #[arg(long)]
    once: bool,
    /// Apply these manifests in place of the example. Images of registries on the network cannot be pulled here.
    #[arg(short = 'f', long = "file")]
    files: Vec<PathBuf>,
    /// The light form, for development: controller and agents as processes, nodes without kubelets, no root needed.
    #[arg(long)]
    processes: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    if args.processes { processes::run(args) } else { cluster::run(args) }
}
