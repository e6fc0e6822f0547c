//! The plan against the real scheduler.
//!
//! Shows: wherever kube-scheduler puts a pod of a random workload, the plan made of what the controller's own watches say
//! wants the workload's image there; and what the plan wants beside that is meant: cordoned nodes are warmed, and requests
//! count in coarse steps. The scheduler is asked about every pair of workload and node, by a pod that names the node beside
//! its own constraint, and once about each workload without such a hint. Node objects are bare, without kubelets.
//! `WARM_SCHEDULER_SEED` draws other nodes and workloads.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use cluster_plan::input::Selection;
use cluster_plan::{Fact, Settings, World};
use controller::api::client;
use controller::config::DiscoverSettings;
use daemon::supervise::Tasks;
use fastrand::Rng;
use futures::{StreamExt as _, TryStreamExt as _};
use integration::apiserver::ApiServer;
use integration::eventually::eventually;
use integration::image::Platform;
use integration::installation::rights;
use integration::kubernetes::scheduler::Scheduler;
use integration::listener::Listener;
use integration::node::{NodeSpec, Nodes};
use integration::parts::{Parts, Tool};
use integration::run::{said, scenario, seed};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use shared::machine::{Machine as _, Moment, Now};

const TEST: Duration = Duration::from_mins(5);
const SOON: Duration = Duration::from_mins(1);
const USER: &str = "warm-images-controller";
const SEED: u64 = 20_260_801;
const NODES: usize = 24;
const WORKLOADS: usize = 48;
/// Workloads tried at the same time: fewer than the pods that a node takes.
const AT_ONCE: usize = 16;
/// Tolerations by `Gt` and `Lt`.
const FEATURES: [&str; 1] = ["TaintTolerationComparisonOperators"];
/// A resource that a node has once it is complete.
const COMPLETE: &str = "example.com/complete";
const ZONE: &str = "topology.kubernetes.io/zone";
const ARCH: &str = "kubernetes.io/arch";

/// What a node is beside its random properties.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Random,
    Plain,
    /// Pods have to tolerate it.
    Tainted,
    Cordoned,
    /// With a deletion timestamp.
    Deleted,
    /// About to be deleted by an autoscaler.
    Leaving,
    Virtual,
}

const FIXED: [Kind; 6] = [Kind::Plain, Kind::Tainted, Kind::Cordoned, Kind::Deleted, Kind::Leaving, Kind::Virtual];

/// One node.
struct Machine {
    name: String,
    kind: Kind,
    os: &'static str,
    is_cordoned: bool,
}

/// One workload.
struct Work {
    name: String,
    uid: String,
    pod: Value,
}

impl Work {
    fn image(&self) -> String {
        format!("registry.test/team/{}:1", self.name)
    }

    /// Whether it asks for what the plan counts in coarse steps.
    fn is_rounded(&self) -> bool {
        let asks = &self.pod["containers"][0]["resources"]["requests"];
        !asks["cpu"].is_null() || !asks["memory"].is_null() || self.pod["runtimeClassName"] == "heavy"
    }

    /// Whether pods of it can be in each other's way.
    fn is_heavy(&self) -> bool {
        !self.pod["containers"][0]["resources"].is_null() || self.pod["runtimeClassName"] == "heavy"
    }

    /// A pod of it, which can go to this node alone if one is given.
    fn pod(&self, machine: Option<&Machine>) -> Value {
        let mut spec = self.pod.clone();
        if let Some(machine) = machine {
            let only = json!({ "key": "metadata.name", "operator": "In", "values": [machine.name] });
            let path = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
            let mut terms = spec.pointer(path).and_then(Value::as_array).cloned().unwrap_or_else(|| vec![json!({})]);
            for term in &mut terms {
                let mut fields = term["matchFields"].as_array().cloned().unwrap_or_default();
                fields.push(only.clone());
                term["matchFields"] = json!(fields);
            }
            spec["affinity"] = affinity(&terms);
        }
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "name": self.name, "uid": self.uid, "controller": true,
        });
        let name = pod_name(&self.name, machine.map_or("any", |machine| &machine.name));
        json!({ "metadata": { "name": name, "ownerReferences": [owner] }, "spec": spec })
    }
}

fn pod_name(work: &str, node: &str) -> String {
    format!("{work}.{node}")
}

#[test]
fn wherever_the_scheduler_puts_a_pod_the_plan_wants_its_image() -> Result<()> {
    scenario("scheduler", TEST, async |run| {
        let seed = seed("WARM_SCHEDULER_SEED", SEED)?;
        let parts =
            tokio::task::spawn_blocking(|| Parts::ensure(&[Tool::Etcd, Tool::KubeApiserver, Tool::KubeScheduler]));
        let parts = parts.await.context("building the parts")??;
        let api = ApiServer::start_with(&run, &parts, &FEATURES).await?;
        let _scheduler = Scheduler::start(&run, &parts, &api, &FEATURES).await?;
        rights::grant(&api.client(), USER).await?;
        let account: ServiceAccount = serde_json::from_value(json!({ "metadata": { "name": "default" } }))?;
        Api::namespaced(api.client(), "default").create(&PostParams::default(), &account).await?;
        let mut rng = Rng::with_seed(seed);
        classes(&api.client()).await?;
        let mut machines = Vec::new();
        for n in 0..NODES {
            machines.push(machine(&api.client(), &mut rng, n).await?);
        }
        let mut works = Vec::new();
        for n in 0..WORKLOADS {
            works.push(work(&api.client(), &mut rng, n).await?);
        }
        let wanted = planned(&api).await?;
        let pods: Api<Pod> = Api::namespaced(api.client(), "default");
        until_complete(&pods, &machines).await?;

        let mut tally = Tally { wanted: wanted.len(), ..Tally::default() };
        let mut placed = BTreeMap::new();
        let (heavy, light): (Vec<&Work>, Vec<&Work>) = works.iter().partition(|work| work.is_heavy());
        for wave in light.chunks(AT_ONCE).chain(heavy.chunks(1)) {
            let all = wave.iter().flat_map(|work| machines.iter().map(|machine| work.pod(Some(machine))));
            placed.extend(judged(&pods, all.collect()).await?);
        }
        let free = judged(&pods, works.iter().map(|work| work.pod(None)).collect()).await?;
        for work in &works {
            for machine in &machines {
                let is_placed = placed.contains_key(&pod_name(&work.name, &machine.name));
                let goes_there = free.get(&pod_name(&work.name, "any")) == Some(&machine.name);
                let is_wanted = wanted.contains(&(work.image(), machine.name.clone()));
                tally.add(work, machine, is_placed || goes_there, is_wanted);
                tally.free += usize::from(goes_there);
            }
        }
        tally.judge()?;
        no_trivial_superset(&wanted, &works, &machines)
    })
}

/// What became of all pairs of workload and node.
#[derive(Default)]
struct Tally {
    wanted: usize,
    /// Placed and wanted.
    placed: usize,
    /// Pods that named no node and were placed.
    free: usize,
    /// Neither placed nor wanted.
    left: usize,
    missed: Vec<String>,
    by_policy: usize,
    by_rounding: usize,
    in_vain: Vec<String>,
    /// Placed where the kubelet refuses the pod, or where nothing is ever warmed.
    refused: usize,
}

impl Tally {
    fn add(&mut self, work: &Work, machine: &Machine, is_placed: bool, is_wanted: bool) {
        let what = || format!("{} on {}: {}", work.name, machine.name, work.pod);
        let is_never_warmed = matches!(machine.kind, Kind::Deleted | Kind::Leaving | Kind::Virtual);
        // The scheduler looks at labels alone; the kubelet's admission refuses pods of another system.
        let is_of_another_os = work.pod["os"]["name"].as_str().is_some_and(|os| os != machine.os);
        match (is_placed, is_wanted) {
            (_, true) if is_never_warmed || is_of_another_os => self.in_vain.push(what()),
            (true, true) => self.placed += 1,
            (true, false) if is_never_warmed || is_of_another_os => self.refused += 1,
            (true, false) => self.missed.push(what()),
            (false, false) => self.left += 1,
            (false, true) if machine.is_cordoned => self.by_policy += 1,
            (false, true) if work.is_rounded() => self.by_rounding += 1,
            (false, true) => self.in_vain.push(what()),
        }
    }

    fn judge(&self) -> Result<()> {
        let Self { wanted, placed, free, left, missed, by_policy, by_rounding, in_vain, refused } = self;
        let pairs = NODES * WORKLOADS;
        said(&format!(
            "{wanted} of {pairs} pairs wanted ({} %): {placed} placed there, {by_policy} on cordoned nodes, {by_rounding} on \
             nodes that are too small within a step, {} in vain; {free} of {WORKLOADS} pods without a hint placed; \
             {left} pairs neither placed nor wanted, {refused} placed where nothing may run or be warmed, {} missed",
            wanted * 100 / pairs,
            in_vain.len(),
            missed.len(),
        ));
        ensure!(missed.is_empty(), "placed and not wanted: {missed:#?}");
        ensure!(in_vain.is_empty(), "wanted and never placed: {in_vain:#?}");
        let least = pairs / 10;
        ensure!(*placed >= least && *left >= least && *free > 0, "this shows too little");
        Ok(())
    }
}

/// Some that no random choice has a say in.
fn no_trivial_superset(wanted: &BTreeSet<(String, String)>, works: &[Work], machines: &[Machine]) -> Result<()> {
    let [plain, selecting, tolerating, ..] = works else { return Err(anyhow!("too few workloads")) };
    for machine in machines {
        let is_wanted = |work: &Work| wanted.contains(&(work.image(), machine.name.clone()));
        let expected = match machine.kind {
            Kind::Plain | Kind::Cordoned => [true, false, true],
            Kind::Tainted => [false, false, true],
            Kind::Deleted | Kind::Leaving | Kind::Virtual => [false; 3],
            Kind::Random => continue,
        };
        let seen = [plain, selecting, tolerating].map(is_wanted);
        ensure!(seen == expected, "{}: {seen:?} instead of {expected:?}", machine.name);
    }
    Ok(())
}

async fn classes(client: &Client) -> Result<()> {
    let scheduling = |disk: &str| json!({ "nodeSelector": { "disk": disk }, "tolerations": [{ "key": "team", "operator": "Exists" }] });
    for (name, overhead, scheduling) in [
        ("kata", "5m", scheduling("ssd")),
        ("nowhere", "5m", scheduling("none")),
        ("heavy", "10", json!({ "tolerations": [{ "key": "level", "operator": "Exists" }] })),
    ] {
        let class: RuntimeClass = serde_json::from_value(json!({
            "metadata": { "name": name },
            "handler": name,
            "overhead": { "podFixed": { "cpu": overhead } },
            "scheduling": scheduling,
        }))?;
        Api::all(client.clone()).create(&PostParams::default(), &class).await?;
    }
    Ok(())
}

fn one_of<T: Copy + Default>(rng: &mut Rng, list: &[T]) -> T {
    rng.choice(list).copied().unwrap_or_default()
}

async fn machine(client: &Client, rng: &mut Rng, n: usize) -> Result<Machine> {
    let (name, kind) = (format!("node-{n}"), FIXED.get(n).copied().unwrap_or(Kind::Random));
    let os = if kind == Kind::Random && rng.u8(..6) == 0 { "windows" } else { "linux" };
    let architecture = one_of(rng, &["amd64", "amd64", "arm64"]).to_owned();
    let spec = NodeSpec::new(&name).platform(Platform { os: os.to_owned(), architecture });
    let mut spec = spec.label(ZONE, one_of(rng, &["a", "b", "c"]));
    match kind {
        Kind::Random => spec = random_labels(rng, spec),
        Kind::Tainted => spec = spec.taint("team", "red", "NoSchedule"),
        Kind::Leaving => spec = spec.taint("ToBeDeletedByClusterAutoscaler", "", "NoSchedule"),
        Kind::Virtual => spec = spec.label("type", "virtual-kubelet"),
        Kind::Plain | Kind::Cordoned | Kind::Deleted => {}
    }
    let nodes = Nodes::new(client.clone());
    nodes.create(&spec).await?;
    let patch = async |patch: Value| nodes.api().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    let is_cordoned = kind == Kind::Cordoned || (kind == Kind::Random && rng.u8(..8) == 0);
    if is_cordoned {
        patch(json!({ "spec": { "unschedulable": true } })).await?;
    }
    if kind == Kind::Deleted {
        patch(json!({ "metadata": { "finalizers": ["example.com/held"] } })).await?;
        nodes.delete(&name).await?;
    }
    // Last, so that a pod that asks for it sees all the rest.
    let mut there = json!({ "cpu": "16", "memory": "64Gi", "pods": "110" });
    there[COMPLETE] = json!("1000");
    if kind == Kind::Random {
        there["cpu"] = json!(one_of(rng, &["2", "3920m", "8", "16"]));
        there["memory"] = json!(one_of(rng, &["8Gi", "30Gi", "64Gi"]));
        if rng.u8(..3) == 0 {
            there["example.com/gpu"] = json!(one_of(rng, &["1", "4"]));
        }
    }
    let status = json!({ "status": { "allocatable": there, "capacity": there } });
    nodes.api().patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(Machine { name, kind, os, is_cordoned })
}

fn random_labels(rng: &mut Rng, mut spec: NodeSpec) -> NodeSpec {
    if rng.u8(..3) > 0 {
        spec = spec.label("disk", one_of(rng, &["ssd", "hdd"]));
    }
    if rng.u8(..4) > 0 {
        spec = spec.label("size", one_of(rng, &["1", "2", "3", "10", "large"]));
    }
    if rng.u8(..3) == 0 {
        let effect = one_of(rng, &["NoSchedule", "NoExecute", "PreferNoSchedule"]);
        spec = spec.taint("team", one_of(rng, &["red", "blue"]), effect);
    }
    if rng.u8(..4) == 0 {
        spec = spec.taint("level", one_of(rng, &["1", "2", "3", "high"]), one_of(rng, &["NoSchedule", "NoExecute"]));
    }
    spec
}

fn expression(rng: &mut Rng) -> Value {
    let key = one_of(rng, &["disk", "size", ZONE, ARCH, "absent"]);
    let values: Vec<&str> = (0..rng.usize(1..3)).map(|_| one_of(rng, &["ssd", "1", "3", "a", "b", "arm64"])).collect();
    match rng.u8(..6) {
        0 | 1 => json!({ "key": key, "operator": "In", "values": values }),
        2 => json!({ "key": key, "operator": "NotIn", "values": values }),
        3 => json!({ "key": key, "operator": one_of(rng, &["Exists", "DoesNotExist"]) }),
        _ => {
            json!({ "key": "size", "operator": one_of(rng, &["Gt", "Lt"]), "values": [one_of(rng, &["1", "2", "3"])] })
        }
    }
}

fn toleration(rng: &mut Rng) -> Value {
    match rng.u8(..6) {
        0 => json!({ "operator": "Exists" }),
        1 => json!({ "key": "team", "operator": "Exists", "effect": one_of(rng, &["NoSchedule", "NoExecute"]) }),
        2 => json!({ "key": "level", "operator": "Gt", "value": one_of(rng, &["1", "2"]) }),
        3 => json!({ "key": "level", "operator": "Lt", "value": one_of(rng, &["2", "3"]) }),
        4 => json!({ "key": "team", "value": one_of(rng, &["red", "blue"]) }),
        _ => json!({ "key": "team", "operator": "Equal", "value": one_of(rng, &["red", "blue"]) }),
    }
}

fn resources(rng: &mut Rng) -> Value {
    match rng.u8(..8) {
        0 => json!({ "requests": { "cpu": one_of(rng, &["1", "5", "9", "17"]) } }),
        1 => json!({ "requests": { "memory": one_of(rng, &["4Gi", "20Gi", "40Gi", "100Gi"]) } }),
        2 => json!({ "limits": { "example.com/gpu": one_of(rng, &["1", "2"]) } }),
        _ => Value::Null,
    }
}

/// What a random workload asks of a node.
fn random_pod(rng: &mut Rng) -> Value {
    let mut pod = json!({ "containers": [{ "name": "app" }] });
    let resources = resources(rng);
    if !resources.is_null() {
        pod["containers"][0]["resources"] = resources;
    }
    if rng.u8(..4) == 0 {
        let (key, value) = one_of(rng, &[("disk", "ssd"), ("disk", "hdd"), ("size", "1"), (ARCH, "arm64")]);
        pod["nodeSelector"] = json!({ key: value });
    }
    if rng.u8(..2) == 0 {
        let mut terms = Vec::new();
        for _ in 0..rng.usize(1..3) {
            let expressions: Vec<Value> = (0..rng.usize(1..3)).map(|_| expression(rng)).collect();
            let mut term = json!({ "matchExpressions": expressions });
            if rng.u8(..4) == 0 {
                let field = |operator: &str, n: usize| json!({ "key": "metadata.name", "operator": operator, "values": [format!("node-{n}")] });
                term["matchFields"] = json!([field(one_of(rng, &["In", "NotIn", "NotIn"]), rng.usize(..NODES))]);
            }
            terms.push(term);
        }
        pod["affinity"] = affinity(&terms);
    }
    if rng.u8(..2) == 0 {
        let tolerations: Vec<Value> = (0..rng.usize(1..3)).map(|_| toleration(rng)).collect();
        pod["tolerations"] = json!(tolerations);
    }
    if rng.u8(..5) == 0 {
        pod["runtimeClassName"] = json!(one_of(rng, &["kata", "kata", "heavy", "nowhere", "absent"]));
    }
    if rng.u8(..5) == 0 {
        pod["os"] = json!({ "name": one_of(rng, &["linux", "windows"]) });
    }
    pod
}

fn affinity(terms: &[Value]) -> Value {
    json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } })
}

/// A Deployment without replicas: its template is what the controller sees.
async fn work(client: &Client, rng: &mut Rng, n: usize) -> Result<Work> {
    let mut pod = match n {
        0..3 => json!({ "containers": [{ "name": "app" }] }),
        _ => random_pod(rng),
    };
    match n {
        1 => pod["nodeSelector"] = json!({ "disk": "ssd" }),
        2 => pod["tolerations"] = json!([{ "operator": "Exists" }]),
        _ => {}
    }
    let mut work = Work { name: format!("work-{n}"), uid: String::new(), pod };
    let (name, image) = (work.name.clone(), work.image());
    work.pod["containers"][0]["image"] = json!(image);
    let object: Deployment = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": work.pod },
        },
    }))?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let created = deployments.create(&PostParams::default(), &object).await;
    let created = created.with_context(|| format!("creating {name} with {}", work.pod))?;
    work.uid = created.metadata.uid.context("no UID")?;
    Ok(work)
}

/// What the plan wants: image and node.
async fn planned(api: &ApiServer) -> Result<BTreeSet<(String, String)>> {
    let client = client::connect(Some(&api.kubeconfig_for(USER, None)?), SOON).await?;
    let (tasks, shutdown) = Tasks::new();
    let (heard, inbox) = Listener::start(&tasks, shutdown);
    let (_none, expressions) = tokio::sync::watch::channel(Arc::default());
    let discover = DiscoverSettings::default();
    controller::watch::start(&client, &discover, Duration::from_secs(30), false, &expressions, &inbox, &tasks);
    let now = Now { mono: Moment(1_000_000), wall: jiff::Timestamp::UNIX_EPOCH };
    let wanted = eventually("the plan is made of everything there is", SOON, async || {
        let mut world = World::new(Settings::default(), "epoch".to_owned(), 1, now);
        let buckets = [
            Fact::Selection(Selection::default()),
            Fact::Intents { stream_created: "then".to_owned(), head: 0, entries: Vec::new() },
            Fact::Assignments(Vec::new()),
            Fact::Inventories(Vec::new()),
            Fact::Connected,
        ];
        for fact in heard.facts().into_iter().chain(buckets) {
            world.apply(fact, now);
        }
        world.step(now);
        // One that follows is ready when it knows everything.
        world.readiness().map_err(|why| anyhow!(why))?;
        anyhow::Ok(Some(world.table().into_iter().map(|row| (row.image, row.node.to_string())).collect()))
    })
    .await;
    tasks.stop();
    wanted
}

/// Until the scheduler sees every node as it is to be.
async fn until_complete(pods: &Api<Pod>, machines: &[Machine]) -> Result<()> {
    let asking = |machine: &Machine| {
        let container =
            json!({ "name": "app", "image": "registry.test/any:1", "resources": { "limits": { COMPLETE: "1" } } });
        let pod = json!({ "containers": [container], "tolerations": [{ "operator": "Exists" }] });
        Work { name: "complete".to_owned(), uid: "none".to_owned(), pod }.pod(Some(machine))
    };
    create(pods, machines.iter().map(asking).collect()).await?;
    eventually("every node is seen by the scheduler", SOON, async || {
        let list = pods.list(&ListParams::default()).await?.items;
        let placed = list.iter().filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())).count();
        ensure!(placed == machines.len(), "{placed} of {}", machines.len());
        Ok(())
    })
    .await?;
    remove(pods).await
}

/// Creates pods; gives how many the API server took.
async fn create(pods: &Api<Pod>, objects: Vec<Value>) -> Result<usize> {
    let taken = futures::stream::iter(objects)
        .map(async |object| {
            let pod: Pod = serde_json::from_value(object.clone())?;
            match pods.create(&PostParams::default(), &pod).await {
                Ok(_) => Ok(1),
                // Admission refuses what names no class, or one that contradicts it.
                Err(kube::Error::Api(status)) if status.code == 403 && pod_has_class(&pod) => Ok(0),
                Err(error) => Err(error).with_context(|| format!("creating {object}")),
            }
        })
        .buffer_unordered(32);
    taken.try_fold(0, async |sum, one| Ok(sum + one)).await
}

fn pod_has_class(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.runtime_class_name.is_some())
}

/// Which of these pods the scheduler puts on a node, and on which.
async fn judged(pods: &Api<Pod>, objects: Vec<Value>) -> Result<BTreeMap<String, String>> {
    let created = create(pods, objects).await?;
    let placed = eventually("the scheduler has judged every pod", SOON, async || {
        let list = pods.list(&ListParams::default()).await?.items;
        ensure!(list.len() == created, "{} of {created} pods", list.len());
        let mut placed = BTreeMap::new();
        for pod in list {
            let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
            let is_refused = conditions.iter().any(|c| c.type_ == "PodScheduled" && c.status == "False");
            let name = pod.metadata.name.unwrap_or_default();
            match pod.spec.and_then(|spec| spec.node_name) {
                Some(node) => drop(placed.insert(name, node)),
                None if is_refused => {}
                None => return Err(anyhow!("{name} waits")),
            }
        }
        Ok(Some(placed))
    })
    .await?;
    remove(pods).await?;
    Ok(placed)
}

/// Removes every pod.
async fn remove(pods: &Api<Pod>) -> Result<()> {
    pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await?;
    eventually("the pods are gone", SOON, async || {
        let left = pods.list(&ListParams::default()).await?.items.len();
        if left == 0 { Ok(()) } else { Err(anyhow!("{left} pods are left")) }
    })
    .await
}
