//! Messages of any content: what is encoded is decoded the same. The reverse, any bytes, is the fuzz target `message`.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use proptest::prelude::*;
use shared::image::Digest;
use shared::message::intent::Keep;
use shared::message::{Assignment, Content, Delta, DeltaChange, DeltaEntry, Exception, Heartbeat, Intent, Message};
use shared::name::{ImageKey, NodeName, PoolId};
use shared::pool_set::{PoolSummary, SetDigest};
use shared::reason::Reason;
use shared::state::ImageState;
use shared::wave::Wave;

fn text() -> impl Strategy<Value = String> {
    "(?s).{0,30}"
}

fn keys() -> impl Strategy<Value = ImageKey> {
    "[a-z2-7]{26}".prop_map(|key| ImageKey::parse(&key).unwrap())
}

fn pools() -> impl Strategy<Value = PoolId> {
    "[a-z0-9-]{1,63}".prop_map(|pool| PoolId::parse(&pool).unwrap())
}

fn digests() -> impl Strategy<Value = Digest> {
    "sha256:[0-9a-f]{64}".prop_map(|digest| Digest::parse(&digest).unwrap())
}

fn reasons() -> impl Strategy<Value = Reason> {
    prop::sample::select(Reason::ALL.iter().map(|(reason, _)| *reason).collect::<Vec<_>>())
}

fn times() -> impl Strategy<Value = jiff::Timestamp> {
    (jiff::Timestamp::MIN.as_second()..=jiff::Timestamp::MAX.as_second(), 0..1_000_000_000_i32)
        .prop_filter_map("a time", |(second, nano)| jiff::Timestamp::new(second, nano).ok())
}

fn intents() -> impl Strategy<Value = Intent> {
    let wave = (any::<u32>(), prop::collection::vec(text(), 0..3), any::<bool>())
        .prop_map(|(open, nodes, permit)| Wave { open, nodes, permit });
    let counts = (any::<u64>(), any::<u64>(), any::<u64>());
    let numbers = (any::<u8>(), prop::option::of(any::<u64>()), prop::option::of(any::<u64>()), counts);
    let texts = (text(), prop::collection::vec(text(), 0..3), prop::collection::vec(text(), 0..3));
    (keys(), any::<bool>(), prop::option::of(digests()), wave, numbers, texts).prop_map(
        |(
            id,
            unqualified,
            digest,
            wave,
            (priority, bytes, refresh_sec, (grace_sec, owners_total, term)),
            (image, secrets, owners),
        )| {
            let keep = Keep { grace_sec };
            Intent {
                id,
                image,
                unqualified,
                digest,
                priority,
                bytes,
                wave,
                secrets,
                refresh_sec,
                keep,
                owners,
                owners_total,
                term,
            }
        },
    )
}

fn changes() -> impl Strategy<Value = Vec<DeltaEntry>> {
    let change = (any::<u64>(), intents(), any::<bool>()).prop_map(|(seq, intent, is_put)| DeltaEntry {
        seq,
        id: intent.id.clone(),
        change: if is_put { DeltaChange::Put(std::sync::Arc::new(intent)) } else { DeltaChange::Del },
    });
    prop::collection::vec(change, 1..5)
}

fn exceptions() -> impl Strategy<Value = Exception> {
    let state = prop::sample::select(&ImageState::ALL[..]);
    let numbers = (prop::option::of(any::<u64>()), prop::option::of(any::<u32>()));
    let (why, next) = (prop::option::of(reasons()), prop::option::of(times()));
    (keys(), state, why, times(), prop::option::of(digests()), numbers, next).prop_map(
        |(id, st, why, since, digest, (bytes, tries), next)| Exception {
            id,
            st,
            why,
            since,
            digest,
            bytes,
            tries,
            next,
        },
    )
}

proptest! {
    #[test]
    fn an_intent_is_read_as_it_was_written(intent in intents()) {
        prop_assert_eq!(Intent::decode(&intent.encode()).unwrap(), intent);
    }

    #[test]
    fn a_delta_is_read_as_it_was_written(pool in pools(), epoch in text(), numbers in any::<[u64; 4]>(), entries in prop::option::of(changes())) {
        let [term, prev, to, spread_ms] = numbers;
        let delta = Delta { pool: pool.clone(), epoch, term, prev, to, spread_ms, entries };
        let headers = delta.headers();
        let header = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        prop_assert_eq!(Delta::decode(&pool, header, &delta.body()).unwrap(), delta);
    }

    #[test]
    fn what_is_not_warm_is_read_as_it_was_written(listed in prop::collection::vec(exceptions(), 0..4)) {
        let content = Content::Except(listed);
        let text = serde_json::to_string(&content).unwrap();
        prop_assert_eq!(serde_json::from_str::<Content>(&text).unwrap(), content);
    }

    #[test]
    fn an_assignment_is_read_as_it_was_written(uid in text(), all in prop::collection::vec(pools(), 0..5), limit in text(), numbers in any::<[u64; 3]>()) {
        let [rev, term, most] = numbers;
        let node = NodeName::parse("a.b").unwrap();
        // By way of JSON, so that a field that comes later is covered by its default.
        let bare = serde_json::json!({ "v": 1, "node": node, "uid": uid, "pools": all, "rev": rev, "term": term, "limits": { limit: most } });
        let assignment = Assignment::decode(bare.to_string().as_bytes()).unwrap();
        prop_assert_eq!((&assignment.uid, &assignment.pools, assignment.rev), (&uid, &all, rev));
        prop_assert_eq!(Assignment::decode(&assignment.encode()).unwrap(), assignment);
    }

    #[test]
    fn a_heartbeat_is_read_as_it_was_written(inst in text(), pool in pools(), numbers in any::<[u64; 5]>(), ts in times()) {
        let [n, head, count, digest, refused] = numbers;
        let pools = [(pool, PoolSummary { head, count, digest: SetDigest(digest) })].into();
        let node = NodeName::parse("a").unwrap();
        let heartbeat = Heartbeat { node, inst, boot: String::new(), n, inv_digest: SetDigest(digest), pools, schema: vec![1, 2], refused, ts };
        prop_assert_eq!(Heartbeat::decode(&heartbeat.encode()).unwrap(), heartbeat);
    }
}
