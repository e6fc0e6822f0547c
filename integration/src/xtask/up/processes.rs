//! `cargo xtask up --processes`: the light form, where controller and agents are processes beside nodes without kubelets. Owns
//! the demonstration: what is applied, and the commands it prints.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use shared::image::Reference;

use super::Args;
use super::table::{Source, Table};
use crate::cluster::REGISTRY;
use crate::image::Image;
use crate::installation::{Installation, InstallationSpec, Row};
use crate::node::NodeSpec;
use crate::parts::Tool;
use crate::process::{Invocation, output};
use crate::run::RunDir;
use crate::xtask::{root, say};

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

impl Source for Installation {
    async fn rows(&self) -> Result<Vec<Row>> {
        self.table().await
    }

    async fn are_labelled(&self, rows: &[Row]) -> Result<bool> {
        for row in rows.iter().filter(|row| row.state.as_deref() == Some("warm")) {
            if self.image_label(&row.node, &row.image).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
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
