//! `cargo xtask replay FILE`: what a recorded machine decided, step by step, and whether this build decides the same.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::replay::{Telling, replay};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The recording (`record.path` of the process).
    file: PathBuf,
    /// Begin to tell at this step; those before are played all the same.
    #[arg(long, value_name = "STEP", default_value_t = 1)]
    from: usize,
    /// Stop after this step.
    #[arg(long, value_name = "STEP")]
    until: Option<usize>,
    /// Facts and effects in full.
    #[arg(long)]
    verbose: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let path = args.file.display();
    let file = File::open(&args.file).with_context(|| format!("opening {path}"))?;
    let telling = Telling { from: args.from, until: args.until.unwrap_or(usize::MAX), is_verbose: args.verbose };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let replayed = replay(BufReader::new(file), &telling, &mut out).with_context(|| format!("{path}"))?;
    out.flush()?;
    match replayed.differs {
        Some(step) => bail!("{path}: step {step} differs from what was recorded"),
        None => Ok(()),
    }
}
