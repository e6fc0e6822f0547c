//! `cargo xtask parts`: builds what is missing in the cache and prints the folder; decides nothing itself.

use std::io::Write as _;

use anyhow::Result;

use crate::parts::{Parts, Tool};

/// Which parts to build.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Names of parts, for example `nats-server`; all of them when none is named.
    #[arg(value_parser = Tool::from_name)]
    tools: Vec<Tool>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let tools = if args.tools.is_empty() { Tool::ALL } else { &args.tools };
    let parts = Parts::ensure(tools)?;
    writeln!(std::io::stdout(), "{}", parts.bin().display())?;
    Ok(())
}
