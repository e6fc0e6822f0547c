//! The intents bucket as facts.

use cluster_plan::Fact;
use cluster_plan::fact::{IntentsDoc, Stored};
use shared::message::{Control, DecodeError, Intent, Message as _, Meta, SCHEMA, SnapshotHead};
use shared::subject::{Bucket, IntentsKey, parse_snapshot_chunk};

use super::feed::{Feed, Undecodable};

/// `_meta`, `_ctl`, `<pool>.def`, `<pool>.i.<id>`, `<pool>.snap.head`.
#[derive(Debug)]
pub struct Intents;

impl Feed for Intents {
    const BUCKET: Bucket = Bucket::Intents;
    const KIND: &'static str = "intent";
    type Key = IntentsKey;
    type Doc = IntentsDoc;

    fn key(key: &str) -> Option<IntentsKey> {
        IntentsKey::parse(key)
    }

    fn is_derived(key: &str) -> bool {
        parse_snapshot_chunk(key).is_some()
    }

    fn decode(key: &IntentsKey, body: &[u8]) -> Result<IntentsDoc, Undecodable> {
        match key {
            IntentsKey::Meta => Ok(IntentsDoc::Meta(Meta::decode(body)?)),
            IntentsKey::Control => Ok(IntentsDoc::Control(Control::decode(body)?)),
            IntentsKey::Definition(_) => {
                let json = |source| DecodeError::Json { what: "definition", source };
                let definition: serde_json::Value = serde_json::from_slice(body).map_err(json)?;
                match definition.get("v").and_then(serde_json::Value::as_u64) {
                    Some(v) if v > u64::from(SCHEMA) => {
                        let version = u32::try_from(v).unwrap_or(u32::MAX);
                        Err(DecodeError::Newer { what: "definition", version }.into())
                    }
                    _ => Ok(IntentsDoc::Definition(definition)),
                }
            }
            IntentsKey::Snapshot(pool) => {
                let head = SnapshotHead::decode(body)?;
                if head.pool == *pool {
                    Ok(IntentsDoc::Snapshot(head))
                } else {
                    Err(Undecodable::Foreign(format!("pool {}", head.pool)))
                }
            }
            IntentsKey::Intent(_, id) => {
                let intent = Intent::decode(body)?;
                if intent.id != *id {
                    Err(Undecodable::Foreign(format!("intent {}", intent.id)))
                } else if !intent.is_of_its_id() {
                    Err(Undecodable::Foreign(format!("image {}", intent.image)))
                } else {
                    Ok(IntentsDoc::Intent(Box::new(intent)))
                }
            }
        }
    }

    fn read(stream_created: String, head: u64, entries: Vec<Stored<IntentsKey, IntentsDoc>>) -> Fact {
        Fact::Intents { stream_created, head, entries }
    }

    fn changed(entry: Stored<IntentsKey, IntentsDoc>) -> Fact {
        Fact::IntentChanged(entry)
    }
}
