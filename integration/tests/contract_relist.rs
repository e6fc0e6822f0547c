//! A watch that cannot be taken up any more, kind by kind, against a real API server.
//!
//! Shows for Pods, `ReplicaSets`, a configured kind and sets of images: once etcd was compacted while the controller was cut off
//! (and the API server's cache is gone), each kind is listed again; a list that shows the same is no fact of any source; one
//! that shows changes is one fact with all of them, and what came and went meanwhile is never told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use cluster_plan::Fact;
use cluster_plan::input::{Workload, WorkloadKind};
use controller::api::client;
use controller::config::{DiscoverSettings, KindSettings};
use daemon::supervise::Tasks;
use integration::apiserver::ApiServer;
use integration::eventually::eventually;
use integration::installation::{definition, rights};
use integration::listener::Listener;
use integration::parts::{Parts, Tool};
use integration::proxy::tcp::TcpProxy;
use integration::run::{RunDir, scenario};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const TEST: Duration = Duration::from_mins(4);
const SOON: Duration = Duration::from_mins(1);
const USER: &str = "warm-images-controller";

/// One kind.
struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    /// Its `spec` with an image.
    spec: fn(&str) -> Value,
}

const ROWS: [Row; 4] = [
    Row { group: "", version: "v1", kind: "Pod", plural: "pods", spec: pod },
    Row { group: "apps", version: "v1", kind: "ReplicaSet", plural: "replicasets", spec: replica_set },
    Row { group: "example.com", version: "v1", kind: "Fleet", plural: "fleets", spec: fleet },
    Row { group: "warm-images.dev", version: "v1alpha1", kind: "ImageSet", plural: "imagesets", spec: image_set },
];

fn pod(image: &str) -> Value {
    json!({ "automountServiceAccountToken": false, "containers": [{ "name": "app", "image": image }] })
}

fn replica_set(image: &str) -> Value {
    let template = json!({ "metadata": { "labels": { "app": "a" } }, "spec": pod(image) });
    json!({ "replicas": 0, "selector": { "matchLabels": { "app": "a" } }, "template": template })
}

fn fleet(image: &str) -> Value {
    json!({ "image": image })
}

fn image_set(image: &str) -> Value {
    json!({ "images": [image] })
}

fn fleets() -> KindSettings {
    KindSettings {
        group: "example.com".to_owned(),
        version: "v1".to_owned(),
        kind: "Fleet".to_owned(),
        images: vec!["$.spec.image".to_owned()],
        ..KindSettings::default()
    }
}

/// Images by name.
type Seen = BTreeMap<String, String>;

fn image(content: &Workload) -> String {
    content.every_image().map(|image| image.image.clone()).collect::<Vec<_>>().join(" ")
}

impl Row {
    /// What a fact says of it: everything there is, or one object.
    fn read(&self, fact: &Fact, seen: &mut Seen) -> bool {
        use cluster_plan::fact::Change;
        let kind = WorkloadKind::of(self.group, self.kind);
        match fact {
            Fact::Workloads(of, list) if *of == kind => {
                let good =
                    list.iter().filter_map(|(key, content)| Some((key.name.clone(), image(content.as_ref().ok()?))));
                *seen = good.collect();
            }
            Fact::Workload(Change::Upsert(key, Ok(content))) if key.kind == kind => {
                seen.insert(key.name.clone(), image(content));
            }
            Fact::Workload(Change::Remove(key)) if key.kind == kind => drop(seen.remove(&key.name)),
            Fact::Sets(list) if self.kind == "ImageSet" => {
                let good =
                    list.iter().filter_map(|(key, set)| Some((key.name.clone(), image(&set.as_ref().ok()?.wants))));
                *seen = good.collect();
            }
            Fact::Set(Change::Upsert(key, Ok(set))) if self.kind == "ImageSet" => {
                seen.insert(key.name.clone(), image(&set.wants));
            }
            Fact::Set(Change::Remove(key)) if self.kind == "ImageSet" => drop(seen.remove(&key.name)),
            _ => return false,
        }
        true
    }
}

struct World {
    api: ApiServer,
    way: TcpProxy,
    said: Listener,
    tasks: Tasks,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl World {
    async fn start(run: &Arc<RunDir>) -> Result<Self> {
        let api = ApiServer::start(run, &Parts::ensure(&[Tool::Etcd, Tool::KubeApiserver])?).await?;
        rights::grant(&api.client(), USER).await?;
        definition::install(&api.client()).await?;
        let way = TcpProxy::start(api.address()).await?;
        let client = client::connect(Some(&api.kubeconfig_by(USER, way.address())?), Duration::from_secs(40)).await?;
        let (tasks, shutdown) = Tasks::new();
        let (said, inbox) = Listener::start(&tasks, shutdown);
        let world = Self { api, way, said, tasks };
        world.prepare().await?;
        let discover = DiscoverSettings { kinds: vec![fleets()], ..DiscoverSettings::default() };
        let (_, expressions) = tokio::sync::watch::channel(Arc::default());
        let timeout = Duration::from_secs(30);
        controller::watch::start(&client, &discover, timeout, true, &expressions, &inbox, &world.tasks);
        Ok(world)
    }

    async fn make<K>(&self, api: Api<K>, object: Value) -> Result<()>
    where
        K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(())
    }

    async fn prepare(&self) -> Result<()> {
        let client = self.api.client();
        let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
        self.make(accounts, json!({ "metadata": { "name": "default" } })).await?;
        let definition = definition::of_kind(&fleets())?;
        Api::all(client.clone()).create(&PostParams::default(), &definition).await?;
        rights::grant_kinds(&client, USER, "fleets", [&fleets()]).await
    }

    fn api_of(&self, row: &Row) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk(row.group, row.version, row.kind);
        Api::default_namespaced_with(self.api.client(), &ApiResource::from_gvk_with_plural(&kind, row.plural))
    }

    async fn create(&self, row: &Row, name: &str, image: &str) -> Result<()> {
        let version =
            if row.group.is_empty() { row.version.to_owned() } else { format!("{}/{}", row.group, row.version) };
        let metadata = json!({ "name": name });
        let object =
            json!({ "apiVersion": version, "kind": row.kind, "metadata": metadata, "spec": (row.spec)(image) });
        let object: DynamicObject = serde_json::from_value(object)?;
        let api = self.api_of(row);
        // A definition may not be served yet.
        eventually(format!("{} {name} is there", row.kind), SOON, async || {
            api.create(&PostParams::default(), &object).await.map(drop)
        })
        .await
    }

    async fn delete(&self, row: &Row, name: &str) -> Result<()> {
        let now = DeleteParams::background().grace_period(0);
        self.api_of(row).delete(name, &now).await.with_context(|| format!("deleting {} {name}", row.kind))?;
        Ok(())
    }

    fn seen(&self, row: &Row) -> Seen {
        let mut seen = Seen::new();
        for fact in self.said.facts() {
            row.read(&fact, &mut seen);
        }
        seen
    }

    async fn until_seen(&self, expected: &[(&str, &str)]) -> Result<()> {
        let expected: Seen = expected.iter().map(|(name, image)| ((*name).to_owned(), (*image).to_owned())).collect();
        for row in &ROWS {
            eventually(format!("{} are {expected:?}", row.plural), SOON, async || {
                let seen = self.seen(row);
                if seen == expected { Ok(()) } else { Err(anyhow!("{seen:?}")) }
            })
            .await?;
        }
        Ok(())
    }

    /// How often a kind was listed, and whether a watch came after the last time.
    fn lists(&self, row: &Row) -> Result<(usize, bool)> {
        let (mut lists, mut is_watched) = (0, false);
        for request in self.api.requests()?.iter().filter(|r| r.resource == row.plural && r.group == row.group) {
            match request.verb.as_str() {
                "list" => (lists, is_watched) = (lists + 1, false),
                "watch" => is_watched = true,
                _ => {}
            }
        }
        Ok((lists, is_watched))
    }

    /// Nobody can take up a watch from before, and whoever is cut off may come again. Waits until each kind was listed anew.
    async fn forget(&mut self) -> Result<()> {
        let before = ROWS.iter().map(|row| self.lists(row)).collect::<Result<Vec<_>>>()?;
        // Something has to change for there to be something to forget.
        let maps: Api<ConfigMap> = Api::default_namespaced(self.api.client());
        for _ in 0..3 {
            self.make(maps.clone(), json!({ "metadata": { "generateName": "change-" } })).await?;
        }
        self.api.compact().await?;
        // With it goes the cache of the API server, which would remember longer than etcd.
        self.api.restart().await?;
        self.way.heal().await?;
        for (row, (before, _)) in ROWS.iter().zip(before) {
            eventually(format!("{} are listed again", row.plural), SOON, async || {
                let (lists, is_watched) = self.lists(row)?;
                ensure!(lists > before && is_watched, "{lists} lists, {before} before; watched: {is_watched}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

#[test]
fn after_a_compaction_each_kind_is_listed_again_says_only_what_changed_and_misses_nothing() -> Result<()> {
    scenario("relist", TEST, async |run| {
        let mut world = World::start(&run).await?;
        for row in &ROWS {
            for name in ["changed", "gone", "kept"] {
                world.create(row, name, "registry.example/a:1").await?;
            }
        }
        let a = "registry.example/a:1";
        world.until_seen(&[("changed", a), ("gone", a), ("kept", a)]).await?;
        for row in &ROWS {
            eventually(format!("{} are watched", row.plural), SOON, async || {
                Ok::<_, anyhow::Error>(world.lists(row)?.1)
            })
            .await?;
        }

        // Nothing changed.
        let before = world.said.facts().len();
        world.way.cut().await?;
        world.forget().await?;
        let facts = world.said.facts();
        ensure!(facts.len() == before, "said, though nothing changed: {:?}", facts.get(before..));

        // Everything did.
        world.way.cut().await?;
        let b = "registry.example/b:2";
        for row in &ROWS {
            world.create(row, "came-and-went", a).await?;
            world.delete(row, "came-and-went").await?;
            world.delete(row, "gone").await?;
            world.create(row, "new", b).await?;
            let change = Patch::Merge(json!({ "spec": (row.spec)(b) }));
            world.api_of(row).patch("changed", &PatchParams::default(), &change).await.context(row.kind)?;
        }
        world.forget().await?;
        world.until_seen(&[("changed", b), ("kept", a), ("new", b)]).await?;
        let facts = world.said.facts();
        for row in &ROWS {
            let mut seen = Seen::new();
            let mut told = 0;
            for fact in facts.iter().skip(before) {
                told += usize::from(row.read(fact, &mut seen));
                ensure!(!seen.contains_key("came-and-went"), "{fact:?}");
            }
            ensure!(told == 1, "{told} facts of {} in place of one list", row.plural);
        }

        // And the watches live: what changes now is told by itself.
        for row in &ROWS {
            world.delete(row, "kept").await?;
        }
        world.until_seen(&[("changed", b), ("new", b)]).await
    })
}
