//! Subjects and keys of the buckets: anybody with a right to publish may invent them.
//!
//! Owns one property: what is parsed is printed back as it was, so that two texts never mean the same thing and no text
//! means two things.

use std::fmt::Debug;

use shared::label;
use shared::name::{ClusterId, ImageKey, NodeName, PoolId};
use shared::state::ImageState;
use shared::subject::{
    Bucket, IntentsKey, RequestVerb, Subject, agent_inbox, assignment_key, inventory_key, parse_assignment_key,
    parse_inventory_key,
};

/// The first line is the id of a cluster (else it is `default`), the rest a subject or a key.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (first, rest) = text.split_once('\n').unwrap_or(("", &text));
    let cluster = ClusterId::parse(first).unwrap_or_default();
    subjects(&cluster, rest);
    // A prefix that a fuzzer need not find out.
    subjects(&cluster, &format!("warm.v1.{cluster}.{rest}"));
    keys(&cluster, rest);
    names(rest);
}

fn subjects(cluster: &ClusterId, text: &str) {
    let Some(subject) = Subject::parse(cluster, text) else { return };
    assert_eq!(subject.print(cluster), text, "a subject is printed as it was read");
    is_literal(text);
    let other = ClusterId::parse("another-cluster").unwrap_or_default();
    assert!(*cluster == other || Subject::parse(&other, text).is_none(), "{text} is of one cluster");
}

fn keys(cluster: &ClusterId, text: &str) {
    inverse(text, IntentsKey::parse(text), IntentsKey::to_string);
    inverse(text, parse_assignment_key(text), assignment_key);
    inverse(text, parse_inventory_key(text), inventory_key);
    for bucket in Bucket::ALL {
        let subject = bucket.subject(cluster, text);
        assert_eq!(bucket.key_of(cluster, &subject), Some(text), "the key of its own subject");
        for other in Bucket::ALL.into_iter().filter(|other| *other != bucket) {
            assert_eq!(other.key_of(cluster, &subject), None, "{subject} is of one bucket");
        }
        if let Some(key) = bucket.key_of(cluster, text) {
            assert_eq!(bucket.subject(cluster, key), text);
        }
    }
}

fn names(text: &str) {
    inverse(text, ClusterId::parse(text).ok(), ClusterId::to_string);
    inverse(text, PoolId::parse(text).ok(), PoolId::to_string);
    inverse(text, ImageKey::parse(text).ok(), ImageKey::to_string);
    inverse(text, NodeName::parse(text).ok(), NodeName::to_string);
    inverse(text, NodeName::from_token(text).ok(), NodeName::token);
    inverse(text, ImageState::parse(text), |state| state.as_str().to_owned());
    inverse(text, RequestVerb::parse(text), |verb| verb.as_str().to_owned());
    inverse(text, label::parse_image_label(text), label::image_label);
    let errors = [ClusterId::parse(text).err(), NodeName::parse(text).err(), NodeName::from_token(text).err()];
    for error in errors.iter().flatten() {
        super::is_short_line(&error.to_string());
    }
    if let Ok(node) = NodeName::parse(text) {
        assert_eq!(NodeName::from_token(&node.token()), Ok(node.clone()));
        is_literal(&agent_inbox(&ClusterId::default(), &node));
        for subject in [Subject::Assign(node.clone()), Subject::Heartbeat(node)] {
            is_literal(&subject.print(&ClusterId::default()));
        }
    }
}

fn inverse<T: Debug>(text: &str, parsed: Option<T>, print: impl Fn(&T) -> String) {
    if let Some(parsed) = parsed {
        assert_eq!(print(&parsed), text, "{parsed:?} is printed as it was read");
        assert!(!text.contains(['*', '>']) && !text.contains(char::is_whitespace), "{text:?} is a wildcard");
    }
}

/// No wildcard, no empty token, nothing that NATS takes for an end of a line.
fn is_literal(subject: &str) {
    assert!(!subject.contains(['*', '>']) && !subject.contains(char::is_whitespace), "{subject:?} is a wildcard");
    assert!(subject.split('.').all(|token| !token.is_empty()), "{subject:?} has an empty token");
}
