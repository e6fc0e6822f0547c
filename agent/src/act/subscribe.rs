//! `Effect::Subscribe`.

use node_plan::Fact;
use shared::name::PoolId;

use super::outcome::done;
use crate::bus::pools::Pools;

/// Makes the subscriptions; tells which stand, so that those that do not are asked for again.
pub(super) async fn subscribe(pools: &mut Pools, wanted: &[PoolId]) -> Fact {
    let _ = done("subscribe", pools.subscribe(wanted).await);
    Fact::Subscribed(pools.standing())
}
