//! Bad configuration and bad peers.
//!
//! Shows: an unknown key, a wrong type, an unreadable secret file are all reported at once with key, file and line; NATS
//! that cannot be reached, wrong credentials and a bucket of another cluster give a clear message, not ready, and no crash
//! loop where waiting is right.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::eventually::eventually;
use integration::http::Http;
use integration::installation::{Installation, InstallationSpec, Member, Programs};
use integration::node::NodeSpec;
use integration::process::{Invocation, output};
use integration::run::scenario;
use serde_json::json;

const LIMIT: Duration = Duration::from_mins(2);

#[test]
fn check_config_reports_every_problem_at_once_with_key_file_and_line() -> Result<()> {
    scenario("check-config", LIMIT, async |run| {
        let programs = Programs::built()?;
        let text = "clusterId: default\nnats:\n  urls: [\"nats://127.0.0.1:4222\"]\n  user: someone\n  passwordFile: /does/not/exist\n\
                    timing:\n  beat: soon\n  heartbeats: 3s\nlabells: {}\n";
        for (program, name) in [(&programs.controller, "controller.yaml"), (&programs.agent, "agent.yaml")] {
            let path = run.write(name, text.replace("beat:", if name == "agent.yaml" { "poll:" } else { "beat:" }))?;
            let checked = check(&run, program, &path).await?;
            let key = if name == "agent.yaml" { "timing.poll" } else { "timing.beat" };
            for expected in [name, key, "soon", "timing.heartbeats", "labells", "nats.passwordFile", "/does/not/exist"]
            {
                ensure!(checked.contains(expected), "`{expected}` is not said:\n{checked}");
            }
            ensure!(checked.contains(":7:"), "the line of {key} is not said:\n{checked}");
        }
        let good = run.write("good.yaml", "clusterId: default\n")?;
        let fine = output(
            &run,
            &Invocation::new("check", &programs.controller).arg("check-config").arg(&good),
            Duration::from_secs(20),
        )
        .await?;
        fine.success().map(drop)
    })
}

async fn check(run: &std::sync::Arc<integration::run::RunDir>, program: &Path, config: &Path) -> Result<String> {
    let invocation = Invocation::new("check", program).arg("check-config").arg(config).env("WARM_NODE_NAME", "node-a");
    let done = output(run, &invocation, Duration::from_secs(20)).await?;
    let text = format!("{}{}", done.stdout, done.stderr);
    ensure!(done.success().is_err(), "it says that all is well:\n{text}");
    Ok(text)
}

/// Not ready, with these words, in `/readyz` or in the log; and the process lives.
async fn waits_and_says(member: &mut Member, words: &[&str]) -> Result<()> {
    let url = format!("{}/readyz", member.admin());
    let http = Http::new();
    eventually(
        format!("{} is not ready and says {words:?}", member.process.name()),
        Duration::from_secs(20),
        async || {
            let answer = http.get(&url).await?;
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            ensure!(!answer.status.is_success(), "it says that it is ready");
            let said = format!("{body}\n{}", member.process.log_text());
            for word in words {
                ensure!(said.contains(word), "`{word}` is not said: {body}");
            }
            Ok(())
        },
    )
    .await?;
    member.process.check().context("waiting was right, ending is not")
}

#[test]
fn nats_that_cannot_be_reached_and_wrong_credentials_are_waited_out() -> Result<()> {
    scenario("nats-unreachable", LIMIT, async |run| {
        let spec = InstallationSpec::new(vec![NodeSpec::new("node-a")]);
        let mut installation = Installation::start_parts(&run, spec).await?;
        installation.until_ready().await?;
        installation.cluster.nats.kill()?;
        for member in [&mut installation.controller] {
            member.process.restart()?;
            waits_and_says(member, &["NATS", "127.0.0.1"]).await?;
        }
        installation.agent("node-a")?.process.restart()?;
        waits_and_says(installation.agent("node-a")?, &["NATS", "127.0.0.1"]).await?;
        installation.cluster.nats.start_again().await?;
        installation.until_ready().await?;

        let password = run.path().join("controller/nats-password");
        std::fs::write(&password, "wrong-and-secret")?;
        installation.controller.process.restart()?;
        waits_and_says(&mut installation.controller, &["controller", "uthorization"]).await?;
        ensure!(!installation.controller.process.log_text().contains("wrong-and-secret"), "the password is in the log");
        std::fs::remove_file(&password)?;
        let missing = password.display().to_string();
        waits_and_says(&mut installation.controller, &["nats.passwordFile", &missing]).await?;
        // The file is read again with each attempt, so mending it is enough.
        std::fs::write(&password, "controller")?;
        installation.until_controller_ready().await
    })
}

#[test]
fn a_bucket_of_another_cluster_is_never_written() -> Result<()> {
    scenario("foreign", LIMIT, async |run| {
        let mut installation = Installation::start(&run, InstallationSpec::new(vec![NodeSpec::new("node-a")])).await?;
        // `_meta` is written once the controller leads.
        installation.until_ready().await?;
        installation.controller.process.terminate(Duration::from_secs(20)).await?;
        let mut meta = installation.kv("intents", "_meta").await?;
        meta["cluster"] = json!("11111111-2222-3333-4444-555555555555");
        let foreign = serde_json::to_string(&meta)?;
        installation.cluster.nats.cli("admin", &["kv", "put", "warm-default-intents", "_meta", &foreign]).await?;
        installation.deploy("web", &["registry.test/team/web:1"]).await?;
        installation.controller.process.start_again()?;
        waits_and_says(&mut installation.controller, &["11111111-2222-3333-4444-555555555555", "clusterId"]).await?;
        let keys = installation.kv_keys("intents").await?;
        ensure!(keys.iter().all(|k| !k.contains(".i.")), "written all the same: {keys:?}");
        ensure!(installation.kv("intents", "_meta").await? == meta, "the foreign document was changed");
        Ok(())
    })
}
