//! The network between NATS and one side of it swallows, cuts, slows or passes bytes one way only, for longer than any
//! heartbeat, beat or poll interval.
//!
//! Shows: an agent that is partitioned becomes unknown and keeps every label; a controller that is partitioned says that it
//! is not ready, and no agent lets go of anything; changes made meanwhile arrive after the end of the fault; a slow
//! connection costs time alone. And NATS restarted under several agents: each reads once, and there is no second storm.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::Published;
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::proxy::tcp::{TcpProxy, Way};
use integration::run::{measured, scenario};
use integration::witness::Witness;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(280);
/// Longest that a fault takes to be noticed, on a busy machine.
const NOTICED: Duration = Duration::from_secs(40);
/// `beatLost` of the tests: agents go over to polling after it.
const BEAT_LOST: Duration = Duration::from_secs(3);
const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];

/// What is done to a connection.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Swallow,
    OneWay(Way),
    Cut,
    Slow(Duration),
}

impl Fault {
    /// Whether the client can know: one that hears the server, while nothing it says arrives, takes it for connected.
    fn is_noticed(self) -> bool {
        !matches!(self, Self::OneWay(Way::ToServer))
    }

    async fn begin(self, proxy: &TcpProxy) -> Result<()> {
        match self {
            Self::Swallow => proxy.stall(),
            Self::OneWay(way) => proxy.stall_way(way),
            Self::Cut => proxy.cut().await?,
            Self::Slow(by) => proxy.delay(by),
        }
        Ok(())
    }
}

async fn start(run: &std::sync::Arc<integration::run::RunDir>) -> Result<(Installation, Witness, Published)> {
    let installation = Installation::start(run, InstallationSpec::new(NODES.map(NodeSpec::new).to_vec())).await?;
    let witness = Witness::start(installation.cluster.client()).await?;
    let first = installation.deploy_new("first").await?;
    installation.until_warm(&NODES, &first).await?;
    Ok((installation, witness, first))
}

/// Fails if an agent has let go of something that was wanted when it was last told.
async fn nothing_is_released(installation: &Installation, count: usize) -> Result<()> {
    for node in NODES {
        let state = installation.agent_state(node).await?;
        let held = state["images"].as_object().into_iter().flatten();
        let warm = held.filter(|(_, image)| image["state"] == "warm" && image["retained"] == false).count();
        ensure!(warm >= count, "{node} holds {warm} of {count}: {}", state["images"]);
    }
    Ok(())
}

#[test]
fn a_partitioned_agent_becomes_unknown_keeps_its_labels_and_catches_up() -> Result<()> {
    scenario("partition-agent", LIMIT, async |run| {
        let (mut installation, witness, first) = Box::pin(start(&run)).await?;
        let mut images = vec![first];
        let gone = installation.deploy_new("gone").await?;
        installation.until_warm(&NODES, &gone).await?;
        let rounds = [(Fault::Swallow, Fault::OneWay(Way::ToServer)), (Fault::OneWay(Way::ToClient), Fault::Cut)];
        for (number, (of_a, of_b)) in rounds.into_iter().enumerate() {
            of_a.begin(&installation.agent("node-a")?.nats).await?;
            of_b.begin(&installation.agent("node-b")?.nats).await?;
            let begun = Instant::now();
            let during = installation.deploy_new(&format!("during-{number}")).await?;
            installation.until_warm(&["node-c"], &during).await?;
            if number == 0 {
                installation.undeploy("default", "gone").await?;
            }
            eventually("both are unknown and know that they are alone", NOTICED, async || {
                nothing_is_released(&installation, images.len()).await?;
                let nodes = installation.controller_state().await?["nodes"].clone();
                ensure!(nodes["unknown"]["count"] == 2 && nodes["ready"]["count"] == 1, "{nodes}");
                for (node, fault) in [("node-a", of_a), ("node-b", of_b)] {
                    let is_connected = installation.agent_state(node).await?["connected"] != false;
                    ensure!(!fault.is_noticed() || !is_connected, "{node} is connected");
                }
                ensure!(begun.elapsed() > BEAT_LOST * 2, "for {:?}", begun.elapsed());
                Ok(())
            })
            .await?;
            for node in ["node-a", "node-b"] {
                installation.until_unlabelled(node, &during.by_tag(REGISTRY)).await?;
                installation.agent(node)?.nats.heal().await?;
            }
            let healed = Instant::now();
            installation.until_warm(&NODES, &during).await?;
            installation.until_unlabelled("node-a", &gone.by_tag(REGISTRY)).await?;
            measured(&format!("right again after {of_a:?} and {of_b:?} of agents"), healed.elapsed());
            images.push(during);
        }
        // A slow connection: later, and nothing else.
        Fault::Slow(Duration::from_millis(400)).begin(&installation.agent("node-a")?.nats).await?;
        let slow = installation.deploy_new("slow").await?;
        installation.until_warm(&NODES, &slow).await?;
        images.push(slow);
        let images: Vec<&Published> = images.iter().collect();
        witness.none_lost(&NODES, &images).await?;
        witness.none_asked_for_again(&installation.cluster.requests, &images).await?;
        installation.labels_are_true().await?;
        installation.pulled_once(&NODES, &images)
    })
}

#[test]
fn a_partitioned_controller_takes_nothing_away_and_catches_up() -> Result<()> {
    scenario("partition-ctl", LIMIT, async |run| {
        let (mut installation, witness, first) = Box::pin(start(&run)).await?;
        let mut images = vec![first];
        let faults = [Fault::Swallow, Fault::OneWay(Way::ToServer), Fault::OneWay(Way::ToClient), Fault::Cut];
        for (number, fault) in faults.into_iter().enumerate() {
            let gone = installation.deploy_new(&format!("gone-{number}")).await?;
            installation.until_warm(&NODES, &gone).await?;
            fault.begin(&installation.controller.nats).await?;
            let begun = Instant::now();
            let during = installation.deploy_new(&format!("during-{number}")).await?;
            installation.undeploy("default", &format!("gone-{number}")).await?;
            eventually("the controller knows that it is alone", NOTICED, async || {
                nothing_is_released(&installation, images.len() + 1).await?;
                let state = installation.controller_state().await?;
                let is_told = state["connected"] == false && state["ready"] != true;
                ensure!(!fault.is_noticed() || is_told, "{}", state["ready"]);
                ensure!(begun.elapsed() > BEAT_LOST * 2, "for {:?}", begun.elapsed());
                Ok(())
            })
            .await?;
            // What a controller says that hears nothing arrives until it has noticed.
            let arrives = matches!(fault, Fault::OneWay(Way::ToClient));
            let reads = installation.reads("node-a", &during.repository);
            ensure!(arrives || reads == 0, "it was told of what it could not hear of");
            installation.controller.nats.heal().await?;
            let healed = Instant::now();
            installation.until_warm(&NODES, &during).await?;
            for node in NODES {
                installation.until_unlabelled(node, &gone.by_tag(REGISTRY)).await?;
            }
            measured(&format!("right again after {fault:?} of the controller"), healed.elapsed());
            images.push(during);
        }
        Fault::Slow(Duration::from_millis(400)).begin(&installation.controller.nats).await?;
        let slow = installation.deploy_new("slow").await?;
        installation.until_warm(&NODES, &slow).await?;
        images.push(slow);
        installation.controller.nats.heal().await?;
        installation.until_ready().await?;
        let images: Vec<&Published> = images.iter().collect();
        witness.none_lost(&NODES, &images).await?;
        witness.none_asked_for_again(&installation.cluster.requests, &images).await?;
        installation.labels_are_true().await?;
        installation.pulled_once(&NODES, &images)
    })
}

#[test]
fn agents_that_come_back_together_read_once_each() -> Result<()> {
    scenario("reconnect-storm", LIMIT, async |run| {
        let (mut installation, witness, first) = Box::pin(start(&run)).await?;
        installation.cluster.nats.kill()?;
        for node in NODES {
            eventually(format!("{node} has lost NATS"), NOTICED, async || {
                Ok::<_, anyhow::Error>(installation.agent_state(node).await?["connected"] == false)
            })
            .await?;
        }
        let mut before = Vec::new();
        for node in NODES {
            before.push(reads(&installation, node).await?);
        }
        installation.cluster.nats.start_again().await?;
        installation.until_ready().await?;
        let after = installation.deploy_new("after").await?;
        installation.until_warm(&NODES, &after).await?;
        for (node, before) in NODES.into_iter().zip(before) {
            let admin = installation.agent(node)?.admin();
            let beats = async || installation.metric(&admin, "warm_facts_total", "kind=\"beat\"").await;
            let heard = beats().await?;
            eventually(format!("{node} has heard five more beats"), NOTICED, async || {
                let now = beats().await?;
                ensure!(now >= heard + 5.0, "{now} after {heard}");
                Ok(())
            })
            .await?;
            let times = reads(&installation, node).await? - before;
            // One for the connection; one more if a beat overtook it, or beats were away for too long meanwhile.
            ensure!((1.0..=3.0).contains(&times), "{node} read {times} times");
        }
        witness.none_lost(&NODES, &[&first, &after]).await?;
        installation.pulled_once(&NODES, &[&first, &after])
    })
}

/// How many times the agent has read a pool.
async fn reads(installation: &Installation, node: &str) -> Result<f64> {
    let admin = installation.agents.get(node).map(integration::installation::Member::admin).unwrap_or_default();
    installation.metric(&admin, "warm_reads_total", "").await
}
