//! What a machine is made of.
//!
//! Owns the head of a recording: a replay makes the same machine of it.

use serde::{Deserialize, Serialize};
use shared::machine::{Begin, Now};

use crate::persisted::Persisted;
use crate::state::{Identity, NodeState, Settings};

/// Everything that [`NodeState::new`] is given, time apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beginning {
    /// Who speaks.
    pub identity: Identity,
    /// What is configured.
    pub settings: Settings,
    /// What the last run left.
    pub persisted: Option<Persisted>,
    /// Seed of the machine's jitter.
    pub seed: u64,
}

impl Begin for Beginning {
    type Machine = NodeState;
    const PROCESS: &'static str = "agent";
    const FREE_TEXT: &'static [&'static str] = &[];

    fn begin(self, now: Now) -> NodeState {
        let Self { identity, settings, persisted, seed } = self;
        NodeState::new(identity, settings, persisted, seed, now)
    }
}
