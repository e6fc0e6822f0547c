//! What is pulled, in which order, how often.

use node_plan::fact::{PullFailure, Space};
use node_plan::{Effect, Fact, Settings};
use rstest::rstest;
use shared::machine::{Machine, Moment};
use shared::message::assignment::Pressure;
use shared::message::{Disk, Intent};
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::RequestVerb;
use shared::wave::{Wave, slot};

use crate::world::{World, digest, failure, held, identity, intent, key, ms, reference, secs};

fn announce_all(world: &mut World, intents: Vec<Intent>) {
    for intent in intents {
        world.put("all", intent);
    }
    world.send_delta("all");
}

#[test]
fn pulls_run_by_priority_then_size_with_unknown_sizes_last_then_key() {
    let mut world = World::synced(&["all"]);
    let sized = |name: &str, bytes| Intent { bytes: Some(bytes), ..intent(name) };
    let mut unknown = ["u1", "u2"];
    unknown.sort_by_key(|name| key(name));
    announce_all(
        &mut world,
        vec![
            intent("u1"),
            intent("u2"),
            sized("big", 900),
            sized("small", 10),
            Intent { priority: 90, ..intent("first") },
            Intent { priority: 10, bytes: Some(1), ..intent("last") },
        ],
    );
    world.run(secs(1));
    assert_eq!(world.pulls(), ["first", "small", "big", unknown[0], unknown[1], "last"]);
}

#[rstest]
#[case(1)]
#[case(3)]
fn never_more_than_the_limit_are_in_flight(#[case] limit: usize) {
    let mut world = World::with(Settings { max_in_flight: limit, ..Settings::default() }, None, 1);
    world.assign(&["all"]);
    world.pulls_hang = true;
    for n in 0..10 {
        world.put("all", intent(&format!("x{n}")));
    }
    world.connect();
    world.run(secs(20));
    assert_eq!(world.pulls().len(), limit);
    let (id, _) = world.pulling[0].clone();
    let outcome = world.end_pull(&id).unwrap();
    world.tell(outcome);
    assert_eq!(world.pulls().len(), limit + 1);
}

#[test]
fn the_deadline_grows_with_the_size() {
    let mut world = World::synced(&["all"]);
    announce_all(&mut world, vec![Intent { bytes: Some(1 << 40), priority: 90, ..intent("huge") }, intent("x")]);
    world.run(secs(1));
    let deadlines: Vec<_> = world
        .log
        .iter()
        .filter_map(|(_, effect)| if let Effect::Pull { deadline, .. } = effect { Some(*deadline) } else { None })
        .collect();
    assert_eq!(deadlines, [secs(1 << 20), secs(1_800)]);
}

#[test]
fn a_pull_is_told_as_pulling_then_warm_with_what_it_took() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    assert_eq!(world.story("x"), [ImageState::Pulling, ImageState::Warm]);
    let events = world.events();
    assert_eq!((events[0].r#try, events[0].ms), (Some(1), None));
    assert_eq!((events[1].r#try, events[1].ms, events[1].bytes), (Some(1), Some(5), Some(1_000)));
    assert_eq!(events[1].digest, Some(digest("x")));
    assert_eq!(events[1].uid, "uid");
    assert!(events[0].n < events[1].n);
}

#[test]
fn what_waits_in_the_queue_is_pending() {
    let mut world = World::synced(&["all"]);
    world.pulls_hang = true;
    announce_all(&mut world, vec![Intent { priority: 90, ..intent("x") }, intent("y")]);
    assert_eq!(world.story("y"), [ImageState::Pending]);
    assert_eq!(world.state_of("y"), Some((ImageState::Pending, None)));
}

#[test]
fn a_transient_failure_backs_off_doubling_and_is_final_after_five() {
    let mut world = World::synced(&["all"]);
    world.fail_next("x", &[Reason::Network; 7]);
    world.announce("all", intent("x"));
    world.run(secs(3_600 * 6));
    let times = world.pull_times();
    assert_eq!(times.len(), 8);
    for (n, limit) in [5, 10, 20, 40].into_iter().enumerate() {
        let wait = times[n + 1].since(times[n]);
        assert!(wait >= secs(limit) / 2 && wait <= secs(limit) + ms(5), "wait {n} is {wait:?}");
    }
    for n in 4..7 {
        let wait = times[n + 1].since(times[n]);
        assert!(wait >= secs(3_600) && wait <= secs(3_961), "wait {n} is {wait:?}");
    }
    let failed: Vec<_> = world.events().into_iter().filter(|e| e.st == ImageState::Failed).collect();
    assert_eq!(failed.iter().map(|e| e.r#try.unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    assert!(failed.iter().all(|e| e.why == Some(Reason::Network) && e.next.is_some() && e.ms == Some(5)));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
}

#[rstest]
#[case(Reason::Unauthorized)]
#[case(Reason::Policy)]
#[case(Reason::ShortName)]
#[case(Reason::NoPlatform)]
#[case(Reason::Identity)]
fn what_is_refused_is_tried_once_and_then_hourly(#[case] reason: Reason) {
    let mut world = World::synced(&["all"]);
    world.fail_next("x", &[reason; 3]);
    world.announce("all", intent("x"));
    world.run(secs(3_590));
    assert_eq!(world.pulls().len(), 1);
    assert_eq!(world.state_of("x"), Some((ImageState::Refused, Some(reason))));
    world.run(secs(380));
    assert_eq!(world.pulls().len(), 2);
}

#[rstest]
#[case(Reason::NotFound)]
#[case(Reason::NoSpace)]
#[case(Reason::Throttled)]
#[case(Reason::DeadlineExceeded)]
#[case(Reason::Unknown)]
fn what_may_mend_is_failed(#[case] reason: Reason) {
    let mut world = World::synced(&["all"]);
    world.fail_next("x", &[reason]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    assert_eq!(world.state_of("x"), Some((ImageState::Failed, Some(reason))));
    world.run(secs(10));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
}

#[test]
fn the_registry_may_ask_for_more_patience_never_for_less() {
    let mut world = World::synced(&["all"]);
    let throttled = |after| PullFailure { retry_after: Some(after), ..failure(Reason::Throttled) };
    world.script.entry("x".into()).or_default().extend([Err(throttled(secs(100))), Err(throttled(ms(1)))]);
    world.announce("all", intent("x"));
    world.run(secs(300));
    let times = world.pull_times();
    assert!(times[1].since(times[0]) >= secs(100));
    assert!(times[2].since(times[1]) >= secs(5));
}

#[test]
fn one_bad_image_delays_no_other() {
    let mut world = World::synced(&["all"]);
    world.fail_next("bad", &[Reason::NotFound; 9]);
    announce_all(&mut world, vec![Intent { priority: 90, ..intent("bad") }, intent("x"), intent("y")]);
    world.run(secs(1));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    assert_eq!(world.state_of("y"), Some((ImageState::Warm, None)));
}

#[test]
fn a_changed_intent_resets_the_tries() {
    let mut world = World::synced(&["all"]);
    world.fail_next("x", &[Reason::Unauthorized]);
    world.announce("all", intent("x"));
    world.run(secs(60));
    assert_eq!(world.pulls().len(), 1);
    world.announce("all", Intent { priority: 60, ..intent("x") });
    world.run(secs(60));
    assert_eq!(world.pulls().len(), 1, "another priority changes nothing");
    world.announce("all", Intent { secrets: vec!["ns/s".into()], ..intent("x") });
    world.run(secs(1));
    assert_eq!(world.pulls().len(), 2);
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
}

#[test]
fn a_failure_of_what_was_asked_before_the_change_does_not_count() {
    let mut world = World::synced(&["all"]);
    world.pulls_hang = true;
    world.fail_next("x", &[Reason::Unauthorized]);
    world.announce("all", intent("x"));
    world.announce("all", Intent { secrets: vec!["ns/s".into()], ..intent("x") });
    let outcome = world.end_pull(&key("x")).unwrap();
    world.tell(outcome);
    assert_eq!(world.pulls().len(), 2, "again at once");
}

#[test]
fn a_withdrawn_image_is_cancelled_and_counts_until_it_ended() {
    let mut world = World::synced(&["all"]);
    world.pulls_hang = true;
    world.announce("all", intent("x"));
    world.purge("all", "x");
    world.send_delta("all");
    assert_eq!(world.count(|e| matches!(e, Effect::CancelPull(id) if *id == key("x"))), 1);
    world.announce("all", intent("y"));
    assert_eq!(world.pulls(), ["x"], "the call may still be in flight");
    world.run(ms(5));
    assert_eq!(world.pulls(), ["x", "y"]);
    assert_eq!(world.story("x"), [ImageState::Pulling]);
}

#[test]
fn an_image_wanted_again_while_its_cancelled_pull_ends_is_pulled_again() {
    let mut world = World::synced(&["all"]);
    world.pulls_hang = true;
    world.announce("all", intent("x"));
    world.purge("all", "x");
    world.send_delta("all");
    world.announce("all", intent("x"));
    assert_eq!(world.state_of("x"), Some((ImageState::Pending, None)));
    world.run(ms(5));
    assert_eq!(world.pulls(), ["x", "x"]);
    assert_eq!(world.node.summary(world.now)["images"][key("x").as_str()]["tries"], 0);
}

#[test]
fn a_wave_that_has_not_come_this_far_is_waited_for() {
    let mut world = World::synced(&["all"]);
    let slot = slot(&identity().node, &key("x"));
    let wave = |open| Wave { open, ..Wave::all() };
    world.announce("all", Intent { wave: wave(slot), ..intent("x") });
    world.run(secs(1));
    assert_eq!(world.state_of("x"), Some((ImageState::Waiting, Some(Reason::Wave))));
    world.announce("all", Intent { wave: wave(slot + 1), ..intent("x") });
    world.run(secs(1));
    assert_eq!(world.story("x"), [ImageState::Waiting, ImageState::Pulling, ImageState::Warm]);
}

#[test]
fn a_canary_does_not_wait_and_a_permit_is_waited_for() {
    let mut world = World::synced(&["all"]);
    let canary = Wave { open: 0, nodes: vec!["a".into()], permit: false };
    announce_all(
        &mut world,
        vec![
            Intent { wave: canary.clone(), ..intent("x") },
            Intent { wave: Wave { permit: true, ..canary }, ..intent("y") },
        ],
    );
    world.run(secs(1));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    assert_eq!(world.state_of("y"), Some((ImageState::Waiting, Some(Reason::Permit))));
}

#[test]
fn an_image_in_several_pools_takes_the_highest_priority_and_any_open_wave() {
    let mut world = World::synced(&["all", "auto-0123456789"]);
    let closed = Wave { open: 0, ..Wave::all() };
    world.announce("all", Intent { priority: 90, wave: closed.clone(), ..intent("x") });
    world.announce("all", Intent { wave: closed, ..intent("y") });
    world.run(secs(1));
    assert_eq!(world.pulls(), Vec::<String>::new());
    world.announce("auto-0123456789", Intent { priority: 10, ..intent("x") });
    world.run(secs(1));
    assert_eq!(world.pulls(), ["x"]);
    world.purge("all", "x");
    world.send_delta("all");
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)), "the other pool still wants it");
}

#[rstest]
#[case(Pressure::Disk, Reason::DiskPressure)]
#[case(Pressure::Pid, Reason::PidPressure)]
fn under_pressure_pulls_are_deferred_and_what_is_there_stays_warm(#[case] pressure: Pressure, #[case] why: Reason) {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("warm"));
    world.run(secs(1));
    let mut assignment = world.assign(&["all"]);
    assignment.pressure = vec![pressure];
    world.tell(Fact::AssignmentCopy { epoch: "e1".into(), assignment });
    world.announce("all", intent("x"));
    world.run(secs(1));
    assert_eq!(world.state_of("x"), Some((ImageState::Deferred, Some(why))));
    assert_eq!(world.state_of("warm"), Some((ImageState::Warm, None)));
    world.reassign(&["all"]);
    world.run(secs(29));
    assert_eq!(world.state_of("x"), Some((ImageState::Deferred, Some(why))), "it may come back");
    world.run(secs(2));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
}

#[test]
fn nothing_is_pulled_above_the_mark_nor_what_is_known_to_cross_it() {
    let mut world = World::synced(&["all"]);
    let used = |used| Some(Space { used, free: 1_000_000 - used });
    world.disk = used(700_000);
    world.run(secs(61));
    // Each takes about three times what is transferred, and the mark is at 800,000.
    announce_all(
        &mut world,
        vec![Intent { bytes: Some(34_000), ..intent("big") }, Intent { bytes: Some(33_000), ..intent("x") }],
    );
    world.run(secs(1));
    assert_eq!(world.pulls(), ["x"]);
    assert_eq!(world.state_of("big"), Some((ImageState::Deferred, Some(Reason::NoSpace))));
    for (used_now, state) in [
        (used(800_000), ImageState::Deferred),
        (used(771_000), ImageState::Deferred),
        (used(770_000), ImageState::Warm),
    ] {
        world.disk = used_now;
        world.run(secs(61));
        world.announce("all", intent("y"));
        world.run(secs(61));
        let why = (state == ImageState::Deferred).then_some(Reason::DiskPressure);
        assert_eq!(world.state_of("y"), Some((state, why)), "{used_now:?}");
    }
    assert_eq!(world.state_of("big"), Some((ImageState::Deferred, Some(Reason::NoSpace))));
    world.disk = used(100);
    world.run(secs(61));
    assert_eq!(world.state_of("big"), Some((ImageState::Warm, None)));
    world.request(RequestVerb::Inventory, "");
    assert_eq!(world.inventories().pop().unwrap().disk, Disk { used: 100, free: 999_900, mark: 800_000 });
}

#[test]
fn nothing_is_pulled_before_the_runtime_has_said_what_it_has() {
    let mut world = World::new();
    world.assign(&["all"]);
    world.put("all", intent("x"));
    world.images.insert("y".into(), held("y", "y"));
    world.put("all", intent("y"));
    world.lists_hang = true;
    world.connect();
    world.run(secs(30));
    assert_eq!(world.pulls(), Vec::<String>::new());
    assert_eq!(world.state_of("x"), Some((ImageState::Pending, None)));
    assert_eq!(world.hung_lists, 1);
    let list = world.list();
    world.tell(Fact::Images(list));
    assert_eq!(world.pulls(), ["x"]);
    assert_eq!(world.state_of("y"), Some((ImageState::Warm, None)));
}

#[test]
fn while_the_runtime_is_away_images_are_deferred_and_no_try_is_counted() {
    let mut world = World::synced(&["all"]);
    world.is_runtime_up = false;
    world.announce("all", intent("x"));
    world.run(secs(1));
    assert_eq!(world.state_of("x"), Some((ImageState::Deferred, Some(Reason::RuntimeUnavailable))));
    world.run(secs(600));
    assert_eq!(world.pulls().len(), 1, "only a list says that it is back");
    assert_eq!(world.node.summary(world.now)["images"][key("x").as_str()]["tries"], 0);
    world.is_runtime_up = true;
    world.run(secs(61));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
}

#[test]
fn a_runtime_that_lists_but_does_not_pull_is_not_stormed() {
    let mut world = World::synced(&["all"]);
    world.fail_next("x", &[Reason::RuntimeUnavailable; 500]);
    world.announce("all", intent("x"));
    world.run(secs(3_600));
    assert!(world.pulls().len() < 20, "{}", world.pulls().len());
}

#[test]
fn an_intent_whose_reference_is_none_is_refused_and_never_pulled() {
    let mut world = World::synced(&["all"]);
    world.announce("all", Intent { image: "not a reference".into(), ..intent("x") });
    world.run(secs(100));
    assert_eq!(world.pulls(), Vec::<String>::new());
    assert_eq!(world.state_of("x"), Some((ImageState::Refused, Some(Reason::Invalid))));
}

#[test]
fn the_next_step_is_due_when_the_first_backoff_ends() {
    let mut world = World::synced(&["all"]);
    world.fail_next("x", &[Reason::Network]);
    world.announce("all", intent("x"));
    world.run(ms(2));
    assert!(world.node.next_due().unwrap() <= world.now.mono + secs(5));
    assert!(world.node.next_due().unwrap() > Moment(0));
    assert!(world.log.iter().any(|(_, e)| matches!(e, Effect::Pull { image, .. } if *image == reference("x"))));
}

#[test]
fn a_list_asked_for_before_the_runtime_went_away_does_not_say_that_it_is_back() {
    let mut world = World::synced(&["all"]);
    world.lists_hang = true;
    let list = world.list();
    world.run(secs(61));
    assert_eq!(world.hung_lists, 1);
    world.fail_next("x", &[Reason::RuntimeUnavailable]);
    world.announce("all", intent("x"));
    world.run(ms(5));
    world.tell(Fact::Images(list));
    world.announce("all", intent("y"));
    assert_eq!(world.pulls(), ["x"]);
    assert_eq!(world.state_of("y"), Some((ImageState::Deferred, Some(Reason::RuntimeUnavailable))));
    world.lists_hang = false;
    world.run(secs(61));
    assert_eq!(world.state_of("y"), Some((ImageState::Warm, None)));
}

#[test]
fn pulls_that_start_together_share_the_room_below_the_mark() {
    let mut world = World::with(Settings { max_in_flight: 3, ..Settings::default() }, None, 1);
    world.disk = Some(Space { used: 0, free: 400 });
    world.assign(&["all"]);
    for name in ["x", "y", "z"] {
        world.put("all", Intent { bytes: Some(40), ..intent(name) });
    }
    world.pulls_hang = true;
    world.connect();
    world.run(secs(20));
    assert_eq!(world.pulls().len(), 2);
}
