//! What the machine says of itself: inventory, heartbeat, the file of its state.
//!
//! Owns how these messages are filled. When they go out is [`Reporter`](crate::inventory::Reporter)'s and
//! [`Saver`](crate::save::Saver)'s.

use shared::machine::Now;
use shared::message::{Heartbeat, Inventory, SCHEMA};

use super::NodeState;
use crate::effect::Effect;
use crate::inventory::{Claim, Evidence, reported};
use crate::persisted::{Persisted, VERSION};

impl NodeState {
    pub(super) fn report(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.sync.is_synced() {
            self.reporter.synced(now.mono);
        }
        let is_listed = self.runtime.is_listed();
        let evidence = Evidence::compose(&self.images, self.sync.pools(), is_listed, self.started);
        let claim = Claim {
            epoch: self.sync.epoch().unwrap_or_default().to_owned(),
            uid: self.uid(),
            pools: self.sync.pools().keys().cloned().collect(),
            digest: evidence.digest(),
        };
        self.reporter.observe(&claim, now.mono);
        if !self.sync.is_connected() {
            return;
        }
        let inv_digest = claim.digest;
        let pools = reported(self.sync.pools());
        let timing = &self.settings.timing;
        if self.sync.epoch().is_some()
            && self.reporter.start_put(claim.clone(), pools.clone(), now.mono, timing, &mut self.rng)
        {
            self.n += 1;
            effects.push(Effect::PutInventory(Box::new(Inventory {
                node: self.identity.node.clone(),
                uid: claim.uid,
                boot: self.identity.boot.clone(),
                agent: self.identity.agent_version.clone(),
                inst: self.identity.inst.clone(),
                n: self.n,
                epoch: claim.epoch,
                pools: pools.clone(),
                content: evidence.content,
                complete: evidence.complete,
                digests: evidence.digests,
                disk: self.runtime.disk.report(),
                runtime: self.runtime.info.clone(),
                ts: now.wall,
            })));
        }
        if self.reporter.start_heartbeat(now.mono, timing, &mut self.rng) {
            effects.push(Effect::PublishHeartbeat(Heartbeat {
                node: self.identity.node.clone(),
                inst: self.identity.inst.clone(),
                boot: self.identity.boot.clone(),
                n: self.n,
                inv_digest,
                pools: self.reporter.moved(pools),
                schema: vec![SCHEMA],
                refused: self.counters.get("refused").copied().unwrap_or(0),
                ts: now.wall,
            }));
        }
    }

    pub(super) fn save(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.saver.start(self.revisions(), self.settings.timing.persist, now.mono) {
            effects.push(Effect::Persist(Box::new(self.persisted(now))));
        }
    }

    fn persisted(&self, now: Now) -> Persisted {
        let pools = self.sync.pools().iter().map(|(id, pool)| (id.clone(), pool.content.store(pool.head())));
        Persisted {
            v: VERSION,
            epoch: self.sync.epoch().map(str::to_owned),
            term: self.sync.term(),
            assignment: self.sync.assignment().cloned(),
            pools: pools.collect(),
            ledger: self.ledger.store(now.mono),
            setbacks: self.images.iter().filter_map(|(id, i)| Some((id.clone(), i.store(now.mono)?))).collect(),
            n: self.n,
            ts: Some(now.wall),
        }
    }
}
