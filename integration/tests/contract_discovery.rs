//! Which objects of a real API server are told as workloads, and how.
//!
//! Shows: a kind that is not installed holds nothing up and makes no noise; it is watched when its CRD appears, and its objects
//! are gone when the CRD is; one of them that is wrong spoils only itself, and is right again when it is mended. The Pods of one
//! controller are told once, with what was injected into some. An object that is deleted and made again under its name is
//! another one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use cluster_plan::Fact;
use cluster_plan::fact::Change;
use cluster_plan::input::{Workload, WorkloadKey, WorkloadKind};
use controller::api::client;
use controller::config::{DiscoverSettings, KindSettings};
use daemon::supervise::Tasks;
use integration::apiserver::ApiServer;
use integration::eventually::eventually;
use integration::installation::{definition, rights};
use integration::listener::Listener;
use integration::parts::{Parts, Tool};
use integration::run::{RunDir, scenario};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};

const TEST: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_mins(1);
const USER: &str = "warm-images-controller";

fn fleets() -> KindSettings {
    KindSettings {
        group: "example.com".to_owned(),
        version: "v1".to_owned(),
        kind: "Fleet".to_owned(),
        templates: vec!["$.spec.groups[*].template".to_owned()],
        images: vec!["$.spec.image".to_owned()],
        ..KindSettings::default()
    }
}

struct World {
    api: ApiServer,
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
        rights::grant_kinds(&api.client(), USER, "fleets", [&fleets()]).await?;
        let client = client::connect(Some(&api.kubeconfig_for(USER, None)?), Duration::from_secs(40)).await?;
        let (tasks, shutdown) = Tasks::new();
        let (said, inbox) = Listener::start(&tasks, shutdown);
        let discover = DiscoverSettings {
            kinds: vec![fleets()],
            look_again: Duration::from_secs(1),
            ..DiscoverSettings::default()
        };
        let (_, expressions) = tokio::sync::watch::channel(Arc::default());
        controller::watch::start(&client, &discover, Duration::from_secs(5), false, &expressions, &inbox, &tasks);
        Ok(Self { api, said, tasks })
    }

    /// The images last told of an object; `None` if it is not there.
    fn last(&self, of: &WorkloadKey) -> Option<Result<Workload, String>> {
        let mut last = None;
        for fact in self.said.facts() {
            match fact {
                Fact::Workload(Change::Upsert(key, content)) if key == *of => last = Some(content),
                Fact::Workload(Change::Remove(key)) if key == *of => last = None,
                Fact::Workloads(kind, mut there) if kind == of.kind => last = there.remove(of),
                _ => {}
            }
        }
        last
    }

    fn lists(&self, kind: &WorkloadKind) -> usize {
        let is_it = |fact: &Fact| matches!(fact, Fact::Workloads(of, _) if of == kind);
        self.said.facts().iter().filter(|fact| is_it(fact)).count()
    }

    async fn until_images(&self, of: &WorkloadKey, images: Option<&[&str]>) -> Result<()> {
        eventually(format!("{of} has {images:?}"), SOON, async || {
            let there = self.last(of);
            let seen = there.as_ref().and_then(|w| w.as_ref().ok());
            let seen = seen.map(|w| w.every_image().map(|i| i.image.as_str()).collect::<Vec<_>>());
            if seen.as_deref() == images { Ok(()) } else { Err(anyhow!("{there:?}")) }
        })
        .await
    }
}

async fn create<K>(api: &Api<K>, json: Value) -> Result<K>
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let object: K = serde_json::from_value(json)?;
    Ok(api.create(&PostParams::default(), &object).await?)
}

fn fleet_api(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("example.com", "v1", "Fleet");
    Api::default_namespaced_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, "fleets"))
}

fn fleet(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "example.com/v1", "kind": "Fleet", "metadata": { "name": name }, "spec": spec })
}

fn template(image: &str) -> Value {
    json!({ "spec": { "containers": [{ "name": "app", "image": image }] } })
}

fn key(kind: WorkloadKind, name: &str) -> WorkloadKey {
    WorkloadKey { kind, namespace: "default".to_owned(), name: name.to_owned() }
}

#[test]
fn a_kind_is_waited_for_watched_while_it_is_there_and_empty_once_it_is_gone() -> Result<()> {
    scenario("discovery-crd", TEST, async |run| {
        let world = World::start(&run).await?;
        let (client, kind) = (world.api.client(), fleets().workload_kind());
        eventually("what is not installed is told as empty", SOON, async || world.lists(&kind) == 1).await?;

        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for round in 1..=2 {
            definitions.create(&PostParams::default(), &definition::of_kind(&fleets())?).await?;
            let fleets = fleet_api(&client);
            let name = format!("red-{round}");
            let red = key(kind.clone(), &name);
            eventually("the API server takes a fleet", SOON, async || {
                let object = fleet(&name, &json!({ "image": "side:1", "groups": [{ "template": template("red:1") }] }));
                create(&fleets, object).await.map(drop)
            })
            .await?;
            world.until_images(&red, Some(&["red:1", "side:1"])).await?;

            // One part that is wrong.
            let patch = |spec: Value| Patch::Merge(json!({ "spec": spec }));
            let wrong = patch(json!({ "groups": [{ "template": { "spec": { "containers": 7 } } }] }));
            fleets.patch(&name, &PatchParams::default(), &wrong).await?;
            world.until_images(&red, Some(&["side:1"])).await?;
            let said = world.last(&red).context("it is gone")?.map_err(|text| anyhow!(text))?.problems;
            ensure!(said.len() == 1 && said.iter().all(|p| p.starts_with("spec.groups[0].template: ")), "{said:?}");
            let right = patch(json!({ "groups": [{ "template": template("red:2") }] }));
            fleets.patch(&name, &PatchParams::default(), &right).await?;
            world.until_images(&red, Some(&["red:2", "side:1"])).await?;

            definitions.delete("fleets.example.com", &DeleteParams::default()).await?;
            world.until_images(&red, None).await?;
            eventually("the kind is gone", SOON, async || {
                definitions.get_opt("fleets.example.com").await.is_ok_and(|d| d.is_none())
            })
            .await?;
        }
        Ok(())
    })
}

async fn replica_set(sets: &Api<ReplicaSet>) -> Result<String> {
    let containers = json!([{ "name": "app", "image": "web:1" }]);
    let template = json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": containers } });
    let set = json!({ "metadata": { "name": "web" }, "spec": {
        "replicas": 0, "selector": { "matchLabels": { "app": "web" } }, "template": template } });
    create(sets, set).await?.metadata.uid.context("no UID")
}

#[test]
fn the_pods_of_a_controller_are_told_once_with_what_was_injected() -> Result<()> {
    scenario("discovery-pods", TEST, async |run| {
        let world = World::start(&run).await?;
        let client = world.api.client();
        let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
        create(&accounts, json!({ "metadata": { "name": "default" } })).await?;
        let (sets, pods): (Api<ReplicaSet>, Api<Pod>) =
            (Api::default_namespaced(client.clone()), Api::default_namespaced(client.clone()));
        let uid = replica_set(&sets).await?;
        let pod = async |name: &str, images: &[&str]| {
            let containers: Vec<Value> = images
                .iter()
                .enumerate()
                .map(|(at, image)| json!({ "name": format!("c{at}"), "image": image }))
                .collect();
            let owner =
                json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": uid, "controller": true });
            let metadata = json!({ "name": name, "ownerReferences": [owner] });
            create(&pods, json!({ "metadata": metadata, "spec": { "containers": containers } })).await.map(drop)
        };
        // Sets of images by controller's UID, as last told.
        let shown = || {
            let mut shown: Option<Vec<Vec<String>>> = None;
            for fact in world.said.facts() {
                match fact {
                    Fact::Replicas(Change::Upsert(of, Ok(replicas))) if of.uid == uid => {
                        let images = |w: &Workload| w.images.iter().map(|i| i.image.clone()).collect();
                        let mut all: Vec<Vec<String>> = replicas.iter().map(|r| images(&r.view)).collect();
                        all.sort();
                        shown = Some(all);
                    }
                    Fact::Replicas(Change::Remove(of)) if of.uid == uid => shown = None,
                    _ => {}
                }
            }
            shown
        };
        let until = async |expected: Option<&[&[&str]]>| {
            let expected = expected.map(|all| {
                all.iter().map(|one| one.iter().map(ToString::to_string).collect::<Vec<_>>()).collect::<Vec<_>>()
            });
            eventually(format!("the Pods show {expected:?}"), SOON, async || {
                if shown() == expected { Ok(()) } else { Err(anyhow!("{:?}", shown())) }
            })
            .await
        };
        pod("web-a", &["web:1"]).await?;
        until(Some(&[&["web:1"]])).await?;
        pod("web-b", &["web:1"]).await?;
        pod("web-c", &["web:1", "istio:1"]).await?;
        until(Some(&[&["web:1"], &["web:1", "istio:1"]])).await?;
        let now = DeleteParams::default().grace_period(0);
        pods.delete("web-c", &now).await?;
        until(Some(&[&["web:1"]])).await?;
        let told = world.said.facts().iter().filter(|fact| matches!(fact, Fact::Replicas(_))).count();
        ensure!(told == 3, "a second Pod that shows the same is no fact: {told}");
        pods.delete("web-a", &now).await?;
        pods.delete("web-b", &now).await?;
        until(None).await?;

        // Made again under its name: another one.
        let web = key(WorkloadKind::ReplicaSet, "web");
        sets.delete("web", &DeleteParams::background()).await?;
        world.until_images(&web, None).await?;
        let again = replica_set(&sets).await?;
        world.until_images(&web, Some(&["web:1"])).await?;
        let there = world.last(&web).context("it is gone")?.map_err(|text| anyhow!(text))?;
        ensure!(there.uid == again && again != uid, "{there:?}");
        Ok(())
    })
}
