//! `bench fleet`: what a fleet costs, and how soon it knows. P5 and P6.
//!
//! Owns the order of the measurements. The controller, NATS and the API server are real; the agents are `warm-fleet`'s: the
//! agent's own code for NATS, a connection each, and no runtime ("whatever I know is warm").

mod meter;
mod phase;
mod stage;

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use super::{Measured, Run, Sample, print};
use crate::run::said;
use crate::xtask::say;
use phase::{Phases, Victim};
use stage::Stage;

/// How much to measure.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Agents, and Nodes.
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// Images wanted on every node.
    #[arg(long, default_value_t = 1_000)]
    intents: usize,
    /// Deployments that name these images; without this as many as name twenty each.
    #[arg(long)]
    workloads: Option<usize>,
    /// `ImageSet`s that name these images, in place of Deployments.
    #[arg(long, default_value_t = 0)]
    sets: usize,
    /// Single intents whose way to all agents is measured.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Seconds at rest over which processor time, messages and requests are counted.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// So many agents join later.
    #[arg(long, default_value_t = 0)]
    late: usize,
    /// So many workloads come and go each second, for half a minute.
    #[arg(long, default_value_t = 0)]
    churn: u32,
    /// SIGKILL this process and start it again; may be given twice.
    #[arg(long, value_enum)]
    kill: Vec<Victim>,
    /// The controller's `labels.perSecond`. The default of the product, 20, takes 500 s for 10,000 nodes.
    #[arg(long, default_value_t = 500)]
    labels_per_second: u32,
    /// The agents' `nats.requestTimeout`. They share this machine: at the product's default, thousands that wait for its
    /// processors ask again and double the work, which agents on nodes of their own would not.
    #[arg(long, default_value = "5s", value_parser = shared::duration::parse)]
    request_timeout: Duration,
    /// Agents are in the account of the controller.
    #[arg(long)]
    one_account: bool,
    /// Measure debug builds of the programs.
    #[arg(long)]
    debug: bool,
}

pub(super) async fn run(run: &Run, args: &Args) -> Result<()> {
    ensure!(args.agents > 0 && args.intents > 0, "there must be agents and intents");
    let mut figures = Map::new();
    figures.insert("agents".into(), json!(args.agents));
    figures.insert("intents".into(), json!(args.intents));
    let mut stage = Box::pin(Stage::set(run, args)).await?;
    let mut phases = Phases::new(&mut stage);
    let cold = Box::pin(phases.cold(args.agents)).await?;
    figures.insert("cold".into(), cold);
    figures.insert("labelled".into(), Box::pin(phases.labelled()).await?);
    if args.sets > 0 {
        figures.insert("sets".into(), Box::pin(phases.sets()).await?);
    }
    figures.insert("idle".into(), Box::pin(phases.idle(args.idle)).await?);
    let (mut whole, mut told) = (Sample::default(), Sample::default());
    for number in 0..args.rounds {
        let (from_create, from_store) = Box::pin(phases.round(number)).await?;
        whole.add(from_create);
        told.add(from_store);
    }
    if args.late > 0 {
        figures.insert("late".into(), Box::pin(phases.late(args.late)).await?);
    }
    if args.churn > 0 {
        figures.insert("churn".into(), Box::pin(phases.churn(args.churn)).await?);
    }
    for victim in &args.kill {
        figures.insert(format!("kill {victim:?}").to_lowercase(), Box::pin(phases.kill(*victim)).await?);
    }
    figures.insert("end".into(), Box::pin(phases.end()).await?);
    for (what, figure) in &figures {
        say(&format!("{what}: {figure}"));
    }
    print(
        "fleet",
        &[
            Measured {
                what: "P5 Deployment created -> last agent has its intent",
                sample: &whole,
                over: None,
                target: "<= 500",
            },
            Measured { what: "intent stored -> last agent has it", sample: &told, over: None, target: "" },
        ],
    )?;
    said(&Value::Object(figures).to_string());
    Ok(())
}
