//! Looking into the buckets as a person with a reader's rights: owns reading keys by direct get, which leaves nothing on the
//! server. A look by `nats kv ls` makes a consumer, and a stream of ours has room for few: a test that looks often would
//! be the fault it looks for.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use async_nats::{Client, HeaderMap, Message};
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::{Installation, reader};

/// Keys of one answer: the server queues a whole one in memory.
const PAGE: u32 = 500;
/// For one answer of the server; a look is repeated by whoever waits.
const ANSWER: Duration = Duration::from_secs(5);

const OK: u16 = 204;
const NOT_FOUND: u16 = 404;

impl Installation {
    /// All keys of a bucket with their values; what is no JSON is given as text.
    pub async fn bucket(&self, name: &str) -> Result<BTreeMap<String, Value>> {
        let content = read(&self.reader().await?, name).await.with_context(|| format!("reading bucket {name}"))?;
        Ok(content.into_iter().map(|(key, value)| (key, json_or_text(&value))).collect())
    }

    /// Keys of a bucket.
    pub async fn kv_keys(&self, bucket: &str) -> Result<Vec<String>> {
        Ok(self.bucket(bucket).await?.into_keys().collect())
    }

    /// The value under a key, read as JSON.
    pub async fn kv(&self, bucket: &str, key: &str) -> Result<Value> {
        let subject = format!("$JS.API.DIRECT.GET.{}.{}", stream(bucket), subject(bucket, key));
        let nats = self.reader().await?;
        let asked = tokio::time::timeout(ANSWER, nats.request(subject, Bytes::new())).await;
        let message = asked.with_context(|| format!("{bucket}/{key}: no answer"))??;
        match (message.status.map(|status| status.as_u16()), message.headers.as_ref()) {
            (None, headers) if headers.is_none_or(|headers| !is_marker(headers)) => {
                let value = message.payload;
                let text = || String::from_utf8_lossy(&value).into_owned();
                serde_json::from_slice(&value).with_context(|| format!("{bucket}/{key} is no JSON: {}", text()))
            }
            (None | Some(NOT_FOUND), _) => bail!("{bucket} has no key {key}"),
            (Some(status), _) => bail!("{bucket}/{key}: NATS answers {status}"),
        }
    }

    /// A connection of its own for each look: one that is kept would wait for a server that a test has killed.
    async fn reader(&self) -> Result<Client> {
        async_nats::ConnectOptions::with_user_and_password(reader().into(), reader().into())
            .connect(self.cluster.nats.url())
            .await
            .context("connecting as a reader")
    }
}

async fn read(nats: &Client, bucket: &str) -> Result<BTreeMap<String, Bytes>> {
    let inbox = nats.new_inbox();
    let mut answers = nats.subscribe(inbox.clone()).await?;
    let (mut values, mut last) = (BTreeMap::new(), 0_u64);
    loop {
        let body = json!({ "batch": PAGE, "seq": last + 1, "next_by_subj": subject(bucket, ">") }).to_string();
        let api = format!("$JS.API.DIRECT.GET.{}", stream(bucket));
        nats.publish_with_reply(api, inbox.clone(), body.into()).await?;
        let left = loop {
            let next = tokio::time::timeout(ANSWER, answers.next()).await.context("no answer")?;
            let answer = next.context("the subscription ended")?;
            match answer.status.map(|status| status.as_u16()) {
                Some(OK) => break said(&answer, "Nats-Num-Pending")?.parse()?,
                Some(NOT_FOUND) => break 0_u64,
                Some(status) => bail!("NATS answers {status} {:?}", answer.description),
                None => {
                    last = said(&answer, "Nats-Sequence")?.parse()?;
                    take(&mut values, bucket, answer)?;
                }
            }
        };
        if left == 0 {
            return Ok(values);
        }
    }
}

/// Later messages count: a key may be written again while the bucket is read.
fn take(values: &mut BTreeMap<String, Bytes>, bucket: &str, answer: Message) -> Result<()> {
    let at = said(&answer, "Nats-Subject")?;
    let key = at.strip_prefix(&subject(bucket, "")).with_context(|| format!("a key at {at}"))?.to_owned();
    if answer.headers.as_ref().is_some_and(is_marker) {
        values.remove(&key);
    } else {
        values.insert(key, answer.payload);
    }
    Ok(())
}

/// A header of the server's: it stands after the writer's.
fn said<'a>(answer: &'a Message, name: &str) -> Result<&'a str> {
    let value = answer.headers.as_ref().and_then(|headers| headers.get_last(name));
    value.map(async_nats::HeaderValue::as_str).ok_or_else(|| anyhow!("an answer without {name}"))
}

fn is_marker(headers: &HeaderMap) -> bool {
    headers.get("KV-Operation").is_some_and(|operation| operation.as_str() != "PUT")
        || headers.get("Nats-Marker-Reason").is_some()
}

fn json_or_text(value: &Bytes) -> Value {
    serde_json::from_slice(value).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(value).into_owned()))
}

fn stream(bucket: &str) -> String {
    format!("KV_warm-default-{bucket}")
}

fn subject(bucket: &str, key: &str) -> String {
    format!("$KV.warm-default-{bucket}.{key}")
}
