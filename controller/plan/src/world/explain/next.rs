//! What happens next with an image on a node: one sentence.

use jiff::Timestamp;
use shared::label::image_label;
use shared::machine::{Moment, Now};
use shared::name::{ImageKey, NodeName, PoolId};
use shared::state::ImageState;
use shared::subject::IntentsKey;

use super::super::World;
use crate::evidence::{Agent, NodeEvidence};
use crate::judge::ImageEvidence;
use crate::pace::Outlook;

impl World {
    /// What happens next, and when.
    pub(super) fn next(&self, id: &ImageKey, name: &NodeName, now: Now) -> String {
        if !self.is_synced() {
            return format!("nothing before the first full content of: {}", self.awaited().join(", "));
        }
        if !self.plan.wants(name, id) {
            return self.next_unwanted(id, name);
        }
        let evidence = self.evidence.of(name, id, &self.intents);
        if evidence.as_ref().is_some_and(|e| e.state == ImageState::Warm) {
            return self.next_warm(id, name, now);
        }
        if self.is_paused() {
            return "nothing: everything is paused; `ctl.resume` goes on".to_owned();
        }
        self.next_write(id, name, now)
            .or_else(|| self.next_report(name, now))
            .unwrap_or_else(|| self.next_pull(id, name, evidence.as_ref(), now))
    }

    fn next_unwanted(&self, id: &ImageKey, name: &NodeName) -> String {
        let is_held = self.scope().covers(name, id);
        let is_labelled = self.nodes.get(name).is_some_and(|n| n.our_labels.contains_key(&image_label(id)));
        match (is_held, is_labelled) {
            (true, _) if self.is_paused() => "nothing: its withdrawal waits for `ctl.resume`".to_owned(),
            (true, _) => format!("it is withdrawn{}", self.by_whom()),
            (false, true) => "its label is removed".to_owned(),
            (false, false) => "nothing".to_owned(),
        }
    }

    fn next_warm(&self, id: &ImageKey, name: &NodeName, now: Now) -> String {
        let shown = self.nodes.get(name).and_then(|n| n.our_labels.get(&image_label(id)));
        let wanted = self.wanted_label(id, name);
        if wanted.as_ref() == shown {
            return "nothing: warm".to_owned();
        }
        match self.pace.outlook(name, self.settings.timing.label_window) {
            Outlook::InFlight => "warm; its label is being written".to_owned(),
            Outlook::Due(Some(due)) if due > now.mono => format!("warm; its label is written {}", at(now, due)),
            Outlook::Due(_) | Outlook::Rest => format!("warm; its label is written{}", self.by_whom()),
        }
    }

    /// What is still to be written into the buckets.
    fn next_write(&self, id: &ImageKey, name: &NodeName, now: Now) -> Option<String> {
        let planned = &self.plan.nodes.get(name)?.pools;
        let wants = |pool: &&PoolId| self.plan.pools.get(*pool).is_some_and(|p| p.intents.contains_key(id));
        let pools: Vec<&PoolId> = planned.iter().filter(wants).collect();
        let is_stored = |pool: &&PoolId| self.intents.born(pool, id).is_some();
        let Some(pool) = pools.iter().find(|pool| is_stored(pool)) else {
            let key = IntentsKey::Intent((*pools.first()?).clone(), id.clone());
            return Some(match self.ledger.intent_retries.due(&key).filter(|due| *due > now.mono) {
                Some(due) => format!("its intent is written again {}", at(now, due)),
                None => format!("its intent is written{}", self.by_whom()),
            });
        };
        if self.assigned.pools_of(name).contains(*pool) {
            return None;
        }
        Some(match self.ledger.assignment_retries.due(name).filter(|due| *due > now.mono) {
            Some(due) => format!("the node's assignment is written again {}", at(now, due)),
            None => format!("the node's assignment is written{}", self.by_whom()),
        })
    }

    /// Whether anything can be expected of the agent.
    fn next_report(&self, name: &NodeName, now: Now) -> Option<String> {
        let agent = self.evidence.get(name).map(NodeEvidence::agent).unwrap_or_default();
        let heard = self.evidence.get(name).and_then(NodeEvidence::heard);
        match (agent, heard) {
            (Agent::Ready, _) => None,
            (Agent::Missing, None) => {
                Some("waits for the node's first report: no agent has been heard there".to_owned())
            }
            (_, None) => {
                Some("waits for the node's agent: it has not been heard since this controller started".to_owned())
            }
            (_, Some(heard)) => {
                let silent = now.mono.since(heard);
                (silent > self.settings.timing.heartbeat * 3)
                    .then(|| format!("waits for the node's agent, silent for {}s", silent.as_secs()))
            }
        }
    }

    fn next_pull(&self, id: &ImageKey, name: &NodeName, evidence: Option<&ImageEvidence>, now: Now) -> String {
        let Some(evidence) = evidence else {
            return "waits for the agent to read it and report".to_owned();
        };
        let why = evidence.why.map_or(String::new(), |why| format!(" ({why})"));
        let next = self.evidence.get(name).and_then(|n| n.told(id)).and_then(|told| told.next);
        match (evidence.state, next) {
            (ImageState::Warm, _) => "nothing: warm".to_owned(),
            (ImageState::Pulling, _) => "the agent is pulling it".to_owned(),
            (ImageState::Pending | ImageState::Evicted, _) => "the agent pulls it when its turn comes".to_owned(),
            (ImageState::Waiting, _) => format!("waits{why}"),
            (ImageState::Failed | ImageState::Refused | ImageState::Deferred, Some(next)) => {
                format!("the agent tries again{why} {}", at_wall(now, next))
            }
            (ImageState::Deferred, None) => format!("the agent tries as soon as nothing stands in the way{why}"),
            (ImageState::Failed | ImageState::Refused, None) => format!("the agent tries again after its backoff{why}"),
        }
    }

    /// Who writes, if it is not this replica.
    fn by_whom(&self) -> String {
        match (self.leadership.leads(), &self.intents.meta().good) {
            (Some(_), _) => " now".to_owned(),
            (None, Some(meta)) => format!(" by the leader, {}", meta.by),
            (None, None) => " as soon as a controller leads".to_owned(),
        }
    }
}

/// A time to come as people read it.
fn at(now: Now, due: Moment) -> String {
    let wait = due.since(now.mono);
    format!("at {} (in {}s)", now.wall.checked_add(wait).unwrap_or(now.wall), wait.as_secs())
}

/// As [`at`], by the agent's clock.
fn at_wall(now: Now, due: Timestamp) -> String {
    let wait = due.duration_since(now.wall).as_secs();
    if wait >= 0 { format!("at {due} (in {wait}s)") } else { format!("at {due} ({}s ago)", -wait) }
}
