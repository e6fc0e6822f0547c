//! The agent's facts and effects in words.

use node_plan::fact::{RuntimeImage, StoredIntent};
use node_plan::{Effect, Fact};
use shared::message::{Assignment, Delta, DeltaChange};
use shared::reason::Reason;

use super::{Describe, controller, list, outcome, plain};

impl Describe for Fact {
    fn describe(&self) -> String {
        match self {
            Self::Connected => "NATS connected".to_owned(),
            Self::Disconnected => "NATS disconnected".to_owned(),
            Self::Gap => "messages may have been lost".to_owned(),
            Self::Meta(Ok(Some(meta))) => format!("_meta: epoch {} term {} by {}", meta.epoch, meta.term, meta.by),
            Self::Meta(result) => read("_meta", result),
            Self::AssignmentRead(Ok(Some(assignment))) => format!("assignment read: {}", assigned(assignment)),
            Self::AssignmentRead(result) => read("assignment", result),
            Self::AssignmentCopy { assignment, .. } => format!("assignment told: {}", assigned(assignment)),
            Self::Subscribed(pools) => format!("subscribed to {}", list(pools)),
            Self::Delta(delta) => self::delta(delta),
            Self::Beat(beat) => {
                let (pool, head, count) = (&beat.pool, beat.head, beat.count);
                format!("beat of pool {pool} head={head} count={count} digest={}", beat.digest)
            }
            Self::PoolRead { pool, read, result: Ok(content) } => {
                format!("read {read} of pool {pool}: {}", list(content.entries.iter().map(entry)))
            }
            Self::PoolRead { pool, read, result: Err(reason) } => {
                format!("read {read} of pool {pool} failed: {reason}")
            }
            Self::Images(Ok(images)) => format!("the runtime holds {}", list(images.iter().map(image))),
            Self::Images(Err(reason)) => format!("the runtime's images cannot be listed: {reason}"),
            Self::Pulled { id, result: Ok(pulled) } => {
                format!("pulled {id} in {:?}: {}", pulled.took, image(&pulled.image))
            }
            Self::Pulled { id, result: Err(failure) } => {
                let wait = failure.retry_after.map(|wait| format!(", to wait {wait:?}")).unwrap_or_default();
                format!("pull of {id} failed after {:?}: {}{wait}", failure.took, failure.reason)
            }
            Self::InventoryPut(result) => format!("inventory put: {}", outcome(result)),
            Self::Persisted(result) => format!("state written: {}", outcome(result)),
            Self::Request { verb, body, .. } => format!("asked: {} {body}", verb.as_str()),
            Self::InUse(Ok(names)) => format!("containers use {}", list(names)),
            Self::InUse(Err(reason)) => format!("containers cannot be listed: {reason}"),
            Self::Removed { image, result: Ok(removal) } => format!("removal of {image}: {}", removal.as_str()),
            Self::Removed { image, result: Err(reason) } => format!("removal of {image} failed: {reason}"),
            Self::Observed(_) | Self::Refused { .. } => plain(self),
        }
    }
}

impl Describe for Effect {
    fn describe(&self) -> String {
        match self {
            Self::ReadMeta => "read _meta".to_owned(),
            Self::ReadAssignment => "read the assignment".to_owned(),
            Self::Subscribe(pools) => format!("subscribe to {}", list(pools)),
            Self::ReadPool { pool, from, read, .. } => format!("read {read} of pool {pool} from #{from}"),
            Self::Pull { image, deadline, .. } => format!("pull {image} within {deadline:?}"),
            Self::CancelPull(id) => format!("cancel the pull of {id}"),
            Self::ListImages => "list the runtime's images".to_owned(),
            Self::Observe => "look at disk and runtime".to_owned(),
            Self::ListContainers => "list what containers use".to_owned(),
            Self::RemoveImage { image, is_dry_run: false, .. } => format!("remove {image}"),
            Self::RemoveImage { image, is_dry_run: true, .. } => format!("see whether {image} could be removed"),
            Self::PublishEvent(event) => format!("say: {}", controller::event(event)),
            Self::PublishHeartbeat(pulse) => format!("heartbeat n={} evidence {}", pulse.n, pulse.inv_digest),
            Self::PutInventory(inventory) => format!("put the inventory: {}", controller::said(inventory)),
            Self::Persist(state) => format!("write the state: pools {}, n={}", list(state.pools.keys()), state.n),
            Self::Reply { .. } => plain(self),
        }
    }
}

fn read<T>(what: &str, result: &Result<Option<T>, Reason>) -> String {
    match result {
        Ok(Some(_)) => format!("{what} read"),
        Ok(None) => format!("{what} read: there is none"),
        Err(reason) => format!("{what} cannot be read: {reason}"),
    }
}

fn assigned(assignment: &Assignment) -> String {
    format!("rev {} pools {}", assignment.rev, list(&assignment.pools))
}

fn delta(delta: &Delta) -> String {
    let changes = delta.entries.as_ref().map_or_else(
        || "too many to send".to_owned(),
        |entries| {
            list(entries.iter().map(|entry| match &entry.change {
                DeltaChange::Put(intent) => format!("#{} {}", entry.seq, intent.image),
                DeltaChange::Del => format!("#{} withdrawn {}", entry.seq, entry.id),
            }))
        },
    );
    format!("delta of pool {} {}..{}: {changes}", delta.pool, delta.prev, delta.to)
}

fn entry(entry: &StoredIntent) -> String {
    let what = match &entry.value {
        Some(node_plan::fact::Stored::Intent(intent)) => intent.image.as_str(),
        Some(node_plan::fact::Stored::Undecodable) => "undecodable",
        None => "withdrawn",
    };
    format!("#{} {what}", entry.seq)
}

fn image(image: &RuntimeImage) -> String {
    image.repo_tags.first().or(image.repo_digests.first()).unwrap_or(&image.runtime_id).clone()
}
