//! The API server: Nodes, workloads, namespaces, and who watches them.
//!
//! Owns the objects, watches with delay, lists after a break, and label patches as server-side apply does them, and Events.

use std::collections::{BTreeMap, BTreeSet};

use cluster_plan::Fact;
use cluster_plan::effect::WorkloadEvent;
use cluster_plan::fact::{Change, Source};
use cluster_plan::input::{
    Constraint, ContainerImage, Namespace, Node, Selection, Taint, TaintEffect, Toleration, TolerationOperator,
    Workload, WorkloadKey, WorkloadKind,
};
use shared::message::assignment::Pressure;
use shared::name::NodeName;
use shared::reason::Reason;

use super::dice::About;
use super::election::Lease;
use super::node::reference;
use super::process::Who;
use super::queue::{MS, Us};
use super::schedule::{Kind, Place};
use super::sets::SetObject;
use super::universe::Universe;

/// The namespace of all workloads.
pub(super) const NAMESPACE: &str = "shop";

/// What is wanted where: a workload as the schedule says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) images: Vec<usize>,
    pub(super) place: Place,
}

/// A Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeObject {
    pub(super) uid: String,
    pub(super) kind: Kind,
    pub(super) pressure: bool,
    /// Labels under our prefixes.
    pub(super) ours: BTreeMap<String, String>,
}

/// One replica's watches.
#[derive(Debug, Clone, Default)]
pub(super) struct Watches {
    generation: u64,
    listed: BTreeSet<Source>,
    last: Us,
    /// How much later it hears.
    pub(super) late: Us,
}

/// The server.
#[derive(Default)]
pub(super) struct Api {
    pub(super) nodes: BTreeMap<usize, NodeObject>,
    pub(super) wishes: BTreeMap<usize, Wish>,
    pub(super) sets: BTreeMap<usize, SetObject>,
    pub(super) opted_out: bool,
    pub(super) lease: Lease,
    pub(super) down: u32,
    uids: u64,
    watches: BTreeMap<usize, Watches>,
    /// Since when each image is wanted on each node, as the truth has it.
    pub(super) wanted_since: BTreeMap<(usize, usize), Us>,
}

impl Api {
    pub(super) fn is_down(&self) -> bool {
        self.down > 0
    }

    /// A UID that no object has had.
    pub(super) fn next_uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{}", self.uids)
    }

    /// Whether anything is still on its way to a replica.
    pub(super) fn has_news(&self, now: Us) -> bool {
        self.watches.values().any(|watches| watches.last > now)
    }
}

fn key(name: usize) -> WorkloadKey {
    WorkloadKey { kind: WorkloadKind::Deployment, namespace: NAMESPACE.to_owned(), name: format!("w{name}") }
}

fn node_name(node: usize) -> Option<NodeName> {
    NodeName::parse(&format!("node-{node}")).ok()
}

/// The inverse of a node's name.
pub(super) fn node_number(name: &NodeName) -> Option<usize> {
    name.as_str().strip_prefix("node-")?.parse().ok()
}

pub(super) fn workload(wish: &Wish) -> Workload {
    let images = wish
        .images
        .iter()
        .enumerate()
        .map(|(at, image)| ContainerImage { position: format!("containers[{at}]"), image: reference(*image) });
    let mut constraint = Constraint::default();
    match wish.place {
        Place::Anywhere => {}
        Place::Ssd => {
            constraint.node_selector.insert("disk".to_owned(), "ssd".to_owned());
        }
        Place::Tolerant => {
            constraint.tolerations.insert(Toleration {
                key: Some("dedicated".to_owned()),
                operator: TolerationOperator::Exists,
                value: String::new(),
                effect: None,
            });
        }
        Place::Node(node) => constraint.node_name = Some(format!("node-{node}")),
    }
    Workload { images: images.collect(), constraint, ..Workload::default() }
}

fn view(node: &NodeObject) -> Node {
    let taint = Taint { key: "dedicated".to_owned(), value: String::new(), effect: TaintEffect::NoSchedule };
    Node {
        uid: node.uid.clone(),
        labels: node.kind.ssd.then(|| ("disk".to_owned(), "ssd".to_owned())).into_iter().collect(),
        our_labels: node.ours.clone(),
        taints: node.kind.tainted.then_some(taint).into_iter().collect(),
        deleting: false,
        pressure: node.pressure.then_some(Pressure::Disk).into_iter().collect(),
        ..Node::default()
    }
}

fn namespace(uid: &str, is_out: bool) -> Namespace {
    Namespace { uid: uid.to_owned(), warm: is_out.then(|| "false".to_owned()), ..Namespace::default() }
}

/// Whether the API server tells it, and no bucket.
fn is_watched(source: &Source) -> bool {
    matches!(source, Source::Workloads(_) | Source::Namespaces | Source::Nodes | Source::Sets)
}

impl Universe {
    /// A replica begins: it knows its configuration, and lists everything.
    pub(super) fn begin_controller(&mut self, number: usize) {
        if let Some(incarnation) = self.incarnation(Who::Controller(number)) {
            self.tell_controller(number, incarnation, Fact::Selection(Selection::default()));
            self.relist(number);
        }
    }

    /// A replica's watches end; it lists everything again.
    pub(super) fn relist(&mut self, number: usize) {
        let watches = self.api.watches.entry(number).or_default();
        watches.generation += 1;
        watches.listed.clear();
        let generation = watches.generation;
        for source in Source::FIXED.into_iter().chain([Source::Sets]).filter(is_watched) {
            self.list_later(number, generation, source);
        }
    }

    fn list_later(&mut self, number: usize, generation: u64, source: Source) {
        let who = Who::Controller(number);
        let Some(incarnation) = self.incarnation(who) else { return };
        let wait = self.dice.about(About::Api(who)).u64(MS..100 * MS);
        self.after(wait, move |u| {
            if u.incarnation(who) != Some(incarnation) || !u.is_watching(number, generation) {
                return;
            }
            if u.api.is_down() {
                return u.list_later(number, generation, source);
            }
            let fact = u.list(&source);
            if let Some(watches) = u.api.watches.get_mut(&number) {
                watches.listed.insert(source);
            }
            u.hear(number, fact);
        });
    }

    fn is_watching(&self, number: usize, generation: u64) -> bool {
        self.api.watches.get(&number).is_some_and(|watches| watches.generation == generation)
    }

    fn list(&self, source: &Source) -> Fact {
        match source {
            Source::Workloads(kind) => {
                let wishes = self.api.wishes.iter().filter(|_| *kind == WorkloadKind::Deployment);
                Fact::Workloads(kind.clone(), wishes.map(|(name, wish)| (key(*name), Ok(workload(wish)))).collect())
            }
            Source::Sets => self.list_sets(),
            Source::Namespaces => Fact::Namespaces(BTreeMap::from([
                ("kube-system".to_owned(), Ok(namespace("cluster", false))),
                (NAMESPACE.to_owned(), Ok(namespace(NAMESPACE, self.api.opted_out))),
            ])),
            _ => {
                let nodes = self.api.nodes.iter();
                Fact::Nodes(nodes.filter_map(|(node, object)| Some((node_name(*node)?, Ok(view(object))))).collect())
            }
        }
    }

    /// A fact on its way from the API server to a replica, in order.
    fn hear(&mut self, number: usize, fact: Fact) {
        let who = Who::Controller(number);
        let Some(incarnation) = self.incarnation(who) else { return };
        let wait = self.dice.about(About::Api(who)).u64(MS..8 * MS);
        let now = self.now;
        let Some(watches) = self.api.watches.get_mut(&number) else { return };
        watches.last = (watches.last + 1).max(now + wait + watches.late);
        let (at, generation) = (watches.last, watches.generation);
        self.at(at, move |u| {
            if u.is_watching(number, generation) {
                u.reach(who, Box::new(move |u| u.tell_controller(number, incarnation, fact)));
            }
        });
    }

    pub(super) fn changed(&mut self, source: &Source, fact: &Fact) {
        self.wants_changed();
        for number in 0..self.replicas.len() {
            if self.api.watches.get(&number).is_some_and(|watches| watches.listed.contains(source)) {
                self.hear(number, fact.clone());
            }
        }
    }

    pub(super) fn set_wish(&mut self, name: usize, wish: Option<Wish>) {
        let change = match wish {
            Some(wish) => {
                let view = workload(&wish);
                self.api.wishes.insert(name, wish);
                Change::Upsert(key(name), Ok(view))
            }
            None if self.api.wishes.remove(&name).is_none() => return,
            None => Change::Remove(key(name)),
        };
        self.changed(&Source::Workloads(WorkloadKind::Deployment), &Fact::Workload(change));
    }

    pub(super) fn opt_out(&mut self, is_out: bool) {
        self.api.opted_out = is_out;
        let namespace = namespace(NAMESPACE, is_out);
        let change = Change::Upsert(NAMESPACE.to_owned(), Ok(namespace));
        self.changed(&Source::Namespaces, &Fact::Namespace(change));
    }

    /// A Node appears, as another object than any before.
    pub(super) fn add_node(&mut self, node: usize, kind: Kind) {
        let uid = self.api.next_uid();
        let object = NodeObject { uid, kind, pressure: false, ours: BTreeMap::new() };
        self.api.nodes.insert(node, object);
        self.node_changed(node);
    }

    pub(super) fn remove_node(&mut self, node: usize) {
        if self.api.nodes.remove(&node).is_some()
            && let Some(name) = node_name(node)
        {
            self.changed(&Source::Nodes, &Fact::Node(Change::Remove(name)));
        }
    }

    /// A Node was changed: its watchers are told.
    pub(super) fn node_changed(&mut self, node: usize) {
        if let (Some(object), Some(name)) = (self.api.nodes.get(&node), node_name(node)) {
            let fact = Fact::Node(Change::Upsert(name, Ok(view(object))));
            self.changed(&Source::Nodes, &fact);
        }
    }

    /// How much later a replica hears of changes from now on.
    pub(super) fn set_late(&mut self, number: usize, late: Us) {
        self.api.watches.entry(number).or_default().late = late;
    }

    /// Every watch ends; when the server is back everything is listed.
    pub(super) fn api_breaks(&mut self) {
        for number in 0..self.replicas.len() {
            self.relist(number);
        }
    }

    /// A label patch on its way, and its answer on the way back.
    pub(super) fn label_node(
        &mut self,
        number: usize,
        incarnation: u64,
        node: NodeName,
        uid: String,
        labels: BTreeMap<String, String>,
    ) {
        let who = Who::Controller(number);
        let rng = self.dice.about(About::Api(who));
        let (there, back) = (rng.u64(MS..10 * MS), rng.u64(MS..10 * MS));
        self.after(there, move |u| {
            let result = u.apply(&node, &uid, labels);
            u.after(back, move |u| {
                u.reach(
                    who,
                    Box::new(move |u| {
                        u.tell_controller(number, incarnation, Fact::NodeLabelled { node, result, retry_after: None });
                    }),
                );
            });
        });
    }

    /// An Event on its way, and its answer on the way back.
    pub(super) fn post_event(&mut self, number: usize, incarnation: u64, event: WorkloadEvent) {
        let who = Who::Controller(number);
        let rng = self.dice.about(About::Api(who));
        let (there, back) = (rng.u64(MS..10 * MS), rng.u64(MS..10 * MS));
        self.after(there, move |u| {
            let result = if u.api.is_down() { Err(Reason::KubernetesUnavailable) } else { Ok(()) };
            let WorkloadEvent { workload, id, .. } = event;
            u.after(back, move |u| {
                let fact = Fact::EventPosted { workload, id, result };
                u.reach(who, Box::new(move |u| u.tell_controller(number, incarnation, fact)));
            });
        });
    }

    fn apply(&mut self, name: &NodeName, uid: &str, labels: BTreeMap<String, String>) -> Result<(), Reason> {
        if self.api.is_down() {
            return Err(Reason::Network);
        }
        let node = node_number(name).ok_or(Reason::Invalid)?;
        let Some(object) = self.api.nodes.get(&node).filter(|object| object.uid == uid) else {
            // 404, or 409 and 422 over the UID.
            return Err(Reason::Conflict);
        };
        if object.ours == labels {
            return Ok(());
        }
        self.check_labels(node, uid, &object.ours.clone(), &labels);
        self.say(|| format!("api          {name} is labelled {labels:?}"));
        if let Some(object) = self.api.nodes.get_mut(&node) {
            object.ours = labels;
        }
        self.node_changed(node);
        Ok(())
    }
}
