//! `bench login`: a whole fleet of agents logs in at once by the tokens of its Pods.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Measured, Run, Sample, print};
use crate::installation::{Installation, InstallationSpec, login_storm};
use crate::run::said;

const LOGINS: &str = "warm_logins_total";

/// How much to measure.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Agents that log in at once.
    #[arg(long, default_value_t = 5_000)]
    agents: usize,
    /// Controllers.
    #[arg(long, default_value_t = 2)]
    controllers: usize,
    /// Measure debug builds of the programs.
    #[arg(long)]
    debug: bool,
}

pub(super) async fn run(run: &Run, args: &Args) -> Result<()> {
    let spec = InstallationSpec::new(Vec::new()).controllers(args.controllers).with_callout().with_default_timings();
    let spec = if args.debug { spec } else { spec.with_release_programs() };
    let mut installation = Installation::start(run, spec).await?;
    let start = Instant::now();
    let fleet = login_storm::fleet(&installation, args.agents).await?;
    said(&format!("{} Pods with tokens after {:.1} s", fleet.len(), start.elapsed().as_secs_f64()));
    let storm = login_storm::storm(&installation, fleet).await?;
    let mut sample = Sample::default();
    storm.each.iter().for_each(|took| sample.add(*took));
    let granted = installation.over_controllers(LOGINS, "outcome=\"granted\"").await;
    let other = installation.over_controllers(LOGINS, "").await - granted;
    let bytes = installation.cluster.nats.process().resident_bytes()?;
    let mut each = Vec::new();
    for member in std::iter::once(&installation.controller).chain(&installation.others) {
        let count = installation.metric(&member.admin(), LOGINS, "outcome=\"granted\"").await?;
        each.push(json!({ "granted": count, "residentBytes": member.process.resident_bytes()? }));
    }
    let rows = [Measured { what: "login until let in", sample: &sample, over: None, target: "all of them" }];
    print("login", &rows)?;
    let sum = json!({
        "agents": args.agents, "seconds": storm.took.as_secs_f64(), "attempts": storm.attempts, "granted": granted, "notGranted": other,
        "natsResidentBytes": bytes, "controllers": each,
    });
    said(&sum.to_string());
    ensure!(granted >= args.agents as f64, "fewer were let in than there are: {sum}");
    Ok(())
}
