//! Forms of messages, good and bad.

use shared::message::delta::{DeltaChange, DeltaEntry};
use shared::name::{ImageKey, PoolId};
use shared::pool_set::SetDigest;
use shared::subject::RequestVerb;

use super::*;

fn node() -> NodeName {
    NodeName::parse("ip-10-0-1-5.ec2.internal").unwrap()
}

fn take(subject: &str, headers: &[(&'static str, String)], payload: &[u8]) -> Result<Fact, Refusal> {
    take_with(subject, Some("_WI.x.1"), headers, payload)
}

fn take_with(
    subject: &str,
    reply: Option<&str>,
    headers: &[(&'static str, String)],
    payload: &[u8],
) -> Result<Fact, Refusal> {
    let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
    let message = Incoming { subject, reply, header: &header, payload };
    fact(&message, &ClusterId::default(), &node(), |subject| {
        assert_eq!(subject, "_WI.x.1");
        7
    })
}

fn reason(result: Result<Fact, Refusal>) -> (&'static str, Reason) {
    let refusal = result.unwrap_err();
    (refusal.kind, refusal.reason)
}

fn delta() -> Delta {
    Delta {
        pool: PoolId::all(),
        epoch: "e".into(),
        term: 3,
        prev: 4,
        to: 5,
        spread_ms: 100,
        entries: Some(vec![DeltaEntry { seq: 5, id: ImageKey::of("x"), change: DeltaChange::Del }]),
    }
}

fn beat(pool: &str) -> Vec<u8> {
    let pool = PoolId::parse(pool).unwrap();
    Beat {
        epoch: "e".into(),
        term: 3,
        pool,
        head: 5,
        count: 0,
        digest: SetDigest(0),
        spread_ms: 0,
        ts: jiff::Timestamp::UNIX_EPOCH,
    }
    .encode()
}

fn assignment(node: &NodeName) -> Assignment {
    Assignment {
        node: node.clone(),
        uid: "u".into(),
        pools: vec![PoolId::all()],
        rev: 1,
        pressure: vec![],
        limits: BTreeMap::new(),
        term: 3,
    }
}

fn controller_headers() -> Vec<(&'static str, String)> {
    vec![(header::SCHEMA, "1".into()), (header::EPOCH, "e".into()), (header::TERM, "3".into())]
}

#[test]
fn good_messages_become_facts() {
    let body = delta().body();
    assert_eq!(take("warm.v1.default.delta.all", &delta().headers(), &body), Ok(Fact::Delta(delta())));
    assert!(matches!(take("warm.v1.default.beat.all", &[], &beat("all")), Ok(Fact::Beat(_))));
    let copy = assignment(&node());
    assert_eq!(
        take("warm.v1.default.assign.ip-10-0-1-5_ec2_internal", &controller_headers(), &copy.encode()),
        Ok(Fact::AssignmentCopy { epoch: "e".into(), assignment: copy })
    );
    assert_eq!(
        take("warm.v1.default.node.ip-10-0-1-5_ec2_internal.req.explain", &[], b"{\"image\":\"x\"}"),
        Ok(Fact::Request { verb: RequestVerb::Explain, body: "{\"image\":\"x\"}".into(), reply: Some(7) })
    );
}

#[test]
fn what_a_stream_delivered_is_forged() {
    let mut headers = delta().headers();
    headers.push((header::STREAM, "KV_warm-default-nodes".into()));
    assert_eq!(reason(take("warm.v1.default.delta.all", &headers, &delta().body())), ("delta", Reason::Forged));
    let stream = [(header::STREAM, "KV_warm-default-intents".into())];
    assert_eq!(reason(take("warm.v1.default.beat.all", &stream, &beat("all"))), ("beat", Reason::Forged));
    let request = "warm.v1.default.node.ip-10-0-1-5_ec2_internal.req.resync";
    assert_eq!(reason(take(request, &stream, b"")), ("request", Reason::Forged));
}

#[test]
fn a_request_that_nobody_makes_is_forged() {
    let request = "warm.v1.default.node.ip-10-0-1-5_ec2_internal.req.resync";
    let answer = br#"{"stream":"KV_warm-default-nodes","seq":16}"#;
    assert_eq!(reason(take_with(request, None, &[], answer)), ("request", Reason::Forged));
    let asked = Fact::Request { verb: RequestVerb::Resync, body: String::new(), reply: None };
    assert_eq!(take_with(request, None, &[(header::SCHEMA, "1".into())], b""), Ok(asked));
}

#[test]
fn without_the_headers_of_a_controller_a_message_is_forged() {
    for missing in 0..5 {
        let mut headers = delta().headers();
        headers.remove(missing);
        assert_eq!(reason(take("warm.v1.default.delta.all", &headers, &delta().body())), ("delta", Reason::Forged));
    }
    for missing in 0..3 {
        let mut headers = controller_headers();
        headers.remove(missing);
        let subject = "warm.v1.default.assign.ip-10-0-1-5_ec2_internal";
        let taken = take(subject, &headers, &assignment(&node()).encode());
        assert_eq!(reason(taken), ("assignment", Reason::Forged));
    }
}

#[test]
fn a_body_that_contradicts_its_subject_is_forged() {
    assert_eq!(reason(take("warm.v1.default.beat.all", &[], &beat("other"))), ("beat", Reason::Forged));
    let other = NodeName::parse("other").unwrap();
    let mine = "warm.v1.default.assign.ip-10-0-1-5_ec2_internal";
    let taken = take(mine, &controller_headers(), &assignment(&other).encode());
    assert_eq!(reason(taken), ("assignment", Reason::Forged));
    let taken = take("warm.v1.default.assign.other", &controller_headers(), &assignment(&other).encode());
    assert_eq!(reason(taken), ("assignment", Reason::Forged));
    assert_eq!(reason(take("warm.v1.default.node.other.req.resync", &[], b"")), ("request", Reason::Forged));
}

#[test]
fn what_cannot_be_decoded_is_invalid_and_what_is_newer_is_said_to_be() {
    assert_eq!(reason(take("warm.v1.default.beat.all", &[], b"{")), ("beat", Reason::Invalid));
    assert_eq!(reason(take("warm.v1.default.beat.all", &[], b"{\"v\":2}")), ("beat", Reason::NewerSchema));
    let mut headers = delta().headers();
    headers[0].1 = "2".into();
    assert_eq!(reason(take("warm.v1.default.delta.all", &headers, b"")), ("delta", Reason::NewerSchema));
    assert_eq!(reason(take("warm.v1.default.delta.all", &delta().headers(), b"{}\n")), ("delta", Reason::Invalid));
    let mut headers = controller_headers();
    headers[0].1 = "2".into();
    let subject = "warm.v1.default.assign.ip-10-0-1-5_ec2_internal";
    assert_eq!(reason(take(subject, &headers, b"{}")), ("assignment", Reason::NewerSchema));
    assert_eq!(reason(take(subject, &controller_headers(), b"")), ("assignment", Reason::Invalid));
    assert_eq!(reason(take("warm.v1.other.beat.all", &[], b"")), ("unknown", Reason::Invalid));
    assert_eq!(reason(take("warm.v1.default.node.a.hb", &[], b"")), ("heartbeat", Reason::Invalid));
}

#[test]
fn a_header_without_entries_is_a_delta_that_must_be_read() {
    let delta = Delta { entries: None, ..delta() };
    assert_eq!(take("warm.v1.default.delta.all", &delta.headers(), b""), Ok(Fact::Delta(delta)));
}
