//! What an installation has come to, in a form that two runs of the same script can be compared by: owns leaving out
//! what differs between two runs by right.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::Installation;

/// Everything that a user could see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Intents bucket: keys, and what each asks for.
    pub intents: BTreeMap<String, Value>,
    /// Assignments bucket: pools and limits of each node.
    pub assignments: BTreeMap<String, Value>,
    /// Inventories: sizes of the pools, and what is not warm and why.
    pub inventories: BTreeMap<String, Value>,
    /// Labels of ours by node.
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
}

impl Installation {
    /// What there is now, without terms, sequences, instances, times and counters.
    pub async fn content(&self) -> Result<Content> {
        let mut content = Content::default();
        for (key, mut intent) in self.bucket("intents").await? {
            // As of the last write, and by the protocol never a reason for another.
            without(&mut intent, &["term", "owners", "ownersTotal", "epoch", "streamCreated", "cluster", "by"]);
            content.intents.insert(key, intent);
        }
        for (key, mut assignment) in self.bucket("assign").await? {
            without(&mut assignment, &["term", "uid", "rev"]);
            content.assignments.insert(key, assignment);
        }
        for (key, inventory) in self.bucket("nodes").await? {
            content.inventories.insert(key, said(&inventory));
        }
        for node in &self.cluster.nodes {
            content.labels.insert(node.name.clone(), self.our_labels(&node.name).await?);
        }
        Ok(content)
    }
}

fn without(value: &mut Value, fields: &[&str]) {
    if let Value::Object(object) = value {
        object.retain(|field, _| !fields.contains(&field.as_str()));
    }
}

fn said(inventory: &Value) -> Value {
    let field = |value: &Value, name: &str| value.get(name).cloned().unwrap_or_default();
    let counts: Map<String, Value> = inventory
        .get("pools")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(pool, set)| (pool.clone(), field(set, "count")))
        .collect();
    let except = inventory.get("except").and_then(Value::as_array).map(|list| {
        let entry = |e: &Value| (field(e, "id").to_string(), json!([field(e, "st"), field(e, "why")]));
        list.iter().map(entry).collect::<BTreeMap<String, Value>>()
    });
    let warm = inventory.get("warmIds").and_then(Value::as_array).map(|list| {
        let mut ids: Vec<String> = list.iter().map(Value::to_string).collect();
        ids.sort();
        ids
    });
    json!({ "pools": counts, "except": except, "warmIds": warm, "complete": field(inventory, "complete") })
}
