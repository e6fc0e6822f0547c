//! One request to the API server whose answer matters only for how it ended.
//!
//! Owns reading the answer with its `Retry-After`, which kube's typed calls drop.

use std::time::Duration;

use kube::Client;
use kube::client::Body;
use kube::core::Status;
use shared::reason::Reason;

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
