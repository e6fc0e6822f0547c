//! Messages on NATS: whoever has a right to publish, or to write into a bucket, may send any bytes.
//!
//! Owns what must hold of every reader of them: a message is taken or refused with a short reason, and what is taken is
//! written back with the same meaning.

use std::fmt::Debug;

use agent::bus::receive::{self as agent_side, Incoming};
use controller::bus::feed::stored;
use controller::bus::{Assignments, Intents, Inventories, receive as controller_side};
use shared::message::{
    Assignment, Beat, Control, Delta, Event, Heartbeat, Intent, Inventory, Message, Meta, delta::MAX_BYTES, header,
};
use shared::name::{ClusterId, NodeName, PoolId};
use shared::subject::{Bucket, Subject};

/// The first line is a subject or a key, then come headers as `Name: value`, an empty line, and the body.
pub fn check(data: &[u8]) {
    let (head, body) = split(data);
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let place = lines.next().unwrap_or_default();
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let header = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);

    heard(place, &header, body);
    kept(place, body);
    if let Some(Subject::Delta(pool)) = Subject::parse(&ClusterId::default(), place) {
        delta(&pool, header, body);
    }
    delta(&PoolId::all(), header, body);
    every_message(body);
}

/// Head and body.
pub(super) fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.windows(2).position(|pair| pair == b"\n\n");
    end.and_then(|end| Some((data.get(..end)?, data.get(end + 2..)?))).unwrap_or((&[], data))
}

/// On core NATS, by both sides.
fn heard<'a>(subject: &'a str, header: &'a dyn Fn(&str) -> Option<&'a str>, payload: &'a [u8]) {
    let cluster = ClusterId::default();
    let Ok(node) = NodeName::parse("a") else { return };
    let incoming = Incoming { subject, reply: Some("_INBOX.1"), header, payload };
    if let Err(refusal) = agent_side::fact(&incoming, &cluster, &node, |_| 0) {
        super::is_short_line(&refusal.text);
    }
    let from_stream = header(header::STREAM).is_some();
    let fact = controller_side::fact(&cluster, subject, from_stream, payload);
    assert!(!from_stream || fact.is_err(), "what a stream delivered is never taken for an agent's word");
}

/// In a bucket: a bad value is known to be there, a bad key is nothing.
fn kept(place: &str, body: &[u8]) {
    let cluster = ClusterId::default();
    let key = |bucket: Bucket| bucket.key_of(&cluster, place).unwrap_or(place);
    let intent = stored::<Intents>(key(Bucket::Intents), 7, Some(body));
    let assignment = stored::<Assignments>(key(Bucket::Assign), 7, Some(body));
    let inventory = stored::<Inventories>(key(Bucket::Nodes), 7, Some(body));
    assert!(
        intent.is_none_or(|i| i.seq == 7)
            && assignment.is_none_or(|a| a.seq == 7)
            && inventory.is_none_or(|i| i.seq == 7)
    );
}

fn delta<'a>(pool: &PoolId, header: impl Fn(&str) -> Option<&'a str>, body: &[u8]) {
    let delta = match Delta::decode(pool, header, body) {
        Ok(delta) => delta,
        Err(error) => return super::is_short_line(&error.to_string()),
    };
    let written = delta.body();
    assert!(written.len() <= MAX_BYTES, "{} bytes", written.len());
    let headers = delta.headers();
    let again = Delta::decode(
        pool,
        |name| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str()),
        &written,
    );
    let is_too_long = delta.entries.is_some() && written.is_empty();
    let expected = if is_too_long { Delta { entries: None, ..delta } } else { delta };
    assert_eq!(again.ok(), Some(expected), "a delta is read as it was written");
}

fn every_message(body: &[u8]) {
    survives::<Intent>(body);
    survives::<Assignment>(body);
    survives::<Beat>(body);
    survives::<Event>(body);
    survives::<Heartbeat>(body);
    survives::<Meta>(body);
    survives::<Control>(body);
    survives::<Inventory>(body);
    if let Ok(inventory) = Inventory::decode(body) {
        let again = Inventory::decode(&inventory.encode());
        assert_eq!(again.ok().map(|i| i.evidence_digest()), Some(inventory.evidence_digest()));
    }
    if let (Ok(one), Ok(two)) = (Intent::decode(body), Intent::decode(body)) {
        assert!(one.asks_the_same(&two));
    }
}

/// Decoded, encoded, decoded: the same. An error says which kind of message it was.
fn survives<M: Message + PartialEq + Debug>(body: &[u8]) {
    match M::decode(body) {
        Ok(message) => {
            let written = message.encode();
            assert!(
                written.starts_with(b"{\"v\":1"),
                "the version stands first: {}",
                String::from_utf8_lossy(&written)
            );
            assert_eq!(M::decode(&written).ok(), Some(message), "a {} is read as it was written", M::KIND);
        }
        Err(error) => {
            let error = error.to_string();
            super::is_short_line(&error);
            assert!(error.starts_with(M::KIND), "which message: {error}");
        }
    }
}
