//! `ctl.explain`: why an image is on a node, or is not, and what happens next.
//!
//! Owns the form of the question and what is the same in every answer: who asks for an image, and what the bucket holds
//! of it. Decides nothing: what it says is read off the plan, the buckets and the evidence.

mod image;
mod next;
mod node;
mod pair;

use serde::Deserialize;
use serde_json::{Value, json};
use shared::image::Reference;
use shared::machine::{Moment, Now};
use shared::name::{ImageKey, NodeName, PoolId};
use shared::subject::IntentsKey;
use shared::wave::slot;

use super::World;
use crate::bucket::{Held, PoolBucket};
use crate::input::{Node, WorkloadKey};
use crate::place::{self, Obstacle};
use crate::select::Reading;

/// How many entries a list in an answer has at most.
const MAX_LISTED: usize = 50;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    image: Option<String>,
    node: Option<String>,
}

/// An image that was asked for.
struct Image {
    id: ImageKey,
    /// Canonical, if anybody has ever written it out.
    reference: Option<String>,
}

impl World {
    /// The answer to `ctl.explain` with this body.
    pub(super) fn explain(&self, body: &str, now: Now) -> Value {
        let wrong = |what: String| json!({ "error": what, "example": { "image": "nginx:1.27", "node": "node-a" }, "text": "either may be absent" });
        let asked: Asked = match serde_json::from_str(body) {
            Ok(asked) => asked,
            Err(error) => return wrong(format!("the body cannot be used: {error}")),
        };
        let image = match asked.image.as_deref().map(|text| self.image(text)).transpose() {
            Ok(image) => image,
            Err(error) => return wrong(format!("`image`: {error}")),
        };
        let node = match asked.node.as_deref().map(NodeName::parse).transpose() {
            Ok(node) => node,
            Err(error) => return wrong(format!("`node`: {error}")),
        };
        match (image, node) {
            (Some(image), Some(node)) => self.explain_pair(&image, &node, now),
            (Some(image), None) => self.explain_image(&image, now),
            (None, Some(node)) => self.explain_node(&node, now),
            (None, None) => wrong("neither `image` nor `node` is given".to_owned()),
        }
    }

    /// The image of a reference as people write it, or of a key.
    fn image(&self, text: &str) -> Result<Image, String> {
        if let Ok(id) = ImageKey::parse(text)
            && let Some(reference) = self.reference(&id)
        {
            return Ok(Image { id, reference: Some(reference) });
        }
        match (Reference::parse(text), ImageKey::parse(text)) {
            (Ok(reference), _) => Ok(Image { id: reference.key(), reference: Some(reference.canonical()) }),
            (Err(_), Ok(id)) => Ok(Image { id, reference: None }),
            (Err(error), Err(_)) => Err(error.to_string()),
        }
    }

    /// The canonical reference of a key that somebody names.
    fn reference(&self, id: &ImageKey) -> Option<String> {
        let planned = self.plan.pools.values().find_map(|p| p.intents.get(id)).map(|i| i.image.clone());
        let named = || self.workloads.good().find_map(|(_, reading)| reading.names(id)).map(ToOwned::to_owned);
        planned.or_else(named)
    }

    /// Everybody who names an image: who wants it (on the node, if one is given), and who does not and why.
    fn claims(&self, id: &ImageKey, node: Option<(&NodeName, Option<&Node>)>) -> Claims {
        let mut claims = Claims::default();
        let Some(rules) = &self.rules else { return claims };
        for (key, reading) in self.workloads.good().filter(|(_, reading)| reading.image(id).is_some()) {
            match rules.of_namespace(&self.namespaces, &key.namespace).image(reading, id) {
                None => {}
                Some(Err(exclusion)) => claims.others.push((key.clone(), exclusion.to_string())),
                Some(Ok(inclusion)) => {
                    if let Some(obstacle) = self.obstacle(reading, node) {
                        claims.others.push((key.clone(), format!("not on this node: {obstacle}")));
                        continue;
                    }
                    let priority = (inclusion.priority, inclusion.priority_from.to_string());
                    let why = format!("{inclusion}{}", self.standing_at(key, id));
                    claims.owners.push((key.clone(), why, priority));
                }
            }
        }
        claims
    }

    /// What keeps the pods of a workload off a node; nothing if no node is given.
    fn obstacle(&self, reading: &Reading, node: Option<(&NodeName, Option<&Node>)>) -> Option<String> {
        let (name, node) = node?;
        let Some(node) = node else {
            return Some("its Node object is not known, or cannot be used".to_owned());
        };
        let limit = reading.constraint().limit.as_ref();
        let choice = self.choices.get(reading.pool()).filter(|choice| !choice.chosen.contains(name));
        let passed_over = || choice.and(limit).map(|limit| Obstacle::NotChosen(limit.nodes));
        place::obstacle(reading.constraint(), name, node).or_else(passed_over).map(|obstacle| obstacle.to_string())
    }

    /// Where an image stands that a workload's template does not name, for the end of a sentence.
    fn standing_at(&self, key: &WorkloadKey, id: &ImageKey) -> String {
        self.family
            .position(key, id)
            .map(|position| format!("; none of its own templates names it: {position}"))
            .unwrap_or_default()
    }

    /// What the bucket holds of an intent, and what is being done about it.
    fn stored(&self, pool: &PoolId, id: &ImageKey, now: Now) -> Value {
        let planned = self.plan.pools.get(pool).and_then(|p| p.intents.get(id));
        let key = self.intents.pool(pool).and_then(|p: &PoolBucket| p.intent(id));
        let held = match key.map(|k| k.held) {
            Some(Held::Value) => "intent",
            Some(Held::Undecodable) => "undecodable",
            Some(Held::Newer) => "newer",
            Some(Held::Nothing) | None => "nothing",
        };
        let there = key.and_then(|k| k.value());
        let name = IntentsKey::Intent(pool.clone(), id.clone());
        json!({
            "key": name.to_string(),
            "holds": held,
            "seq": key.map(|k| k.seq),
            "term": there.map(|intent| intent.term),
            "asWanted": match (planned, there) {
                (Some(planned), Some(there)) => there.asks_the_same(planned),
                (None, None) => held == "nothing",
                _ => false,
            },
            "inFlight": self.ledger.writes_intent(&name),
            "retry": self.ledger.intent_retries.due(&name).filter(|due| *due > now.mono).map(|due| ahead(now, due)),
        })
    }

    /// One pool as far as it is about an image, for one node if one is given.
    fn pool_of(&self, pool: &PoolId, id: &ImageKey, node: Option<&NodeName>, now: Now) -> Value {
        let planned = self.plan.pools.get(pool);
        let intent = planned.and_then(|p| p.intents.get(id));
        let wave = intent.map(|intent| {
            json!({
                "open": intent.wave.open,
                "canaries": intent.wave.nodes,
                "permit": intent.wave.permit,
                "slot": node.map(|node| slot(node, id)),
                "admits": node.map(|node| intent.wave.admits(node, id)),
            })
        });
        json!({
            "pool": pool,
            "constraint": planned.and_then(|p| p.definition.get("constraint")),
            "wanted": intent.is_some(),
            "priority": intent.map(|i| i.priority),
            "digest": intent.and_then(|i| i.digest.as_ref()),
            "wave": wave,
            "bucket": self.stored(pool, id, now),
        })
    }
}

/// Who names an image.
#[derive(Debug, Default)]
struct Claims {
    /// Who wants it, with the rule that says so, how much, and who says that.
    owners: Vec<(WorkloadKey, String, (u8, String))>,
    /// Whose naming counts for nothing, and why.
    others: Vec<(WorkloadKey, String)>,
}

impl Claims {
    fn put_into(&self, answer: &mut Value) {
        let owner = |(key, rule, (priority, from)): &(WorkloadKey, String, (u8, String))| json!({ "kind": key.kind.as_str(), "namespace": key.namespace, "name": key.name, "rule": rule, "priority": priority, "priorityFrom": from });
        let other = |(key, why): &(WorkloadKey, String)| json!({ "kind": key.kind.as_str(), "namespace": key.namespace, "name": key.name, "why": why });
        add(
            answer,
            json!({
                "owners": self.owners.iter().take(MAX_LISTED).map(owner).collect::<Vec<_>>(),
                "ownersTotal": self.owners.len(),
                "notCounted": self.others.iter().take(MAX_LISTED).map(other).collect::<Vec<_>>(),
                "notCountedTotal": self.others.len(),
            }),
        );
    }

    /// In one sentence.
    fn text(&self) -> String {
        let more = |n: usize| if n > 1 { format!("; and {} more", n - 1) } else { String::new() };
        let owner = self.owners.first().map(|(key, why, _)| format!("{key}: {why}"));
        let other = self.others.first().map(|(key, why)| format!("{key}: {why}"));
        match (owner, other) {
            (Some(owner), _) => format!("wanted by {owner}{}", more(self.owners.len())),
            (None, Some(other)) => format!("not wanted. {other}{}", more(self.others.len())),
            (None, None) => "not wanted: no workload names it".to_owned(),
        }
    }
}

/// Adds the fields of one object to another.
fn add(into: &mut Value, fields: Value) {
    if let (Value::Object(into), Value::Object(fields)) = (into, fields) {
        into.extend(fields);
    }
}

/// A time to come, absolute and relative.
pub(super) fn ahead(now: Now, due: Moment) -> Value {
    let wait = due.since(now.mono);
    json!({ "at": now.wall.checked_add(wait).unwrap_or(now.wall).to_string(), "inSec": wait.as_secs() })
}

/// A time that has passed, absolute and relative.
pub(super) fn ago(now: Now, at: Moment) -> Value {
    let age = now.mono.since(at);
    json!({ "at": now.wall.checked_sub(age).unwrap_or(now.wall).to_string(), "agoSec": age.as_secs() })
}
