//! `cargo xtask bench`: figures from real runs. Owns how they are summed up and printed; a benchmark is a file of its own.

mod fleet;
mod login;
mod memory;
mod pull;
mod reaction;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use serde_json::{Map, Value, json};
use shared::message::{Event, Message as _};
use shared::name::ImageKey;

use super::say;
use crate::run::RunDir;

/// What to measure.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// P1: Deployment created to the registry's first manifest request. P3: image present to label on the Node.
    Reaction(reaction::Args),
    /// P2: intent to warm, against the same pull straight through CRI, alternating in one run.
    Pull(pull::Args),
    /// A whole fleet of agents that logs in at once by the tokens of its Pods.
    Login(login::Args),
    /// P5, P6: thousands of agents without nodes against a real controller, NATS and API server.
    Fleet(fleet::Args),
    /// P5: what many Pods cost the controller, at the peak of its first lists and after.
    Memory(memory::Args),
}

pub(super) fn run(args: &Args) -> Result<()> {
    if cfg!(debug_assertions) {
        say("note: this is a debug build of the harness; the programs measured are release builds");
    }
    let run = RunDir::new("bench")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(async {
        match &args.bench {
            Bench::Reaction(args) => Box::pin(reaction::run(&run, args)).await,
            Bench::Pull(args) => Box::pin(pull::run(&run, args)).await,
            Bench::Login(args) => Box::pin(login::run(&run, args)).await,
            Bench::Fleet(args) => Box::pin(fleet::run(&run, args)).await,
            Bench::Memory(args) => Box::pin(memory::run(&run, args)).await,
        }
    });
    if done.is_err() {
        run.keep();
    }
    runtime.shutdown_background();
    done
}

/// A run folder shared by parts.
type Run = Arc<RunDir>;

/// The event `warm` of this image; events of others are passed over.
async fn next_warm(events: &mut async_nats::Subscriber, image: &ImageKey, limit: Duration) -> Result<Event> {
    loop {
        let message = tokio::time::timeout(limit, events.next()).await?.context("the subscription ended")?;
        let event = Event::decode(&message.payload)?;
        if event.id == *image {
            return Ok(event);
        }
    }
}

/// Times of one quantity.
#[derive(Default)]
struct Sample {
    milliseconds: Vec<f64>,
}

impl Sample {
    fn add(&mut self, took: Duration) {
        self.milliseconds.push(took.as_secs_f64() * 1e3);
    }

    /// The value that `share` (0-1) of all are not above.
    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.milliseconds.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index within a small vector")]
        let index = (share * last as f64).round() as usize;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }
}

/// One row of the table.
struct Measured<'a> {
    what: &'a str,
    sample: &'a Sample,
    /// Median of this over the median of that.
    over: Option<(&'a str, &'a Sample)>,
    target: &'a str,
}

fn print(bench: &str, rows: &[Measured<'_>]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let width = rows.iter().map(|r| r.what.chars().count()).max().unwrap_or_default();
    writeln!(
        out,
        "\n{:<width$}  {:>5} {:>9} {:>9} {:>9} {:>7}  target",
        "", "n", "min ms", "p50 ms", "p99 ms", "ratio"
    )?;
    for row in rows {
        let ratio = row.over.map(|(_, over)| row.sample.quantile(0.5) / over.quantile(0.5));
        let shown = ratio.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"));
        let (min, p50, p99) = (row.sample.quantile(0.0), row.sample.quantile(0.5), row.sample.quantile(0.99));
        let n = row.sample.milliseconds.len();
        writeln!(out, "{:<width$}  {n:>5} {min:>9.1} {p50:>9.1} {p99:>9.1} {shown:>7}  {}", row.what, row.target)?;
    }
    for row in rows {
        if let Some((name, _)) = row.over {
            writeln!(out, "ratio of `{}`: its p50 over that of `{name}`", row.what)?;
        }
    }
    let mut line = Map::new();
    line.insert("bench".into(), json!(bench));
    if let Some(first) = rows.first() {
        line.extend(figures(first));
    }
    let others: Map<String, Value> =
        rows.iter().skip(1).map(|row| (row.what.to_owned(), Value::Object(figures(row)))).collect();
    line.insert("others".into(), Value::Object(others));
    writeln!(out, "{}", Value::Object(line))?;
    Ok(())
}

fn figures(row: &Measured<'_>) -> Map<String, Value> {
    let round = |value: f64| (value * 100.0).round() / 100.0;
    let mut figures = Map::new();
    figures.insert("n".into(), json!(row.sample.milliseconds.len()));
    figures.insert("min_ms".into(), json!(round(row.sample.quantile(0.0))));
    figures.insert("p50_ms".into(), json!(round(row.sample.quantile(0.5))));
    figures.insert("p99_ms".into(), json!(round(row.sample.quantile(0.99))));
    let ratio = row.over.map(|(_, over)| round(row.sample.quantile(0.5) / over.quantile(0.5)));
    figures.insert("ratio".into(), json!(ratio));
    figures
}
