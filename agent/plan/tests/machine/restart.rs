//! What survives a restart, and what it is good for.

use node_plan::{DiskSettings, Effect, GcMode, GcSettings, Persisted, Settings, Timing};
use shared::machine::Machine;
use shared::reason::Reason;
use shared::state::ImageState;

use crate::world::{World, identity, intent, key, ms, pool, secs, start};

fn warm() -> World {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.announce("all", intent("y"));
    world.run(secs(60));
    world
}

#[test]
fn a_restart_reads_from_the_head_on_and_pulls_nothing_that_is_there() {
    let mut world = warm();
    world.restart(2);
    world.connect();
    world.run(secs(60));
    assert_eq!(world.reads(), [("all".to_owned(), 3)]);
    assert_eq!(world.pulls(), Vec::<String>::new());
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    assert!(world.is_in_step("all"));
    let inventory = world.inventories().pop().unwrap();
    assert!(inventory.complete);
    assert!(inventory.pools[&pool("all")].is_same_set(&world.beat_of("all").summary()));
}

#[test]
fn a_restart_without_nats_verifies_and_pulls_from_what_was_persisted() {
    let mut world = warm();
    world.images.remove("y");
    world.restart(2);
    world.run(secs(10));
    assert_eq!(world.pulls(), ["y"]);
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    assert!(!world.node.is_synced());
    assert_eq!(world.inventories(), []);
}

#[test]
fn restored_pools_are_reported_only_when_they_were_confirmed() {
    let mut world = warm();
    world.restart(2);
    world.connect();
    let heartbeat = world.heartbeats().pop().unwrap();
    assert!(heartbeat.pools.is_empty());
    world.run(secs(11));
    assert_eq!(world.node.summary(world.now)["pools"]["all"]["sync"], "synced");
}

#[test]
fn what_was_purged_meanwhile_is_released_and_what_was_added_is_pulled() {
    let mut world = warm();
    world.purge("all", "x");
    world.put("all", intent("z"));
    world.restart(2);
    world.connect();
    world.run(secs(20));
    assert_eq!(world.state_of("x"), None);
    assert_eq!(world.pulls(), ["z"]);
    assert!(world.is_in_step("all"));
}

#[test]
fn a_restart_into_another_epoch_keeps_what_is_there_and_reads_everything() {
    let mut world = warm();
    world.wipe("e2");
    world.assign(&["all"]);
    world.restart(2);
    world.connect();
    world.run(secs(30));
    assert_eq!(world.reads(), [("all".to_owned(), 1)]);
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)), "an empty bucket is no withdrawal");
    // And once more, before any beat: what is retained is persisted, too.
    world.run(secs(10));
    world.restart(3);
    world.connect();
    world.run(secs(30));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    world.send_beat("all");
    world.run(secs(1));
    assert_eq!(world.state_of("x"), None);
}

#[test]
fn the_state_is_written_when_it_changed_and_at_most_every_five_seconds() {
    let mut world = World::synced(&["all"]);
    world.run(secs(60));
    world.forget();
    let is_persist = |effect: &Effect| matches!(effect, Effect::Persist(_));
    world.send_beat("all");
    world.stream_moves(9);
    world.send_beat("all");
    world.run(secs(60));
    assert_eq!(world.count(is_persist), 0, "a head that moves by a beat alone is not worth a write");
    for n in 0..20 {
        world.announce("all", intent(&format!("x{n}")));
        world.run(secs(1));
    }
    world.run(secs(10));
    assert!((4..=6).contains(&world.count(is_persist)), "{}", world.count(is_persist));
    assert_eq!(world.saved.clone().unwrap().pools[&pool("all")].intents.len(), 20);
    assert_eq!(world.saved.unwrap().ledger.len(), 20);
}

#[test]
fn at_the_start_nothing_is_written() {
    let mut world = warm();
    world.restart(2);
    world.run(secs(60));
    assert_eq!(world.count(|e| matches!(e, Effect::Persist(_))), 0);
}

#[test]
fn a_failed_write_is_repeated() {
    let mut world = World::synced(&["all"]);
    world.run(secs(10));
    world.forget();
    world.put("all", intent("x"));
    let delta = world.delta_of("all");
    world.node.apply(node_plan::Fact::Delta(delta), world.now);
    let written = world.node.step(world.now).into_iter().any(|e| matches!(e, Effect::Persist(_)));
    assert!(written);
    world.tell(node_plan::Fact::Persisted(Err(Reason::Storage)));
    world.run(secs(6));
    assert_eq!(world.count(|e| matches!(e, Effect::Persist(_))), 1);
}

#[test]
fn a_file_of_another_form_is_as_good_as_none() {
    let mut world = warm();
    let foreign = Persisted { v: 99, ..world.saved.clone().unwrap() };
    world.saved = Some(foreign);
    world.restart(2);
    assert_eq!(world.node.summary(world.now)["pools"], serde_json::json!({}));
}

#[test]
fn the_counter_never_falls_even_if_the_clock_does() {
    let saved = Persisted { v: 1, n: u64::MAX / 2, ..Persisted::default() };
    let world = World::with(Settings::default(), Some(saved), 1);
    assert_eq!(world.node.summary(world.now)["n"], u64::MAX / 2 + (1 << 13));
}

#[test]
fn the_ledger_forgets_what_the_runtime_no_longer_holds_and_survives_another_node_object() {
    let mut world = warm();
    assert_eq!(world.saved.clone().unwrap().ledger.len(), 2);
    world.images.remove("x");
    world.fail_next("x", &[Reason::NotFound; 99]);
    let mut assignment = world.assign(&["all"]);
    assignment.uid = "another".into();
    world.tell(node_plan::Fact::AssignmentCopy { epoch: "e1".into(), assignment });
    world.run(secs(100));
    let ledger = world.saved.clone().unwrap().ledger;
    assert_eq!(ledger.keys().map(String::as_str).collect::<Vec<_>>(), [crate::world::reference("y")]);
    assert_eq!(ledger[&crate::world::reference("y")].runtime_id, "id-y");
    assert_eq!(world.state_of("y"), Some((ImageState::Warm, None)));
}

#[test]
fn the_state_of_another_node_is_not_taken_over() {
    let mut world = warm();
    let mut saved = world.saved.clone().unwrap();
    saved.assignment.as_mut().unwrap().node = shared::name::NodeName::parse("b").unwrap();
    world.saved = Some(saved);
    world.restart(2);
    world.run(ms(100));
    assert_eq!(world.state_of("x"), None);
    assert_ne!(identity().node.as_str(), "b");
    assert!(world.now.mono > start().mono);
    assert!(!key("x").as_str().is_empty());
}

fn final_failure() -> World {
    let mut world = World::synced(&["all"]);
    world.fail_next("x", &[Reason::NotFound; 5]);
    world.announce("all", intent("x"));
    world.run(secs(600));
    assert_eq!(world.pulls().len(), 5, "final");
    world
}

#[test]
fn a_restart_neither_forgets_tries_nor_hammers_a_registry() {
    let mut world = final_failure();
    let before = world.node.explain(key("x").as_str(), world.now);
    world.fail_next("x", &[Reason::NotFound; 9]);
    world.restart(2);
    world.connect();
    world.run(secs(60));
    let after = world.node.explain(key("x").as_str(), world.now);
    for known in ["state", "why", "tries", "since", "next"] {
        assert_eq!(before[known], after[known], "{known}");
    }
    world.run(secs(2_800));
    assert_eq!(world.pulls(), Vec::<String>::new(), "within the hour nothing is tried");
    world.run(secs(1_200));
    assert_eq!(world.pulls(), ["x"]);
    assert_eq!(world.node.explain(key("x").as_str(), world.now)["tries"], 6);
}

#[test]
fn time_without_an_agent_counts_against_a_wait_and_a_clock_set_back_starts_it_anew() {
    let mut away = final_failure();
    away.fail_next("x", &[Reason::NotFound; 9]);
    away.set_clock(away.now.mono + secs(10_000));
    let mut back = away.clone();
    away.restart(2);
    away.run(secs(1));
    assert_eq!(away.pulls(), ["x"], "it was due long ago");
    assert_eq!(away.node.explain(key("x").as_str(), away.now)["tries"], 6);

    back.now.wall -= secs(1_000_000);
    back.restart(2);
    back.run(secs(3_000));
    assert_eq!(back.pulls(), Vec::<String>::new());
    back.run(secs(1_000));
    assert_eq!(back.pulls(), ["x"], "an hour is an hour");
}

#[test]
fn tries_at_something_else_are_not_taken_over() {
    let mut world = final_failure();
    world.put("all", shared::message::Intent { secrets: vec!["ns/new".into()], ..intent("x") });
    world.restart(2);
    world.connect();
    world.run(secs(20));
    assert_eq!(world.pulls(), ["x"]);
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    assert_eq!(world.saved.unwrap().setbacks.len(), 0);
}

#[test]
fn a_refused_image_is_refused_after_a_restart() {
    let mut world = World::synced(&["all"]);
    world.fail_next("x", &[Reason::Unauthorized; 2]);
    world.announce("all", intent("x"));
    world.run(secs(10));
    world.restart(2);
    world.run(secs(600));
    assert_eq!(world.state_of("x"), Some((ImageState::Refused, Some(Reason::Unauthorized))));
    assert_eq!(world.pulls(), Vec::<String>::new());
}

#[test]
fn evictions_add_up_over_a_restart() {
    let mut world = warm();
    for _ in 0..7 {
        world.images.remove("x");
        world.run(secs(500));
    }
    world.images.remove("x");
    world.run(secs(70));
    let hold = world.node.explain(key("x").as_str(), world.now)["next"].clone();
    assert!(hold.is_string(), "held off: {hold}");
    world.restart(2);
    world.run(secs(1));
    assert_eq!(world.pulls(), Vec::<String>::new());
    assert_eq!(world.node.explain(key("x").as_str(), world.now)["next"], hold);
    world.run(secs(600));
    assert_eq!(world.pulls(), ["x"]);
}

#[test]
fn the_default_intervals_are_pinned() {
    let timing = Timing::default();
    let seconds = [
        (timing.heartbeat, 30),
        (timing.verify_min, 30),
        (timing.verify_max, 60),
        (timing.inventory_delay, 5),
        (timing.inventory_gap, 10),
        (timing.inventory_every, 600),
        (timing.inventory_backoff_max, 60),
        (timing.beat_lost, 90),
        (timing.poll, 60),
        (timing.start_spread, 10),
        (timing.read_retry, 1),
        (timing.persist, 5),
        (timing.pull_deadline, 1_800),
        (timing.pull_backoff, 5),
        (timing.pull_backoff_max, 600),
        (timing.pull_final, 3_600),
        (timing.pressure_hold, 30),
        (timing.gc_retry, 60),
    ];
    for (interval, expected) in seconds {
        assert_eq!(interval, secs(expected));
    }
    let Settings { max_in_flight, final_after, disk, gc, .. } = Settings::default();
    assert_eq!((max_in_flight, final_after), (1, 5));
    assert_eq!(disk, DiskSettings { mark: 80, resume: 77 });
    assert_eq!(gc, GcSettings { mode: GcMode::DryRun, high: 75, low: 70, min_age: secs(3_600) });
}
