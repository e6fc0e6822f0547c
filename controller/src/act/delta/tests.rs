//! What may be told after a batch of writes, hole by hole.

use std::time::Duration;

use rstest::rstest;
use shared::message::Intent;
use shared::message::intent::Keep;
use shared::name::ImageKey;
use shared::wave::Wave;

use super::*;

fn intent(image: &str) -> Intent {
    Intent {
        id: ImageKey::of(image),
        image: image.into(),
        unqualified: false,
        digest: None,
        priority: 50,
        bytes: None,
        wave: Wave::default(),
        secrets: Vec::new(),
        refresh_sec: None,
        keep: Keep::default(),
        owners: Vec::new(),
        owners_total: 0,
        term: 1,
    }
}

fn pool(name: &str) -> PoolId {
    PoolId::parse(name).unwrap()
}

/// `a+x` puts image x in pool a, `a-x` purges it, `a=` writes the definition.
fn batch(writes: &[&str]) -> IntentBatch {
    let write = |text: &&str| {
        let (name, rest) = text.split_at(1);
        let (op, image) = rest.split_at(1);
        let write = match op {
            "+" => IntentChange::Put(Box::new(intent(image))),
            "-" => IntentChange::Purge(ImageKey::of(image)),
            _ => IntentChange::PutDefinition(serde_json::json!({})),
        };
        IntentWrite { pool: pool(name), expected: 0, write }
    };
    IntentBatch {
        epoch: "e".into(),
        term: 7,
        writes: writes.iter().map(write).collect(),
        prev: [(pool("a"), 5), (pool("b"), 6)].into(),
        spread: Duration::from_millis(1500),
        marker_ttl: Duration::from_mins(1),
    }
}

const FAILED: Result<u64, Reason> = Err(Reason::Timeout);

fn shape(deltas: &[Delta]) -> Vec<(String, u64, u64, Vec<u64>)> {
    deltas
        .iter()
        .map(|d| (d.pool.to_string(), d.prev, d.to, d.entries.iter().flatten().map(|e| e.seq).collect()))
        .collect()
}

#[rstest]
#[case::all(&["a+1", "a+2"], &[Ok(10), Ok(11)], &[("a", 5, 11, vec![10, 11])])]
#[case::hole_in_the_middle(&["a+1", "a+2", "a+3"], &[Ok(10), FAILED, Ok(11)], &[("a", 5, 10, vec![10])])]
#[case::hole_first(&["a+1", "a+2"], &[FAILED, Ok(10)], &[])]
#[case::hole_last(&["a+1", "a-2"], &[Ok(10), FAILED], &[("a", 5, 10, vec![10])])]
#[case::a_hole_is_its_pools_own(
    &["a+1", "b+1", "a+2", "b+2"], &[FAILED, Ok(10), Ok(11), Ok(12)], &[("b", 6, 12, vec![10, 12])]
)]
#[case::a_definition_is_neither_told_nor_a_hole(
    &["a=", "a+1", "a=", "a+2"], &[Ok(9), Ok(10), FAILED, Ok(12)], &[("a", 5, 12, vec![10, 12])]
)]
#[case::only_definitions(&["a=", "b="], &[Ok(1), Ok(2)], &[])]
#[case::a_pool_without_a_delta_before(&["c+1"], &[Ok(3)], &[("c", 0, 3, vec![3])])]
#[case::unfinished(&["a+1", "a+2"], &[Ok(10)], &[("a", 5, 10, vec![10])])]
fn what_follows_the_first_hole_of_a_pool_is_not_told(
    #[case] writes: &[&str],
    #[case] results: &[Result<u64, Reason>],
    #[case] expected: &[(&str, u64, u64, Vec<u64>)],
) {
    let expected: Vec<_> =
        expected.iter().map(|(p, prev, to, seqs)| ((*p).to_owned(), *prev, *to, seqs.clone())).collect();
    assert_eq!(shape(&deltas(&batch(writes), results)), expected);
}

#[test]
fn a_delta_carries_what_was_written_and_what_was_withdrawn() {
    let told = deltas(&batch(&["a+x", "a-y"]), &[Ok(8), Ok(9)]);
    let [delta] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((delta.epoch.as_str(), delta.term, delta.spread_ms), ("e", 7, 1500));
    let entries = delta.entries.as_ref().unwrap();
    assert_eq!(entries[0].change, DeltaChange::Put(std::sync::Arc::new(intent("x"))));
    assert_eq!((&entries[1].id, &entries[1].change), (&ImageKey::of("y"), &DeltaChange::Del));
}
