//! The demand, kept: what every wanted workload asks for, by image and by pool.
//!
//! Owns that one workload's change touches its own images alone. [`crate::demand::demand`] made of everything is what
//! this must equal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shared::name::{ImageKey, PoolId};

use crate::demand::Want;
use crate::input::{Constraint, WorkloadKey};
use crate::plan::Plan;
use crate::pool;
use crate::select::{Claim, ReadImage, Reading};

/// Every claim.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims {
    of: BTreeMap<Arc<WorkloadKey>, Standing>,
    images: BTreeMap<ImageKey, Image>,
    pools: BTreeMap<PoolId, Pool>,
    /// In which pools each image was asked for when that was last looked at.
    asked: BTreeMap<ImageKey, Vec<PoolId>>,
}

/// What one workload asks for.
#[derive(Debug, Clone, PartialEq)]
struct Standing {
    pool: PoolId,
    secrets: Vec<String>,
    /// Its images.
    images: Vec<(ImageKey, Voice)>,
}

/// Who asks for an image.
#[derive(Debug, Clone)]
struct Image {
    reference: ReadImage,
    owners: BTreeMap<PoolId, BTreeMap<Arc<WorkloadKey>, Voice>>,
}

/// How it asks for one of them.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Voice {
    priority: u8,
    unqualified: bool,
    terms: Terms,
}

/// What an owner says of all its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Terms {
    refresh_sec: Option<u64>,
    is_open: bool,
    is_opted_in: bool,
    has_secrets: bool,
}

/// One constraint that somebody has.
#[derive(Debug, Clone)]
struct Pool {
    constraint: Constraint,
    workloads: usize,
    is_part_of_all: bool,
}

impl Claims {
    /// One workload asks for this now, or for nothing. The images that it asked for before or asks for now are added to
    /// `touched`, unless it asks for the same.
    pub(crate) fn set(
        &mut self,
        key: &WorkloadKey,
        claim: Option<(&Reading, Claim<'_>)>,
        touched: &mut BTreeSet<ImageKey>,
    ) {
        let new = claim.as_ref().map(|(reading, claim)| Standing {
            pool: reading.pool().clone(),
            secrets: reading.secrets().to_vec(),
            images: claim
                .images
                .iter()
                .map(|(id, image, priority)| ((*id).clone(), voice(reading, claim, image, *priority)))
                .collect(),
        });
        if self.of.get(key) == new.as_ref() {
            return;
        }
        self.withdraw(key, touched);
        let (Some((reading, claim)), Some(new)) = (claim, new) else { return };
        let owner = Arc::new(key.clone());
        if claim.images.is_empty() {
            self.of.insert(owner, new);
            return;
        }
        let pool = self.pools.entry(new.pool.clone()).or_insert_with(|| Pool {
            constraint: reading.constraint().clone(),
            workloads: 0,
            is_part_of_all: pool::is_part_of_all(reading.constraint()),
        });
        pool.workloads += 1;
        for (id, image, priority) in &claim.images {
            let entry = self
                .images
                .entry((*id).clone())
                .or_insert_with(|| Image { reference: (*image).clone(), owners: BTreeMap::new() });
            let owners = entry.owners.entry(new.pool.clone()).or_default();
            owners.insert(Arc::clone(&owner), voice(reading, &claim, image, *priority));
            touched.insert((*id).clone());
        }
        self.of.insert(owner, new);
    }

    fn withdraw(&mut self, key: &WorkloadKey, touched: &mut BTreeSet<ImageKey>) {
        let Some(old) = self.of.remove(key).filter(|old| !old.images.is_empty()) else { return };
        if let Some(pool) = self.pools.get_mut(&old.pool) {
            pool.workloads -= 1;
            if pool.workloads == 0 {
                self.pools.remove(&old.pool);
            }
        }
        for (id, _) in old.images {
            if let Some(image) = self.images.get_mut(&id) {
                if let Some(owners) = image.owners.get_mut(&old.pool) {
                    owners.remove(key);
                    if owners.is_empty() {
                        image.owners.remove(&old.pool);
                    }
                }
                if image.owners.is_empty() {
                    self.images.remove(&id);
                }
            }
            touched.insert(id);
        }
    }

    /// The pools in which an image is to be asked for, and who asks: in `all` alone where that is sound.
    pub(crate) fn wants(&self, id: &ImageKey) -> BTreeMap<&PoolId, Want<'_>> {
        let Some(image) = self.images.get(id) else { return BTreeMap::new() };
        let all = PoolId::all();
        let is_in_all = image.owners.contains_key(&all);
        let mut wants: BTreeMap<&PoolId, Want<'_>> = BTreeMap::new();
        // `all` comes before every other pool, so that it is there to be joined.
        let (first, rest): (Vec<_>, Vec<_>) = image.owners.iter().partition(|(pool, _)| **pool == all);
        for (pool, owners) in first.into_iter().chain(rest) {
            let is_subsumed = is_in_all && *pool != all && self.pools.get(pool).is_some_and(|p| p.is_part_of_all);
            let want = self.want(&image.reference, owners);
            match wants.get_mut(&all).filter(|_| is_subsumed) {
                Some(in_all) => in_all.join(&want),
                None => drop(wants.insert(pool, want)),
            }
        }
        wants
    }

    /// How many workloads are wanted, whether they name images or not.
    pub(crate) fn workloads(&self) -> usize {
        self.of.len()
    }

    /// The pools in which an image was asked for.
    pub(crate) fn was_asked(&self, id: &ImageKey) -> Vec<PoolId> {
        self.asked.get(id).cloned().unwrap_or_default()
    }

    /// The pools in which an image is asked for now.
    pub(crate) fn is_asked(&mut self, id: &ImageKey, pools: Vec<PoolId>) {
        if pools.is_empty() {
            self.asked.remove(id);
        } else {
            self.asked.insert(id.clone(), pools);
        }
    }

    /// Everything is asked for as it is planned.
    pub(crate) fn asked(&mut self, plan: &Plan) {
        self.asked.clear();
        for (pool, planned) in &plan.pools {
            for id in planned.intents.keys() {
                self.asked.entry(id.clone()).or_default().push(pool.clone());
            }
        }
    }

    /// The normalised constraint of a pool that somebody has.
    pub(crate) fn constraint(&self, pool: &PoolId) -> Option<&Constraint> {
        self.pools.get(pool).map(|pool| &pool.constraint)
    }

    fn want<'a>(&'a self, reference: &'a ReadImage, owners: &'a BTreeMap<Arc<WorkloadKey>, Voice>) -> Want<'a> {
        let mut want = Want::new(
            reference,
            owners.values().map(|voice| voice.priority).max().unwrap_or_default(),
            owners.values().any(|voice| voice.unqualified),
            owners.keys().map(AsRef::as_ref).collect(),
        );
        want.refresh_sec = owners.values().filter_map(|voice| voice.terms.refresh_sec).min();
        want.is_open = owners.values().any(|voice| voice.terms.is_open);
        want.is_opted_in = owners.values().any(|voice| voice.terms.is_opted_in);
        let with_secrets = owners.iter().filter(|(_, voice)| voice.terms.has_secrets);
        want.secrets = with_secrets.filter_map(|(owner, _)| self.of.get(owner)).flat_map(|of| &of.secrets).collect();
        want
    }
}

fn voice(reading: &Reading, claim: &Claim<'_>, image: &ReadImage, priority: u8) -> Voice {
    Voice {
        priority,
        unqualified: image.unqualified,
        terms: Terms {
            refresh_sec: reading.refresh_sec(),
            is_open: !reading.is_suspended(),
            is_opted_in: claim.is_opted_in,
            has_secrets: !reading.secrets().is_empty(),
        },
    }
}
