//! The controller's facts and effects in words.

use std::collections::BTreeMap;
use std::fmt::Display;

use cluster_plan::effect::{AssignmentWrite, IntentChange, IntentWrite};
use cluster_plan::fact::{Change, IntentsDoc, Stored, StoredValue};
use cluster_plan::input::Replica;
use cluster_plan::set::SetStatus;
use cluster_plan::{Effect, Fact};
use shared::message::{Content, Event, Inventory};
use shared::reason::Reason;
use shared::subject::IntentsKey;

use super::{Describe, intent, list, outcome, plain};

impl Describe for Fact {
    fn describe(&self) -> String {
        match self {
            Self::Workload(change) => changed("workload", change, |w| {
                format!("images {}", list(w.images.iter().map(|image| image.image.as_str())))
            }),
            Self::Workloads(kind, all) => listed(&format!("{}s", kind.as_str()), all),
            Self::Replicas(change) => changed("Pods of", change, |all| {
                let one =
                    |r: &Replica| format!("{} {}", r.pod, list(r.view.images.iter().map(|image| image.image.as_str())));
                list(all.iter().map(one))
            }),
            Self::AllReplicas(all) => format!("Pods of {}", list(all.keys())),
            Self::Namespace(change) => {
                changed("namespace", change, |n| n.warm.as_ref().map(|warm| format!("warm={warm}")).unwrap_or_default())
            }
            Self::Namespaces(all) => listed("namespaces", all),
            Self::Set(change) => changed("set", change, |set| {
                let images = list(set.wants.images.iter().map(|image| image.image.as_str()));
                let shown = set.status.as_ref().map_or_else(|| "no status".to_owned(), told);
                format!("generation {}, images {images}; {shown}", set.generation)
            }),
            Self::Sets(all) => listed("sets", all),
            Self::Node(change) => changed("node", change, |node| {
                let deleting = if node.deleting { ", deleting" } else { "" };
                format!("uid {}, our labels {}{deleting}", node.uid, list(node.our_labels.keys()))
            }),
            Self::Nodes(all) => listed("nodes", all),
            Self::RuntimeClass(change) => {
                changed("runtime class", change, |class| format!("nodes with {}", list(class.node_selector.keys())))
            }
            Self::RuntimeClasses(all) => listed("runtime classes", all),
            Self::Selection(selection) => format!(
                "selection: include {}, exclude {}, {:?}",
                list(&selection.namespaces.include),
                list(&selection.namespaces.exclude),
                selection.mode
            ),
            Self::Intents { head, entries, .. } => {
                format!("intents bucket read to {head}: {}", list(entries.iter().map(stored_intents_key)))
            }
            Self::IntentChanged(stored) => format!("intents bucket: {}", stored_intents_key(stored)),
            Self::Assignments(all) => format!("assign bucket read: {}", list(all.iter().map(stored))),
            Self::AssignmentChanged(one) => format!("assign bucket: {}", stored(one)),
            Self::Inventories(all) => format!("nodes bucket read: {}", list(all.iter().map(stored))),
            Self::InventoryChanged(one) => match &one.value {
                StoredValue::Value(inventory) => format!("inventory of {}: {}", one.key, said(inventory)),
                _ => format!("nodes bucket: {}", stored(one)),
            },
            Self::Heartbeat(pulse) => {
                format!("heartbeat of {} n={} evidence {}", pulse.node, pulse.n, pulse.inv_digest)
            }
            Self::Event(event) => self::event(event),
            Self::Connected => "NATS connected".to_owned(),
            Self::Disconnected => "NATS disconnected".to_owned(),
            Self::Lease(is_held) => format!("the Lease is {}", if *is_held { "held" } else { "not held" }),
            Self::TermTaken(result) => format!("taking the term: {}", written(result)),
            Self::ControlWritten(result) => format!("writing the pause switch: {}", written(result)),
            Self::Asked { verb, body, .. } => format!("asked: {} {body}", verb.as_str()),
            Self::IntentsWritten { results, .. } => {
                let each = results.iter().map(|(key, result)| format!("{key} {}", written(result)));
                format!("intents written: {}", list(each))
            }
            Self::AssignmentsWritten(results) => {
                let each = results.iter().map(|(node, result)| format!("{node} {}", written(result)));
                format!("assignments written: {}", list(each))
            }
            Self::NodeLabelled { node, result, retry_after } => {
                let asked = retry_after.map_or_else(String::new, |after| format!(", not again for {after:?}"));
                format!("labelling {node}: {}{asked}", outcome(result))
            }
            Self::SetStatusWritten { set, result, .. } => {
                format!("writing the status of set {set}: {}", outcome(result))
            }
            Self::EventPosted { workload, id, result } => {
                format!("Event on {workload} about {id}: {}", outcome(result))
            }
            Self::Refused { .. } => plain(self),
        }
    }
}

impl Describe for Effect {
    fn describe(&self) -> String {
        match self {
            Self::TakeTerm { meta, expected } => {
                format!("take term {} of epoch {} (expects {expected})", meta.term, meta.epoch)
            }
            Self::WriteControl { control, expected } => {
                let switch = if control.paused { "pause" } else { "resume" };
                format!("write the pause switch: {switch} (expects {expected})")
            }
            Self::WriteIntents(batch) => format!("write intents: {}", list(batch.writes.iter().map(intent_write))),
            Self::WriteAssignments { writes, .. } => {
                format!("write assignments: {}", list(writes.iter().map(assignment_write)))
            }
            Self::PurgeSnapshot { pool, .. } => format!("drop the snapshot of pool {pool}"),
            Self::WriteSnapshot { snapshot, .. } => {
                format!("snapshot of pool {} head={} count={}", snapshot.pool, snapshot.head, snapshot.intents.len())
            }
            Self::PublishBeat(beat) => format!("beat of pool {} head={} count={}", beat.pool, beat.head, beat.count),
            Self::LabelNode { node, labels, .. } => {
                format!("label {node}: {}", list(labels.iter().map(|(key, value)| format!("{key}={value}"))))
            }
            Self::ReleaseLease => "release the Lease".to_owned(),
            Self::RequestInventory(node) => format!("ask {node} for its inventory"),
            Self::PostEvent(event) => format!(
                "Event {} on {} about {} ({}): {}",
                event.notice.reason(),
                event.workload,
                event.id,
                event.count,
                event.note
            ),
            Self::WriteSetStatus(write) => format!("status of set {}: {}", write.set, told(&write.status)),
            Self::Reply { .. } => plain(self),
        }
    }
}

/// What a set is said to be.
fn told(status: &SetStatus) -> String {
    let SetStatus { warm, desired, nodes, .. } = status;
    let conditions = status.conditions.iter().map(|c| format!("{} {:?} ({})", c.kind, c.status, c.reason));
    format!("{warm} of {desired} warm on {nodes} nodes, {}", list(conditions))
}

fn changed<K: Display, T>(what: &str, change: &Change<K, T>, content: impl Fn(&T) -> String) -> String {
    match change {
        Change::Upsert(key, Ok(good)) => format!("{what} {key}: {}", content(good)),
        Change::Upsert(key, Err(text)) => format!("{what} {key} cannot be used: {text}"),
        Change::Remove(key) => format!("{what} {key} is gone"),
    }
}

fn listed<K: Display, T>(what: &str, all: &BTreeMap<K, Result<T, String>>) -> String {
    format!("{what} listed ({}): {}", all.len(), list(all.keys()))
}

fn stored<K: Display, T>(stored: &Stored<K, T>) -> String {
    let what = match stored.value {
        StoredValue::Value(_) => "",
        StoredValue::Undecodable => " undecodable",
        StoredValue::Newer(_) => " newer",
        StoredValue::Marker => " removed",
    };
    format!("{}#{}{what}", stored.key, stored.seq)
}

fn stored_intents_key(entry: &Stored<IntentsKey, IntentsDoc>) -> String {
    match (&entry.key, &entry.value) {
        (_, StoredValue::Value(IntentsDoc::Meta(meta))) => {
            format!("_meta#{} epoch {} term {} by {}", entry.seq, meta.epoch, meta.term, meta.by)
        }
        (IntentsKey::Intent(pool, _), StoredValue::Value(IntentsDoc::Intent(of))) => {
            format!("#{} {}", entry.seq, intent(pool, of))
        }
        _ => stored(entry),
    }
}

/// What an agent says of its images.
pub(super) fn said(inventory: &Inventory) -> String {
    let partial = if inventory.complete { "" } else { " (partial)" };
    let warm = match &inventory.content {
        Content::Except(rest) if rest.is_empty() => "everything warm".to_owned(),
        Content::Except(rest) => format!("all but {}", list(rest.iter().map(|e| format!("{} {}", e.id, e.st)))),
        Content::WarmIds(ids) => format!("warm {}", list(ids)),
    };
    format!("n={} {warm}{partial}", inventory.n)
}

/// An event of an agent.
pub(super) fn event(event: &Event) -> String {
    let why = event.why.map(|why| format!(" ({why})")).unwrap_or_default();
    format!("{} is {}{why} on {} n={}", event.image, event.st, event.node, event.n)
}

fn written(result: &Result<u64, Reason>) -> String {
    match result {
        Ok(seq) => format!("#{seq}"),
        Err(reason) => format!("failed ({reason})"),
    }
}

fn intent_write(write: &IntentWrite) -> String {
    match &write.write {
        IntentChange::Put(of) => intent(&write.pool, of),
        IntentChange::Purge(id) => format!("withdraw {id} from pool {}", write.pool),
        IntentChange::PutDefinition(_) => format!("define pool {}", write.pool),
        IntentChange::PurgeDefinition => format!("drop pool {}", write.pool),
    }
}

fn assignment_write(write: &AssignmentWrite) -> String {
    match &write.assignment {
        Some(assignment) => format!("{} in {}", write.node, list(&assignment.pools)),
        None => format!("{} is gone", write.node),
    }
}
