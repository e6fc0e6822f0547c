//! One document of the intents bucket that is no intent: `_meta` or `_ctl`.
//!
//! Owns its compare-and-set. What a conflict found is told before the outcome.

use bytes::Bytes;
use cluster_plan::Fact;
use shared::reason::Reason;
use shared::subject::{Bucket, IntentsKey};

use super::Peers;
use super::outcome::{NotDone, done};
use super::reread::reread;
use crate::bus::Intents;
use crate::leader::tenure::Tenure;

/// Writes `body` if `key` has the sequence `expected`; its new sequence. With a tenure only as long as that lasts.
pub(super) async fn write(
    peers: &Peers,
    tenure: Option<&Tenure>,
    kind: &'static str,
    key: IntentsKey,
    body: Vec<u8>,
    expected: u64,
) -> Result<u64, Reason> {
    let Peers { bus, cluster, inbox, .. } = peers;
    let printed = key.to_string();
    let subject = Bucket::Intents.subject(cluster, &printed);
    let written = async {
        let put = bus.put(subject, &[], Bytes::from(body), Some(expected));
        let sent = match tenure {
            Some(tenure) => tenure.guard(put).await?,
            None => put.await,
        };
        Ok::<u64, NotDone>(sent.await?)
    };
    let written = written.await;
    if written.as_ref().is_err_and(NotDone::is_conflict)
        && let Some(there) = reread::<Intents>(bus, cluster, key, &printed).await
    {
        inbox.send(Fact::IntentChanged(there)).await;
    }
    done(kind, written)
}
