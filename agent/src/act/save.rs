//! `Effect::Persist`.

use node_plan::{Fact, Persisted};

use super::outcome::done;
use crate::state_file::StateFile;

/// Writes the state file.
pub(super) async fn save(file: &StateFile, persisted: &Persisted) -> Fact {
    Fact::Persisted(done("persist", file.save(persisted).await))
}
