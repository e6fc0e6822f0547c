//! `Effect::Persist`.

use node_plan::{Fact, Persisted};

use super::outcome::done;
use crate::begun::Covered;
use crate::state_file::StateFile;

/// Writes the state file, after which the notes that it covers are of no use.
pub(super) async fn save(file: &StateFile, persisted: &Persisted, covered: Covered) -> Fact {
    let saved = file.save(persisted).await;
    if saved.is_ok() {
        covered.remove().await;
    }
    Fact::Persisted(done("persist", saved))
}
