//! Golden messages: whatever has been released must decode for ever and mean the same.
//!
//! Each file is decoded, written again, and compared as JSON with what was read, less the fields this build ignores.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a helper of a test fails the test")]

use std::path::PathBuf;

use serde_json::Value;
use shared::message::assignment::{MAX_POOLS, Pressure};
use shared::message::{
    Assignment, Beat, Content, Control, DecodeError, Delta, DeltaChange, DeltaEntry, Event, Heartbeat, Intent,
    Inventory, Message, Meta, PartialSnapshot, SnapshotHead,
};
use shared::name::{NodeName, PoolId};
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::Bucket;

fn golden(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn survives<M: Message>(name: &str, ignored: &[&str]) -> M {
    let text = golden(name);
    let message = M::decode(text.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut expected: Value = serde_json::from_str(&text).unwrap();
    for field in ignored {
        expected.as_object_mut().unwrap().remove(*field);
    }
    let written: Value = serde_json::from_slice(&message.encode()).unwrap();
    assert_eq!(written, expected, "{name}: written differs from read");
    message
}

#[test]
fn every_released_message_decodes_and_is_written_back_the_same() {
    let intent: Intent = survives("intent.json", &[]);
    assert_eq!((intent.priority, intent.wave.open, intent.unqualified), (50, 65_536, true));
    let full: Intent = survives("intent.full.json", &["aFieldOfANewerPeer"]);
    assert_eq!((full.owners_total, full.keep.grace_sec, full.wave.permit), (31, 3600, true));
    let refreshed: Intent = survives("intent.refresh.json", &[]);
    assert_eq!((full.refresh_sec, refreshed.refresh_sec), (None, Some(21_600)));
    let meta: Meta = survives("meta.json", &[]);
    assert_eq!(meta.term, 4);
    let control: Control = survives("control.json", &[]);
    assert!(control.paused && control.by == "ops@example.com");
    let head: SnapshotHead = survives("snapshot.head.json", &[]);
    let mut snapshot = PartialSnapshot::of(head.clone());
    snapshot.take(golden("snapshot.body.txt").as_bytes()).unwrap();
    let snapshot = snapshot.whole().unwrap();
    assert_eq!((snapshot.head(head.chunks), snapshot.intents[0].seq), (head, 1_841));
    let beat: Beat = survives("beat.json", &[]);
    assert_eq!((beat.summary().count, beat.digest.0), (12, 0x00ff_00ff_00ff_00ff));
    let event: Event = survives("event.json", &[]);
    assert_eq!((event.st, event.why, event.r#try), (ImageState::Failed, Some(Reason::RegistryUnavailable), Some(2)));
    let warm: Event = survives("event.warm.json", &[]);
    assert!(warm.digest.is_some());
    let heartbeat: Heartbeat = survives("heartbeat.json", &[]);
    assert_eq!(heartbeat.schema, [1]);
    let inventory: Inventory = survives("inventory.except.json", &[]);
    assert!(matches!(&inventory.content, Content::Except(e) if e[0].why == Some(Reason::Unauthorized)));
    let cut: Inventory = survives("inventory.cut.json", &[]);
    assert_eq!((cut.not_warm.len(), cut.left_out), (1, 1_207));
    let partial: Inventory = survives("inventory.warm-ids.json", &[]);
    assert!(matches!(&partial.content, Content::WarmIds(ids) if ids.len() == 1) && !partial.complete);
}

#[test]
fn a_word_of_a_newer_peer_in_a_list_does_not_spoil_the_rest() {
    let assignment = Assignment::decode(golden("assignment.json").as_bytes()).unwrap();
    assert_eq!((assignment.pools.len(), assignment.pressure.len(), assignment.rev), (2, 3, 2));
}

#[test]
fn a_delta_is_headers_and_one_json_a_line() {
    let text = golden("delta.txt");
    let (head, body) = text.split_once("\n\n").unwrap();
    let headers: Vec<(&str, &str)> = head.lines().map(|l| l.split_once(": ").unwrap()).collect();
    let header = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let delta = Delta::decode(&PoolId::all(), header, body.as_bytes()).unwrap();
    assert_eq!((delta.prev, delta.to, delta.term, delta.spread_ms), (79, 81, 4, 10_000));
    let entries = delta.entries.clone().unwrap();
    assert!(matches!(&entries[0].change, DeltaChange::Put(i) if i.image == "docker.io/library/nginx:1.27"));
    assert_eq!((entries[1].seq, &entries[1].change), (81, &DeltaChange::Del));

    assert_eq!(String::from_utf8(delta.body()).unwrap(), body);
    let written: Vec<(String, String)> = delta.headers().into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
    let read: Vec<(String, String)> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    assert_eq!(written, read);

    let other = Delta::decode(&PoolId::auto("other"), header, body.as_bytes()).unwrap_err();
    assert!(other.to_string().contains("no intent of pool"), "{other}");
    let without = Delta::decode(&PoolId::all(), |n| header(n).filter(|_| n != "Warm-Prev"), body.as_bytes());
    assert!(matches!(without, Err(DecodeError::Header { name: "Warm-Prev" })));
}

#[test]
fn too_many_changes_send_only_headers() {
    let text = golden("delta.txt");
    let (head, body) = text.split_once("\n\n").unwrap();
    let headers: Vec<(&str, &str)> = head.lines().map(|l| l.split_once(": ").unwrap()).collect();
    let header = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let mut delta = Delta::decode(&PoolId::all(), header, body.as_bytes()).unwrap();
    let [put, entry] = delta.entries.clone().unwrap().try_into().unwrap();
    delta.entries = Some(vec![entry.clone(); 1_000]);
    assert!(!delta.body().is_empty());
    delta.entries = Some(vec![entry.clone(); 1_001]);
    assert!(delta.body().is_empty());
    let DeltaChange::Put(intent) = put.change else { panic!("a put") };
    let large = Intent { owners: vec!["o".repeat(600); 16], ..Intent::clone(&intent) };
    let large = DeltaEntry { change: DeltaChange::Put(large.into()), ..entry };
    delta.entries = Some(vec![large.clone(); 50]);
    assert!((400_000..=524_288).contains(&delta.body().len()), "{}", delta.body().len());
    delta.entries = Some(vec![large; 60]);
    assert!(delta.body().is_empty(), "too many bytes");
    assert_eq!(Delta::decode(&PoolId::all(), header, b"").unwrap().entries, None);
}

#[test]
fn a_delta_of_empty_lines_has_no_changes_to_tell_and_is_read_as_it_is_written() {
    let header = |name: &str| (name != "Warm-Epoch").then_some("1").or(Some("e"));
    let delta = Delta::decode(&PoolId::all(), header, b"\n\n").unwrap();
    assert_eq!(delta.entries, None);
    assert_eq!(Delta::decode(&PoolId::all(), header, &delta.body()).unwrap(), delta);
}

#[test]
fn an_error_is_short_and_on_one_line_whatever_was_sent() {
    let pool = format!("x\\n{}", "y".repeat(100_000));
    let texts = [
        format!(r#"{{"v":1,"epoch":"e","term":1,"pool":"{pool}"}}"#),
        format!(r#"{{"v":1,"epoch":"e","term":"{pool}"}}"#),
    ];
    for text in texts {
        let error = Beat::decode(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("beat: ") && error.chars().count() < 500 && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_higher_major_is_refused_by_name_and_garbage_is_an_error() {
    let newer = golden("beat.json").replacen("\"v\":1", "\"v\":2", 1);
    let error = Beat::decode(newer.as_bytes()).unwrap_err();
    assert!(matches!(error, DecodeError::Newer { what: "beat", version: 2 }), "{error}");
    for garbage in [&b""[..], b"{", b"[]", b"{\"v\":\"1\"}", b"{\"v\":1}", b"\xff\xfe"] {
        assert!(Beat::decode(garbage).is_err());
    }
}

#[test]
fn evidence_digest_ignores_times_and_counters_and_sees_states() {
    let inventory = Inventory::decode(golden("inventory.except.json").as_bytes()).unwrap();
    let digest = inventory.evidence_digest();
    let mut later = inventory.clone();
    later.n += 10;
    let Content::Except(exceptions) = &mut later.content else { panic!("a list of exceptions") };
    exceptions[0].tries = Some(9);
    exceptions[0].next = None;
    assert_eq!(later.evidence_digest(), digest);
    let Content::Except(exceptions) = &mut later.content else { panic!("a list of exceptions") };
    exceptions[0].st = ImageState::Pending;
    assert_ne!(later.evidence_digest(), digest);
}

#[test]
fn the_largest_assignment_fits_its_bucket() {
    let mut assignment = Assignment::decode(golden("assignment.json").as_bytes()).unwrap();
    assignment.node = NodeName::parse(&format!("{0}.{0}.{0}.{0}", "n".repeat(62))).unwrap();
    assignment.pools = (0..MAX_POOLS).map(|n| PoolId::auto(&n.to_string())).collect();
    assignment.pressure = vec![Pressure::Disk, Pressure::Pid];
    (assignment.rev, assignment.term) = (u64::MAX, u64::MAX);
    let (bytes, most) = (assignment.encode().len(), Bucket::Assign.max_message_bytes() as usize);
    assert!(bytes * 2 < most, "{bytes} of {most}");
}
