//! `Effect::ReadMeta`, `Effect::ReadAssignment` and `Effect::ReadPool`.

use daemon::metrics::count;
use node_plan::Fact;
use shared::metric;
use shared::name::PoolId;

use super::outcome::done;
use crate::bus::Link;

/// The epoch document.
pub(super) async fn meta(link: &Link) -> Fact {
    Fact::Meta(done("read-meta", link.read_meta().await))
}

/// The pools of this node.
pub(super) async fn assignment(link: &Link) -> Fact {
    Fact::AssignmentRead(done("read-assignment", link.read_assignment().await))
}

/// The keys of a pool.
pub(super) async fn pool(link: &Link, pool: PoolId, from: u64, read: u64, plain: bool) -> Fact {
    count(metric::READS, &[if from <= 1 { "full" } else { "delta" }], 1);
    let result = done("read-pool", link.read_pool(&pool, from, plain).await);
    if result.as_ref().is_ok_and(|content| content.snapshot.is_some()) {
        count(metric::READS, &["snapshot"], 1);
    }
    Fact::PoolRead { pool, read, result }
}
