//! Every fact survives being written to a recording and read back.
//!
//! Shows: one sample of each variant, and every fact that any other test tells, since the stage asks here too.

use std::collections::BTreeMap;

use cluster_plan::fact::{Change, IntentsDoc, Stored, StoredValue};
use cluster_plan::input::{
    Controller, ImageSet, Namespace, Replica, RuntimeClass, Selection, SetKey, Workload, WorkloadKind,
};
use cluster_plan::set::{Condition, ConditionStatus, SetImage, SetStatus};
use cluster_plan::{Beginning, Fact};
use shared::message::{Event, Heartbeat, Meta};
use shared::name::PoolId;
use shared::pool_set::{PoolSummary, SetDigest};
use shared::reason::Reason;
use shared::subject::{ControlVerb, IntentsKey};

use crate::stage::{deployment, key, name, node, settings, tolerating, workload};

pub(crate) fn survives(fact: &Fact) {
    let text = serde_json::to_string(fact).unwrap();
    let read: Fact = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(&read, fact, "{text}");
}

fn marker<K, T>(key: K) -> Stored<K, T> {
    Stored { key, seq: u64::MAX, value: StoredValue::Marker }
}

fn tolerant() -> Workload {
    Workload { constraint: tolerating("gpu"), ..workload(&["nginx", "user@bad"]) }
}

fn set(name: &str) -> SetKey {
    SetKey { namespace: "shop".to_owned(), name: name.to_owned() }
}

/// A set with everything that its status can hold.
fn told() -> ImageSet {
    let condition = Condition {
        kind: "Ready".to_owned(),
        status: ConditionStatus::Unknown,
        reason: "NotReported".to_owned(),
        message: "m".to_owned(),
        last_transition_time: jiff::Timestamp::UNIX_EPOCH,
        observed_generation: 1,
    };
    let image = SetImage { image: "nginx".to_owned(), problem: "p".to_owned(), ..SetImage::default() };
    let status = SetStatus { images: vec![image], conditions: vec![condition], ..SetStatus::default() };
    let wants = Workload {
        is_suspended: true,
        secrets: vec!["shop/a".to_owned()],
        refresh: Some("6h".to_owned()),
        ..tolerant()
    };
    ImageSet { wants, generation: 3, status: Some(status) }
}

fn meta() -> Meta {
    let stream_created = "2026-01-01T00:00:00Z".to_owned();
    Meta { epoch: "e".to_owned(), term: 3, cluster: "c".to_owned(), stream_created, by: "pod".to_owned() }
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        node: name("a.b"),
        inst: "i".to_owned(),
        boot: "b".to_owned(),
        n: 1,
        inv_digest: SetDigest(7),
        pools: BTreeMap::from([(PoolId::all(), PoolSummary::default())]),
        schema: vec![1],
        refused: 0,
        ts: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn event() -> Event {
    let text = r#"{"node":"a","inst":"i","n":1,"uid":"u","id":"aaaaaaaaaaaaaaaaaaaaaaaaaa","image":"x","st":"failed",
        "why":"throttled","try":2,"ts":"2026-01-01T00:00:00.000000001Z"}"#;
    serde_json::from_str(text).unwrap()
}

fn bucket() -> Vec<Stored<IntentsKey, IntentsDoc>> {
    let stored = |key, value| Stored { key, seq: u64::MAX, value };
    let definition = IntentsDoc::Definition(serde_json::json!({ "a": [1, null] }));
    vec![
        stored(IntentsKey::Meta, StoredValue::Value(IntentsDoc::Meta(meta()))),
        stored(IntentsKey::Definition(PoolId::all()), StoredValue::Value(definition)),
        stored(IntentsKey::Intent(PoolId::all(), key("nginx")), StoredValue::Undecodable),
    ]
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

fn controller() -> Controller {
    Controller { key: deployment("web"), uid: "u".to_owned() }
}

fn replica() -> Replica {
    Replica { pod: "web-x".to_owned(), view: tolerant() }
}

rows! {
    Fact::RuntimeClass(_) => Fact::RuntimeClass(Change::Upsert("kata".to_owned(), Ok(RuntimeClass::default()))),
    Fact::RuntimeClasses(_) => Fact::RuntimeClasses(BTreeMap::from([("kata".to_owned(), Err("bad".to_owned()))])),
    Fact::Workload(_) => Fact::Workload(Change::Upsert(deployment("web"), Ok(tolerant()))),
    Fact::Workloads(..) => Fact::Workloads(WorkloadKind::Pod, BTreeMap::from([(deployment("web"), Ok(tolerant()))])),
    Fact::Replicas(_) => Fact::Replicas(Change::Upsert(controller(), Ok(vec![replica()]))),
    Fact::AllReplicas(_) => Fact::AllReplicas(BTreeMap::from([(controller(), vec![replica()])])),
    Fact::Namespace(_) => Fact::Namespace(Change::Upsert("shop".to_owned(), Ok(Namespace::default()))),
    Fact::Namespaces(_) => Fact::Namespaces(BTreeMap::from([("shop".to_owned(), Err("bad".to_owned()))])),
    Fact::Set(_) => Fact::Set(Change::Upsert(set("base"), Ok(told()))),
    Fact::Sets(_) => Fact::Sets(BTreeMap::from([(set("base"), Ok(ImageSet::default()))])),
    Fact::Node(_) => Fact::Node(Change::Upsert(name("a.b"), Ok(node("u")))),
    Fact::Nodes(_) => Fact::Nodes(BTreeMap::from([(name("a.b"), Ok(node("u")))])),
    Fact::Selection(_) => Fact::Selection(Selection::default()),
    Fact::Intents { .. } => Fact::Intents { stream_created: "2026".to_owned(), head: 4, entries: bucket() },
    Fact::IntentChanged(_) => Fact::IntentChanged(marker(IntentsKey::Intent(PoolId::all(), key("nginx")))),
    Fact::Assignments(_) => Fact::Assignments(vec![marker(name("a"))]),
    Fact::AssignmentChanged(_) => Fact::AssignmentChanged(marker(name("a"))),
    Fact::Inventories(_) => Fact::Inventories(vec![marker(name("a"))]),
    Fact::InventoryChanged(_) => Fact::InventoryChanged(marker(name("a"))),
    Fact::Heartbeat(_) => Fact::Heartbeat(heartbeat()),
    Fact::Event(_) => Fact::Event(Box::new(event())),
    Fact::Connected => Fact::Connected,
    Fact::Disconnected => Fact::Disconnected,
    Fact::Lease(_) => Fact::Lease(true),
    Fact::TermTaken(_) => Fact::TermTaken(Err(Reason::Conflict)),
    Fact::ControlWritten(_) => Fact::ControlWritten(Ok(7)),
    Fact::Asked { .. } => Fact::Asked { verb: ControlVerb::Pause, body: "{}".to_owned(), reply: 1 },
    Fact::IntentsWritten { .. } => Fact::IntentsWritten {
        results: vec![(IntentsKey::Meta, Ok(1)), (IntentsKey::Meta, Err(Reason::Timeout))],
        deltas: BTreeMap::from([(PoolId::all(), 9)]),
    },
    Fact::AssignmentsWritten(_) => Fact::AssignmentsWritten(vec![(name("a"), Ok(1))]),
    Fact::NodeLabelled { .. } => Fact::NodeLabelled {
        node: name("a"),
        result: Err(Reason::Throttled),
        retry_after: Some(std::time::Duration::from_secs(3)),
    },
    Fact::SetStatusWritten { .. } => Fact::SetStatusWritten {
        set: set("base"),
        result: Err(Reason::Conflict),
        retry_after: None,
    },
    Fact::EventPosted { .. } => Fact::EventPosted {
        workload: deployment("web"),
        id: key("nginx"),
        result: Err(Reason::Timeout),
    },
    Fact::Refused { .. } => Fact::Refused { kind: "heartbeat", reason: Reason::Unknown },
}

#[test]
fn each_variant_survives() {
    samples().iter().for_each(survives);
    survives(&Fact::Workload(Change::Upsert(deployment("web"), Err("no template".to_owned()))));
    survives(&Fact::Workload(Change::Remove(deployment("web"))));
}

#[test]
fn what_a_machine_begins_with_survives() {
    let beginning = Beginning { settings: settings(), epoch: "e".to_owned(), seed: u64::MAX };
    let text = serde_json::to_string(&beginning).unwrap();
    assert_eq!(serde_json::from_str::<Beginning>(&text).unwrap(), beginning, "{text}");
}
