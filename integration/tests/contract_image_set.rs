//! The definition of `ImageSet` and the writer of its status against a real API server.
//!
//! Shows: each rule refuses what it is for and names the field; no reference that we can parse is refused; defaults are
//! filled in; a status becomes exactly what is written, whoever wrote before, and neither another set of that name nor a
//! new one can be hit; `kubectl get` shows what people need; a cluster without the definition counts as one without sets,
//! until it has it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails the test")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use cluster_plan::Fact;
use cluster_plan::effect::SetStatusWrite;
use cluster_plan::fact::Change;
use cluster_plan::input::SetKey;
use cluster_plan::set::{Condition, ConditionStatus, SetImage, SetStatus};
use controller::act::set_status;
use controller::api::client;
use controller::api::image_set::ImageSet;
use controller::config::DiscoverSettings;
use controller::leader::Seat;
use daemon::supervise::Tasks;
use integration::apiserver::ApiServer;
use integration::eventually::eventually;
use integration::installation::{definition, rights};
use integration::listener::Listener;
use integration::parts::{Parts, Tool};
use integration::run::{RunDir, scenario};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use shared::image::Reference;
use shared::reason::Reason;

const TEST: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_secs(30);
const WATCH: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(40);
const USER: &str = "warm-images-controller";

struct Site {
    api: ApiServer,
    kubectl: PathBuf,
    sets: Api<ImageSet>,
}

impl Site {
    async fn start(run: &Arc<RunDir>) -> Result<Self> {
        let parts = Parts::ensure(&[Tool::Etcd, Tool::KubeApiserver, Tool::Kubectl])?;
        let api = ApiServer::start(run, &parts).await?;
        definition::install(&api.client()).await?;
        let sets = Api::namespaced(api.client(), "default");
        Ok(Self { kubectl: parts.path(Tool::Kubectl)?, sets, api })
    }

    fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.kubectl);
        let output = command.arg("--kubeconfig").arg(self.api.admin_kubeconfig()).args(args).output()?;
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What the API server says of a set that is only tried.
    async fn tried(&self, name: &str, spec: &Value) -> Result<ImageSet, String> {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let object: ImageSet = match serde_json::from_value(object(name, spec)) {
            Ok(object) => object,
            // What our types refuse is asked as it stands.
            Err(_) => return self.tried_raw(name, spec),
        };
        self.sets.create(&params, &object).await.map_err(|error| error.to_string())
    }

    fn tried_raw(&self, name: &str, spec: &Value) -> Result<ImageSet, String> {
        let file = std::env::temp_dir().join(format!("warm-set-{}-{name}.json", std::process::id()));
        std::fs::write(&file, object(name, spec).to_string()).map_err(|error| error.to_string())?;
        let path = file.display().to_string();
        let said = self.kubectl(&["create", "--dry-run=server", "--validate=ignore", "-o", "json", "-f", &path]);
        drop(std::fs::remove_file(&file));
        said.map_err(|error| error.to_string())
            .and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()))
    }

    async fn create(&self, name: &str, spec: &Value) -> Result<ImageSet> {
        let object: ImageSet = serde_json::from_value(object(name, spec))?;
        Ok(self.sets.create(&PostParams::default(), &object).await?)
    }
}

fn object(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "warm-images.dev/v1alpha1", "kind": "ImageSet",
        "metadata": { "name": name, "namespace": "default" }, "spec": spec,
    })
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_field() -> Result<()> {
    scenario("set_rules", TEST, async |run| {
        let site = Site::start(&run).await?;
        let good = json!({ "images": ["nginx"] });
        let with = |more: Value| {
            let mut spec = good.clone();
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        let many: Vec<String> = (0..257).map(|n| format!("a:{n}")).collect();
        let long = "a".repeat(64);
        let toleration = |toleration: Value| with(json!({ "tolerations": [toleration] }));
        let expression = |expression: Value| {
            with(
                json!({ "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "a", "operator": "Exists" }, expression] }] }),
            )
        };
        let cases = [
            (long.as_str(), good.clone(), "metadata.name"),
            ("with.dot", good.clone(), "metadata.name"),
            ("s", json!({ "images": [] }), "spec.images"),
            ("s", json!({}), "spec.images"),
            ("s", json!({ "images": many }), "spec.images"),
            ("s", json!({ "images": ["nginx", "nginx"] }), "spec.images[1]"),
            ("s", json!({ "images": ["nginx", "Library/Nginx"] }), "spec.images[1]"),
            ("s", json!({ "images": ["nginx", "https://registry.example/a"] }), "spec.images[1]"),
            ("s", json!({ "images": ["nginx:"] }), "spec.images[0]"),
            ("s", json!({ "images": ["two words"] }), "spec.images[0]"),
            ("s", json!({ "images": ["a@sha256:0123"] }), "spec.images[0]"),
            ("s", json!({ "images": [""] }), "spec.images[0]"),
            ("s", json!({ "images": ["a".repeat(1_025)] }), "spec.images[0]"),
            ("s", with(json!({ "nodeSelector": { "not a key": "a" } })), "spec.nodeSelector"),
            ("s", with(json!({ "nodeSelector": { "a": "not a value" } })), "spec.nodeSelector.a"),
            ("s", toleration(json!({ "operator": "Equal" })), "spec.tolerations[0].operator"),
            ("s", toleration(json!({ "key": "a", "operator": "Exists", "value": "b" })), "spec.tolerations[0].value"),
            ("s", toleration(json!({ "key": "a", "operator": "Sometimes" })), "spec.tolerations[0].operator"),
            ("s", toleration(json!({ "key": "a", "effect": "Never" })), "spec.tolerations[0].effect"),
            (
                "s",
                expression(json!({ "key": "b", "operator": "In" })),
                "spec.nodeSelectorTerms[0].matchExpressions[1].values",
            ),
            (
                "s",
                expression(json!({ "key": "b", "operator": "Exists", "values": ["c"] })),
                "spec.nodeSelectorTerms[0].matchExpressions[1].values",
            ),
            (
                "s",
                expression(json!({ "key": "b", "operator": "Gt", "values": ["c"] })),
                "spec.nodeSelectorTerms[0].matchExpressions[1].values",
            ),
            ("s", with(json!({ "pullSecrets": [{ "name": "Not_a_name" }] })), "spec.pullSecrets[0].name"),
            ("s", with(json!({ "pullSecrets": [{ "name": "a" }, { "name": "a" }] })), "spec.pullSecrets[1]"),
            ("s", with(json!({ "priority": 101 })), "spec.priority"),
            ("s", with(json!({ "priority": -1 })), "spec.priority"),
            ("s", with(json!({ "maxNodes": 0 })), "spec.maxNodes"),
            ("s", with(json!({ "refresh": "soon" })), "spec.refresh"),
            ("s", with(json!({ "refresh": "10s" })), "spec.refresh"),
        ];
        for (name, spec, field) in cases {
            let said = site.tried(name, &spec).await.err().with_context(|| format!("accepted: {name} {spec}"))?;
            ensure!(said.contains(&format!("{field}:")), "{name} {spec}: {said}");
        }
        let full = json!({
            "images": ["nginx", "registry.example:5000/a/b:1@sha256:0123456789012345678901234567890123456789012345678901234567890123"],
            "nodeSelector": { "example.com/pool": "gpu", "empty": "" },
            "nodeSelectorTerms": [{
                "matchExpressions": [{ "key": "a", "operator": "In", "values": ["b"] }, { "key": "n", "operator": "Gt", "values": ["-3"] }],
                "matchFields": [{ "key": "metadata.name", "operator": "NotIn", "values": ["n1"] }],
            }],
            "tolerations": [{ "operator": "Exists" }, { "key": "a", "value": "b", "effect": "NoExecute" }],
            "pullSecrets": [{ "name": "registry" }], "priority": 0, "maxNodes": 3, "refresh": "1h30m", "suspend": true,
        });
        site.tried(&"a".repeat(63), &full).await.map_err(|said| anyhow!(said))?;
        let usual = site.tried("s", &good).await.map_err(|said| anyhow!(said))?.spec;
        ensure!((usual.priority, usual.suspend) == (50, false), "{usual:?}");
        Ok(())
    })
}

#[test]
fn no_reference_that_can_be_parsed_is_refused() -> Result<()> {
    scenario("set_references", TEST, async |run| {
        let site = Site::start(&run).await?;
        let vectors = include_str!("../../shared/tests/reference_vectors.tsv").lines().filter(|l| !l.starts_with('#'));
        let mut good: Vec<&str> = vectors.filter_map(|line| line.split('\t').next()).collect();
        good.retain(|text| Reference::parse(text).is_ok() && !text.is_empty());
        good.sort_unstable();
        good.dedup();
        ensure!(good.len() > 30, "{} references", good.len());
        for some in good.chunks(200) {
            site.tried("s", &json!({ "images": some })).await.map_err(|said| anyhow!(said))?;
        }
        Ok(())
    })
}

fn status(warm: i64) -> SetStatus {
    let condition = Condition {
        kind: "Ready".to_owned(),
        status: if warm == 2 { ConditionStatus::True } else { ConditionStatus::False },
        reason: "Pulling".to_owned(),
        message: format!("{warm} of 2 images on 1 nodes are warm"),
        last_transition_time: "2026-11-22T00:00:00Z".parse().unwrap(),
        observed_generation: 1,
    };
    let image = SetImage { image: "nginx".to_owned(), desired: 2, warm, ..SetImage::default() };
    SetStatus {
        observed_generation: 1,
        nodes: 1,
        desired: 2,
        warm,
        pending: 2 - warm,
        images_total: 1,
        images: vec![image],
        conditions: vec![condition],
        ..SetStatus::default()
    }
}

#[test]
fn a_status_becomes_what_is_written_and_hits_no_other_set() -> Result<()> {
    scenario("set_status", TEST, async |run| {
        let site = Site::start(&run).await?;
        rights::grant(&site.api.client(), USER).await?;
        let hand = client::connect(Some(&site.api.kubeconfig_for(USER, None)?), SILENCE).await?;
        let seat = Seat::of_the_only_controller();
        let made = site.create("base", &json!({ "images": ["nginx"] })).await?;
        let uid = made.metadata.uid.context("uid")?;
        let write = async |name: &str, uid: &str, status: SetStatus| {
            let key = SetKey { namespace: "default".to_owned(), name: name.to_owned() };
            let write = SetStatusWrite { set: key, uid: uid.to_owned(), status };
            set_status::write(&hand, &seat.tenure(), &write).await.map_err(|refusal| refusal.reason)
        };
        let shown = async || anyhow::Ok(site.sets.get("base").await?);
        write("base", &uid, status(1)).await.map_err(|reason| anyhow!("{reason}"))?;
        let first = shown().await?;
        ensure!(first.status == Some(status(1)), "{:?}", first.status);
        write("base", &uid, status(1)).await.map_err(|reason| anyhow!("{reason}"))?;
        let again = shown().await?;
        ensure!(again.metadata.resource_version == first.metadata.resource_version, "the same was written");
        ensure!(again.metadata.generation == Some(1), "a status is no new generation");

        // Somebody else writes into it, and another controller adds a condition of its own.
        let theirs = json!({ "status": { "warm": 99, "images": [], "conditions": [
            { "type": "Theirs", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-11-22T00:00:00Z" },
        ] } });
        site.sets.patch_status("base", &PatchParams::default(), &Patch::Merge(theirs)).await?;
        ensure!(shown().await?.status.is_some_and(|status| status.warm == 99));
        write("base", &uid, status(2)).await.map_err(|reason| anyhow!("{reason}"))?;
        let mended = shown().await?.status.context("no status")?;
        ensure!((mended.warm, mended.images.len()) == (2, 1), "{mended:?}");
        let kinds: Vec<&str> = mended.conditions.iter().map(|c| c.kind.as_str()).collect();
        ensure!(kinds.contains(&"Ready") && kinds.contains(&"Theirs"), "{kinds:?}");

        let table = site.kubectl(&["get", "imgset", "base"])?;
        let words: Vec<&str> = table.split_whitespace().collect();
        ensure!(words[..7] == ["NAME", "READY", "DESIRED", "WARM", "PENDING", "FAILED", "AGE"], "{table}");
        ensure!(words[7..12] == ["base", "True", "2", "2", "0"], "{table}");

        ensure!(write("absent", &uid, status(1)).await == Err(Reason::Conflict), "a set was made");
        site.sets.delete("base", &DeleteParams::default()).await?;
        site.create("base", &json!({ "images": ["nginx"] })).await?;
        ensure!(shown().await?.status.is_none());
        let stranger = site.api.client_for("stranger", None).await?;
        let key = SetKey { namespace: "default".to_owned(), name: "base".to_owned() };
        let refused =
            set_status::write(&stranger, &seat.tenure(), &SetStatusWrite { set: key, uid, status: status(1) }).await;
        ensure!(refused.map_err(|refusal| refusal.reason) == Err(Reason::Forbidden));
        Ok(())
    })
}

#[test]
fn a_cluster_without_the_definition_has_no_sets_until_it_has_it() -> Result<()> {
    scenario("set_absent", TEST, async |run| {
        let api = ApiServer::start(&run, &Parts::ensure(&[Tool::Etcd, Tool::KubeApiserver])?).await?;
        rights::grant(&api.client(), USER).await?;
        let hand = client::connect(Some(&api.kubeconfig_for(USER, None)?), SILENCE).await?;
        let (tasks, shutdown) = Tasks::new();
        let (said, inbox) = Listener::start(&tasks, shutdown);
        let (_none, expressions) = tokio::sync::watch::channel(std::sync::Arc::default());
        controller::watch::start(&hand, &DiscoverSettings::default(), WATCH, true, &expressions, &inbox, &tasks);
        let of_sets = || -> Vec<Fact> {
            said.facts().into_iter().filter(|fact| matches!(fact, Fact::Set(_) | Fact::Sets(_))).collect()
        };
        eventually(
            "there are said to be none",
            SOON,
            async || matches!(&of_sets()[..], [Fact::Sets(list)] if list.is_empty()),
        )
        .await?;
        definition::install(&api.client()).await?;
        let sets: Api<ImageSet> = Api::namespaced(api.client(), "default");
        let object: ImageSet = serde_json::from_value(object("base", &json!({ "images": ["nginx"], "priority": 70 })))?;
        sets.create(&PostParams::default(), &object).await?;
        eventually("the set is seen", SOON, async || {
            let facts = of_sets();
            let seen = facts.iter().any(|fact| match fact {
                Fact::Set(Change::Upsert(key, Ok(set))) => key.name == "base" && set.generation == 1,
                Fact::Sets(list) => list.len() == 1,
                _ => false,
            });
            if seen { Ok(()) } else { Err(anyhow!("{facts:?}")) }
        })
        .await?;
        tasks.stop();
        Ok(())
    })
}
