//! What a machine is made of.
//!
//! Owns the head of a recording: a replay makes the same machine of it.

use serde::{Deserialize, Serialize};
use shared::machine::{Begin, Now};

use crate::settings::Settings;
use crate::world::World;

/// Everything that [`World::new`] is given, time apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beginning {
    /// What is configured.
    pub settings: Settings,
    /// Id of the epoch that is begun if one must be.
    pub epoch: String,
    /// Seed of the machine's jitter.
    pub seed: u64,
}

impl Begin for Beginning {
    type Machine = World;
    const PROCESS: &'static str = "controller";
    /// Annotations.
    const FREE_TEXT: &'static [&'static str] = &["warm", "templateWarm", "priority", "maxNodes"];

    fn begin(self, now: Now) -> World {
        let Self { settings, epoch, seed } = self;
        World::new(settings, epoch, seed, now)
    }
}
