//! What is discovered in the manifests of well-known projects, applied to a real API server.
//!
//! Shows: each image is told at its place and as it is written, with whom it belongs to and where its Pods may land: exactly
//! the list beside the manifest (`manifests/<project>.txt`), written by hand, and nothing else. Watches begin when everything
//! is there, so that the first full lists say all there is to say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cluster_plan::Fact;
use cluster_plan::input::{
    Constraint, ContainerImage, MatchExpression, Toleration, TolerationOperator, Workload, WorkloadKey, WorkloadKind,
};
use controller::api::client;
use controller::config::{DiscoverSettings, KindSettings};
use daemon::supervise::Tasks;
use integration::apiserver::ApiServer;
use integration::eventually::eventually;
use integration::installation::{definition, rights};
use integration::listener::Listener;
use integration::parts::{Parts, Tool};
use integration::run::scenario;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use shared::image::Reference;

const TEST: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_mins(1);
const USER: &str = "warm-images-controller";
/// There from the beginning.
const SYSTEM: &str = "kube-system";

/// One manifest, and what is to be told of it.
struct Project {
    name: String,
    objects: Vec<Value>,
    expected: BTreeSet<String>,
}

impl Project {
    fn all() -> Result<Vec<Self>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
        let mut all = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                all.push(Self::read(&path).with_context(|| path.display().to_string())?);
            }
        }
        Ok(all)
    }

    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let objects: Vec<Value> = text.split("\n---\n").map(serde_saphyr::from_str).collect::<Result<_, _>>()?;
        let expected = std::fs::read_to_string(path.with_extension("txt"))?;
        let without_comment = |block: &str| {
            let lines = block.lines().filter(|line| !line.starts_with('#'));
            lines.collect::<Vec<_>>().join("\n")
        };
        let expected = expected.split("\n\n").map(without_comment).collect();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, objects, expected })
    }

    fn namespaces(&self) -> BTreeSet<&str> {
        self.objects.iter().filter_map(|object| text(object, "/metadata/namespace")).collect()
    }
}

fn text<'a>(value: &'a Value, at: &str) -> Option<&'a str> {
    value.pointer(at).and_then(Value::as_str)
}

fn kind_of(object: &Value) -> Result<GroupVersionKind> {
    let version = text(object, "/apiVersion").context("no apiVersion")?;
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    Ok(GroupVersionKind::gvk(group, version, text(object, "/kind").context("no kind")?))
}

/// Every preset.
fn discover() -> DiscoverSettings {
    DiscoverSettings { presets: DiscoverSettings::presets().into_keys().collect(), ..DiscoverSettings::default() }
}

/// The hands that apply.
struct Site {
    client: Client,
    kinds: BTreeMap<WorkloadKind, KindSettings>,
}

impl Site {
    fn api(&self, kind: &GroupVersionKind, namespace: &str) -> Api<DynamicObject> {
        let configured = self.kinds.get(&WorkloadKind::of(&kind.group, &kind.kind));
        let plural = configured.map_or_else(|| format!("{}s", kind.kind.to_lowercase()), KindSettings::plural);
        let resource = ApiResource::from_gvk_with_plural(kind, &plural);
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    async fn create<K>(&self, api: Api<K>, object: Value) -> Result<()>
    where
        K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        let object: K = serde_json::from_value(object)?;
        api.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Namespaces, and the definitions of the kinds that are used.
    async fn prepare(&self, projects: &[Project]) -> Result<()> {
        let mut namespaces = BTreeSet::new();
        let mut kinds = BTreeSet::new();
        for project in projects {
            for namespace in project.namespaces() {
                ensure!(namespaces.insert(namespace), "{namespace} is of two projects");
                if namespace != SYSTEM {
                    self.create::<Namespace>(
                        Api::all(self.client.clone()),
                        json!({ "metadata": { "name": namespace } }),
                    )
                    .await?;
                }
                let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
                self.create(accounts, json!({ "metadata": { "name": "default" } })).await?;
            }
            for object in &project.objects {
                let kind = kind_of(object)?;
                kinds.insert(WorkloadKind::of(&kind.group, &kind.kind));
            }
        }
        for settings in kinds.iter().filter_map(|kind| self.kinds.get(kind)) {
            let definitions = Api::all(self.client.clone());
            definitions
                .create(&PostParams::default(), &definition::of_kind(settings)?)
                .await
                .with_context(|| settings.kind.clone())?;
        }
        // As the chart does for the presets.
        rights::grant_kinds(&self.client, USER, "presets", self.kinds.values()).await
    }

    async fn apply(&self, object: &Value) -> Result<()> {
        let (kind, mut object) = (kind_of(object)?, object.clone());
        let namespace = text(&object, "/metadata/namespace").context("no namespace")?.to_owned();
        let name = text(&object, "/metadata/name").context("no name")?.to_owned();
        let owners = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut);
        // Owners that are there have a UID of which the manifest knows nothing.
        for owner in owners.into_iter().flatten().filter(|owner| owner.get("uid").is_none()) {
            let of = self.api(&kind_of(owner)?, &namespace);
            let uid = of.get(text(owner, "/name").context("no owner's name")?).await?.metadata.uid;
            owner.as_object_mut().context("no owner")?.insert("uid".to_owned(), json!(uid));
        }
        let api = self.api(&kind, &namespace);
        let created: DynamicObject = serde_json::from_value(object.clone())?;
        let what = || format!("{} {namespace}/{name}", kind.kind);
        eventually(format!("{} is taken", what()), SOON, async || {
            let answer = api.create(&PostParams::default(), &created).await;
            // Its definition may not be served yet; everything else is a mistake.
            match answer {
                Err(kube::Error::Api(status)) if status.code != 404 => Ok(Some(Err(status.message))),
                answer => answer.map(|_| Some(Ok(()))),
            }
        })
        .await?
        .map_err(anyhow::Error::msg)
        .with_context(what)?;
        if let Some(status) = object.get("status").filter(|_| !self.is_configured(&kind)) {
            let patch = Patch::Merge(json!({ "status": status }));
            api.patch_status(&name, &PatchParams::default(), &patch).await.with_context(what)?;
        }
        Ok(())
    }

    fn is_configured(&self, kind: &GroupVersionKind) -> bool {
        self.kinds.contains_key(&WorkloadKind::of(&kind.group, &kind.kind))
    }
}

/// One block of an expected list.
fn block(head: String, of: &Workload) -> String {
    let mut lines = vec![head];
    template(&mut lines, &of.images, &of.constraint, of.runtime_class.as_deref());
    for part in &of.more {
        lines.push(format!("  and {}", part.at));
        template(&mut lines, &part.images, &part.constraint, part.runtime_class.as_deref());
    }
    lines.extend(of.template_of.iter().map(|of| format!("  templates of {of}")));
    lines.extend(of.problems.iter().map(|problem| format!("  wrong: {problem}")));
    lines.join("\n")
}

fn template(lines: &mut Vec<String>, images: &[ContainerImage], constraint: &Constraint, runtime_class: Option<&str>) {
    for ContainerImage { position, image } in images {
        let unqualified = if Reference::is_unqualified(image) { " (unqualified)" } else { "" };
        let problem = Reference::parse(image).err().map(|error| format!(" ({error})")).unwrap_or_default();
        lines.push(format!("  {position} {image}{unqualified}{problem}"));
    }
    let selector: Vec<String> = constraint.node_selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if !selector.is_empty() {
        lines.push(format!("  on nodes with {}", selector.join(", ")));
    }
    for term in constraint.affinity.iter().flatten() {
        let all: Vec<String> = term.match_expressions.iter().chain(&term.match_fields).map(expression).collect();
        lines.push(format!("  on nodes where {}", all.join(" and ")));
    }
    lines.extend(constraint.node_name.iter().map(|node| format!("  on node {node}")));
    let tolerations: Vec<String> = constraint.tolerations.iter().map(toleration).collect();
    if !tolerations.is_empty() {
        lines.push(format!("  tolerates {}", tolerations.join(", ")));
    }
    lines.extend(runtime_class.map(|class| format!("  runs in {class}")));
}

fn expression(of: &MatchExpression) -> String {
    let values: Vec<&str> = of.values.iter().map(String::as_str).collect();
    let values = if values.is_empty() { String::new() } else { format!(" [{}]", values.join(", ")) };
    format!("{} {:?}{values}", of.key, of.operator)
}

fn toleration(of: &Toleration) -> String {
    let key = of.key.as_deref().unwrap_or("*");
    let value = match of.operator {
        TolerationOperator::Exists => String::new(),
        TolerationOperator::Equal => format!("={}", of.value),
        other => format!(" {other:?} {}", of.value),
    };
    let effect = of.effect.map(|effect| format!(":{effect:?}")).unwrap_or_default();
    format!("{key}{value}{effect}")
}

/// What was told in full lists of these namespaces.
fn told(facts: &[Fact], namespaces: &BTreeSet<&str>) -> BTreeSet<String> {
    let is_here = |key: &WorkloadKey| namespaces.contains(key.namespace.as_str());
    let mut blocks = BTreeSet::new();
    for fact in facts {
        match fact {
            Fact::Workloads(_, list) => {
                for (key, content) in list.iter().filter(|(key, _)| is_here(key)) {
                    blocks.insert(match content {
                        Ok(workload) => {
                            let owner = workload.owner.as_ref();
                            let owner = owner.map(|of| format!(" of {}/{}", of.kind, of.name)).unwrap_or_default();
                            let ended = if workload.ended { " ended" } else { "" };
                            block(format!("{key}{owner}{ended}"), workload)
                        }
                        Err(problem) => format!("{key}\n  wrong: {problem}"),
                    });
                }
            }
            Fact::AllReplicas(all) => {
                for (of, replicas) in all.iter().filter(|(of, _)| is_here(&of.key)) {
                    let shown = |replica: &cluster_plan::input::Replica| {
                        block(format!("Pods of {}: {}", of.key, replica.pod), &replica.view)
                    };
                    blocks.extend(replicas.iter().map(shown));
                }
            }
            _ => {}
        }
    }
    blocks
}

#[test]
fn of_well_known_projects_exactly_that_is_told_which_their_users_want() -> Result<()> {
    scenario("manifests", TEST, async |run| {
        let api = ApiServer::start(&run, &Parts::ensure(&[Tool::Etcd, Tool::KubeApiserver])?).await?;
        rights::grant(&api.client(), USER).await?;
        let discover = discover();
        let site = Site { client: api.client(), kinds: discover.kinds() };
        let projects = Project::all()?;
        ensure!(projects.len() >= 10, "{} projects", projects.len());
        site.prepare(&projects).await?;
        for project in &projects {
            for object in &project.objects {
                site.apply(object).await.with_context(|| project.name.clone())?;
            }
        }

        let client = client::connect(Some(&api.kubeconfig_for(USER, None)?), Duration::from_secs(40)).await?;
        let (tasks, shutdown) = Tasks::new();
        let (said, inbox) = Listener::start(&tasks, shutdown);
        let (_none, expressions) = tokio::sync::watch::channel(std::sync::Arc::default());
        controller::watch::start(&client, &discover, Duration::from_secs(30), false, &expressions, &inbox, &tasks);
        let wanted: BTreeSet<WorkloadKind> = WorkloadKind::BUILT_IN.into_iter().chain(site.kinds.into_keys()).collect();
        eventually("every kind is told", SOON, async || {
            let facts = said.facts();
            let listed: BTreeSet<WorkloadKind> = facts
                .iter()
                .filter_map(|fact| if let Fact::Workloads(kind, _) = fact { Some(kind.clone()) } else { None })
                .collect();
            let missing: Vec<&str> = wanted.difference(&listed).map(WorkloadKind::as_str).collect();
            ensure!(missing.is_empty(), "no list of {}", missing.join(", "));
            Ok(())
        })
        .await?;
        tasks.stop();

        let facts = said.facts();
        let mut differences = String::new();
        for project in &projects {
            let told = told(&facts, &project.namespaces());
            let lines = |title: &str, blocks: Vec<&String>| {
                let named = |block: &String| format!("\n{}: {title}:\n{block}\n", project.name);
                blocks.into_iter().map(named).collect::<Vec<_>>().concat()
            };
            differences.push_str(&lines("not told", project.expected.difference(&told).collect()));
            differences.push_str(&lines("told", told.difference(&project.expected).collect()));
        }
        ensure!(differences.is_empty(), "{differences}");
        Ok(())
    })
}
