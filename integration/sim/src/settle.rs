//! The end of a run: faults stop, everything comes to where it should be, and rests.
//!
//! Owns the invariants called *eventually*.

use std::collections::{BTreeMap, BTreeSet};

use shared::message::{Assignment, Intent, Message as _};
use shared::name::{ImageKey, PoolId};
use shared::pool_set::{PoolSet, SetDigest};
use shared::subject::{Bucket, IntentsKey, assignment_key};

use super::check::Invariant;
use super::node::reference;
use super::oracle;
use super::process::Who;
use super::queue::{MS, SEC, Us};
use super::schedule::Answer;
use super::universe::{Universe, Weather};

/// From the end of the faults until everything is as it should be.
const BOUND: Us = 30 * SEC;
/// How often that is looked at.
const LOOK: Us = 250 * MS;
/// How long nothing may happen then.
const REST: Us = 5 * SEC;

impl Universe {
    /// Ends all faults and waits; gives the time it took.
    pub(super) fn settle(&mut self) -> Option<Us> {
        self.say(|| "***          faults end".to_owned());
        self.heal();
        let began = self.now;
        let mut lacks = String::new();
        while self.now < began + BOUND {
            self.run_until(self.now + LOOK);
            if self.is_violated() {
                return None;
            }
            match self.lacks() {
                None => {
                    let took = self.now - began;
                    // What was decided just now may still be under way, at most until its timeout; and what the registry
                    // does not have is asked for once more, and may fail for another reason than while it was ill.
                    self.interruption = None;
                    self.run_until(self.now + 6 * SEC);
                    if self.lacks().is_none() {
                        self.rest();
                        return (!self.is_violated()).then_some(took);
                    }
                }
                Some(text) => lacks = text,
            }
        }
        self.violated(Invariant::Converged, format!("{} s after the faults' end: {lacks}", BOUND / SEC));
        None
    }

    fn heal(&mut self) {
        self.weather = Weather::default();
        self.registry.heal();
        self.api.down = 0;
        self.end_refreshes();
        for number in 0..self.replicas.len() {
            self.set_late(number, 0);
            self.mend_ways(Who::Controller(number));
            self.wake(Who::Controller(number));
        }
        for node in 0..self.hosts.len() {
            if let Some(host) = self.host(node) {
                host.runtime_down = 0;
                (host.is_full, host.others) = (false, 0);
            }
            if let Some(object) = self.api.nodes.get_mut(&node).filter(|object| object.pressure) {
                object.pressure = false;
                self.node_changed(node);
            }
            self.mend_ways(Who::Agent(node));
            self.wake(Who::Agent(node));
        }
        self.nats_up = true;
        for number in 0..self.replicas.len() {
            self.start_controller(number);
        }
        for node in 0..self.hosts.len() {
            self.start_agent(node);
        }
        // A person orders until it is obeyed.
        for wait in [SEC, 3 * SEC, 6 * SEC] {
            self.after(wait, |u| {
                for number in 0..u.replicas.len() {
                    u.order(number, false);
                }
            });
        }
    }

    /// Nothing that changes anything may happen, over some time.
    fn rest(&mut self) {
        let deeds = self.deeds;
        self.run_until(self.now + REST);
        if self.deeds != deeds {
            let text = format!("{} effects though nothing has changed", self.deeds - deeds);
            self.violated(Invariant::Rest, text);
        } else if let Some(text) = self.lacks() {
            self.violated(Invariant::Rest, format!("it was so, and is no longer: {text}"));
        }
    }

    /// What is not yet as it should be.
    fn lacks(&self) -> Option<String> {
        if self.api.has_news(self.now) {
            return Some("a replica has yet to hear of a change".to_owned());
        }
        let wanted: BTreeSet<ImageKey> = self.wanted_by_anybody().into_iter().filter_map(oracle::key).collect();
        let live: BTreeSet<ImageKey> = self.live().into_values().flat_map(BTreeMap::into_keys).collect();
        if live != wanted {
            return Some(format!("the bucket holds {live:?}, the cluster wants {wanted:?}"));
        }
        if let Some(key) = self.still_refreshed() {
            return Some(format!("{key} is to be refreshed, which nobody wants any more"));
        }
        let nodes = (0..self.hosts.len()).filter(|node| self.api.nodes.contains_key(node));
        let of_nodes = nodes.into_iter().find_map(|node| {
            self.lacks_images(node)
                .or_else(|| self.lacks_buckets(node))
                .or_else(|| self.lacks_labels(node))
                .or_else(|| self.lacks_pools(node))
        });
        of_nodes.or_else(|| self.lacks_status())
    }

    /// What buckets and Nodes hold, for comparison with another run.
    pub(super) fn end(&self) -> String {
        let live =
            self.live().into_iter().map(|(pool, ids)| format!("{pool}: {:?}\n", ids.into_keys().collect::<Vec<_>>()));
        let nodes = self.api.nodes.iter().map(|(node, object)| {
            let pools = self.assignment(*node).map(|assignment| assignment.pools);
            format!("node-{node} of {}: {pools:?} {:?}\n", object.uid, object.ours)
        });
        live.chain(nodes).collect()
    }

    fn lacks_images(&self, node: usize) -> Option<String> {
        let host = self.hosts.get(node)?;
        let missing = |image: &usize| {
            self.registry.answer(*image) == Answer::Good && !host.images.contains_key(&reference(*image))
        };
        let image = self.to_be_pulled(node).into_iter().find(missing)?;
        Some(format!("{} is wanted on node-{node} and is not there", reference(image)))
    }

    fn lacks_labels(&self, node: usize) -> Option<String> {
        let shows = &self.api.nodes.get(&node)?.ours;
        let due: BTreeMap<String, String> = self.labels_due(node).into_iter().collect();
        let count = due.len().min(self.setup.labels);
        let is_right = shows.len() == count && shows.iter().all(|(label, value)| due.get(label) == Some(value));
        (!is_right).then(|| format!("node-{node} shows {shows:?} and should show {due:?}"))
    }

    /// The live intents of the bucket, by pool.
    fn live(&self) -> BTreeMap<PoolId, BTreeMap<ImageKey, u64>> {
        let mut pools: BTreeMap<PoolId, BTreeMap<ImageKey, u64>> = BTreeMap::new();
        let stream = self.store.get(Bucket::Intents);
        for (key, message) in stream.into_iter().flat_map(|stream| &stream.keys).filter(|(_, m)| m.body.is_some()) {
            if let Some(IntentsKey::Intent(pool, id)) = IntentsKey::parse(key) {
                pools.entry(pool).or_default().insert(id, message.seq);
            }
        }
        pools
    }

    /// A live intent by which agents pull what is there.
    fn still_refreshed(&self) -> Option<String> {
        let stream = self.store.get(Bucket::Intents)?;
        let bodies = stream.keys.iter().filter_map(|(key, message)| Some((key, message.body.as_ref()?)));
        let mut intents = bodies.filter(|(key, _)| matches!(IntentsKey::parse(key), Some(IntentsKey::Intent(..))));
        let is_refreshed = |body: &[u8]| Intent::decode(body).is_ok_and(|intent| intent.refresh_sec.is_some());
        intents.find(|(_, body)| is_refreshed(body)).map(|(key, _)| key.clone())
    }

    fn assignment(&self, node: usize) -> Option<Assignment> {
        let host = self.hosts.get(node)?;
        let message = self.store.get(Bucket::Assign)?.keys.get(&assignment_key(&host.node))?;
        Assignment::decode(message.body.as_ref()?).ok()
    }

    fn lacks_buckets(&self, node: usize) -> Option<String> {
        let Some(assignment) = self.assignment(node) else {
            return Some(format!("node-{node} has no assignment"));
        };
        let uid = self.api.nodes.get(&node).map(|object| &object.uid);
        if Some(&assignment.uid) != uid {
            return Some(format!("node-{node} is assigned as {} and is {uid:?}", assignment.uid));
        }
        let live = self.live();
        let said: BTreeSet<&ImageKey> =
            assignment.pools.iter().filter_map(|p| live.get(p)).flat_map(BTreeMap::keys).collect();
        let wanted: BTreeSet<ImageKey> = self.wanted(node).into_iter().filter_map(oracle::key).collect();
        (said != wanted.iter().collect())
            .then(|| format!("the buckets want {said:?} on node-{node}, the cluster {wanted:?}"))
    }

    fn lacks_pools(&self, node: usize) -> Option<String> {
        let agent = self.hosts.get(node)?.agent.as_ref()?;
        if !agent.machine.is_synced() {
            return Some(format!("node-{node} has yet to read its pools"));
        }
        let live = self.live();
        let assignment = self.assignment(node)?;
        let mut there: BTreeMap<PoolId, (u64, SetDigest)> = BTreeMap::new();
        for pool in assignment.pools {
            let mut set = PoolSet::new(pool.clone());
            for (id, seq) in live.get(&pool).into_iter().flatten() {
                set.insert(id.clone(), *seq);
            }
            let summary = set.summary(0);
            there.insert(pool, (summary.count, summary.digest));
        }
        let known: BTreeMap<PoolId, (u64, SetDigest)> =
            agent.machine.pools().map(|(pool, s)| (pool.clone(), (s.count, s.digest))).collect();
        (known != there).then(|| format!("node-{node} knows {known:?}, the buckets hold {there:?}"))
    }
}
