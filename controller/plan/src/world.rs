//! The machine: everything the controller knows, and what follows from it.
//!
//! Owns the state and the composition of the parts. Learning is in `world/apply.rs`, deciding in `world/step.rs`, and
//! what others are told in `world/{report,status,explain}.rs`.

mod apply;
mod ask;
mod explain;
mod labels;
mod replan;
mod report;
mod selection;
mod sets;
mod status;
mod step;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use shared::backoff::Backoff;
use shared::machine::{Changed, Machine, Moment, Now};
use shared::name::{NodeName, PoolId};

use self::ask::Question;
pub use self::report::Row;
use crate::beat::Beats;
use crate::bucket::{AssignBucket, IntentsBucket};
use crate::choice::Choice;
use crate::claims::Claims;
use crate::effect::Effect;
use crate::evidence::{Evidence, Scope};
use crate::fact::{Fact, Source};
use crate::family::Family;
use crate::input::{Namespace, Node, RuntimeClass, Selection, SetKey, Workload, WorkloadKey};
use crate::known::Known;
use crate::leadership::Leadership;
use crate::ledger::Ledger;
use crate::lists::Lists;
use crate::notice::Notices;
use crate::pace::Pace;
use crate::plan::Plan;
use crate::select::{Reading, Rules};
use crate::set::{SetView, StatusPace};
use crate::settings::Settings;
use crate::silence::Silence;
use crate::snapshot::Snapshots;
use crate::suspect::Suspects;
use crate::switch::Switch;

/// The namespace whose UID names the cluster.
const CLUSTER_NAMESPACE: &str = "kube-system";

/// Everything the controller knows.
#[derive(Debug, Clone)]
pub struct World {
    settings: Settings,
    rng: Rng,

    // What Kubernetes shows.
    rules: Option<Rules>,
    /// A selection by whose expressions not every workload has been evaluated yet.
    next_selection: Option<Selection>,
    /// Every object, and who belongs to whom.
    family: Family,
    /// Those that count.
    workloads: Known<WorkloadKey, Reading>,
    namespaces: Known<String, Namespace>,
    nodes: Known<NodeName, Node>,
    runtime_classes: Known<String, RuntimeClass>,
    /// Workloads that name a `RuntimeClass`, as they are written.
    classed: BTreeMap<WorkloadKey, Workload>,
    /// What they want stands among the workloads.
    sets: Known<SetKey, SetView>,
    synced: BTreeSet<Source>,
    /// When each source last said anything.
    heard: BTreeMap<Source, Moment>,

    // What NATS shows.
    connected: bool,
    intents: IntentsBucket,
    assigned: AssignBucket,
    evidence: Evidence,

    // What follows, and what was done about it.
    stale: Stale,
    claims: Claims,
    /// The nodes chosen for each pool that is limited.
    choices: BTreeMap<PoolId, Choice>,
    plan: Plan,
    lists: Lists,
    suspects: Suspects,
    leadership: Leadership,
    ledger: Ledger,
    switch: Switch,
    /// Whether everything was paused at the last step.
    was_paused: bool,
    beats: Beats,
    snapshots: Snapshots,
    pace: Pace,
    status_pace: StatusPace,
    silence: Silence,
    notices: Notices,
    judged: Moment,
    /// Whether workloads are to be looked at in this step, for what people are told.
    trouble_is_due: bool,
    due: Option<Moment>,
    /// Asked since the last step.
    questions: Vec<Question>,
    /// Decided while learning.
    outbox: Vec<Effect>,
}

/// Which inputs of the plan changed since it was made, and which diffs have to be looked at again.
#[derive(Debug, Clone)]
struct Stale {
    /// The selection: everything is planned anew.
    everything: bool,
    /// These workloads.
    workloads: BTreeSet<WorkloadKey>,
    /// What these namespaces say.
    namespaces: BTreeSet<String>,
    /// These nodes, labels of ours apart.
    nodes: BTreeSet<NodeName>,
    /// The intents bucket, or what it is compared with.
    intents: bool,
    /// The assign bucket, or what it is compared with.
    assignments: bool,
}

impl World {
    /// A machine that knows nothing yet. `epoch` is the id of the epoch it begins if one must be begun: a UUID made by
    /// the process, as this crate makes nothing unique. `seed` is that of its jitter.
    pub fn new(settings: Settings, epoch: String, seed: u64, now: Now) -> Self {
        let heartbeat = settings.timing.heartbeat;
        let pace = Pace::new(settings.labels.per_second, now.mono);
        let family = Family::new(settings.kinds.clone(), settings.linger);
        Self {
            settings,
            rng: Rng::with_seed(seed),
            rules: None,
            next_selection: None,
            family,
            workloads: Known::new(),
            namespaces: Known::new(),
            nodes: Known::new(),
            runtime_classes: Known::new(),
            classed: BTreeMap::new(),
            sets: Known::new(),
            synced: BTreeSet::new(),
            heard: BTreeMap::new(),
            connected: false,
            intents: IntentsBucket::default(),
            assigned: AssignBucket::default(),
            evidence: Evidence::new(heartbeat),
            stale: Stale {
                everything: true,
                workloads: BTreeSet::new(),
                namespaces: BTreeSet::new(),
                nodes: BTreeSet::new(),
                intents: true,
                assignments: true,
            },
            claims: Claims::default(),
            choices: BTreeMap::new(),
            plan: Plan::default(),
            lists: Lists::default(),
            suspects: Suspects::default(),
            leadership: Leadership::new(epoch),
            ledger: Ledger::default(),
            switch: Switch::default(),
            was_paused: false,
            beats: Beats::default(),
            snapshots: Snapshots::default(),
            pace,
            status_pace: StatusPace::default(),
            silence: Silence::default(),
            notices: Notices::default(),
            judged: now.mono,
            trouble_is_due: false,
            due: None,
            questions: Vec::new(),
            outbox: Vec::new(),
        }
    }

    /// What is still awaited before anything is decided.
    fn awaited(&self) -> Vec<String> {
        let sources = self.settings.sources().filter(|s| !self.has_come(s)).map(|s| s.as_str().to_owned());
        sources.chain(self.rules.is_none().then(|| "selection".to_owned())).collect()
    }

    /// Whether a source has delivered its first full content, or is not needed.
    fn has_come(&self, source: &Source) -> bool {
        self.synced.contains(source) || (*source == Source::RuntimeClasses && self.classed.is_empty())
    }

    fn is_synced(&self) -> bool {
        self.rules.is_some() && self.settings.sources().all(|s| self.has_come(&s))
    }

    /// UID that names the cluster.
    fn cluster(&self) -> Option<&str> {
        let namespace = self.namespaces.get(CLUSTER_NAMESPACE)?;
        (!namespace.uid.is_empty()).then_some(namespace.uid.as_str())
    }

    /// Whether what is known of the buckets is what they hold.
    fn sees_buckets(&self) -> bool {
        self.connected && self.intents.is_fresh() && self.assigned.is_fresh()
    }

    /// Whether there is such a Node, or nobody knows yet.
    fn may_exist(&self, node: &NodeName) -> bool {
        self.nodes.contains(node) || !self.synced.contains(&Source::Nodes)
    }

    fn uid(&self, node: &NodeName) -> Option<String> {
        self.nodes.get(node).map(|n| n.uid.clone())
    }

    fn scope(&self) -> Scope<'_> {
        Scope { plan: &self.plan, intents: &self.intents, assigned: &self.assigned }
    }

    fn backoff(&self) -> Backoff {
        Backoff { base: self.settings.timing.write_backoff, ceiling: self.settings.timing.write_backoff_max }
    }
}

impl Machine for World {
    type Fact = Fact;
    type Effect = Effect;

    fn apply(&mut self, fact: Fact, now: Now) -> Changed {
        let is_answer = fact.is_answer();
        let changed = self.learn(fact, now.mono);
        if changed && !is_answer {
            self.status_pace.touch();
        }
        changed.into()
    }

    fn step(&mut self, now: Now) -> Vec<Effect> {
        self.decide(now)
    }

    fn next_due(&self) -> Option<Moment> {
        self.due
    }
}
