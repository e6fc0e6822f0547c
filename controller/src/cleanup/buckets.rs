//! The three buckets, where NATS stays when the release goes.

use daemon::bus::{Bus, BusError};
use daemon::supervise::Tasks;
use shared::subject::{Bucket, controller_inbox};
use tokio::time::Instant;

use super::attempt::until_done;
use crate::config::ControllerConfig;

/// Deletes the buckets with everything in them; says how many there were.
pub(super) async fn delete(config: &ControllerConfig, deadline: Instant) -> Result<usize, String> {
    let (tasks, _) = Tasks::new();
    let inbox = controller_inbox(&config.cluster_id, "cleanup");
    let connected = Bus::connect(&config.nats, "warm-controller cleanup", &inbox, &tasks).await;
    let (bus, _) = connected.map_err(|error| format!("buckets: {error}"))?;
    let deleted = until_done(deadline, "buckets", async || {
        let mut deleted = 0;
        for bucket in Bucket::ALL {
            deleted += usize::from(bus.delete_bucket(&bucket.name(&config.cluster_id)).await?);
        }
        Ok::<_, BusError>(deleted)
    });
    let deleted = deleted.await;
    tasks.stop();
    deleted
}
