//! P4 of the design: one change in a cluster of 10,000 nodes, 1,000 images and 5,000 workloads.
//!
//! `cargo bench -p cluster-plan`. Each change is told to the machine, and the step after it is timed with it; so is each
//! step after an acknowledgement of what the change made it write. Beside them stands the plan made of everything anew,
//! compared with the plan that is there. Labels are off: what they cost is not what is measured here.

mod bucket;
mod cluster;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use cluster_plan::fact::Change;
use cluster_plan::input::{Namespace, Node, Selection, Workload, WorkloadKey, WorkloadKind};
use cluster_plan::{Effect, Fact, LabelMode, LabelSettings, Settings, Timing, World};
use fastrand::Rng;
use peak_alloc::PeakAlloc;
use serde_json::json;
use shared::machine::{Machine as _, Moment, Now};
use shared::name::NodeName;

use bucket::Buckets;

const NODES: usize = 10_000;
const IMAGES: usize = 1_000;
const WORKLOADS: usize = 5_000;
/// How often each change is made.
const ROUNDS: usize = 60;
/// The target.
const MOST_MS: f64 = 10.0;
const MOST_MB: f64 = 150.0;
/// The row beside the others.
const FROM_NOTHING: &str = "everything planned from nothing";
/// What happens every five seconds though nothing else does.
const LOOK: &str = "no change: all nodes looked at";

/// Counts what is held.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

type Failure = Box<dyn std::error::Error>;

struct Bench {
    world: World,
    now: Now,
    buckets: Buckets,
    rng: Rng,
    nodes: BTreeMap<NodeName, Node>,
    workloads: BTreeMap<WorkloadKey, Workload>,
    samples: BTreeMap<&'static str, Vec<Duration>>,
}

fn main() -> Result<(), Failure> {
    let mut bench = Bench::new()?;
    bench.start()?;
    for fact in bench.buckets.inventories() {
        bench.world.apply(fact, bench.now);
    }
    bench.settle();
    bench.rounds()?;
    let (pools, held) = (bench.buckets.pools(), HEAP.current_usage());
    drop(bench.world);
    let machine = held.saturating_sub(HEAP.current_usage()) as f64 / 1e6;
    report(&bench.samples, pools, machine)
}

impl Bench {
    fn new() -> Result<Self, Failure> {
        let mut rng = Rng::with_seed(4);
        let now = Now { mono: Moment(1_000_000), wall: jiff::Timestamp::UNIX_EPOCH };
        let labels = LabelSettings { mode: LabelMode::None, ..LabelSettings::default() };
        let world = World::new(Settings { labels, ..Settings::default() }, "epoch".to_owned(), 1, now);
        let nodes = (0..NODES).map(cluster::node).collect::<Result<_, _>>()?;
        let workloads = (0..WORKLOADS).map(|n| (cluster::key(n), cluster::workload(&mut rng, IMAGES))).collect();
        Ok(Self { world, now, buckets: Buckets::default(), rng, nodes, workloads, samples: BTreeMap::new() })
    }

    /// Tells everything once and comes to rest.
    fn start(&mut self) -> Result<(), Failure> {
        let names = cluster::namespaces().chain(["kube-system".to_owned()]);
        let namespaces =
            names.map(|name| (name.clone(), Ok(Namespace { uid: name, ..Namespace::default() }))).collect();
        let mut facts = vec![
            Fact::Selection(Selection::default()),
            Fact::Namespaces(namespaces),
            Fact::Nodes(self.nodes.iter().map(|(name, node)| (name.clone(), Ok(node.clone()))).collect()),
        ];
        for kind in WorkloadKind::BUILT_IN {
            let of_kind = self.workloads.iter().filter(|(key, _)| key.kind == kind);
            let list = of_kind.map(|(key, workload)| (key.clone(), Ok(workload.clone()))).collect();
            facts.push(Fact::Workloads(kind, list));
        }
        facts.extend([
            Fact::Intents { stream_created: "then".to_owned(), head: 0, entries: Vec::new() },
            Fact::Assignments(Vec::new()),
            Fact::Inventories(Vec::new()),
            Fact::Lease(true),
            Fact::Connected,
        ]);
        for fact in facts {
            self.world.apply(fact, self.now);
        }
        self.settle();
        let why = self.world.readiness().err();
        why.map_or(Ok(()), |why| Err(why.into()))
    }

    fn rounds(&mut self) -> Result<(), Failure> {
        for round in 0..ROUNDS {
            let key = cluster::key(self.rng.usize(..WORKLOADS));
            let Some(before) = self.workloads.get(&key).cloned() else { continue };
            let image = cluster::image(self.rng.usize(..IMAGES), round + 1);
            let changed = Workload { images: vec![image], ..before.clone() };
            self.tell("a workload's image changed", Fact::Workload(Change::Upsert(key.clone(), Ok(changed))));
            self.tell("", Fact::Workload(Change::Upsert(key, Ok(before))));

            let key = cluster::key(WORKLOADS + round);
            let mut added = cluster::workload(&mut self.rng, IMAGES);
            self.tell("a workload added", Fact::Workload(Change::Upsert(key.clone(), Ok(added.clone()))));
            self.tell("a workload removed", Fact::Workload(Change::Remove(key.clone())));
            cluster::select(&mut added.constraint, "example.com/machine", &format!("i-{round:017x}"));
            self.tell("a workload with a new constraint added", Fact::Workload(Change::Upsert(key.clone(), Ok(added))));
            self.tell("a workload with a constraint of its own removed", Fact::Workload(Change::Remove(key)));

            let (name, node) = cluster::node(self.rng.usize(..NODES))?;
            let mut changed = node.clone();
            changed.labels.insert("example.com/disk".to_owned(), "nvme".to_owned());
            self.tell("a node changed", Fact::Node(Change::Upsert(name.clone(), Ok(changed))));
            self.tell("", Fact::Node(Change::Upsert(name, Ok(node))));
            let (name, node) = cluster::node(NODES + round)?;
            self.tell("a node joined", Fact::Node(Change::Upsert(name.clone(), Ok(node))));
            self.tell("a node left", Fact::Node(Change::Remove(name)));
            // Nothing happens, and it is time to look for agents that are late.
            self.now.mono = self.now.mono + Timing::default().judge;
            let effects = self.step(LOOK, Vec::new());
            self.carry_out("", effects);
            if round % 10 == 0 {
                self.compare()?;
            }
        }
        Ok(())
    }

    /// The plan made of everything, for the ratio; and both are equal.
    fn compare(&mut self) -> Result<(), Failure> {
        let (equal, took) = timed(|| self.world.is_planned_as_from_nothing());
        self.samples.entry(FROM_NOTHING).or_default().push(took);
        if equal { Ok(()) } else { Err("the plan differs from the one made of everything".into()) }
    }

    /// Tells one thing and comes to rest; timed if it has a name.
    fn tell(&mut self, what: &'static str, fact: Fact) {
        let effects = self.step(what, vec![fact]);
        self.carry_out(what, effects);
    }

    fn settle(&mut self) {
        let effects = self.step("", Vec::new());
        self.carry_out("", effects);
    }

    fn carry_out(&mut self, what: &'static str, mut effects: Vec<Effect>) {
        let [of_intents, of_assignments, of_echoes] = match what {
            "" => ["", "", ""],
            _ => ["intents acknowledged", "assignments acknowledged", "their watch"],
        };
        while !effects.is_empty() {
            let mut next = Vec::new();
            for effect in effects {
                let (outcome, (fact, echoes)) = match effect {
                    Effect::WriteIntents(batch) => (of_intents, self.buckets.intents(batch)),
                    Effect::WriteAssignments { writes, .. } => (of_assignments, self.buckets.assignments(writes)),
                    Effect::TakeTerm { meta, .. } => ("", self.buckets.meta(meta)),
                    _ => continue,
                };
                next.extend(self.step(outcome, vec![fact]));
                next.extend(self.step(of_echoes, echoes));
            }
            effects = next;
        }
    }

    fn step(&mut self, what: &'static str, facts: Vec<Fact>) -> Vec<Effect> {
        let (effects, took) = timed(|| {
            for fact in facts {
                self.world.apply(fact, self.now);
            }
            self.world.step(self.now)
        });
        if !what.is_empty() {
            self.samples.entry(what).or_default().push(took);
        }
        effects
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is about time")]
fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = run();
    (result, start.elapsed())
}

fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    let at = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(at).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
}

fn report(
    samples: &BTreeMap<&'static str, Vec<Duration>>,
    (pools, of_node): (usize, usize),
    megabytes: f64,
) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{NODES} nodes, {IMAGES} images, {WORKLOADS} workloads; {pools} pools, at most {of_node} on a node")?;
    writeln!(out, "{:<46} {:>5} {:>9} {:>9} {:>9}", "one step after", "n", "p50 ms", "p99 ms", "max ms")?;
    let (mut figures, mut slowest) = (serde_json::Map::new(), 0.0_f64);
    for (what, took) in samples {
        let mut sorted = took.clone();
        sorted.sort();
        let [p50, p99, max] = [50, 99, 100].map(|percent| quantile(&sorted, percent));
        writeln!(out, "{what:<46} {:>5} {p50:>9.2} {p99:>9.2} {max:>9.2}", sorted.len())?;
        figures.insert((*what).to_owned(), json!({ "n": sorted.len(), "p50Ms": p50, "p99Ms": p99 }));
        if ![FROM_NOTHING, LOOK].contains(what) {
            slowest = slowest.max(p50);
        }
    }
    writeln!(out, "memory of the machine, with a report of every agent: {megabytes:.0} MB")?;
    let is_met = slowest <= MOST_MS && megabytes <= MOST_MB;
    let met = if is_met { "met" } else { "missed" };
    writeln!(out, "P4: slowest median {slowest:.2} ms of {MOST_MS} ms, at most {MOST_MB} MB: {met}")?;
    writeln!(out, "{}", json!({ "bench": "plan", "steps": figures, "memoryMb": megabytes, "met": is_met }))?;
    Ok(())
}
