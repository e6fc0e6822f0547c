//! One request to the API server whose answer matters only for how it ended.
//!
//! Owns that it is tried once, within the tenure and a timeout, and reading the answer with its `Retry-After`, which kube's
//! typed calls drop.

use std::fmt::Display;
use std::time::Duration;

use kube::Client;
use kube::client::Body;
use kube::core::Status;
use shared::reason::Reason;
use tracing::{debug, warn};

use crate::leader::tenure::{LeaseLost, Tenure};

/// A write that takes longer has failed; whether it took effect the watch will show.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest that an API server's word on when to come back is believed.
const PATIENCE: Duration = Duration::from_hours(1);

/// Why a write was not done.
#[derive(Debug)]
pub struct Refusal {
    /// The bounded reason.
    pub reason: Reason,
    /// For how long the API server wants to be left alone, if it said so.
    pub retry_after: Option<Duration>,
}

/// A request that failed.
pub(super) struct Failed {
    pub(super) error: kube::Error,
    pub(super) retry_after: Option<Duration>,
}

impl From<kube::Error> for Failed {
    fn from(error: kube::Error) -> Self {
        Self { error, retry_after: None }
    }
}

/// Awaits a write of `what` on `object`, as long as the tenure lasts.
pub(super) async fn once(
    tenure: &Tenure,
    (what, object): (&'static str, &(dyn Display + Sync)),
    write: impl Future<Output = Result<(), Failed>>,
    reason: fn(&kube::Error) -> Reason,
) -> Result<(), Refusal> {
    match tenure.guard(tokio::time::timeout(TIMEOUT, write)).await {
        Err(LeaseLost) => {
            debug!(%object, what, "a write ends with the tenure");
            Err(Refusal { reason: Reason::LeaseLost, retry_after: None })
        }
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(Failed { error, retry_after }))) => {
            let reason = reason(&error);
            // What has just gone is no trouble.
            if reason == Reason::Conflict {
                debug!(%object, what, %error, "what was to be written to is gone or is another one");
            } else {
                warn!(%object, what, %reason, ?retry_after, %error, "a write to the API server failed");
            }
            Err(Refusal { reason, retry_after })
        }
        Ok(Err(_)) => {
            warn!(%object, what, "a write to the API server got no answer in {TIMEOUT:?}");
            Err(Refusal { reason: Reason::Timeout, retry_after: None })
        }
    }
}

/// Sends it once.
pub(super) async fn send(client: &Client, request: http::Request<Vec<u8>>) -> Result<(), Failed> {
    let answer = client.send(request.map(Body::from)).await?;
    let code = answer.status();
    let after = retry_after(answer.headers().get("retry-after").and_then(|value| value.to_str().ok()));
    // To the end in any case: only then is the connection used again.
    let body = answer.into_body().collect_bytes().await?;
    if code.is_success() {
        return Ok(());
    }
    // What stands before an API server answers in words of its own.
    let in_words = || Status::failure(String::from_utf8_lossy(&body).trim(), "").with_code(code.as_u16());
    let status = serde_json::from_slice(&body).unwrap_or_else(|_| in_words());
    Err(Failed { error: kube::Error::Api(Box::new(status)), retry_after: after })
}

/// In seconds, as API servers and most proxies say it; a date is not read.
fn retry_after(value: Option<&str>) -> Option<Duration> {
    let seconds = value?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(PATIENCE))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Some("3"), Some(3))]
    #[case(Some("0"), Some(0))]
    #[case(Some("99999999999"), Some(3_600))]
    #[case(Some("-1"), None)]
    #[case(Some("Wed, 21 Oct 2026 07:28:00 GMT"), None)]
    #[case(None, None)]
    fn when_to_come_back_is_read_in_seconds_and_bounded(#[case] value: Option<&str>, #[case] seconds: Option<u64>) {
        assert_eq!(retry_after(value), seconds.map(Duration::from_secs));
    }
}
