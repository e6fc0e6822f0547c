//! `cargo xtask up`: the main job on a local cluster of real parts, to be looked at. Owns the demonstration: what is
//! applied, the table, and the commands it prints.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use shared::image::Reference;

use super::say;
use crate::cluster::REGISTRY;
use crate::image::Image;
use crate::installation::{Installation, InstallationSpec, Row};
use crate::node::NodeSpec;
use crate::parts::Tool;
use crate::process::{Invocation, output};
use crate::run::RunDir;
use crate::xtask::root;

/// Between two looks at the controller's table.
const REFRESH: Duration = Duration::from_millis(200);
/// `--once` gives up after this long.
const LIMIT: Duration = Duration::from_mins(2);

/// How to show it.
#[derive(clap::Args)]
pub(super) struct Args {
    /// End when everything wanted is warm and labelled (exit code 0), or after two minutes (exit code 1).
    #[arg(long)]
    once: bool,
    /// Apply these manifests in place of the example. Images of registries on the network cannot be pulled here.
    #[arg(short = 'f', long = "file")]
    files: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let run = RunDir::new("up")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = demonstrate(&run, args) => done,
            _ = tokio::signal::ctrl_c() => { say("stopping"); Ok(()) }
        }
    });
    if done.is_err() {
        run.keep();
    }
    runtime.shutdown_background();
    done
}

async fn demonstrate(run: &std::sync::Arc<RunDir>, args: &Args) -> Result<()> {
    let start = Instant::now();
    say("starting etcd, API server, NATS, a registry, two containerds, the controller and two agents");
    let nodes = vec![NodeSpec::new("node-a"), NodeSpec::new("node-b").label("accelerator", "gpu")];
    // Users get a label window of 30 s; who looks on does not want to wait for it.
    let config = json!({ "timing": { "labelWindow": "1s" } });
    let spec = InstallationSpec::new(nodes).controller(config).with_default_timings().with_kubernetes_controllers();
    let installation = Installation::start(run, spec).await?;
    say(&format!("all ready after {:.1} s", start.elapsed().as_secs_f64()));
    push_images(&installation).await?;
    let example = [root().join("integration/example/shop.yaml")];
    let files = if args.files.is_empty() { &example[..] } else { &args.files };
    for file in files {
        apply(&installation, file).await?;
    }
    let mut table = Table::new();
    let done = table.until_settled(&installation, args.once).await;
    table.print_end()?;
    if args.once {
        return done;
    }
    done?;
    print_commands(&installation)?;
    table.follow(&installation).await
}

/// A few real small images, made on the spot.
async fn push_images(installation: &Installation) -> Result<()> {
    let images = [
        Image::new("shop/web", "1.0").layer(1_500_000).layer(600_000),
        Image::new("shop/migrate", "1.0").layer(400_000),
        Image::new("mesh/proxy", "2.3").layer(3_000_000),
        Image::new("shop/report", "2024.11").layer(900_000),
        Image::new("ml/model", "7b").layer(30_000_000).layer(12_000_000),
        Image::new("shop/scratch", "1").layer(10_000),
    ];
    for image in &images {
        installation.cluster.registry.push(image).await?;
    }
    say(&format!("pushed {} images to {REGISTRY} (http://{})", images.len(), installation.cluster.registry.address()));
    Ok(())
}

async fn apply(installation: &Installation, file: &std::path::Path) -> Result<()> {
    ensure!(file.is_file(), "{}: no such file", file.display());
    let file = file.canonicalize().with_context(|| file.display().to_string())?;
    let invocation = Invocation::new("kubectl", installation.cluster.parts().path(Tool::Kubectl)?)
        .arg("--kubeconfig")
        .arg(installation.cluster.api.admin_kubeconfig())
        .args(["apply", "-f"])
        .arg(&file);
    let text = output(installation.cluster.run(), &invocation, Duration::from_secs(30)).await?.success()?;
    say(&format!("kubectl apply -f {}\n{}", file.display(), text.trim_end()));
    Ok(())
}

/// The table on the terminal.
struct Table {
    start: Instant,
    /// Seconds after the start at which a pair was first seen warm.
    warm: BTreeMap<(String, String), f64>,
    shown: String,
    lines: usize,
    redraws: bool,
}

impl Table {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            warm: BTreeMap::new(),
            shown: String::new(),
            lines: 0,
            redraws: std::io::stdout().is_terminal(),
        }
    }

    /// Until every pair is warm and labelled. Without `once` an image that failed ends the wait too: it stays visible.
    async fn until_settled(&mut self, installation: &Installation, once: bool) -> Result<()> {
        loop {
            let rows = installation.table().await?;
            self.show(&rows)?;
            let has_settled = rows.iter().all(|r| !once && r.why.is_some() || r.state.as_deref() == Some("warm"));
            if !rows.is_empty() && has_settled && labelled(installation, &rows).await? {
                return Ok(());
            }
            if self.start.elapsed() > LIMIT {
                if once {
                    bail!("not everything is warm after {LIMIT:?}; the table above says what is missing");
                }
                return Ok(());
            }
            tokio::time::sleep(REFRESH).await;
        }
    }

    async fn follow(&mut self, installation: &Installation) -> Result<()> {
        // The commands stay on the screen: from here on a changed table is printed below them.
        self.redraws = false;
        loop {
            self.show(&installation.table().await?)?;
            tokio::time::sleep(REFRESH).await;
        }
    }

    fn show(&mut self, rows: &[Row]) -> Result<()> {
        let elapsed = self.start.elapsed().as_secs_f64();
        let width = rows.iter().map(|r| r.image.len()).max().unwrap_or(5).max(5);
        let mut text = format!("{:<width$}  {:<8}  {:<9}  {:>9}  {:>7}\n", "IMAGE", "NODE", "STATE", "BYTES", "TIME");
        for row in rows {
            let pair = (row.image.clone(), row.node.clone());
            let is_warm = row.state.as_deref() == Some("warm");
            let time = if is_warm {
                format!("{:.1} s", self.warm.entry(pair).or_insert(elapsed))
            } else {
                row.why.clone().unwrap_or_default()
            };
            let state = row.state.as_deref().unwrap_or("unknown");
            let bytes = row.bytes.map(size).unwrap_or_default();
            text.extend([format!("{:<width$}  {:<8}  {state:<9}  {bytes:>9}  {time:>7}\n", row.image, row.node)]);
        }
        if text == self.shown {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        if self.redraws && self.lines > 0 {
            // Up to the first line of the table and clear to the end of the screen.
            write!(out, "\x1b[{}A\x1b[J", self.lines)?;
        } else {
            writeln!(out)?;
        }
        self.lines = text.lines().count();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        self.shown = text;
        Ok(())
    }

    fn print_end(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{} pairs of image and node warm; counted from `kubectl apply`.", self.warm.len())?;
        Ok(())
    }
}

/// Whether each warm pair stands on its Node.
async fn labelled(installation: &Installation, rows: &[Row]) -> Result<bool> {
    for row in rows.iter().filter(|r| r.state.as_deref() == Some("warm")) {
        if installation.image_label(&row.node, &row.image).await?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {name}") }
}

fn print_commands(installation: &Installation) -> Result<()> {
    let parts = installation.cluster.parts();
    let label = shared::label::image_label(&Reference::parse(&format!("{REGISTRY}/shop/web:1.0"))?.key());
    let kubectl = parts.path(Tool::Kubectl)?;
    let nats = parts.path(Tool::Nats)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nLook further, in another terminal:\n")?;
    writeln!(out, "  export KUBECONFIG={}", installation.cluster.api.admin_kubeconfig().display())?;
    writeln!(out, "  export NATS_URL={} NATS_USER=reader NATS_PASSWORD=reader", installation.cluster.nats.url())?;
    writeln!(out, "  {} get nodes -L {label}", kubectl.display())?;
    writeln!(out, "  {} kv ls warm-default-intents", nats.display())?;
    writeln!(out, "  {} kv get warm-default-nodes node-a.inv --raw", nats.display())?;
    writeln!(out, "  {} sub 'warm.v1.default.node.*.ev.>'", nats.display())?;
    writeln!(out, "\n  controller  {}/state   /state/table   /metrics   /readyz", installation.controller.admin())?;
    for (node, agent) in &installation.agents {
        writeln!(out, "  {node}      {}/state   /metrics   /readyz", agent.admin())?;
    }
    writeln!(out, "\nTry: kubectl -n shop set image deployment/web web={REGISTRY}/shop/report:2024.11")?;
    writeln!(out, "Ctrl-C stops everything and leaves nothing behind.")?;
    Ok(())
}
