//! What is wanted by all workloads together, by constraint.
//!
//! Owns who counts for which image in which pool, and what is asked for in `all` alone. What one workload asks for is
//! [`crate::select`]'s; who is in a pool is [`crate::member`]'s.

use std::collections::{BTreeMap, BTreeSet};

use shared::image::Digest;
use shared::name::{ImageKey, PoolId};

use crate::input::{Constraint, Namespace, WorkloadKey};
use crate::known::Known;
use crate::pool;
use crate::select::{Claim, OfNamespace, ReadImage, Reading, Rules};

/// All that is wanted.
#[derive(Debug, Default)]
pub(crate) struct Demand<'a> {
    /// By pool.
    pub(crate) pools: BTreeMap<PoolId, DemandPool<'a>>,
    /// How many workloads are wanted.
    pub(crate) workloads: usize,
    /// What cannot be used of them.
    pub(crate) problems: BTreeMap<WorkloadKey, Vec<String>>,
}

/// What is wanted under one constraint.
#[derive(Debug)]
pub(crate) struct DemandPool<'a> {
    /// Normalised.
    pub(crate) constraint: &'a Constraint,
    /// How many workloads have it: the rarest are the first beyond a limit.
    pub(crate) workloads: usize,
    /// The images.
    pub(crate) wants: BTreeMap<ImageKey, Want<'a>>,
}

/// One wanted image.
#[derive(Debug, Clone)]
pub(crate) struct Want<'a> {
    image: &'a ReadImage,
    /// The highest of its owners.
    pub(crate) priority: u8,
    /// Whether any owner wrote it without a registry host.
    pub(crate) unqualified: bool,
    /// Who wants it.
    pub(crate) owners: Vec<&'a WorkloadKey>,
    /// Secrets that any owner names.
    pub(crate) secrets: BTreeSet<&'a String>,
    /// The least of its owners that ask for it to be pulled again, in seconds.
    pub(crate) refresh_sec: Option<u64>,
    /// Whether it is to be pulled for any owner. If not, it is kept where it is.
    pub(crate) is_open: bool,
    /// Whether any owner opted in by annotation.
    pub(crate) is_opted_in: bool,
}

impl<'a> Want<'a> {
    pub(crate) fn new(image: &'a ReadImage, priority: u8, unqualified: bool, owners: Vec<&'a WorkloadKey>) -> Self {
        let (secrets, refresh_sec, is_open, is_opted_in) = (BTreeSet::new(), None, true, false);
        Self { image, priority, unqualified, owners, secrets, refresh_sec, is_open, is_opted_in }
    }

    /// Canonical pull reference.
    pub(crate) fn image(&self) -> &'a str {
        &self.image.image
    }

    /// The digest that the reference names.
    pub(crate) fn digest(&self) -> Option<&'a Digest> {
        self.image.digest.as_ref()
    }

    /// Takes the owners of the same image from another constraint.
    pub(crate) fn join(&mut self, other: &Self) {
        self.priority = self.priority.max(other.priority);
        self.unqualified |= other.unqualified;
        self.owners.extend(&other.owners);
        self.secrets.extend(&other.secrets);
        self.refresh_sec = [self.refresh_sec, other.refresh_sec].into_iter().flatten().min();
        self.is_open |= other.is_open;
        self.is_opted_in |= other.is_opted_in;
    }
}

/// Adds wants to others.
pub(crate) fn join<'a>(into: &mut BTreeMap<ImageKey, Want<'a>>, wants: &BTreeMap<ImageKey, Want<'a>>) {
    for (id, want) in wants {
        into.entry(id.clone()).and_modify(|w| w.join(want)).or_insert_with(|| want.clone());
    }
}

/// What is wanted by all workloads. A workload whose namespace is not known yet waits for it, because the namespace
/// may opt out.
pub(crate) fn demand<'a>(
    rules: &Rules,
    namespaces: &Known<String, Namespace>,
    workloads: &'a Known<WorkloadKey, Reading>,
) -> Demand<'a> {
    let mut judged: BTreeMap<&str, OfNamespace<'_>> = BTreeMap::new();
    let mut demand = Demand::default();
    for (key, reading) in workloads.good() {
        let name = key.namespace.as_str();
        let of_namespace = judged.entry(name).or_insert_with(|| rules.of_namespace(namespaces, name));
        let mut claim = of_namespace.claim(reading);
        demand.workloads += usize::from(claim.is_wanted);
        if !claim.problems.is_empty() {
            demand.problems.insert(key.clone(), std::mem::take(&mut claim.problems));
        }
        if !claim.images.is_empty() {
            add(&mut demand.pools, key, reading, &claim);
        }
    }
    subsume(&mut demand.pools);
    demand
}

fn add<'a>(
    pools: &mut BTreeMap<PoolId, DemandPool<'a>>,
    key: &'a WorkloadKey,
    reading: &'a Reading,
    claim: &Claim<'a>,
) {
    if !pools.contains_key(reading.pool()) {
        let empty = DemandPool { constraint: reading.constraint(), workloads: 0, wants: BTreeMap::new() };
        pools.insert(reading.pool().clone(), empty);
    }
    let Some(pool) = pools.get_mut(reading.pool()) else {
        return;
    };
    pool.workloads += 1;
    for (id, image, priority) in &claim.images {
        let mut want = Want::new(image, *priority, image.unqualified, vec![key]);
        want.secrets = reading.secrets().iter().collect();
        want.refresh_sec = reading.refresh_sec();
        (want.is_open, want.is_opted_in) = (!reading.is_suspended(), claim.is_opted_in);
        match pool.wants.get_mut(*id) {
            Some(there) => there.join(&want),
            None => drop(pool.wants.insert((*id).clone(), want)),
        }
    }
}

/// An image that is wanted in `all` is not asked for again in a pool whose nodes all belong to `all`.
fn subsume(pools: &mut BTreeMap<PoolId, DemandPool<'_>>) {
    let Some(mut all) = pools.remove(&PoolId::all()) else {
        return;
    };
    pools.retain(|_, pool| {
        if !pool::is_part_of_all(pool.constraint) {
            return true;
        }
        pool.wants.retain(|id, want| match all.wants.get_mut(id) {
            Some(in_all) => {
                in_all.join(want);
                false
            }
            None => true,
        });
        !pool.wants.is_empty()
    });
    pools.insert(PoolId::all(), all);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::Change;
    use crate::input::{ContainerImage, Selection, Workload, WorkloadKind};
    use crate::select;

    fn workload(images: &[&str]) -> Workload {
        let image =
            |text: &&str| ContainerImage { position: "containers[0] \"app\"".to_owned(), image: (*text).to_owned() };
        Workload { images: images.iter().map(image).collect(), ..Workload::default() }
    }

    fn known<const N: usize>(workloads: [(&str, Workload); N]) -> Known<WorkloadKey, Reading> {
        let mut known = Known::new();
        for (name, workload) in workloads {
            let key =
                WorkloadKey { kind: WorkloadKind::Deployment, namespace: "shop".to_owned(), name: name.to_owned() };
            known.change(Change::Upsert(key, Ok(select::read(&workload))));
        }
        known
    }

    fn namespaces() -> Known<String, Namespace> {
        let mut known = Known::new();
        known.change(Change::Upsert("shop".to_owned(), Ok(Namespace::default())));
        known
    }

    #[test]
    fn one_image_in_many_spellings_is_one_intent_that_is_unqualified_if_any_is() {
        let workloads = known([
            ("a", Workload { priority: Some("10".to_owned()), ..workload(&["docker.io/library/nginx:latest"]) }),
            ("b", Workload { priority: Some("70".to_owned()), ..workload(&["nginx", "docker.io/nginx"]) }),
        ]);
        let demand = demand(&Rules::of(Selection::default()), &namespaces(), &workloads);
        let wants = &demand.pools[&PoolId::all()].wants;
        let want = wants.values().next().unwrap();
        assert_eq!((wants.len(), want.priority, want.unqualified, want.owners.len()), (1, 70, true, 2));
        assert_eq!(want.image(), "docker.io/library/nginx:latest");
    }

    #[test]
    fn in_all_means_only_in_all_where_that_is_sound() {
        let selecting = Constraint {
            node_selector: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
            ..Constraint::default()
        };
        let named = Constraint { node_name: Some("n1".to_owned()), ..Constraint::default() };
        let workloads = known([
            ("all", workload(&["nginx"])),
            ("ssd", Workload { constraint: selecting, ..workload(&["nginx", "redis"]) }),
            ("pod", Workload { constraint: named, ..workload(&["nginx"]) }),
        ]);
        let demand = demand(&Rules::of(Selection::default()), &namespaces(), &workloads);
        let sizes: Vec<usize> = demand.pools.values().map(|p| p.wants.len()).collect();
        assert_eq!(sizes, [1, 1, 1], "{:?}", demand.pools.keys());
        let want = demand.pools[&PoolId::all()].wants.values().next().unwrap();
        assert_eq!(want.owners.len(), 2);
    }
}
