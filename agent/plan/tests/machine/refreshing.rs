//! Images that are there and are pulled again, since their tag may have moved.

use std::time::Duration;

use node_plan::fact::Space;
use node_plan::{Effect, Fact, Settings};
use rstest::rstest;
use shared::image::Reference;
use shared::machine::{Machine, Moment};
use shared::message::assignment::Pressure;
use shared::message::{Content, Intent, Inventory};
use shared::name::ImageKey;
use shared::reason::Reason;
use shared::state::ImageState;
use shared::wave::Wave;

use crate::world::{World, digest, held, intent, key, reference, secs};

const HOUR: u64 = 3_600;

fn refreshed(name: &str, refresh_sec: u64) -> Intent {
    Intent { refresh_sec: Some(refresh_sec), ..intent(name) }
}

/// One image that this agent pulled and refreshes every hour.
fn hourly() -> World {
    let mut world = World::synced(&["all"]);
    world.announce("all", refreshed("x", HOUR));
    world.run(secs(1));
    assert_eq!(world.pulls(), ["x"]);
    world
}

/// Waits between pulls, the first of which is the one that brought the image.
fn waits(world: &World) -> Vec<Duration> {
    world.pull_times().windows(2).map(|pair| pair[1].since(pair[0])).collect()
}

fn is_refresh(effect: &Effect) -> bool {
    matches!(effect, Effect::Pull { is_refresh: true, .. })
}

/// The registry has another image under the tag from now on.
fn move_tag(world: &mut World) {
    world.script.entry("x".into()).or_default().extend(vec![Ok(held("x", "new")); 99]);
}

/// Seeds of a fleet: of neighbours the first numbers resemble each other.
fn seeds() -> impl Iterator<Item = u64> {
    (1..9_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn refreshes(world: &World) -> usize {
    world.count(is_refresh)
}

fn last_inventory(world: &mut World) -> Inventory {
    world.run(secs(700));
    world.inventories().pop().unwrap()
}

#[test]
fn what_is_there_is_pulled_again_each_period_with_a_tenth_of_jitter() {
    let mut world = hourly();
    world.run(secs(24 * HOUR));
    let waits = waits(&world);
    assert!((21..=26).contains(&waits.len()), "{}", waits.len());
    for wait in &waits {
        assert!(*wait >= secs(HOUR * 9 / 10) && *wait <= secs(HOUR * 11 / 10 + 1), "{wait:?}");
    }
    assert!(waits.iter().collect::<std::collections::BTreeSet<_>>().len() > 10, "no jitter: {waits:?}");
    assert_eq!(refreshes(&world), waits.len());
    assert_eq!(world.story("x"), [ImageState::Pulling, ImageState::Warm], "nothing is told of what has not moved");
}

#[rstest]
#[case::nobody_asks(intent("x"))]
#[case::the_intent_names_a_digest(Intent { digest: Some(digest("x")), ..refreshed("x", HOUR) })]
fn what_cannot_move_or_nobody_asks_for_is_pulled_once(#[case] wanted: Intent) {
    let mut world = World::synced(&["all"]);
    world.announce("all", wanted);
    world.run(secs(10 * HOUR));
    assert_eq!(world.pulls(), ["x"]);
    assert!(world.node.explain(key("x").as_str(), world.now)["refresh"].is_null());
}

#[test]
fn a_reference_with_a_digest_is_pulled_once() {
    let mut world = World::synced(&["all"]);
    let image = format!("registry.test/x@{}", digest("x"));
    let named = Reference::parse(&image).unwrap().canonical();
    world.announce("all", Intent { id: ImageKey::of(&named), image: named, ..refreshed("x", HOUR) });
    world.run(secs(10 * HOUR));
    assert_eq!((world.pulls().len(), refreshes(&world)), (1, 0));
}

#[test]
fn a_tag_that_moved_is_told_and_the_image_never_ceases_to_be_warm() {
    let mut world = hourly();
    assert_eq!(last_inventory(&mut world).digests[&key("x")], digest("x"));
    world.forget();
    move_tag(&mut world);
    world.run(secs(2 * HOUR));
    assert_eq!(world.story("x"), [ImageState::Warm]);
    let event = world.events().pop().unwrap();
    assert_eq!((event.digest, event.ms), (Some(digest("new")), Some(5)));
    assert_eq!(last_inventory(&mut world).digests[&key("x")], digest("new"));
    assert!(world.inventories().iter().all(|inventory| says_warm(inventory, "x")));
}

fn says_warm(inventory: &Inventory, name: &str) -> bool {
    match &inventory.content {
        Content::WarmIds(ids) => ids.contains(&key(name)),
        Content::Except(exceptions) => exceptions.iter().all(|exception| exception.id != key(name)),
    }
}

#[test]
fn a_list_in_the_middle_of_a_refresh_takes_nothing_away() {
    let mut world = hourly();
    world.forget();
    world.pulls_hang = true;
    world.run(secs(2 * HOUR));
    assert_eq!(refreshes(&world), 1);
    // The tag is written before the digest.
    world.images.insert("x".into(), node_plan::fact::RuntimeImage { repo_digests: vec![], ..held("x", "new") });
    world.run(secs(120));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    assert_eq!(world.story("x"), []);
    world.images.insert("x".into(), held("x", "new"));
    world.run(secs(120));
    assert_eq!(world.story("x"), [ImageState::Warm], "the new digest");
    assert_eq!(world.events().pop().unwrap().digest, Some(digest("new")));
}

#[test]
fn what_a_refresh_that_was_cut_off_left_without_a_digest_is_pulled_again() {
    let mut world = hourly();
    world.pulls_hang = true;
    world.run(secs(2 * HOUR));
    world.images.insert("x".into(), node_plan::fact::RuntimeImage { repo_digests: vec![], ..held("x", "new") });
    world.pulls_hang = false;
    world.restart(2);
    world.run(secs(10));
    assert_eq!(world.pulls(), ["x"]);
    assert_eq!(refreshes(&world), 0, "it is missing");
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
}

#[test]
fn an_image_loaded_by_hand_without_a_digest_is_never_replaced() {
    let mut world = World::synced(&["all"]);
    world.images.insert("x".into(), node_plan::fact::RuntimeImage { repo_digests: vec![], ..held("x", "loaded") });
    world.run(secs(61));
    world.announce("all", refreshed("x", HOUR));
    world.run(secs(5 * HOUR));
    assert_eq!((refreshes(&world), world.story("x")), (0, vec![ImageState::Warm]));
}

#[rstest]
#[case::transient(Reason::Network, 5)]
#[case::refused(Reason::Unauthorized, HOUR)]
#[case::the_runtime_is_away(Reason::RuntimeUnavailable, 5)]
fn a_refresh_that_fails_leaves_the_image_warm_and_waits_as_any_pull(#[case] reason: Reason, #[case] wait: u64) {
    let mut world = hourly();
    world.forget();
    world.fail_next("x", &[reason; 3]);
    world.run(secs(10 * HOUR));
    assert_eq!(world.story("x"), []);
    let times = world.pull_times();
    for (n, limit) in [wait, wait * if wait == HOUR { 1 } else { 2 }].into_iter().enumerate() {
        let waited = times[n + 1].since(times[n]);
        assert!(waited >= secs(limit) / 2, "{n}: {waited:?}");
    }
    assert_eq!(world.node.summary(world.now)["images"][key("x").as_str()]["tries"], 0);
    let explained = world.node.explain(key("x").as_str(), world.now);
    assert_eq!(explained["refresh"]["tries"], 0, "the last succeeded: {explained}");
}

#[test]
fn a_refresh_that_always_fails_is_tried_hourly_in_the_end_and_is_explained() {
    let mut world = World::synced(&["all"]);
    world.announce("all", refreshed("x", 60));
    world.run(secs(1));
    world.fail_next("x", &[Reason::NotFound; 99]);
    world.forget();
    world.run(secs(10 * HOUR));
    assert!((12..=15).contains(&refreshes(&world)), "{}", refreshes(&world));
    let explained = world.node.explain(key("x").as_str(), world.now);
    assert_eq!((&explained["state"], &explained["refresh"]["why"]), (&"warm".into(), &"not-found".into()));
    assert_eq!(explained["refresh"]["everySec"], 60);
    assert!(explained["refresh"]["next"].is_string() && explained["refresh"]["last"].is_string());
}

#[test]
fn what_is_missing_comes_first() {
    let mut world = World::synced(&["all"]);
    world.announce("all", refreshed("x", HOUR));
    world.run(secs(1));
    world.pulls_hang = true;
    world.announce("all", intent("slow"));
    world.run(secs(2 * HOUR));
    world.announce("all", Intent { priority: 1, ..intent("last") });
    world.forget();
    world.pulls_hang = false;
    let outcome = world.end_pull(&key("slow")).unwrap();
    world.tell(outcome);
    world.run(secs(10));
    assert_eq!(world.pulls(), ["last", "x"]);
}

#[rstest]
#[case::paused(|world: &mut World, closed: bool| world.pause(closed))]
#[case::pressure(|world: &mut World, closed: bool| {
    let mut assignment = world.assign(&["all"]);
    assignment.pressure = if closed { vec![Pressure::Disk] } else { vec![] };
    world.assignment = Some(assignment.clone());
    world.tell(Fact::AssignmentCopy { epoch: "e1".into(), assignment });
})]
#[case::a_full_disk(|world: &mut World, closed: bool| {
    world.disk = closed.then_some(Space { used: 900, free: 100 });
    world.run(secs(61));
})]
#[case::the_wave(|world: &mut World, closed: bool| {
    let wave = if closed { Wave { open: 0, ..Wave::all() } } else { Wave::all() };
    world.announce("all", Intent { wave, ..refreshed("x", HOUR) });
})]
fn while_nothing_may_be_pulled_nothing_is_refreshed_and_afterwards_it_spreads(#[case] close: fn(&mut World, bool)) {
    let mut delays = Vec::new();
    for seed in seeds() {
        let mut world = hourly();
        world.restart(seed);
        world.connect();
        world.run(secs(30));
        close(&mut world, true);
        world.forget();
        world.run(secs(5 * HOUR));
        assert_eq!(refreshes(&world), 0);
        assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
        close(&mut world, false);
        let reopened = world.now.mono;
        world.run(secs(HOUR + 60));
        delays.push(world.pull_times()[0].since(reopened));
    }
    delays.sort();
    assert!(delays[7].saturating_sub(delays[0]) > secs(HOUR / 4), "all at once: {delays:?}");
}

#[test]
fn what_others_brought_is_first_refreshed_at_any_time_within_a_period_and_does_not_become_ours() {
    let mut firsts = Vec::new();
    for (seed, moved) in seeds().zip([false, true].into_iter().cycle()) {
        let mut world = World::with(Settings::default(), None, seed);
        world.assign(&["all"]);
        world.images.insert("x".into(), held("x", "x"));
        if moved {
            move_tag(&mut world);
        }
        world.put("all", refreshed("x", HOUR));
        world.connect();
        let began = world.now.mono;
        world.run(secs(10 * HOUR));
        assert!(refreshes(&world) >= 8);
        assert_eq!(refreshes(&world), world.pulls().len());
        firsts.push(world.pull_times()[0].since(began));
        assert!(world.saved.unwrap().ledger.is_empty(), "moved: {moved}");
    }
    firsts.sort();
    assert!(firsts[7] <= secs(HOUR + 60) && firsts[7].saturating_sub(firsts[0]) > secs(HOUR / 4), "{firsts:?}");
}

#[test]
fn what_we_brought_stays_ours_when_its_tag_moves() {
    let mut world = hourly();
    move_tag(&mut world);
    world.run(secs(2 * HOUR));
    let ledger = world.saved.clone().unwrap().ledger;
    assert_eq!(ledger[&reference("x")].runtime_id, "id-new");
    // Somebody else is the first to see that it has moved once more: from then on it is theirs.
    world.images.insert("x".into(), held("x", "theirs"));
    world.run(secs(2 * HOUR));
    assert!(world.saved.unwrap().ledger.is_empty());
}

#[test]
fn of_several_pools_the_most_eager_counts_as_long_as_it_is_live() {
    let mut world = World::synced(&["all", "auto-0123456789"]);
    world.announce("all", Intent { priority: 90, ..refreshed("x", 2 * HOUR) });
    world.announce("auto-0123456789", Intent { priority: 10, ..refreshed("x", HOUR) });
    world.run(secs(1));
    let every = |world: &World| world.node.explain(key("x").as_str(), world.now)["refresh"]["everySec"].clone();
    assert_eq!(every(&world), HOUR);
    world.purge("auto-0123456789", "x");
    world.send_delta("auto-0123456789");
    assert_eq!(every(&world), 2 * HOUR);
    world.announce("all", intent("x"));
    assert!(every(&world).is_null());
    world.forget();
    world.run(secs(10 * HOUR));
    assert_eq!(world.pulls(), Vec::<String>::new());
}

#[test]
fn a_restart_neither_forgets_nor_hastens_the_next_one() {
    let mut world = hourly();
    world.run(secs(60));
    let before = world.node.explain(key("x").as_str(), world.now)["refresh"].clone();
    for seed in 2..30 {
        world.restart(seed);
        world.connect();
        world.run(secs(100));
        assert_eq!(world.pulls(), Vec::<String>::new());
        assert_eq!(world.node.explain(key("x").as_str(), world.now)["refresh"]["next"], before["next"]);
    }
    world.run(secs(HOUR));
    assert_eq!(world.pulls(), ["x"]);
}

#[test]
fn a_file_of_an_older_agent_dates_the_last_pull_by_the_ledger() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(60));
    let mut saved = serde_json::to_value(world.saved.clone().unwrap()).unwrap();
    assert!(saved.get("refreshed").is_none(), "{saved}");
    saved["pools"]["all"]["intents"][key("x").as_str()]["intent"]["refreshSec"] = HOUR.into();
    world.saved = Some(serde_json::from_value(saved).unwrap());
    world.restart(2);
    world.run(secs(HOUR * 8 / 10));
    assert_eq!(world.pulls(), Vec::<String>::new());
    world.run(secs(HOUR * 4 / 10));
    assert_eq!(world.pulls(), ["x"]);
}

#[rstest]
#[case::forward(true)]
#[case::back(false)]
fn a_clock_that_jumps_makes_no_storm(#[case] is_forward: bool) {
    let mut firsts = Vec::new();
    for seed in seeds() {
        let mut world = hourly();
        world.run(secs(60));
        let jump = |world: &mut World| {
            let by = secs(1_000_000);
            world.now.wall = if is_forward { world.now.wall + by } else { world.now.wall - by };
        };
        jump(&mut world);
        world.forget();
        world.run(secs(HOUR / 2));
        assert_eq!(world.pulls(), Vec::<String>::new(), "a running agent does not look at that clock");
        jump(&mut world);
        world.restart(seed);
        let began = world.now.mono;
        world.run(secs(HOUR * 12 / 10));
        firsts.push(world.pull_times()[0].since(began));
    }
    firsts.sort();
    assert!(firsts[7] <= secs(HOUR * 11 / 10) && firsts[0] >= secs(1), "{firsts:?}");
    assert!(!is_forward || firsts[7].saturating_sub(firsts[0]) > secs(HOUR / 4), "{firsts:?}");
}

#[test]
fn a_new_period_counts_from_the_last_pull() {
    let mut world = hourly();
    world.announce("all", refreshed("x", 10 * HOUR));
    world.forget();
    world.run(secs(8 * HOUR));
    assert_eq!(world.pulls(), Vec::<String>::new());
    world.announce("all", refreshed("x", 60));
    let changed = world.now.mono;
    world.run(secs(70));
    assert!(world.pull_times()[0] >= changed && refreshes(&world) >= 1);
}

#[test]
fn another_period_does_not_hasten_what_failed() {
    let mut world = hourly();
    world.fail_next("x", &[Reason::Unauthorized]);
    world.run(secs(HOUR * 11 / 10 + 10));
    let failed = world.pull_times()[1];
    world.announce("all", refreshed("x", 60));
    world.run(secs(2 * HOUR));
    assert!(world.pull_times()[2].since(failed) >= secs(HOUR));
}

#[rstest]
#[case(0)]
#[case(1)]
#[case(u64::MAX)]
fn a_senseless_period_is_no_storm(#[case] refresh_sec: u64) {
    let mut world = World::synced(&["all"]);
    world.announce("all", refreshed("x", refresh_sec));
    world.run(secs(600));
    // No more often than a pull that fails for the first time.
    assert!(refreshes(&world) <= 600 * 10 / 9 / 5, "{}", refreshes(&world));
    assert!(world.node.next_due().unwrap() > Moment(0));
}

#[test]
fn a_refresh_of_what_was_evicted_meanwhile_is_a_pull_like_any_other() {
    let mut world = hourly();
    world.forget();
    world.pulls_hang = true;
    world.run(secs(2 * HOUR));
    world.images.clear();
    world.run(secs(120));
    assert_eq!(world.story("x"), [ImageState::Evicted, ImageState::Pulling]);
    world.fail_next("x", &[Reason::Network]);
    let outcome = world.end_pull(&key("x")).unwrap();
    world.tell(outcome);
    assert_eq!(world.state_of("x"), Some((ImageState::Failed, Some(Reason::Network))));
}
