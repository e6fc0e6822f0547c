//! Buckets: made if absent, brought up to date where that is harmless, refused where it is not. Deleted when a person
//! uninstalls and asks for it, never otherwise.
//!
//! Owns the settings of the streams under our buckets (`protocol.md` section 2). Never reads or writes a key.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing::info;

use super::error::{STREAM_NAME_IN_USE, STREAM_NOT_FOUND};
use super::{Bus, BusError};

/// Where a stream lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// On disk.
    #[default]
    File,
    /// In memory: gone with the server.
    Memory,
}

/// A bucket as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketSpec {
    /// The bucket's name, without `KV_`.
    pub name: String,
    /// Largest message.
    pub max_message_bytes: u32,
    /// Whether a writer may purge (`Nats-Rollup`). Off where writers do not trust each other.
    pub allow_rollup: bool,
    /// Limit of the whole bucket; -1 for none.
    pub max_bytes: i64,
    /// Copies.
    pub replicas: u32,
    /// Where it lives.
    pub storage: StorageKind,
}

/// A bucket as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketInfo {
    /// When the stream was made, as the server writes it: another text is another stream.
    pub created: String,
    /// The stream's last sequence.
    pub last_seq: u64,
    /// Messages now in it, markers included.
    pub messages: u64,
    /// Bytes that those take.
    pub bytes: u64,
    /// The limit of the whole bucket, if it has one.
    pub max_bytes: Option<u64>,
}

impl BucketInfo {
    /// How full it is: 1 is full. 0 without a limit.
    pub fn used(&self) -> f64 {
        self.max_bytes.map_or(0.0, |most| self.bytes as f64 / most as f64)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Must be so, and cannot or must not be changed on a stream that exists.
    Fixed,
    /// Must be so; can be changed.
    Must,
    /// Whoever manages the bucket may choose.
    Choice,
}

impl BucketSpec {
    /// The stream under it.
    pub fn stream(&self) -> String {
        format!("KV_{}", self.name)
    }

    /// The filter of every key.
    pub fn all_keys(&self) -> String {
        format!("$KV.{}.>", self.name)
    }

    fn fields(&self) -> Vec<(&'static str, Value, Need)> {
        vec![
            ("subjects", json!([self.all_keys()]), Need::Fixed),
            ("storage", json!(self.storage), Need::Fixed),
            ("retention", json!("limits"), Need::Fixed),
            ("mirror", Value::Null, Need::Fixed),
            ("sealed", json!(false), Need::Fixed),
            ("discard", json!("new"), Need::Must),
            ("max_msgs_per_subject", json!(1), Need::Must),
            ("max_msgs", json!(-1), Need::Must),
            ("max_age", json!(0), Need::Must),
            ("max_msg_size", json!(self.max_message_bytes), Need::Must),
            ("allow_direct", json!(true), Need::Must),
            ("allow_msg_ttl", json!(true), Need::Must),
            ("allow_rollup_hdrs", json!(self.allow_rollup), Need::Must),
            ("subject_delete_marker_ttl", json!(0), Need::Must),
            ("deny_delete", json!(true), Need::Must),
            ("deny_purge", json!(false), Need::Must),
            ("max_consumers", json!(64), Need::Choice),
            ("max_bytes", json!(self.max_bytes), Need::Choice),
            ("num_replicas", json!(self.replicas), Need::Choice),
        ]
    }
}

impl Bus {
    /// Makes the bucket if it is absent and brings compatible settings up to date; with `manage` off it only looks.
    ///
    /// # Errors
    /// [`BusError::Incompatible`] lists every setting that stands in the way.
    pub async fn ensure_bucket(&self, spec: &BucketSpec, manage: bool) -> Result<BucketInfo, BusError> {
        match self.stream_info(spec).await {
            Ok(found) => self.bring_up_to_date(spec, manage, found).await,
            Err(BusError::Server { err_code: STREAM_NOT_FOUND, .. }) if manage => self.create(spec).await,
            Err(BusError::Server { err_code: STREAM_NOT_FOUND, .. }) => Err(BusError::Incompatible {
                bucket: spec.name.clone(),
                differences: vec!["it does not exist, and buckets.manage is off".to_owned()],
            }),
            Err(error) => Err(error),
        }
    }

    /// The bucket as it is, without looking at its settings.
    pub async fn bucket_info(&self, spec: &BucketSpec) -> Result<BucketInfo, BusError> {
        info_of(spec, &self.stream_info(spec).await?)
    }

    /// Deletes a bucket with everything in it; says whether there was one. `name` is without `KV_`.
    pub async fn delete_bucket(&self, name: &str) -> Result<bool, BusError> {
        let deleted =
            self.api(&format!("deleting bucket {name}"), &format!("STREAM.DELETE.KV_{name}"), &json!({})).await;
        match deleted {
            Ok(_) => Ok(true),
            Err(BusError::Server { err_code: STREAM_NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn stream_info(&self, spec: &BucketSpec) -> Result<Value, BusError> {
        let stream = spec.stream();
        self.api(&format!("bucket {}", spec.name), &format!("STREAM.INFO.{stream}"), &json!({})).await
    }

    async fn create(&self, spec: &BucketSpec) -> Result<BucketInfo, BusError> {
        let mut config: Map<String, Value> = spec
            .fields()
            .into_iter()
            .filter(|(_, value, _)| !is_unset(value))
            .map(|(field, value, _)| (field.to_owned(), value))
            .collect();
        config.insert("name".to_owned(), json!(spec.stream()));
        config.insert("metadata".to_owned(), json!({ "warm.schema": "1" }));
        let what = format!("making bucket {}", spec.name);
        let call = format!("STREAM.CREATE.{}", spec.stream());
        match self.api(&what, &call, &Value::Object(config)).await {
            Ok(made) => {
                info!(bucket = spec.name, "bucket made");
                info_of(spec, &made)
            }
            // Somebody else was making it; whether it is as we want shows the next look.
            Err(BusError::Server { err_code: STREAM_NAME_IN_USE, .. }) => {
                let found = self.stream_info(spec).await?;
                self.bring_up_to_date(spec, true, found).await
            }
            Err(error) => Err(error),
        }
    }

    async fn bring_up_to_date(&self, spec: &BucketSpec, manage: bool, found: Value) -> Result<BucketInfo, BusError> {
        let Some(Value::Object(config)) = found.get("config") else {
            return Err(BusError::invalid(&spec.name, "the stream's settings are missing in the answer"));
        };
        let differing: Vec<(&'static str, Value, Need)> = spec
            .fields()
            .into_iter()
            .filter(|(field, wanted, need)| (manage || *need != Need::Choice) && !is_same(config.get(*field), wanted))
            .collect();
        let refused: Vec<String> = differing
            .iter()
            .filter(|(_, _, need)| !manage || *need == Need::Fixed)
            .map(|(field, wanted, _)| {
                format!("{field} is {}, it must be {}", shown(config.get(*field)), shown(Some(wanted)))
            })
            .collect();
        if !refused.is_empty() {
            return Err(BusError::Incompatible { bucket: spec.name.clone(), differences: refused });
        }
        let marked = config.get("metadata").and_then(|metadata| metadata.get("warm.schema")).is_some();
        if differing.is_empty() && (marked || !manage) {
            return info_of(spec, &found);
        }
        // Over what is there, so that settings this version does not know stay.
        let mut config = config.clone();
        let changed: Vec<&str> = differing.iter().map(|(field, _, _)| *field).collect();
        let changed = changed.join(", ");
        for (field, wanted, _) in differing {
            config.insert(field.to_owned(), wanted);
        }
        let metadata = config.entry("metadata").or_insert_with(|| json!({}));
        if let Value::Object(metadata) = metadata {
            metadata.insert("warm.schema".to_owned(), json!("1"));
        }
        let what = format!("changing {changed} of bucket {}", spec.name);
        let updated = self.api(&what, &format!("STREAM.UPDATE.{}", spec.stream()), &Value::Object(config)).await;
        match updated {
            Ok(updated) => {
                info!(bucket = spec.name, changed, "bucket brought up to date");
                info_of(spec, &updated)
            }
            Err(BusError::Server { code, text, .. }) if code < 500 => Err(BusError::Incompatible {
                bucket: spec.name.clone(),
                differences: vec![format!("{changed} cannot be changed: {text}")],
            }),
            Err(error) => Err(error),
        }
    }
}

/// A field that is absent is false, zero or empty.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_i64() == Some(0),
        _ => false,
    }
}

fn is_same(found: Option<&Value>, wanted: &Value) -> bool {
    match found {
        Some(found) => found == wanted || (is_unset(found) && is_unset(wanted)),
        None => is_unset(wanted),
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "not set".to_owned(), Value::to_string)
}

fn info_of(spec: &BucketSpec, answer: &Value) -> Result<BucketInfo, BusError> {
    let created = answer.get("created").and_then(Value::as_str);
    let number = |field: &str| answer.get("state").and_then(|state| state.get(field)).and_then(Value::as_u64);
    match (created, number("last_seq")) {
        (Some(created), Some(last_seq)) => {
            let (messages, bytes) = (number("messages").unwrap_or_default(), number("bytes").unwrap_or_default());
            // -1 for none, which is no `u64`.
            let max_bytes = answer.get("config").and_then(|config| config.get("max_bytes")).and_then(Value::as_u64);
            let max_bytes = max_bytes.filter(|most| *most > 0);
            Ok(BucketInfo { created: created.to_owned(), last_seq, messages, bytes, max_bytes })
        }
        _ => Err(BusError::invalid(&spec.name, "the stream's state is missing in the answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_full_a_bucket_is_comes_from_the_limit_that_it_has_not_the_one_it_should_have() {
        let spec = BucketSpec {
            name: "warm-default-nodes".to_owned(),
            max_message_bytes: 1_000,
            allow_rollup: false,
            max_bytes: 1_000,
            replicas: 1,
            storage: StorageKind::File,
        };
        let used = |max_bytes: i64, bytes: u64| {
            let state = json!({ "last_seq": 3, "messages": 2, "bytes": bytes });
            let answer = json!({ "created": "then", "state": state, "config": { "max_bytes": max_bytes } });
            info_of(&spec, &answer).map(|info| (info.bytes, info.used()))
        };
        assert_eq!(used(2_000, 500).unwrap(), (500, 0.25));
        assert_eq!(used(-1, 500).unwrap(), (500, 0.0));
        assert_eq!(used(0, 500).unwrap(), (500, 0.0));
    }
}
