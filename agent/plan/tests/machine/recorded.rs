//! Every fact survives being written to a recording and read back.
//!
//! Shows: one sample of each variant, and every fact that any other test tells, since the world asks here too.

use std::collections::BTreeSet;
use std::time::Duration;

use node_plan::fact::{PoolContent, PullFailure, PulledImage, Stored, StoredIntent};
use node_plan::{Beginning, Fact, Persisted, Settings};
use shared::message::{Assignment, Beat, Delta, DeltaChange, DeltaEntry, Disk, Meta, Runtime};
use shared::pool_set::SetDigest;
use shared::reason::Reason;
use shared::subject::RequestVerb;

use crate::world::{held, identity, intent, key, pool, start};

pub(crate) fn survives(fact: &Fact) {
    let text = serde_json::to_string(fact).unwrap();
    let read: Fact = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(&read, fact, "{text}");
}

/// A row for each variant: a new one does not compile without, and fails without a sample.
const VARIANTS: usize = 17;
fn number(fact: &Fact) -> usize {
    match fact {
        Fact::Connected => 0,
        Fact::Disconnected => 1,
        Fact::Gap => 2,
        Fact::Meta(_) => 3,
        Fact::AssignmentRead(_) => 4,
        Fact::AssignmentCopy { .. } => 5,
        Fact::Subscribed(_) => 6,
        Fact::Delta(_) => 7,
        Fact::Beat(_) => 8,
        Fact::PoolRead { .. } => 9,
        Fact::Images(_) => 10,
        Fact::Pulled { .. } => 11,
        Fact::Observed { .. } => 12,
        Fact::InventoryPut(_) => 13,
        Fact::Persisted(_) => 14,
        Fact::Request { .. } => 15,
        Fact::Refused { .. } => 16,
    }
}

fn samples() -> Vec<Fact> {
    let all = pool("all");
    let assignment = Assignment {
        node: identity().node,
        uid: "u".to_owned(),
        pools: vec![all.clone()],
        rev: 1,
        pressure: vec![],
        limits: [("cpu".to_owned(), 1)].into(),
        term: 1,
    };
    let meta = Meta {
        epoch: "e".to_owned(),
        term: 3,
        cluster: "c".to_owned(),
        stream_created: "2026-01-01T00:00:00Z".to_owned(),
        by: "pod".to_owned(),
    };
    let delta =
        |entries| Delta { pool: all.clone(), epoch: "e".into(), term: 1, prev: 2, to: 3, spread_ms: 4, entries };
    let put = DeltaEntry { seq: 3, id: key("a"), change: DeltaChange::Put(Box::new(intent("a"))) };
    let del = DeltaEntry { seq: 4, id: key("b"), change: DeltaChange::Del };
    let took = Duration::new(3_725, 1);
    let failure = PullFailure { reason: Reason::Throttled, retry_after: Some(took), took };
    let stored = |value| StoredIntent { id: key("a"), seq: 1, value };
    let entries =
        vec![stored(None), stored(Some(Stored::Undecodable)), stored(Some(Stored::Intent(Box::new(intent("a")))))];
    vec![
        Fact::Connected,
        Fact::Disconnected,
        Fact::Gap,
        Fact::Meta(Ok(Some(meta))),
        Fact::Meta(Ok(None)),
        Fact::AssignmentRead(Err(Reason::Timeout)),
        Fact::AssignmentCopy { epoch: "e".into(), assignment },
        Fact::Subscribed(vec![all.clone()]),
        Fact::Delta(delta(None)),
        Fact::Delta(delta(Some(vec![put, del]))),
        Fact::Beat(Beat {
            epoch: "e".into(),
            term: 1,
            pool: all.clone(),
            head: u64::MAX,
            count: 1,
            digest: SetDigest(u64::MAX),
            spread_ms: 1,
            ts: start().wall,
        }),
        Fact::PoolRead { pool: all, read: 1, result: Ok(PoolContent { entries }) },
        Fact::Images(Ok(vec![held("a", "x")])),
        Fact::Pulled { id: key("a"), result: Ok(PulledImage { image: held("a", "x"), took }) },
        Fact::Pulled { id: key("a"), result: Err(PullFailure { retry_after: None, ..failure.clone() }) },
        Fact::Pulled { id: key("a"), result: Err(failure) },
        Fact::Observed { disk: Disk::default(), runtime: Runtime::default() },
        Fact::InventoryPut(Ok(())),
        Fact::Persisted(Err(Reason::Storage)),
        Fact::Request { verb: RequestVerb::Explain, body: "nginx".to_owned(), reply: None },
        Fact::Refused { kind: "delta", reason: Reason::Forged },
    ]
}

#[test]
fn each_variant_survives() {
    let samples = samples();
    samples.iter().for_each(survives);
    let shown: BTreeSet<usize> = samples.iter().map(number).collect();
    assert_eq!(shown, (0..VARIANTS).collect(), "a variant has no sample");
}

#[test]
fn what_a_machine_begins_with_survives() {
    let beginning = Beginning {
        identity: identity(),
        settings: Settings::default(),
        persisted: Some(Persisted { v: 1, ..Persisted::default() }),
        seed: u64::MAX,
    };
    let text = serde_json::to_string(&beginning).unwrap();
    assert_eq!(serde_json::from_str::<Beginning>(&text).unwrap(), beginning, "{text}");
}
