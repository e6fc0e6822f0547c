//! The three buckets as they must be (`protocol.md` section 2).

use daemon::bus::{BucketSpec, StorageKind};
use shared::name::ClusterId;
use shared::subject::Bucket;

use crate::config::BucketSettings;

/// One of the buckets of `cluster`.
pub fn spec(bucket: Bucket, cluster: &ClusterId, settings: &BucketSettings) -> BucketSpec {
    BucketSpec {
        name: bucket.name(cluster),
        max_message_bytes: bucket.max_message_bytes(),
        // Seen: a `Nats-Rollup: all` put by one agent wipes every inventory.
        allow_rollup: bucket != Bucket::Nodes,
        max_bytes: i64::try_from(settings.max_bytes).unwrap_or(i64::MAX),
        replicas: settings.replicas,
        storage: StorageKind::File,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bucket_that_agents_write_forbids_roll_ups() {
        let cluster = ClusterId::parse("prod").unwrap();
        let settings = BucketSettings { replicas: 3, ..BucketSettings::default() };
        let specs = Bucket::ALL.map(|bucket| spec(bucket, &cluster, &settings));
        let shown = specs.map(|s| (s.name, s.max_message_bytes, s.allow_rollup, s.replicas));
        assert_eq!(
            shown,
            [
                ("warm-prod-intents".to_owned(), 65_536, true, 3),
                ("warm-prod-assign".to_owned(), 8_192, true, 3),
                ("warm-prod-nodes".to_owned(), 262_144, false, 3),
            ]
        );
    }
}
