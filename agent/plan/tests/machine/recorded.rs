//! Every fact survives being written to a recording and read back.
//!
//! Shows: one sample of each variant, and every fact that any other test tells, since the world asks here too.

use std::time::Duration;

use node_plan::fact::{Observation, PoolContent, PullFailure, PulledImage, Removal, Space, Stored, StoredIntent};
use node_plan::{Beginning, Fact, Persisted, Settings};
use shared::message::{Assignment, Beat, Delta, DeltaChange, DeltaEntry, Meta, Runtime};
use shared::pool_set::SetDigest;
use shared::reason::Reason;
use shared::subject::RequestVerb;

use crate::world::{held, identity, intent, key, pool, reference, start};

pub(crate) fn survives(fact: &Fact) {
    let text = serde_json::to_string(fact).unwrap();
    let read: Fact = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(&read, fact, "{text}");
}

fn took() -> Duration {
    Duration::new(3_725, 1)
}

fn assignment() -> Assignment {
    Assignment {
        node: identity().node,
        uid: "u".to_owned(),
        pools: vec![pool("all")],
        rev: 1,
        pressure: vec![],
        limits: [("cpu".to_owned(), 1)].into(),
        term: 1,
    }
}

fn meta() -> Meta {
    let stream_created = "2026-01-01T00:00:00Z".to_owned();
    Meta { epoch: "e".to_owned(), term: 3, cluster: "c".to_owned(), stream_created, by: "pod".to_owned() }
}

fn delta(entries: Option<Vec<DeltaEntry>>) -> Delta {
    Delta { pool: pool("all"), epoch: "e".into(), term: 1, prev: 2, to: 3, spread_ms: 4, entries }
}

fn changes() -> Vec<DeltaEntry> {
    let put = DeltaChange::Put(std::sync::Arc::new(intent("a")));
    [put, DeltaChange::Del].map(|change| DeltaEntry { seq: 3, id: key("a"), change }).into()
}

fn beat() -> Beat {
    Beat {
        epoch: "e".into(),
        term: 1,
        pool: pool("all"),
        head: u64::MAX,
        count: 1,
        digest: SetDigest(u64::MAX),
        spread_ms: 1,
        ts: start().wall,
    }
}

fn content() -> PoolContent {
    let values = [None, Some(Stored::Undecodable), Some(Stored::Intent(std::sync::Arc::new(intent("a"))))];
    PoolContent {
        entries: values.map(|value| StoredIntent { id: key("a"), seq: 1, value }).into(),
        snapshot: Some("e".into()),
    }
}

/// A row for each variant: its shape and a sample. A variant without a row does not compile.
macro_rules! rows {
    ($($shape:pat => $sample:expr,)*) => {
        fn samples() -> Vec<Fact> {
            let has_a_row = |fact: &Fact| match fact { $($shape => {})* };
            vec![$({
                let sample = $sample;
                has_a_row(&sample);
                assert!(matches!(sample, $shape), "{} is no sample of its row", stringify!($shape));
                sample
            }),*]
        }
    };
}

rows! {
    Fact::Connected => Fact::Connected,
    Fact::Disconnected => Fact::Disconnected,
    Fact::Gap => Fact::Gap,
    Fact::Meta(_) => Fact::Meta(Ok(Some(meta()))),
    Fact::AssignmentRead(_) => Fact::AssignmentRead(Ok(None)),
    Fact::AssignmentCopy { .. } => Fact::AssignmentCopy { epoch: "e".into(), assignment: assignment() },
    Fact::Subscribed(_) => Fact::Subscribed(vec![pool("all")]),
    Fact::Delta(_) => Fact::Delta(delta(Some(changes()))),
    Fact::Beat(_) => Fact::Beat(beat()),
    Fact::PoolRead { .. } => Fact::PoolRead { pool: pool("all"), read: 1, result: Ok(content()) },
    Fact::Images(_) => Fact::Images(Ok(vec![held("a", "x")])),
    Fact::Pulled { .. } => {
        Fact::Pulled { id: key("a"), result: Ok(PulledImage { image: held("a", "x"), before: None, took: took() }) }
    },
    Fact::Observed(_) => {
        Fact::Observed(Ok(Observation { space: Some(Space { used: 1, free: 2 }), runtime: Runtime::default() }))
    },
    Fact::InUse(_) => Fact::InUse(Ok([reference("a")].into())),
    Fact::Removed { .. } => Fact::Removed { image: reference("a"), result: Ok(Removal::Planned) },
    Fact::InventoryPut(_) => Fact::InventoryPut(Ok(())),
    Fact::Persisted(_) => Fact::Persisted(Err(Reason::Storage)),
    Fact::Request { .. } => Fact::Request { verb: RequestVerb::Explain, body: "nginx".to_owned(), reply: None },
    Fact::Refused { .. } => Fact::Refused { kind: "delta", reason: Reason::Forged },
}

#[test]
fn each_variant_survives() {
    samples().iter().for_each(survives);
    survives(&Fact::Delta(delta(None)));
    for retry_after in [None, Some(took())] {
        let failure = PullFailure { reason: Reason::Throttled, retry_after, took: took() };
        survives(&Fact::Pulled { id: key("a"), result: Err(failure) });
    }
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
