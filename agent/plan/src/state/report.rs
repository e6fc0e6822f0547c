//! What the machine says of itself: the evidence of its images, the file of its state.
//!
//! Owns what goes in. When it is said is [`Follower`](crate::follower::Follower)'s, when it is kept is
//! [`Saver`](crate::save::Saver)'s.

use shared::machine::Now;

use super::NodeState;
use crate::effect::Effect;
use crate::follower::Surroundings;
use crate::image::Image;
use crate::inventory::Evidence;
use crate::persisted::{Persisted, VERSION};

impl NodeState {
    pub(super) fn report(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let is_listed = self.runtime.is_listed();
        let evidence = Evidence::compose(&self.images, self.follower.sync.pools(), is_listed, self.started);
        let around = Surroundings { disk: self.runtime.disk.report(), runtime: &self.runtime.info };
        self.follower.report(evidence, around, now, &mut self.rng, effects);
    }

    pub(super) fn save(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.saver.start(self.revisions(), self.settings.timing.persist, now.mono) {
            effects.push(Effect::Persist(Box::new(self.persisted(now))));
        }
    }

    fn persisted(&self, now: Now) -> Persisted {
        let pools = self.follower.sync.pools().iter().map(|(id, pool)| (id.clone(), pool.content.store(pool.head())));
        let setbacks = self.images.iter().filter_map(|(id, i)| Some((id.clone(), i.store(now.mono)?)));
        let is_refreshed = |image: &&Image| image.want.refresh_sec.is_some();
        let refreshed = self.images.iter().filter(|(_, image)| is_refreshed(image));
        let refreshed = refreshed.filter_map(|(id, i)| Some((id.clone(), i.refresh.store(now.mono)?)));
        Persisted {
            v: VERSION,
            epoch: self.follower.sync.epoch().map(str::to_owned),
            term: self.follower.sync.term(),
            assignment: self.follower.sync.assignment().cloned(),
            pools: pools.collect(),
            ledger: self.ledger.store(now.mono),
            setbacks: self.begun.store().chain(self.restored.setbacks()).chain(setbacks).collect(),
            refreshed: self.restored.refreshed().chain(refreshed).collect(),
            n: self.follower.n(),
            ts: Some(now.wall),
        }
    }
}
