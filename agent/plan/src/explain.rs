//! Answers to people: what this agent knows, and why an image is in the state it is in.
//!
//! Owns the JSON of `/state` and of `req.explain`. Decides nothing.

use serde_json::{Map, Value, json};
use shared::image::Reference;
use shared::machine::Now;
use shared::message::Intent;
use shared::name::ImageKey;
use shared::wave::slot;

use crate::image::Image;
use crate::pool::Pool;
use crate::pull::queue;
use crate::refresh::period;
use crate::state::NodeState;

/// Everything, for `/state`.
pub(crate) fn summary(state: &NodeState, now: Now) -> Value {
    let pools: Map<String, Value> =
        state.follower.sync.pools().iter().map(|(id, p)| (id.to_string(), pool(p))).collect();
    let images: Map<String, Value> = state.images.iter().map(|(id, i)| (id.to_string(), short(i))).collect();
    let climate = state.climate();
    let queue: Vec<&str> =
        queue(&state.images, &state.flights, &climate, now.mono).into_iter().map(|(id, _)| id.as_str()).collect();
    let in_flight: Map<String, Value> = state
        .flights
        .iter()
        .map(|(id, flight)| {
            let seconds = now.mono.since(flight.since).as_secs();
            (id.to_string(), json!({ "image": flight.image, "seconds": seconds, "cancelled": flight.is_cancelled, "refresh": flight.is_refresh }))
        })
        .collect();
    json!({
        "node": state.follower.identity.node,
        "inst": state.follower.identity.inst,
        "boot": state.follower.identity.boot,
        "agent": state.follower.identity.agent_version,
        "ts": now.wall,
        "epoch": state.follower.sync.epoch(),
        "term": state.follower.sync.term(),
        "connected": state.follower.sync.is_connected(),
        "synced": state.is_synced(),
        "paused": climate.is_paused,
        "pullsInFlight": { "now": state.flights.len(), "most": state.limit() },
        "n": state.follower.n(),
        "assignment": state.follower.sync.assignment(),
        "pools": pools,
        "images": images,
        "counts": counts(state),
        "queue": queue,
        "inFlight": in_flight,
        "runtime": {
            "name": state.runtime.info.name,
            "version": state.runtime.info.version,
            "listed": state.runtime.is_listed(),
            "away": state.runtime.is_away(),
            "images": state.runtime.listing.len(),
        },
        "disk": state.runtime.disk.report(),
        "gc": gc(state, now),
        "ledger": state.ledger.entries().len(),
        "counters": state.follower.counters,
    })
}

fn gc(state: &NodeState, now: Now) -> Value {
    let wanted = state.wanted_references();
    state.collector.summary(&state.view(&wanted, now.mono), now.mono)
}

fn counts(state: &NodeState) -> Value {
    state.counts().into_iter().map(|(st, count)| (st.to_string(), json!(count))).collect::<Map<_, _>>().into()
}

fn pool(pool: &Pool) -> Value {
    let summary = pool.summary();
    json!({
        "head": summary.head,
        "count": summary.count,
        "digest": summary.digest,
        "sync": pool.phase(),
        "retained": pool.content.retained().len(),
        "undecodable": pool.content.unknown().count(),
    })
}

fn short(image: &Image) -> Value {
    json!({
        "image": image.want.image,
        "state": image.st,
        "why": image.why,
        "since": image.since,
        "tries": image.tries,
        "next": image.next().map(|due| due.wall),
        "digest": image.digest(),
        "bytes": image.present.as_ref().map(|p| p.bytes),
        "retained": image.want.is_retained,
    })
}

/// The answer to `req.explain` with the body `{"image":"…"}`.
pub(crate) fn answer(state: &NodeState, body: &str, now: Now) -> Value {
    let asked = serde_json::from_str::<Value>(body).ok();
    match asked.as_ref().and_then(|body| body.get("image")).and_then(Value::as_str) {
        Some(asked) => image(state, asked, now),
        None => json!({ "error": r#"the body must be {"image":"<reference or key>"}"# }),
    }
}

/// All that is known of one image.
pub(crate) fn image(state: &NodeState, asked: &str, now: Now) -> Value {
    let id = match (ImageKey::parse(asked), Reference::parse(asked)) {
        (Ok(id), _) if state.images.contains_key(&id) => id,
        (_, Ok(reference)) => reference.key(),
        (Ok(id), _) => id,
        (Err(_), Err(error)) => return json!({ "error": error.to_string() }),
    };
    let mut answer = json!({
        "node": state.follower.identity.node,
        "id": id,
        "slot": slot(&state.follower.identity.node, &id),
        "connected": state.follower.sync.is_connected(),
        "synced": state.is_synced(),
        "paused": state.climate().is_paused,
        "pools": wishes(state, &id),
    });
    let details = match state.images.get(&id) {
        None => json!({ "wanted": false, "text": "no pool of this node asks for it" }),
        Some(image) => details(state, &id, image, now),
    };
    if let (Value::Object(answer), Value::Object(details)) = (&mut answer, details) {
        answer.extend(details);
    }
    answer
}

fn details(state: &NodeState, id: &ImageKey, image: &Image, now: Now) -> Value {
    let mut details = short(image);
    let climate = state.climate();
    let queue = queue(&state.images, &state.flights, &climate, now.mono);
    let more = json!({
        "wanted": !image.want.is_retained,
        "present": image.present.is_some(),
        "priority": image.want.priority,
        "wantedDigest": image.want.digest,
        "place": queue.iter().position(|(queued, _)| *queued == id),
        "pulling": state.flights.get(id).map(|flight| json!({
            "seconds": now.mono.since(flight.since).as_secs(),
            "cancelled": flight.is_cancelled,
            "refresh": flight.is_refresh,
        })),
        "refresh": refresh(state, image, now),
        "ledger": state.ledger.get(&image.want.image).map(|entry| entry.store(now.mono)),
    });
    if let (Value::Object(details), Value::Object(more)) = (&mut details, more) {
        details.extend(more);
    }
    details
}

/// When it is pulled again though it is there; null if nobody asks for that, it cannot move, or is missing.
fn refresh(state: &NodeState, image: &Image, now: Now) -> Value {
    let period = period(image, &state.settings.timing);
    let last = image.refresh.age(now.mono).and_then(|age| now.wall.checked_sub(age).ok());
    period.map_or(Value::Null, |period| {
        json!({
            "everySec": period.as_secs(),
            "last": last,
            "next": image.refresh.next().map(|due| due.wall),
            "tries": image.refresh.tries,
            "why": image.refresh.why,
        })
    })
}

/// What each pool says of it.
fn wishes(state: &NodeState, id: &ImageKey) -> Value {
    let wish = |intent: &Intent, pool: &Pool, is_retained: bool| {
        json!({
            "seq": pool.content.sequence(id),
            "retained": is_retained,
            "wave": intent.wave,
            "priority": intent.priority,
            "refreshSec": intent.refresh_sec,
            "owners": intent.owners,
            "ownersTotal": intent.owners_total,
        })
    };
    let mut wishes = Map::new();
    for (name, pool) in state.follower.sync.pools() {
        if let Some(intent) = pool.content.get(id) {
            wishes.insert(name.to_string(), wish(intent, pool, false));
        } else if let Some(kept) = pool.content.retained().get(id) {
            wishes.insert(name.to_string(), wish(&kept.intent, pool, true));
        } else if let Some(seq) = pool.content.sequence(id) {
            wishes.insert(name.to_string(), json!({ "seq": seq, "undecodable": true }));
        }
    }
    wishes.into()
}
