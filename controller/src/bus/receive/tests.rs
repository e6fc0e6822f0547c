//! What is believed of a message from an agent.

use rstest::rstest;
use shared::name::ImageKey;

use super::*;

fn heartbeat(node: &str) -> String {
    format!(
        r#"{{"v":1,"node":"{node}","inst":"i","boot":"b","n":1,"invDigest":"0000000000000001","ts":"2026-01-01T00:00:00Z"}}"#
    )
}

fn event(node: &str, state: &str) -> String {
    let id = ImageKey::of("nginx");
    format!(
        r#"{{"v":1,"node":"{node}","inst":"i","n":2,"uid":"u","id":"{id}","image":"nginx","st":"{state}","ts":"2026-01-01T00:00:00Z"}}"#
    )
}

fn judge(subject: &str, from_stream: bool, body: &str) -> Result<&'static str, (&'static str, Reason)> {
    use shared::machine::Kind as _;
    let subject = format!("warm.v1.default.{subject}");
    fact(&ClusterId::default(), &subject, from_stream, body.as_bytes())
        .map(|fact| fact.kind())
        .map_err(|refusal| (refusal.kind, refusal.reason))
}

#[test]
fn a_message_whose_body_agrees_with_its_subject_is_believed() {
    assert_eq!(judge("node.a_b.hb", false, &heartbeat("a.b")), Ok("heartbeat"));
    assert_eq!(judge("node.a_b.ev.warm", false, &event("a.b", "warm")), Ok("event"));
}

#[rstest]
#[case::other_node("node.b.hb", false, heartbeat("a"), "heartbeat", Reason::Forged)]
#[case::other_node("node.b.ev.warm", false, event("a", "warm"), "event", Reason::Forged)]
#[case::other_state("node.a.ev.failed", false, event("a", "warm"), "event", Reason::Forged)]
#[case::out_of_a_stream("node.a.hb", true, heartbeat("a"), "heartbeat", Reason::Forged)]
#[case::out_of_a_stream("node.a.ev.warm", true, event("a", "warm"), "event", Reason::Forged)]
#[case::junk_out_of_a_stream("node.a.hb", true, "{}".into(), "heartbeat", Reason::Forged)]
#[case::junk("node.a.hb", false, "junk".into(), "heartbeat", Reason::Invalid)]
#[case::empty("node.a.ev.warm", false, String::new(), "event", Reason::Invalid)]
#[case::newer("node.a.hb", false, heartbeat("a").replace("\"v\":1", "\"v\":2"), "heartbeat", Reason::NewerSchema)]
#[case::no_state("node.a.ev.hot", false, event("a", "warm"), "unknown", Reason::Invalid)]
#[case::another_subject("beat.all", false, heartbeat("a"), "unknown", Reason::Invalid)]
fn any_other_message_is_dropped_with_its_reason(
    #[case] subject: &str,
    #[case] from_stream: bool,
    #[case] body: String,
    #[case] kind: &'static str,
    #[case] reason: Reason,
) {
    assert_eq!(judge(subject, from_stream, &body), Err((kind, reason)));
}
