//! Somebody with every right writes nonsense and lies into the buckets: under the keys of ours and under keys that are none.
//!
//! Shows: the leader puts right what stands under a key of its own, whatever it is; what follows no rule is left where it is
//! and counted; a wanted image is let go of by no agent, its label never goes, nothing is pulled twice; an intent whose image
//! is not the one of its key is not followed; controller and agents stay ready and are the same processes as before; and
//! when all of them start again over what is left, it is the same.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::http::Http;
use integration::image::{Image, Published};
use integration::installation::{Installation, InstallationSpec};
use integration::run::{measured, scenario};
use integration::witness::Witness;
use serde_json::{Value, json};
use shared::image::Reference;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_mins(4);
/// Longest from the end of a fault until everything is where it would have been (`quality.md` section 2).
const SETTLED: Duration = Duration::from_secs(30);
const NODES: [&str; 2] = ["node-a", "node-b"];
/// A key of an image, and of nobody's.
const UNKNOWN: &str = "abcdefghijklmnopqrstuvwxyz";
/// Keys that no rule of the protocol prints, by bucket.
const FOREIGN: [(&str, &[&str]); 3] = [
    ("intents", &["junk", "_metadata", "all.i", "all.i.short", "all.x.y.z", "auto-0123456789.what", "UPPER.def"]),
    ("assign", &["node-a.x", "_meta", "-dash-"]),
    ("nodes", &["node-a", "node-a.inv.old", "junk"]),
];

/// An installation with two wanted images, and who watches it.
struct Scene {
    installation: Installation,
    witness: Witness,
    wanted: Vec<Published>,
    pids: Vec<Option<u32>>,
    /// `_meta` and `all.def` as the leader wrote them.
    ours: [Value; 2],
}

impl Scene {
    async fn start(run: &std::sync::Arc<integration::run::RunDir>) -> Result<Self> {
        let installation = Installation::start(run, InstallationSpec::two_nodes()).await?;
        let witness = Witness::start(installation.cluster.client()).await?;
        let wanted = vec![installation.deploy_new("one").await?, installation.deploy_new("two").await?];
        for image in &wanted {
            installation.until_warm(&NODES, image).await?;
        }
        let ours = [installation.kv("intents", "_meta").await?, installation.kv("intents", "all.def").await?];
        let mut scene = Self { installation, witness, wanted, pids: Vec::new(), ours };
        scene.pids = scene.pids();
        scene.until_settled("the start", 0).await?;
        Ok(scene)
    }

    fn pids(&mut self) -> Vec<Option<u32>> {
        let members = std::iter::once(&mut self.installation.controller).chain(self.installation.agents.values_mut());
        members.map(|member| member.process.id()).collect()
    }

    /// Writes as nobody of ours would, and gives the sequence.
    async fn put(&self, bucket: &str, key: &str, value: &str) -> Result<u64> {
        // Not `kv put`: the CLI refuses some of these keys.
        let subject = format!("$KV.warm-default-{bucket}.{key}");
        let answer = self.installation.cluster.nats.cli("admin", &["req", &subject, value, "--raw"]).await?;
        let answer: Value = serde_json::from_str(&answer).with_context(|| format!("{subject}: {answer}"))?;
        answer["seq"].as_u64().with_context(|| format!("{subject}: {answer}"))
    }

    /// Fails unless controller and agents are ready now.
    async fn all_ready(&self) -> Result<()> {
        let installation = &self.installation;
        for member in std::iter::once(&installation.controller).chain(installation.agents.values()) {
            let answer = Http::new().get(&format!("{}/readyz", member.admin())).await?;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            ensure!(answer.status.is_success(), "{}: {text}", member.process.name());
        }
        Ok(())
    }

    /// Waits until the buckets hold what is wanted (and `foreign` keys), and nobody thinks otherwise. Ready all the while.
    async fn until_settled(&self, after: &str, foreign: usize) -> Result<()> {
        let start = Instant::now();
        eventually(format!("all is right again after {after}"), SETTLED, async || {
            self.all_ready().await?;
            self.is_settled(foreign).await
        })
        .await?;
        measured(&format!("right again after {after}"), start.elapsed());
        self.witness.none_lost(&NODES, &self.wanted.iter().collect::<Vec<_>>()).await
    }

    async fn is_settled(&self, foreign: usize) -> Result<()> {
        let installation = &self.installation;
        let intents = installation.bucket("intents").await?;
        let mut expected: BTreeSet<String> = ["_meta", "all.def"].map(str::to_owned).into();
        for image in &self.wanted {
            let (key, name) = (format!("all.i.{}", key(image)?), image.by_tag(REGISTRY));
            ensure!(intents.get(&key).is_some_and(|i| i["image"] == name.as_str()), "{key} is {:?}", intents.get(&key));
            expected.insert(key);
        }
        let unknown: Vec<&String> = intents.keys().filter(|key| !expected.contains(*key)).collect();
        ensure!(unknown.len() == foreign && expected.iter().all(|key| intents.contains_key(key)), "{intents:?}");
        let [meta, definition] = &self.ours;
        let there = &intents["_meta"];
        let is_ours = |field: &str| there[field] == meta[field];
        // An epoch document that says another epoch is how an epoch begins: everybody reads again.
        ensure!(is_ours("cluster") && is_ours("streamCreated") && is_ours("by"), "{there}, not {meta}");
        ensure!(intents["all.def"] == *definition, "{}, not {definition}", intents["all.def"]);
        let state = installation.controller_state().await?;
        let set = &state["pools"]["pools"]["all"]["set"];
        let (assigned, reports) = (installation.bucket("assign").await?, installation.bucket("nodes").await?);
        ensure!(!assigned.contains_key("ghost"), "{assigned:?}");
        for node in NODES {
            let assignment = assigned.get(node).context("no assignment")?;
            ensure!(assignment["node"] == node && assignment["pools"] == json!(["all"]), "{node}: {assignment}");
            let report = reports.get(&format!("{node}.inv")).context("no inventory")?;
            ensure!(report["node"] == node && report["except"] == json!([]), "{node}: {report}");
            ensure!(report["epoch"] == there["epoch"], "{node} is of another epoch than {there}: {report}");
            ensure!(report["pools"]["all"]["count"] == self.wanted.len(), "{node}: {report}");
            let agent = installation.agent_state(node).await?;
            let pool = &agent["pools"]["all"];
            ensure!(pool["digest"] == set["digest"] && pool["count"] == set["count"], "{node} has {pool}, not {set}");
            for image in &self.wanted {
                let held = &agent["images"][key(image)?];
                ensure!(held["state"] == "warm" && held["retained"] == false, "{node}: {held}");
                ensure!(installation.image_label(node, &image.by_tag(REGISTRY)).await?.is_some(), "{node}: no label");
            }
        }
        Ok(())
    }

    /// Bucket, key and value of everything that is no key's right value, `lie` as the first image's among it.
    async fn junk(&self, lie: &str) -> Result<Vec<(&'static str, String, String)>> {
        let installation = &self.installation;
        let [first, other] = [0, 1].map(|number| key(&self.wanted[number]));
        let (first, other) = (format!("all.i.{}", first?), format!("all.i.{}", other?));
        let of_other = installation.kv("intents", &other).await?.to_string();
        let of_b = installation.kv("assign", "node-b").await?.to_string();
        let report_of_b = installation.kv("nodes", "node-b.inv").await?.to_string();
        let assignment = installation.kv("assign", "node-a").await?;
        let with = |value: &Value, field: &str, new: Value| {
            let mut value = value.clone();
            value[field] = new;
            value.to_string()
        };
        let meta = &self.ours[0];
        let intents = [
            ("_meta", "\u{1}junk".into()),
            ("_meta", with(meta, "epoch", json!("another"))),
            ("_meta", with(meta, "term", json!(0))),
            ("all.def", "{".into()),
            ("all.def", json!({ "v": 1, "constraint": "none" }).to_string()),
            (&first, String::new()),
            (&first, "{\"v\":1,".into()),
            (&first, of_other),
            (&first, lie.to_owned()),
            (&format!("all.i.{UNKNOWN}"), "junk".into()),
            ("auto-0123456789.def", "{}".into()),
        ];
        let assignments = [
            ("node-a", "junk".into()),
            ("node-a", of_b),
            ("node-a", with(&assignment, "pools", json!([]))),
            ("ghost", with(&assignment, "node", json!("ghost"))),
        ];
        let reports = [("node-a.inv", "junk".into()), ("node-a.inv", report_of_b)];
        let of = |bucket| move |(key, value): (&str, String)| (bucket, key.to_owned(), value);
        let intents = intents.into_iter().map(of("intents"));
        Ok(intents
            .chain(assignments.into_iter().map(of("assign")))
            .chain(reports.into_iter().map(of("nodes")))
            .collect())
    }

    /// What a process has counted as refused.
    async fn refused(&self, admin: &str, kind: &str, reason: &str) -> Result<f64> {
        let labels = format!("kind=\"{kind}\",reason=\"{reason}\"");
        self.installation.metric(admin, "warm_messages_refused_total", &labels).await
    }
}

fn key(image: &Published) -> Result<String> {
    Ok(Reference::parse(&image.by_tag(REGISTRY))?.key().to_string())
}

/// An intent as the leader would write it.
fn intent(id: &str, image: &str) -> Value {
    json!({ "v": 1, "id": id, "image": image, "wave": { "open": 65536, "nodes": [], "permit": false }, "term": 1 })
}

#[test]
fn junk_under_keys_of_ours_is_put_right() -> Result<()> {
    scenario("junk-ours", LIMIT, async |run| {
        let mut scene = Box::pin(Scene::start(&run)).await?;
        let installation = &scene.installation;
        let never = installation.cluster.registry.push(&Image::new("team/never", "1").layer(1_000)).await?;
        let first = key(&scene.wanted[0])?;
        let (wanted, lie) = (format!("all.i.{first}"), intent(&first, &never.by_tag(REGISTRY)).to_string());
        for (bucket, key, value) in scene.junk(&lie).await? {
            scene.put(bucket, &key, &value).await?;
            let shown: String = value.chars().take(60).collect();
            scene.until_settled(&format!("{shown:?} in {bucket}/{key}"), 0).await?;
        }
        let admin = scene.installation.controller.admin();
        for (kind, reason, least) in [
            ("intent", "invalid", 5.0),
            ("intent", "forged", 2.0),
            ("assignment", "invalid", 1.0),
            ("assignment", "forged", 1.0),
            ("inventory", "invalid", 1.0),
            ("inventory", "forged", 1.0),
        ] {
            let counted = scene.refused(&admin, kind, reason).await?;
            ensure!(counted >= least, "{counted} {kind} {reason} counted, not {least}");
        }
        // The lie again, with nobody there who would put it right, and read by agents that start.
        scene.installation.controller.process.kill()?;
        let seq = scene.put("intents", &wanted, &lie).await?;
        for node in NODES {
            scene.installation.restart_agent(node, true)?;
            eventually(format!("{node} has read the lie and keeps to what it knew"), SETTLED, async || {
                let agent = scene.installation.agent_state(node).await?;
                let (pool, image) = (&agent["pools"]["all"], &agent["images"][&first]);
                ensure!(pool["head"].as_u64() >= Some(seq) && pool["count"] == 2, "{pool}");
                ensure!(image["state"] == "warm" && image["retained"] == false, "{image}");
                Ok(())
            })
            .await?;
        }
        scene.installation.controller.process.start_again()?;
        scene.installation.until_ready().await?;
        scene.pids = scene.pids();
        scene.until_settled("a lie that nobody put right", 0).await?;
        let asked = scene.installation.cluster.requests.count(|request| request.is_of("team/never"));
        ensure!(asked == 0, "an image was pulled under the key of another");
        finish(&mut scene).await
    })
}

#[test]
fn keys_that_follow_no_rule_are_left_alone_and_counted() -> Result<()> {
    scenario("junk-foreign", LIMIT, async |run| {
        let mut scene = Box::pin(Scene::start(&run)).await?;
        let admin = scene.installation.controller.admin();
        let foreign = FOREIGN[0].1.len();
        for ((bucket, keys), kind) in FOREIGN.iter().zip(["intent", "assignment", "inventory"]) {
            let before = scene.refused(&admin, kind, "invalid").await?;
            for (number, key) in keys.iter().enumerate() {
                scene.put(bucket, key, &intent(UNKNOWN, &format!("{REGISTRY}/team/junk:{number}")).to_string()).await?;
            }
            let counted = async || {
                let now = scene.refused(&admin, kind, "invalid").await?;
                ensure!(now - before >= keys.len() as f64, "{now} after {before}");
                Ok::<_, anyhow::Error>(())
            };
            eventually(format!("every key of {bucket} is counted"), SETTLED, counted).await?;
        }
        scene.until_settled("keys that follow no rule", foreign).await?;

        // Everybody starts again and reads all of it; one agent knows nothing of before.
        scene.installation.controller.process.restart()?;
        scene.installation.restart_agent("node-a", true)?;
        scene.installation.restart_agent("node-b", false)?;
        scene.installation.until_ready().await?;
        scene.pids = scene.pids();
        scene.until_settled("the restart of everybody", foreign).await?;
        for (bucket, keys) in FOREIGN {
            let there = scene.installation.bucket(bucket).await?;
            ensure!(
                keys.iter().all(|key| there.contains_key(*key)),
                "a foreign key was removed from {bucket}: {there:?}"
            );
        }
        let asked = scene.installation.cluster.requests.count(|request| request.is_of("team/junk"));
        ensure!(asked == 0, "junk was pulled");
        finish(&mut scene).await
    })
}

/// The same processes still work, and nothing was pulled twice.
async fn finish(scene: &mut Scene) -> Result<()> {
    let pids = scene.pids();
    ensure!(pids == scene.pids, "a process is another: {pids:?}, not {:?}", scene.pids);
    let sentinel = scene.installation.deploy_new("sentinel").await?;
    scene.installation.until_warm(&NODES, &sentinel).await?;
    scene.wanted.push(sentinel);
    let wanted: Vec<&Published> = scene.wanted.iter().collect();
    scene.witness.none_lost(&NODES, &wanted).await?;
    scene.witness.none_asked_for_again(&scene.installation.cluster.requests, &wanted).await?;
    scene.installation.labels_are_true().await?;
    scene.installation.pulled_once(&NODES, &wanted)
}
