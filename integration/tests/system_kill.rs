//! Controller and agents are killed with SIGKILL at twenty moments of a script.
//!
//! Shows: deployments are created, changed and deleted, a node joins, images fail and heal, while at moments chosen from a
//! seed (after so many bucket writes, events or registry requests and a few milliseconds) the controller or an agent is
//! killed and started again, some agents without their state. At the end buckets and labels equal those of a run that
//! nobody disturbed; no label was ever shown that was not true, and what a node held it never asked of the registry again.
//! `WARM_KILL_SEED=<number>` chooses another seed; the seed and every moment are printed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::{Image, Published};
use integration::installation::{Content, Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::progress::{Progress, Sign};
use integration::proxy::fault::{Fault, Rule};
use integration::run::{measured, said, scenario, seed};
use integration::witness::Witness;
use serde_json::{Value, json};
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(280);
/// Longest wait for a sign of progress: after that everything is at rest, which is a moment, too.
const REST: Duration = Duration::from_secs(3);
/// Longer than the end state takes on a busy machine; what it took is printed.
const SETTLED: Duration = Duration::from_mins(1);
/// Changes of the script; after each comes one kill.
const STEPS: usize = 20;
const SEED: u64 = 20_261_121;
const LATE: &str = "node-c";

/// Whoever can be killed.
#[derive(Debug)]
enum Victim {
    Controller,
    Agent { node: String, with_state: bool },
}

/// When and whom.
#[derive(Debug)]
struct Moment {
    sign: Sign,
    more: usize,
    then: Duration,
    victim: Victim,
}

impl Moment {
    fn choose(rng: &mut fastrand::Rng, nodes: &[String]) -> Self {
        let victim = match rng.choice(nodes) {
            Some(node) if rng.u8(0..5) < 3 => Victim::Agent { node: node.clone(), with_state: rng.u8(0..3) > 0 },
            _ => Victim::Controller,
        };
        Self {
            sign: rng.choice(Sign::ALL).unwrap_or(Sign::Write),
            more: rng.usize(1..4),
            then: Duration::from_millis(rng.u64(0..15)),
            victim,
        }
    }
}

/// One run of the script.
struct Play {
    installation: Installation,
    images: Vec<Published>,
}

impl Play {
    async fn new(run: &std::sync::Arc<integration::run::RunDir>) -> Result<Self> {
        let spec = InstallationSpec::new(vec![NodeSpec::new("node-a"), NodeSpec::new("node-b").label("pool", "x")]);
        Ok(Self { installation: Installation::start(run, spec.late(LATE)).await?, images: Vec::new() })
    }

    /// Pushes `team/<name>:<tag>`.
    async fn push(&mut self, name: &str, tag: &str) -> Result<String> {
        let image = Image::new(format!("team/{name}"), tag).layer(3_000).layer(40_000);
        let image = self.installation.cluster.registry.push(&image).await?;
        let reference = image.by_tag(REGISTRY);
        self.images.push(image);
        Ok(reference)
    }

    async fn deploy(&mut self, name: &str, pod: Value) -> Result<()> {
        let image = self.push(name, "1").await?;
        self.installation.deploy_with("default", name, &[&image], pod).await
    }

    /// The next image of a Deployment.
    async fn update(&mut self, name: &str) -> Result<()> {
        let image = self.push(name, "2").await?;
        let containers = json!([{ "name": "c0", "image": image }]);
        let change = json!({ "spec": { "template": { "spec": { "containers": containers } } } });
        self.installation.change("default", name, change).await
    }

    fn rule(&self, path: &str, fault: &Fault, times: Option<u32>) -> Result<()> {
        for node in &self.installation.cluster.nodes {
            let rule = Rule::new(path, fault.clone())?;
            node.registry.add(times.iter().fold(rule, |rule, times| rule.times(*times)));
        }
        Ok(())
    }

    /// One change, by its number.
    async fn step(&mut self, number: usize) -> Result<()> {
        let only_x = json!({ "nodeSelector": { "pool": "x" } });
        match number {
            0 => self.deploy("a", json!({})).await,
            1 => self.deploy("b", json!({})).await,
            2 => self.installation.deploy("missing", &[&format!("{REGISTRY}/team/missing:1")]).await,
            3 => self.deploy("c", only_x).await,
            4 => self.update("a").await,
            5 => {
                self.rule("^/v2/team/slow/blobs/", &Fault::StallAfter(5_000), None)?;
                self.deploy("slow", json!({})).await
            }
            6 => {
                self.installation.cluster.add_node(&NodeSpec::new(LATE)).await?;
                self.rule("^/v2/team/slow/blobs/", &Fault::StallAfter(5_000), None)?;
                self.installation.start_agent(LATE).await
            }
            7 => self.installation.undeploy("default", "b").await,
            8 => {
                self.rule("^/v2/team/erring/", &Fault::status(500), Some(2))?;
                self.deploy("erring", json!({})).await
            }
            9 => self.installation.change("default", "c", json!({ "spec": { "replicas": 0 } })).await,
            10 => self.deploy("d", only_x).await,
            11 => {
                self.installation.cluster.nodes.iter().for_each(|node| node.registry.heal());
                self.deploy("e", json!({})).await
            }
            12 => {
                self.installation.cluster.node_objects().set_label("node-a", "pool", Some("x")).await?;
                Ok(())
            }
            13 => self.update("erring").await,
            14 => self.push("missing", "1").await.map(drop),
            15 => self.installation.undeploy("default", "a").await,
            16 => self.deploy("f", json!({})).await,
            17 => {
                let change = json!({ "spec": { "template": { "spec": { "nodeSelector": null } } } });
                self.installation.change("default", "d", change).await
            }
            18 => {
                self.installation.cluster.node_objects().set_label("node-b", "pool", None).await?;
                Ok(())
            }
            _ => self.deploy("g", json!({})).await,
        }
        .with_context(|| format!("step {number}"))
    }

    fn strike(&mut self, victim: &Victim) -> Result<()> {
        match victim {
            Victim::Controller => self.installation.controller.process.restart(),
            Victim::Agent { node, with_state } => self.installation.restart_agent(node, *with_state),
        }
    }

    /// Whether nothing more is to come: every node reports everything warm.
    async fn end(&self) -> Result<Content> {
        let content = self.installation.content().await?;
        for node in &self.installation.cluster.nodes {
            let inventory = content.inventories.get(&format!("{}.inv", node.name)).context("no inventory")?;
            ensure!(inventory.get("except") == Some(&json!({})), "{} says {inventory}", node.name);
        }
        Ok(content)
    }
}

/// The end of a run that nobody disturbs.
async fn undisturbed(run: &std::sync::Arc<integration::run::RunDir>) -> Result<Content> {
    let mut play = Play::new(run).await?;
    for number in 0..STEPS {
        play.step(number).await?;
    }
    let installation = &play.installation;
    let references = ["d", "e", "f", "g", "slow", "missing"].map(|name| format!("{REGISTRY}/team/{name}:1"));
    for node in ["node-a", "node-b", LATE] {
        for reference in &references {
            let image = play.images.iter().find(|image| image.by_tag(REGISTRY) == *reference).context("not pushed")?;
            installation.until_labelled(node, reference, &image.digest).await?;
        }
        for gone in ["a:1", "a:2", "b:1", "erring:1"] {
            installation.until_unlabelled(node, &format!("{REGISTRY}/team/{gone}")).await?;
        }
    }
    eventually("the undisturbed run is over", SETTLED, async || play.end().await.map(Some)).await
}

#[test]
fn sigkills_at_twenty_moments_change_nothing_of_the_end() -> Result<()> {
    let seed = seed("WARM_KILL_SEED", SEED)?;
    scenario("kill", LIMIT, async |run| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let expected = {
            let calm = integration::run::RunDir::new("calm")?;
            Box::pin(undisturbed(&calm)).await.inspect_err(|_| calm.keep()).context("the undisturbed run")?
        };
        let mut play = Play::new(&run).await?;
        let witness = Witness::start(play.installation.cluster.client()).await?;
        let progress = Progress::start(&play.installation).await?;
        for number in 0..STEPS {
            let nodes: Vec<String> = play.installation.agents.keys().cloned().collect();
            let moment = Moment::choose(&mut rng, &nodes);
            let count = progress.count(moment.sign) + moment.more;
            play.step(number).await?;
            let came = progress.reaches(moment.sign, count, REST).await;
            tokio::time::sleep(moment.then).await;
            said(&format!("step {number}: {moment:?}{}", if came { "" } else { ", at rest" }));
            play.strike(&moment.victim)?;
            play.installation.labels_are_true().await?;
        }
        let start = Instant::now();
        eventually("the end is that of the undisturbed run", SETTLED, async || {
            let content = play.end().await?;
            differences(&content, &expected)
        })
        .await?;
        measured("the end after the last of 20 kills", start.elapsed());
        play.installation.labels_are_true().await?;
        let images: Vec<&Published> = play.images.iter().collect();
        witness.none_asked_for_again(&play.installation.cluster.requests, &images).await
    })
}

/// An error that names what differs.
fn differences(content: &Content, expected: &Content) -> Result<()> {
    ensure!(content.intents == expected.intents, "intents {:?}, not {:?}", content.intents, expected.intents);
    let (is, was) = (&content.assignments, &expected.assignments);
    ensure!(is == was, "assignments {is:?}, not {was:?}");
    ensure!(content.labels == expected.labels, "labels {:?}, not {:?}", content.labels, expected.labels);
    let (is, was) = (&content.inventories, &expected.inventories);
    ensure!(is == was, "inventories {is:?}, not {was:?}");
    Ok(())
}
