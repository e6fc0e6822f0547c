//! Every fact survives being written to a recording and read back.
//!
//! Shows: one sample of each variant, and every fact that any other test tells, since the stage asks here too.

use std::collections::BTreeMap;

use cluster_plan::fact::{Change, IntentsDoc, Stored, StoredValue};
use cluster_plan::input::{Namespace, Selection, WorkloadKind};
use cluster_plan::{Beginning, Fact};
use shared::message::{Heartbeat, Meta};
use shared::name::PoolId;
use shared::pool_set::SetDigest;
use shared::reason::Reason;
use shared::subject::IntentsKey;

use crate::stage::{deployment, key, name, node, settings, tolerating, workload};

pub(crate) fn survives(fact: &Fact) {
    let text = serde_json::to_string(fact).unwrap();
    let read: Fact = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(&read, fact, "{text}");
}

/// A row for each variant: a new one does not compile without, and fails without a sample.
const VARIANTS: usize = 22;
fn number(fact: &Fact) -> usize {
    match fact {
        Fact::Workload(_) => 0,
        Fact::Workloads(..) => 1,
        Fact::Namespace(_) => 2,
        Fact::Namespaces(_) => 3,
        Fact::Node(_) => 4,
        Fact::Nodes(_) => 5,
        Fact::Selection(_) => 6,
        Fact::Intents { .. } => 7,
        Fact::IntentChanged(_) => 8,
        Fact::Assignments(_) => 9,
        Fact::AssignmentChanged(_) => 10,
        Fact::Inventories(_) => 11,
        Fact::InventoryChanged(_) => 12,
        Fact::Heartbeat(_) => 13,
        Fact::Event(_) => 14,
        Fact::Connected => 15,
        Fact::Disconnected => 16,
        Fact::TermTaken(_) => 17,
        Fact::IntentsWritten { .. } => 18,
        Fact::AssignmentsWritten(_) => 19,
        Fact::NodeLabelled { .. } => 20,
        Fact::Refused { .. } => 21,
    }
}

fn marker<K, T>(key: K) -> Stored<K, T> {
    Stored { key, seq: u64::MAX, value: StoredValue::Marker }
}

fn samples() -> Vec<Fact> {
    let mut tolerant = workload(&["nginx", "user@bad"]);
    tolerant.constraint = tolerating("gpu");
    let pool = PoolId::all();
    let meta = Meta {
        epoch: "e".to_owned(),
        term: 3,
        cluster: "c".to_owned(),
        stream_created: "2026-01-01T00:00:00Z".to_owned(),
        by: "pod".to_owned(),
    };
    let heartbeat = Heartbeat {
        node: name("a.b"),
        inst: "i".to_owned(),
        boot: "b".to_owned(),
        n: 1,
        inv_digest: SetDigest(7),
        pools: BTreeMap::from([(pool.clone(), shared::pool_set::PoolSummary::default())]),
        schema: vec![1],
        refused: 0,
        ts: jiff::Timestamp::UNIX_EPOCH,
    };
    let event = r#"{"node":"a","inst":"i","n":1,"uid":"u","id":"aaaaaaaaaaaaaaaaaaaaaaaaaa","image":"x","st":"failed",
        "why":"throttled","try":2,"ts":"2026-01-01T00:00:00.000000001Z"}"#;
    vec![
        Fact::Workload(Change::Upsert(deployment("web"), Ok(tolerant.clone()))),
        Fact::Workload(Change::Upsert(deployment("web"), Err("no template".to_owned()))),
        Fact::Workload(Change::Remove(deployment("web"))),
        Fact::Workloads(WorkloadKind::Pod, BTreeMap::from([(deployment("web"), Ok(tolerant))])),
        Fact::Namespace(Change::Upsert("shop".to_owned(), Ok(Namespace::default()))),
        Fact::Namespaces(BTreeMap::from([("shop".to_owned(), Err("bad".to_owned()))])),
        Fact::Node(Change::Upsert(name("a.b"), Ok(node("u")))),
        Fact::Nodes(BTreeMap::from([(name("a.b"), Ok(node("u")))])),
        Fact::Selection(Selection::default()),
        Fact::Intents {
            stream_created: "2026".to_owned(),
            head: 4,
            entries: vec![
                Stored { key: IntentsKey::Meta, seq: 1, value: StoredValue::Value(IntentsDoc::Meta(meta)) },
                Stored {
                    key: IntentsKey::Definition(pool.clone()),
                    seq: 2,
                    value: StoredValue::Value(IntentsDoc::Definition(serde_json::json!({ "a": [1, null] }))),
                },
                Stored { key: IntentsKey::Intent(pool.clone(), key("nginx")), seq: 3, value: StoredValue::Undecodable },
            ],
        },
        Fact::IntentChanged(marker(IntentsKey::Intent(pool.clone(), key("nginx")))),
        Fact::Assignments(vec![marker(name("a"))]),
        Fact::AssignmentChanged(marker(name("a"))),
        Fact::Inventories(vec![marker(name("a"))]),
        Fact::InventoryChanged(marker(name("a"))),
        Fact::Heartbeat(heartbeat),
        Fact::Event(serde_json::from_str(event).unwrap()),
        Fact::Connected,
        Fact::Disconnected,
        Fact::TermTaken(Err(Reason::Conflict)),
        Fact::IntentsWritten {
            results: vec![(IntentsKey::Meta, Ok(1)), (IntentsKey::Definition(pool.clone()), Err(Reason::Timeout))],
            deltas: BTreeMap::from([(pool, 9)]),
        },
        Fact::AssignmentsWritten(vec![(name("a"), Ok(1))]),
        Fact::NodeLabelled { node: name("a"), result: Ok(()) },
        Fact::Refused { kind: "heartbeat", reason: Reason::Unknown },
    ]
}

#[test]
fn each_variant_survives() {
    let samples = samples();
    samples.iter().for_each(survives);
    let shown: std::collections::BTreeSet<usize> = samples.iter().map(number).collect();
    assert_eq!(shown, (0..VARIANTS).collect(), "a variant has no sample");
}

#[test]
fn what_a_machine_begins_with_survives() {
    let beginning = Beginning { settings: settings(), epoch: "e".to_owned(), seed: u64::MAX };
    let text = serde_json::to_string(&beginning).unwrap();
    assert_eq!(serde_json::from_str::<Beginning>(&text).unwrap(), beginning, "{text}");
}
