//! Pods.
//!
//! Owns which Pods are told one by one (those that nothing watched controls) and what is told of the others: what the Pods
//! of one controller show, each difference once. Of such a Pod only its name is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_plan::Fact;
use cluster_plan::fact::{Change, Source};
use cluster_plan::input::{Controller, Replica, Workload, WorkloadKey, WorkloadKind};
use k8s_openapi::api::core::v1::Pod;
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event};
use serde::Deserialize;

use super::form::PodSpec;
use super::object::{Meta, Object};
use super::source::{Reduce, Reducer, Watched, digest, results};
use super::template;
use super::workload::key;
use crate::expression::Expressions;

/// On the API server's copy of a Pod that a kubelet runs from a file.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// What is decoded of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Form {
    spec: Option<PodSpec>,
}

/// Which kinds are watched beside those that always are.
#[derive(Debug, Clone, Default)]
pub struct Kinds(pub Arc<BTreeSet<WorkloadKind>>);

impl Kinds {
    fn controller(&self, meta: &Meta) -> Option<Controller> {
        let owner = template::owner(meta)?;
        let is_watched = !matches!(owner.kind, WorkloadKind::Other(_)) || self.0.contains(&owner.kind);
        let key = WorkloadKey { kind: owner.kind, namespace: meta.namespace.clone(), name: owner.name };
        is_watched.then_some(Controller { key, uid: owner.uid })
    }
}

fn is_mirror(meta: &Meta) -> bool {
    meta.annotations.contains_key(MIRROR_ANNOTATION)
}

/// Pods that nothing watched controls.
#[derive(Debug)]
pub struct Unowned(pub Kinds);

impl Watched for Unowned {
    type Form = Form;
    type Key = WorkloadKey;
    type View = Workload;

    fn source(&self) -> Source {
        Source::Workloads(WorkloadKind::Pod)
    }

    fn resource(&self) -> ApiResource {
        ApiResource::erase::<Pod>(&())
    }

    fn key(&self, meta: &Meta) -> Option<WorkloadKey> {
        key(&WorkloadKind::Pod, meta)
    }

    fn view(&self, meta: &Meta, form: Form) -> Option<Result<Workload, String>> {
        if is_mirror(meta) || self.0.controller(meta).is_some() {
            return None;
        }
        Some(form.spec.ok_or_else(|| "spec is missing".to_owned()).map(|spec| template::of_pod(meta, spec)))
    }

    fn is_evaluated(&self) -> bool {
        true
    }

    fn evaluated(&self, view: &mut Workload, results: BTreeMap<String, Result<bool, String>>) {
        view.expressions = results;
    }

    fn listed(&self, list: BTreeMap<WorkloadKey, Result<Workload, String>>) -> Fact {
        Fact::Workloads(WorkloadKind::Pod, list)
    }

    fn changed(&self, change: Change<WorkloadKey, Workload>) -> Fact {
        Fact::Workload(change)
    }
}

type PodName = (Arc<str>, Arc<str>);

/// Pods of a controller that show the same.
#[derive(Debug)]
struct Same {
    view: Workload,
    /// The one that is named; it stays so for as long as it is there.
    named: Arc<str>,
    names: BTreeSet<Arc<str>>,
}

/// Pods by controller.
#[derive(Debug, Default)]
struct Crowd {
    pods: BTreeMap<PodName, (Arc<Controller>, u64)>,
    controllers: BTreeMap<Arc<Controller>, BTreeMap<u64, Same>>,
    namespaces: BTreeSet<Arc<str>>,
}

impl Crowd {
    /// Takes a Pod in, or out; says whose Pods may show something else now.
    fn place(&mut self, meta: &Meta, of: Option<(Controller, Workload)>) -> Vec<Arc<Controller>> {
        let namespace = self.intern(&meta.namespace);
        let pod: PodName = (namespace, meta.name.as_str().into());
        let Some((controller, view)) = of else {
            return self.remove(&pod).into_iter().collect();
        };
        let digest = digest(&view);
        if self.pods.get(&pod).is_some_and(|(of, old)| **of == controller && *old == digest) {
            return Vec::new();
        }
        let mut touched: Vec<Arc<Controller>> = self.remove(&pod).into_iter().collect();
        let controller = match self.controllers.get_key_value(&controller) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(controller),
        };
        let all = self.controllers.entry(Arc::clone(&controller)).or_default();
        let same =
            all.entry(digest).or_insert_with(|| Same { view, named: Arc::clone(&pod.1), names: BTreeSet::new() });
        same.names.insert(Arc::clone(&pod.1));
        self.pods.insert(pod, (Arc::clone(&controller), digest));
        touched.push(controller);
        touched
    }

    fn intern(&mut self, namespace: &str) -> Arc<str> {
        if let Some(known) = self.namespaces.get(namespace) {
            return Arc::clone(known);
        }
        let new: Arc<str> = namespace.into();
        self.namespaces.insert(Arc::clone(&new));
        new
    }

    fn remove(&mut self, pod: &PodName) -> Option<Arc<Controller>> {
        let (controller, digest) = self.pods.remove(pod)?;
        let all = self.controllers.get_mut(&controller)?;
        if let Some(same) = all.get_mut(&digest) {
            same.names.remove(&pod.1);
            match same.names.first() {
                None => drop(all.remove(&digest)),
                Some(first) if same.named == pod.1 => same.named = Arc::clone(first),
                Some(_) => {}
            }
        }
        if all.is_empty() {
            self.controllers.remove(&controller);
        }
        Some(controller)
    }

    fn replicas(&self, of: &Controller) -> Option<Vec<Replica>> {
        let all = self.controllers.get(of)?;
        Some(all.values().map(|same| Replica { pod: same.named.to_string(), view: same.view.clone() }).collect())
    }
}

/// Tells of all Pods.
pub struct Pods {
    unowned: Reducer<Unowned>,
    kinds: Kinds,
    /// `None`: Pods that have a controller are not looked at.
    crowd: Option<Crowd>,
    listing: Crowd,
    expressions: Arc<Expressions>,
    /// Digest of what was last said of the Pods of each controller.
    said: Option<BTreeMap<Arc<Controller>, u64>>,
}

impl Pods {
    /// Tells those that nothing watched controls one by one; with `all` of the others too, by controller.
    pub fn new(kinds: Kinds, all: bool) -> Self {
        let unowned = Reducer::new(Unowned(kinds.clone()));
        let (crowd, listing) = (all.then(Crowd::default), Crowd::default());
        Self { unowned, kinds, crowd, listing, expressions: Arc::default(), said: None }
    }

    /// What the Pods of one controller show; `None` if the Pod is told by itself, or not at all.
    fn shown(&self, object: &Object<Form>) -> Option<(Controller, Workload)> {
        let meta = &object.meta;
        // One that is being deleted needs no image any more.
        if is_mirror(meta) || meta.deletion_timestamp.is_some() {
            return None;
        }
        let controller = self.kinds.controller(meta)?;
        let spec = object.content.as_ref().ok()?.spec.clone()?;
        let pod = template::of_pod(meta, spec);
        let (images, mut constraint) = (pod.images, pod.constraint);
        if controller.key.kind.name() == "DaemonSet" {
            // Its controller names the node of each Pod (Kubernetes does so with a match on fields).
            for term in constraint.affinity.iter_mut().flatten() {
                term.match_fields.clear();
            }
            constraint.affinity =
                constraint.affinity.filter(|terms| terms.iter().any(|term| !term.match_expressions.is_empty()));
        }
        let expressions = results(&self.expressions, &self.resource(), &object.text).unwrap_or_default();
        let (warm, priority) = (pod.warm, pod.priority);
        let view = Workload { images, constraint, warm, priority, expressions, ..Workload::default() };
        Some((controller, view))
    }

    fn take_list(&mut self) -> Option<Fact> {
        let listing = std::mem::take(&mut self.listing);
        self.crowd.as_ref()?;
        let all: BTreeMap<Arc<Controller>, Vec<Replica>> =
            listing.controllers.keys().filter_map(|of| Some((Arc::clone(of), listing.replicas(of)?))).collect();
        self.crowd = Some(listing);
        let said = Some(all.iter().map(|(of, replicas)| (Arc::clone(of), digest(replicas))).collect());
        if self.said == said {
            return None;
        }
        self.said = said;
        Some(Fact::AllReplicas(all.into_iter().map(|(of, replicas)| (Controller::clone(&of), replicas)).collect()))
    }

    fn place(&mut self, meta: &Meta, of: Option<(Controller, Workload)>) -> Vec<Fact> {
        let Some(crowd) = &mut self.crowd else { return Vec::new() };
        let touched = crowd.place(meta, of);
        let said = self.said.get_or_insert_default();
        let mut facts = Vec::new();
        for of in touched {
            let controller = Controller::clone(&of);
            if let Some(replicas) = crowd.replicas(&of) {
                let digest = digest(&replicas);
                if said.insert(of, digest) != Some(digest) {
                    facts.push(Fact::Replicas(Change::Upsert(controller, Ok(replicas))));
                }
            } else {
                said.remove(&of);
                facts.push(Fact::Replicas(Change::Remove(controller)));
            }
        }
        facts
    }
}

impl Reduce for Pods {
    type Form = Form;

    fn source(&self) -> Source {
        self.unowned.source()
    }

    fn resource(&self) -> ApiResource {
        self.unowned.resource()
    }

    fn is_evaluated(&self) -> bool {
        true
    }

    fn evaluate(&mut self, expressions: &Arc<Expressions>) {
        self.expressions = Arc::clone(expressions);
        self.unowned.evaluate(expressions);
    }

    fn config(&self) -> watcher::Config {
        // A Pod that ends leaves the watch as if it were deleted. Controllers cannot be asked for by a selector.
        watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed")
    }

    fn take(&mut self, event: Event<Object<Form>>) -> Vec<Fact> {
        let mut facts = Vec::new();
        match &event {
            Event::Init => self.listing = Crowd::default(),
            Event::InitApply(object) => {
                if let Some(of) = self.shown(object).filter(|_| self.crowd.is_some()) {
                    self.listing.place(&object.meta, Some(of));
                    return Vec::new();
                }
            }
            // Before the list of the others, which says that all Pods are known.
            Event::InitDone => facts.extend(self.take_list()),
            Event::Apply(object) => {
                let of = self.shown(object);
                facts = self.place(&object.meta, of);
            }
            Event::Delete(object) => facts = self.place(&object.meta, None),
        }
        // Whose content is broken and whose controller is watched is nobody's trouble: its controller's template tells.
        if let Event::Apply(object) | Event::InitApply(object) = &event
            && object.content.is_err()
            && (is_mirror(&object.meta) || self.kinds.controller(&object.meta).is_some())
        {
            return facts;
        }
        facts.extend(self.unowned.take(event));
        facts
    }

    fn is_synced(&self) -> bool {
        self.unowned.is_synced()
    }
}

#[cfg(test)]
mod tests;
