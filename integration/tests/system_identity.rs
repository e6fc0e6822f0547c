//! A whole installation whose agents log in by the token of their Pod.
//!
//! Shows: a Deployment's images become warm from end to end; sessions that end because their time is over are taken up again
//! with the token that the kubelet has put there in the meantime, and nothing is pulled again; with one controller killed
//! the other lets agents in; an agent whose Pod is gone is let in no more; the server refuses nothing that agents need.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::eventually::eventually;
use integration::installation::identity::{AGENT_ACCOUNT, AUDIENCE, AgentPods, pod_of};
use integration::installation::{Installation, InstallationSpec};
use integration::run::scenario;
use integration::witness::Witness;
use serde_json::json;

const LIMIT: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_mins(1);
const NODES: [&str; 2] = ["node-a", "node-b"];
const LOGINS: &str = "warm_logins_total";
const GRANTED: &str = "outcome=\"granted\"";

#[test]
fn images_become_warm_and_sessions_are_taken_up_again_with_new_tokens() -> Result<()> {
    scenario("tokens", LIMIT, async |run| {
        let spec =
            InstallationSpec::two_nodes().with_callout().controller(json!({ "identity": { "sessionTtl": "6s" } }));
        let installation = Installation::start(&run, spec).await?;
        let witness = Witness::start(installation.cluster.client()).await?;
        let first = installation.deploy_new("first").await?;
        installation.until_warm(&NODES, &first).await?;

        // As a kubelet does it, long before the old one ends: the next login is with what is there then.
        let pods = AgentPods::new(installation.cluster.client());
        let (pod, node) = (pod_of("node-a"), "node-a");
        pods.delete(&pod).await?;
        let uid = pods.create(&pod, AGENT_ACCOUNT, node).await?;
        run.write(&format!("{node}/token"), pods.token(&pod, &uid, AGENT_ACCOUNT, AUDIENCE).await?)?;
        let before = installation.over_controllers(LOGINS, GRANTED).await;
        eventually("both agents have come back twice", SOON, async || {
            let now = installation.over_controllers(LOGINS, GRANTED).await;
            ensure!(now >= before + 4.0, "{now} logins after {before}");
            Ok(())
        })
        .await?;
        for agent in installation.agents.values() {
            ensure!(agent.process.log_text().contains("User Authentication Expired"), "no session has ended");
        }
        let second = installation.deploy_new("second").await?;
        installation.until_warm(&NODES, &second).await?;
        witness.none_lost(&NODES, &[&first, &second]).await?;
        installation.pulled_once(&NODES, &[&first, &second])?;

        pods.delete(&pod).await?;
        eventually("the agent whose Pod is gone is let in no more", SOON, async || {
            let now = installation.over_controllers(LOGINS, "reason=\"pod-gone\"").await;
            ensure!(now > 0.0, "{now} refusals");
            Ok(())
        })
        .await?;
        let log = std::fs::read_to_string(run.log("nats-server"))?;
        ensure!(!log.contains("Violation"), "NATS refused something:\n{log}");
        Ok(())
    })
}

#[test]
fn with_one_controller_killed_the_other_lets_agents_in() -> Result<()> {
    scenario("replicas", LIMIT, async |run| {
        let spec = InstallationSpec::two_nodes().controllers(2).with_callout();
        let mut installation = Installation::start(&run, spec).await?;
        // Both answer, whoever leads: the server asks one of them at random.
        for member in 0..2 {
            eventually(format!("controller {member} has let an agent in"), SOON, async || {
                installation.agent("node-a")?.process.restart()?;
                installation.until_agent_ready("node-a").await?;
                let of = if member == 0 { &installation.controller } else { &installation.others[0] };
                let granted = installation.metric(&of.admin(), LOGINS, GRANTED).await?;
                ensure!(granted > 0.0, "{granted}");
                Ok(())
            })
            .await?;
        }
        // Of the two the one that leads goes, and then it is the other's turn.
        installation.controller.process.kill()?;
        for node in NODES {
            installation.restart_agent(node, true)?;
            installation.until_agent_ready(node).await?;
        }
        let image = installation.deploy_new("after").await?;
        installation.until_warm(&NODES, &image).await?;
        installation.controller.process.start_again()?;
        installation.until_controller_ready().await?;
        installation.others[0].process.kill()?;
        for node in NODES {
            installation.restart_agent(node, true)?;
            installation.until_agent_ready(node).await?;
        }
        Ok(())
    })
}
