//! `leader:`: the election of the one controller that writes.
//!
//! Owns its keys and what makes them unsafe.

use std::time::Duration;

use daemon::config::{Problems, Validate};
use serde::{Deserialize, Serialize};
use shared::name::NodeName;

/// `leader:`. The intervals are those of client-go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LeaderSettings {
    /// Whether there may be other controllers. Without an election this one always leads: a second one must not run.
    pub enabled: bool,
    /// Name of the Lease, in the Pod's namespace.
    pub lease_name: String,
    /// How long the others wait for a leader that has vanished: whole seconds.
    #[serde(with = "shared::duration")]
    pub lease_duration: Duration,
    /// How long a leader writes without having renewed: below `leaseDuration`.
    #[serde(with = "shared::duration")]
    pub renew_deadline: Duration,
    /// Between two renewals, and between two looks of a follower.
    #[serde(with = "shared::duration")]
    pub retry_period: Duration,
}

impl Default for LeaderSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            lease_name: "warm-images-controller".to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

impl Validate for LeaderSettings {
    fn problems(&self, found: &mut Problems) {
        // A Lease's name obeys the rule of a Node's (RFC 1123 subdomain).
        if NodeName::parse(&self.lease_name).is_err() {
            let text = format!("`{}` is no name of a Kubernetes object; use a-z, 0-9, - and .", self.lease_name);
            found.add("leaseName", text);
        }
        if self.retry_period.is_zero() {
            found.add("retryPeriod", "is 0s; give a time such as 2s");
        }
        if self.lease_duration.as_secs() == 0 || self.lease_duration.subsec_nanos() != 0 {
            found.add("leaseDuration", "is not whole seconds, which is what a Lease can say; use 1s or more");
        }
        if self.renew_deadline >= self.lease_duration {
            found.add(
                "renewDeadline",
                "is not below leaseDuration: two controllers could write at once; lower it, or raise leaseDuration",
            );
        }
        if self.renew_deadline <= self.retry_period {
            found.add("renewDeadline", "is not above retryPeriod: no renewal would come in time; lower retryPeriod");
        }
    }
}
