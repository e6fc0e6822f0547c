//! `warm-controller doctor`, which `helm test` runs, against a running installation and the same in pieces.
//!
//! Shows: a healthy installation is found well and the command succeeds; it waits for what is about to be well; a silent
//! agent is named and is no failure; each of an absent controller, bucket and server is found, named, and fails the command.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration::installation::{Installation, InstallationSpec};
use integration::process::{Invocation, Output, output};
use integration::run::{RunDir, scenario};

const LIMIT: Duration = Duration::from_mins(3);
/// Long enough to connect on a busy machine.
const BRIEFLY: &str = "8s";
const STOP: Duration = Duration::from_secs(30);

async fn doctor(run: &Arc<RunDir>, installation: &Installation, limit: &str) -> Result<Output> {
    let invocation = Invocation::new("doctor", &installation.programs().controller)
        .args(["doctor", "--limit", limit, "--config"])
        .arg(&installation.controller.config);
    output(run, &invocation, LIMIT).await
}

/// Fails unless it ends as said and says each of these lines.
fn finds(found: &Output, works: bool, lines: &[&str]) -> Result<()> {
    ensure!(found.status.success() == works, "{}: {}\n{}{}", found.command, found.status, found.stdout, found.stderr);
    for line in lines {
        ensure!(found.stdout.lines().any(|there| there.starts_with(line)), "`{line}` is not in:\n{}", found.stdout);
    }
    Ok(())
}

#[test]
fn it_tells_a_healthy_installation_from_one_in_pieces() -> Result<()> {
    scenario("doctor", LIMIT, async |run| {
        // Not awaited: it waits itself.
        let mut installation = Installation::start_parts(&run, InstallationSpec::two_nodes()).await?;
        let well = doctor(&run, &installation, "60s").await?;
        let all = [
            "ok    NATS: answers",
            "ok    bucket: warm-default-intents",
            "ok    bucket: warm-default-assign",
            "ok    bucket: warm-default-nodes",
            "ok    controller: warm-images-controller-",
            "ok    agents: heard on all 2 nodes",
        ];
        finds(&well, true, &all)?;
        ensure!(well.stdout.lines().count() == all.len(), "{}", well.stdout);
        ensure!(well.stdout.contains("leads"), "{}", well.stdout);

        installation.agent("node-b")?.process.terminate(STOP).await?;
        // Well until three heartbeats are missed.
        let silent = "look  agents: heard on 1 of 2 nodes; not on node-b";
        let mut found = doctor(&run, &installation, BRIEFLY).await?;
        for _ in 0..60 {
            if found.stdout.contains(silent) {
                break;
            }
            found = doctor(&run, &installation, BRIEFLY).await?;
        }
        finds(&found, true, &[silent])?;

        installation.controller.process.terminate(STOP).await?;
        let found = doctor(&run, &installation, BRIEFLY).await?;
        finds(&found, false, &["ok    NATS", "FAIL  controller: no controller answers on warm.v1.default.ctl.status"])?;
        ensure!(found.stderr.contains("the installation does not work"), "{}", found.stderr);

        installation.cluster.nats.cli("admin", &["kv", "del", "warm-default-assign", "-f"]).await?;
        let found = doctor(&run, &installation, BRIEFLY).await?;
        finds(&found, false, &["ok    bucket: warm-default-intents", "FAIL  bucket: "])?;
        ensure!(found.stdout.contains("warm-default-assign"), "{}", found.stdout);

        installation.cluster.nats.kill()?;
        let found = doctor(&run, &installation, BRIEFLY).await?;
        finds(&found, false, &["FAIL  NATS: "])?;
        ensure!(found.stdout.lines().count() == 1, "{}", found.stdout);
        Ok(())
    })
}
