//! The rules of `protocol.md` section 5, one by one.

use node_plan::fact::{PoolContent, Stored, StoredIntent};
use node_plan::{Effect, Fact};
use rstest::rstest;
use shared::message::intent::Keep;
use shared::message::{Beat, Intent, Meta};
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::RequestVerb;

use crate::world::{World, intent, key, ms, pool, secs};

fn graceful(name: &str, grace_sec: u64) -> Intent {
    Intent { keep: Keep { grace_sec }, ..intent(name) }
}

#[test]
fn the_first_connection_reads_meta_and_assignment_at_once_and_pools_after_subscribing() {
    let mut world = World::new();
    world.assign(&["all", "auto-0123456789"]);
    world.put("all", intent("x"));
    world.step();
    world.forget();
    world.connect();
    assert_eq!(world.count(|e| matches!(e, Effect::ReadMeta)), 1);
    assert_eq!(world.count(|e| matches!(e, Effect::ReadAssignment)), 1);
    world.run(secs(11));
    let subscribed = world.log.iter().position(|(_, e)| matches!(e, Effect::Subscribe(p) if p.len() == 2)).unwrap();
    let read = world.log.iter().position(|(_, e)| matches!(e, Effect::ReadPool { .. })).unwrap();
    assert!(subscribed < read);
    assert_eq!(world.count(|e| matches!(e, Effect::Subscribe(_))), 1);
    let mut reads = world.reads();
    reads.sort();
    assert_eq!(reads, [("all".to_owned(), 1), ("auto-0123456789".to_owned(), 1)]);
    assert_eq!(world.pulls(), ["x"]);
}

#[test]
fn a_reconnect_reads_from_the_head_on_after_meta() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    world.disconnect();
    world.put("all", intent("y"));
    world.run(secs(60));
    world.forget();
    world.connect();
    world.run(secs(30));
    assert_eq!(world.reads(), [("all".to_owned(), 2)]);
    assert!(world.is_in_step("all"));
    let order: Vec<&str> = world.log.iter().map(|(_, e)| shared::machine::Kind::kind(e)).collect();
    let at = |kind| order.iter().position(|k| *k == kind).unwrap();
    assert!(at("read-meta") < at("read-pool") && at("subscribe") < at("read-pool"), "{order:?}");
}

#[test]
fn a_new_pool_of_a_live_assignment_is_read_at_once() {
    let mut world = World::synced(&["all"]);
    world.send_beat("all"); // spread 0
    world.put("node-0123456789", intent("x"));
    world.forget();
    world.reassign(&["all", "node-0123456789"]);
    world.run(ms(10));
    assert_eq!(world.reads(), [("node-0123456789".to_owned(), 1)]);
    assert_eq!(world.pulls(), ["x"]);
}

#[test]
fn a_first_install_that_is_live_does_not_wait_for_the_start_spread() {
    let mut world = World::new();
    world.has_meta = false;
    world.connect();
    world.run(secs(100));
    assert!(world.node.is_synced(), "an absent assignment is read, too");
    world.has_meta = true;
    world.put("all", intent("x"));
    world.reassign(&["all"]);
    world.run(ms(20));
    assert_eq!(world.pulls(), ["x"]);
}

#[test]
fn a_delta_that_connects_is_applied_and_moves_the_head() {
    let mut world = World::synced(&["all"]);
    world.forget();
    world.announce("all", intent("x"));
    assert_eq!(world.head("all"), 1);
    assert!(world.is_in_step("all"));
    assert_eq!(world.reads(), []);
    assert_eq!(world.pulls(), ["x"]);
}

#[test]
fn a_delta_that_does_not_connect_is_applied_and_the_gap_is_read() {
    let mut world = World::synced(&["all"]);
    world.put("all", intent("lost"));
    world.delta_of("all");
    world.forget();
    world.announce("all", intent("y"));
    assert_eq!(world.pulls(), ["y"], "what is known is not held back");
    assert_eq!(world.head("all"), 0);
    world.run(secs(1));
    assert_eq!(world.reads(), [("all".to_owned(), 1)]);
    assert_eq!(world.head("all"), 2);
    assert!(world.is_in_step("all"));
    assert_eq!(world.pulls(), ["y", "lost"]);
}

#[test]
fn a_delta_without_entries_is_read_within_its_spread() {
    let mut world = World::synced(&["all"]);
    world.put("all", intent("x"));
    world.forget();
    let mut delta = world.delta_of("all");
    (delta.entries, delta.spread_ms) = (None, 4_000);
    world.tell(Fact::Delta(delta));
    assert_eq!(world.head("all"), 0);
    world.run(ms(4_010));
    assert_eq!(world.reads(), [("all".to_owned(), 1)]);
    assert_eq!(world.head("all"), 1);
}

#[rstest]
#[case("e2", 1)]
#[case("e1", 0)]
fn a_delta_of_another_epoch_or_an_older_term_only_makes_meta_be_read(#[case] epoch: &str, #[case] term: u64) {
    let mut world = World::synced(&["all"]);
    world.put("all", intent("x"));
    world.forget();
    let mut delta = world.delta_of("all");
    (delta.epoch, delta.term) = (epoch.into(), term);
    world.tell(Fact::Delta(delta));
    world.run(secs(10));
    assert!(world.count(|e| matches!(e, Effect::ReadMeta)) >= 1);
    assert_eq!(world.head("all"), 0);
    assert_eq!(world.pulls(), Vec::<String>::new());
}

#[test]
fn a_doubled_or_late_delta_changes_nothing() {
    let mut world = World::synced(&["all"]);
    world.put("all", intent("x"));
    let put = world.delta_of("all");
    world.tell(Fact::Delta(put.clone()));
    world.purge("all", "x");
    world.send_delta("all");
    assert_eq!(world.state_of("x"), None);
    world.tell(Fact::Delta(put));
    assert_eq!(world.state_of("x"), None, "an older put does not undo a withdrawal");
    assert_eq!(world.head("all"), 2);
    assert!(world.is_in_step("all"));
}

#[test]
fn a_delta_during_a_read_is_not_undone_by_what_the_read_saw() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    // A full read that saw x, and its withdrawal on the way.
    world.request(RequestVerb::Resync, "");
    world.forget();
    world.run(ms(1));
    assert_eq!(world.reads(), [("all".to_owned(), 1)]);
    world.purge("all", "x");
    world.send_delta("all");
    world.run(secs(5));
    assert_eq!(world.state_of("x"), None);
    assert_eq!(world.head("all"), 2);
}

#[test]
fn a_beat_with_a_higher_head_and_the_same_set_moves_the_head_without_a_read() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    world.stream_moves(100);
    world.forget();
    world.send_beat("all");
    world.run(secs(5));
    assert_eq!(world.head("all"), 101);
    assert_eq!(world.reads(), []);
}

#[test]
fn a_beat_with_a_higher_head_and_another_set_makes_the_rest_be_read() {
    let mut world = World::synced(&["all"]);
    world.put("all", intent("x"));
    world.stream_moves(10);
    world.forget();
    world.send_beat("all");
    world.run(secs(5));
    assert_eq!(world.reads(), [("all".to_owned(), 1)]);
    assert!(world.is_in_step("all"));
    assert_eq!(world.head("all"), 11, "the beat's head was covered by the read");
}

#[test]
fn what_a_read_from_the_head_on_does_not_mend_is_read_in_full_at_the_next_beat() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.announce("all", intent("y"));
    world.run(secs(1));
    world.lose("all", "x"); // away so long that the marker of the purge has expired
    world.stream_moves(50);
    world.forget();
    world.send_beat("all");
    world.run(secs(15));
    assert_eq!(world.reads(), [("all".to_owned(), 3)]);
    world.send_beat("all");
    world.run(secs(15));
    assert_eq!(world.reads(), [("all".to_owned(), 3), ("all".to_owned(), 1)]);
    assert!(world.is_in_step("all"));
}

#[test]
fn at_the_same_head_another_digest_is_believed_at_the_second_beat() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.announce("all", intent("y"));
    world.run(secs(1));
    world.lose("all", "x");
    world.forget();
    world.send_beat("all");
    world.run(secs(14));
    assert_eq!(world.reads(), []);
    world.send_beat("all");
    world.run(secs(1));
    assert_eq!(world.reads(), [("all".to_owned(), 1)]);
    assert!(world.is_in_step("all"));
}

#[test]
fn a_full_read_releases_what_it_missed_only_after_a_beat_agreed_and_the_grace_has_passed() {
    let mut world = World::synced(&["all"]);
    world.announce("all", graceful("x", 30));
    world.announce("all", intent("y"));
    world.run(secs(1));
    world.lose("all", "x");
    world.request(RequestVerb::Resync, "");
    world.run(secs(10));
    assert!(world.is_in_step("all"));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)), "retained: nobody said it was withdrawn");
    world.run(secs(60));
    assert_eq!(world.state_of("x").map(|s| s.0), Some(ImageState::Warm), "time alone releases nothing");
    world.send_beat("all");
    world.run(secs(29));
    assert_eq!(world.state_of("x").map(|s| s.0), Some(ImageState::Warm), "its grace has not passed");
    world.run(secs(2));
    assert_eq!(world.state_of("x"), None);
}

#[test]
fn what_a_full_read_missed_is_not_pulled_anew_and_not_reported() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.announce("all", intent("y"));
    world.run(secs(1));
    world.lose("all", "x");
    world.request(RequestVerb::Resync, "");
    world.run(secs(1));
    world.images.clear();
    world.forget();
    world.run(secs(62));
    assert_eq!(world.pulls(), ["y"]);
    world.request(RequestVerb::Inventory, "");
    let inventory = world.inventories().pop().unwrap();
    assert!(!format!("{:?}", inventory.content).contains(key("x").as_str()));
}

#[test]
fn what_comes_back_after_a_full_read_missed_it_is_wanted_again() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    world.lose("all", "x");
    world.request(RequestVerb::Resync, "");
    world.run(secs(1));
    world.announce("all", intent("x"));
    world.send_beat("all");
    world.run(secs(100));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    assert!(world.is_in_step("all"));
}

#[test]
fn an_empty_set_is_believed_only_when_a_beat_of_this_epoch_says_so() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    world.lose("all", "x");
    world.request(RequestVerb::Resync, "");
    world.run(secs(5));
    assert_eq!(world.held_set("all").1, 0);
    let foreign = Beat { epoch: "e0".into(), ..world.beat_of("all") };
    world.tell(Fact::Beat(foreign));
    world.run(secs(5));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    world.send_beat("all");
    world.run(secs(1));
    assert_eq!(world.state_of("x"), None);
}

#[test]
fn a_beat_whose_head_lies_below_is_usual_after_a_delta() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.announce("all", intent("y"));
    world.run(secs(1));
    let before = world.beat_of("all");
    world.put("all", Intent { priority: 60, ..intent("x") });
    world.send_delta("all");
    world.forget();
    // The set at the beat's head cannot be known any more: x has moved.
    world.tell(Fact::Beat(before));
    world.run(secs(14));
    world.send_beat("all");
    world.run(secs(14));
    assert_eq!(world.reads(), []);
}

#[test]
fn a_rollback_is_confirmed_by_the_next_beat_and_read_in_full_and_heads_fall() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    let before = world.clone();
    world.announce("all", Intent { priority: 60, ..intent("x") });
    world.announce("all", intent("y"));
    world.run(secs(1));
    // The stream loses its suffix: x is old again, y was never written.
    world.roll_back_to(before);
    world.forget();
    world.send_beat("all");
    world.run(secs(14));
    assert_eq!(world.reads(), []);
    world.send_beat("all");
    world.run(secs(1));
    assert_eq!(world.reads(), [("all".to_owned(), 1)]);
    assert_eq!(world.head("all"), 1);
    assert!(world.is_in_step("all"));
    assert!(world.state_of("y").is_some(), "missed, not withdrawn");
    world.send_beat("all");
    world.run(ms(1));
    assert_eq!(world.state_of("y"), None);
}

#[test]
fn a_rollback_that_lost_only_what_came_last_is_noticed() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    let before = world.clone();
    world.announce("all", intent("y"));
    world.run(secs(1));
    world.roll_back_to(before);
    for _ in 0..3 {
        world.send_beat("all"); // our set up to its head is the same
        world.run(secs(15));
    }
    assert!(world.is_in_step("all"));
    assert_eq!(world.state_of("y"), None);
}

#[test]
fn a_new_epoch_keeps_everything_until_it_was_read_and_agreed_with() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.announce("all", intent("y"));
    world.run(secs(1));
    world.wipe("e2");
    world.put("all", intent("y"));
    world.assign(&["all"]);
    world.forget();
    world.send_beat("all");
    assert_eq!(world.count(|e| matches!(e, Effect::ReadMeta)), 1);
    world.run(secs(20));
    assert_eq!(world.reads(), [("all".to_owned(), 1)]);
    assert!(world.count(|e| matches!(e, Effect::ReadAssignment)) >= 1);
    assert_eq!(world.head("all"), 1);
    assert_eq!(world.state_of("x").map(|s| s.0), Some(ImageState::Warm));
    world.send_beat("all");
    world.run(secs(1));
    assert_eq!(world.state_of("x"), None);
    assert_eq!(world.state_of("y").map(|s| s.0), Some(ImageState::Warm));
    assert_eq!(world.pulls(), Vec::<String>::new());
}

#[test]
fn until_a_new_epoch_was_read_the_old_intents_are_still_pulled() {
    let mut world = World::synced(&["all"]);
    world.fail_next("x", &[Reason::Network]);
    world.announce("all", intent("x"));
    world.run(ms(10));
    world.spread_ms = 60_000;
    world.send_beat("all");
    world.wipe("e2");
    world.forget();
    world.tell(Fact::Meta(Ok(Some(world.meta()))));
    world.run(secs(8));
    assert_eq!(world.pulls(), ["x"]);
}

#[test]
fn a_lower_term_is_ignored_and_a_higher_one_is_remembered() {
    let mut world = World::synced(&["all"]);
    world.term = 5;
    world.send_beat("all");
    assert_eq!(world.node.summary(world.now)["term"], 5);
    world.put("all", intent("x"));
    let stale = Beat { term: 4, ..world.beat_of("all") };
    world.forget();
    world.tell(Fact::Beat(stale));
    world.run(secs(5));
    assert_eq!(world.reads(), []);
}

#[test]
fn a_new_leader_makes_the_assignment_be_read_whose_copy_its_predecessor_may_not_have_sent() {
    let mut world = World::synced(&["all"]);
    world.assign(&["all", "node-0123456789"]);
    world.put("node-0123456789", intent("x"));
    world.term = 2;
    world.forget();
    world.send_beat("all");
    world.run(secs(1));
    assert_eq!(world.pulls(), ["x"]);
}

#[test]
fn when_meta_says_a_lower_term_it_decides() {
    let mut world = World::synced(&["all"]);
    let forged = Beat { term: u64::MAX, ..world.beat_of("all") };
    world.tell(Fact::Beat(forged));
    world.put("all", intent("x"));
    world.send_delta("all");
    world.run(secs(1));
    world.send_beat("all");
    world.run(secs(1));
    assert!(world.is_in_step("all"));
    assert_eq!(world.pulls(), ["x"]);
}

#[test]
fn without_beats_the_bucket_is_polled_meta_first() {
    let mut world = World::synced(&["all"]);
    world.put("all", intent("x"));
    world.forget();
    world.run(secs(75));
    assert_eq!(world.reads(), []);
    world.run(secs(31));
    assert_eq!(world.reads(), [("all".to_owned(), 1)]);
    assert!(world.is_in_step("all"));
    world.run(secs(150));
    assert!((3..=4).contains(&world.reads().len()), "{:?}", world.reads());
    assert!(world.count(|e| matches!(e, Effect::ReadMeta)) >= 3);
}

#[test]
fn while_disconnected_nothing_is_read() {
    let mut world = World::synced(&["all"]);
    world.disconnect();
    world.forget();
    world.run(secs(1_000));
    assert_eq!(world.count(|e| matches!(e, Effect::ReadMeta | Effect::ReadAssignment | Effect::ReadPool { .. })), 0);
    assert_eq!(world.count(|e| matches!(e, Effect::PutInventory(_) | Effect::PublishHeartbeat(_))), 0);
}

#[test]
fn a_failed_read_is_repeated_with_backoff_and_stale_outcomes_are_ignored() {
    let mut world = World::synced(&["all"]);
    world.put("all", intent("x"));
    world.is_nats_up = false;
    world.forget();
    world.send_beat("all");
    world.run(secs(120));
    let failed = world.reads().len();
    assert!((4..40).contains(&failed), "{failed}");
    world.tell(Fact::PoolRead { pool: pool("all"), read: 1, result: Ok(PoolContent::default()) });
    world.tell(Fact::PoolRead { pool: pool("other"), read: 9_999, result: Ok(PoolContent::default()) });
    assert!(!world.is_in_step("all"));
    world.is_nats_up = true;
    world.run(secs(31));
    assert!(world.is_in_step("all"));
}

#[test]
fn an_undecodable_value_keeps_the_last_good_one_and_counts_in_the_digest() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    world.garble("all", "x");
    world.garble("all", "y");
    world.send_beat("all");
    world.run(secs(5));
    assert!(world.is_in_step("all"));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    assert_eq!(world.state_of("y"), None);
    world.request(RequestVerb::Inventory, "");
    let inventory = world.inventories().pop().unwrap();
    assert_eq!(inventory.pools[&pool("all")].count, 2);
    // It must not pass for warm where only exceptions are listed.
    assert!(format!("{:?}", inventory.content).contains("Invalid"), "{:?}", inventory.content);
}

#[test]
fn a_withdrawal_is_obeyed_at_once_by_delta_and_by_marker() {
    let mut world = World::synced(&["all"]);
    world.announce("all", graceful("x", 3_600));
    world.announce("all", graceful("y", 3_600));
    world.run(secs(1));
    world.purge("all", "x");
    world.send_delta("all");
    assert_eq!(world.state_of("x"), None);
    world.purge("all", "y");
    world.send_beat("all");
    world.run(secs(1));
    assert_eq!(world.state_of("y"), None);
    assert!(world.is_in_step("all"));
}

#[test]
fn a_gap_reads_everything_that_may_have_been_lost_and_a_storm_of_gaps_does_not() {
    let mut world = World::synced(&["all"]);
    world.send_beat("all");
    world.put("all", intent("x"));
    world.forget();
    world.tell(Fact::Gap);
    world.run(secs(1));
    assert!(world.is_in_step("all"));
    assert_eq!(world.count(|e| matches!(e, Effect::Subscribe(_))), 1);
    world.forget();
    for _ in 0..1_000 {
        world.tell(Fact::Gap);
        world.run(ms(5));
    }
    assert!(world.count(|_| true) < 60, "{}", world.count(|_| true));
}

#[test]
fn another_node_object_drops_the_pools_and_reads_them_again() {
    let mut world = World::synced(&["all"]);
    world.send_beat("all");
    world.announce("all", intent("x"));
    world.run(secs(1));
    world.lose("all", "x");
    let mut assignment = world.assign(&["all"]);
    assignment.uid = "another".into();
    world.assignment = Some(assignment.clone());
    world.forget();
    world.tell(Fact::AssignmentCopy { epoch: "e1".into(), assignment });
    assert_eq!(world.state_of("x"), None);
    world.run(secs(1));
    assert_eq!(world.reads(), [("all".to_owned(), 1)]);
}

#[test]
fn an_absent_assignment_drops_nothing() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    world.assignment = None;
    world.request(RequestVerb::Resync, "");
    world.run(secs(200));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
}

#[test]
fn a_pool_that_is_no_longer_assigned_is_left_at_once_and_its_images_once_no_other_pool_may_want_them() {
    let mut world = World::synced(&["all", "auto-0123456789"]);
    world.announce("auto-0123456789", intent("x"));
    world.run(secs(1));
    world.forget();
    world.reassign(&["all"]);
    assert_eq!(world.count(|e| matches!(e, Effect::Subscribe(p) if *p == [pool("all")])), 1);
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)), "what was read of the other is empty");
    world.run(secs(1));
    let beat = world.beat_of("all");
    world.tell(Fact::Beat(beat));
    world.run(secs(1));
    assert_eq!(world.state_of("x"), None);
}

#[test]
fn without_meta_everything_goes_on_and_it_is_asked_for_again() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    world.has_meta = false;
    world.request(RequestVerb::Resync, "");
    world.forget();
    world.run(secs(80));
    assert!(world.count(|e| matches!(e, Effect::ReadMeta)) >= 2);
    assert_eq!(world.reads(), []);
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    world.has_meta = true;
    world.run(secs(31));
    assert_eq!(world.reads(), [("all".to_owned(), 1)]);
}

#[test]
fn an_assignment_read_before_meta_is_judged_after_it() {
    let mut world = World::new();
    world.connect();
    let assignment = world.assign(&["all"]);
    world.tell(Fact::AssignmentRead(Ok(Some(assignment))));
    assert!(!world.node.is_synced());
    assert_eq!(world.count(|e| matches!(e, Effect::Subscribe(_))), 0);
    world.tell(Fact::Meta(Ok(Some(Meta { epoch: "e1".into(), ..world.meta() }))));
    assert_eq!(world.count(|e| matches!(e, Effect::Subscribe(_))), 1);
}

#[test]
fn what_the_new_epoch_does_not_have_is_not_pulled_anew() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    world.wipe("e2");
    world.assign(&["all"]);
    world.put("all", intent("y"));
    world.send_beat("all");
    world.run(secs(11));
    world.forget();
    world.images.clear();
    world.run(secs(61));
    assert_eq!(world.pulls(), ["y"]);
}

#[test]
fn in_a_new_epoch_a_lower_revision_is_taken_from_the_bucket_once_it_says_so_twice_and_from_a_copy_at_once() {
    for is_copied in [false, true] {
        let mut world = World::synced(&["all"]);
        for _ in 0..5 {
            world.reassign(&["all"]);
        }
        world.wipe("e2");
        world.assignment = None;
        let first = world.assign(&["node-0123456789"]);
        assert_eq!(first.rev, 1);
        world.put("node-0123456789", intent("x"));
        world.send_beat("all");
        world.run(secs(21));
        assert!(world.pulls().is_empty(), "the bucket may be an older copy that nobody has put right yet");
        if is_copied {
            world.reassign(&["node-0123456789"]);
            world.run(secs(11));
        } else {
            world.run(secs(76));
            assert!(world.pulls().is_empty(), "nobody has spoken since, so nobody can have put it right");
            world.send_beat("all");
            world.run(secs(76));
        }
        assert_eq!(world.pulls(), ["x"]);
    }
}

#[test]
fn after_a_reconnect_nothing_is_read_before_the_subscription_stands_again() {
    let mut world = World::synced(&["all"]);
    world.disconnect();
    world.subscriptions_hang = true;
    world.forget();
    world.connect();
    world.run(secs(30));
    assert_eq!(world.count(|e| matches!(e, Effect::Subscribe(_))), 1);
    assert_eq!(world.reads(), []);
    world.tell(Fact::Subscribed(vec![pool("all")]));
    assert_eq!(world.reads(), [("all".to_owned(), 1)]);
}

#[test]
fn a_pool_that_could_not_be_subscribed_to_is_tried_again_and_the_others_are_read() {
    let mut world = World::new();
    world.assign(&["all", "auto-0123456789"]);
    world.subscriptions_hang = true;
    world.connect();
    world.run(secs(1));
    world.tell(Fact::Subscribed(vec![pool("all")]));
    world.run(secs(11));
    assert_eq!(world.reads(), [("all".to_owned(), 1)]);
    assert_eq!(world.count(|e| matches!(e, Effect::Subscribe(_))), 1);
    world.subscriptions_hang = false;
    world.run(secs(80));
    assert!(world.reads().contains(&("auto-0123456789".to_owned(), 1)));
}

/// A snapshot of the pool that holds one intent.
fn snapshot(epoch: &str, name: &str, seq: u64) -> PoolContent {
    let value = Some(Stored::Intent(std::sync::Arc::new(intent(name))));
    PoolContent { entries: vec![StoredIntent { id: key(name), seq, value }], snapshot: Some(epoch.to_owned()) }
}

fn plain_reads(world: &World) -> Vec<bool> {
    let plain =
        world.log.iter().filter_map(|(_, e)| if let Effect::ReadPool { plain, .. } = e { Some(*plain) } else { None });
    plain.collect()
}

#[test]
fn a_snapshot_and_what_was_written_since_are_the_pool() {
    let mut world = World::new();
    world.assign(&["all"]);
    let seq = world.put("all", intent("x"));
    world.put("all", intent("y"));
    world.snapshot = Some(snapshot(&world.meta().epoch, "x", seq));
    world.step();
    world.connect();
    world.run(secs(20));
    world.send_beat("all");
    assert_eq!(plain_reads(&world), [false]);
    assert!(world.is_in_step("all"));
    assert_eq!(world.pulls().len(), 2);
}

#[test]
fn of_a_snapshot_of_another_epoch_nothing_is_believed() {
    let mut world = World::new();
    world.assign(&["all"]);
    world.put("all", intent("x"));
    world.snapshot = Some(snapshot("another", "z", 1));
    world.step();
    world.connect();
    world.run(secs(20));
    assert_eq!(plain_reads(&world), [false, true]);
    assert_eq!(world.pulls(), ["x"]);
}

#[test]
fn what_a_snapshot_has_wrong_is_put_right_by_reading_the_keys() {
    let mut world = World::new();
    world.assign(&["all"]);
    let seq = world.put("all", intent("x"));
    world.snapshot = Some(snapshot(&world.meta().epoch, "z", seq));
    world.step();
    world.connect();
    world.run(secs(20));
    assert!(!world.is_in_step("all"));
    for _ in 0..4 {
        world.send_beat("all");
        world.run(secs(15));
    }
    assert!(world.is_in_step("all"));
    assert_eq!(plain_reads(&world).iter().filter(|plain| !**plain).count(), 1, "{:?}", plain_reads(&world));
}
