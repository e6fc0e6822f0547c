//! What is removed, when, and above all what is not.

use std::collections::BTreeSet;

use node_plan::fact::{Removal, RuntimeImage, Space};
use node_plan::{Effect, Fact, GcMode, GcSettings, Settings};
use rstest::rstest;
use shared::image::Reference;
use shared::message::Intent;
use shared::name::ImageKey;
use shared::reason::Reason;

use crate::world::{World, brisk, digest_text, held, intent, key, ms, reference, secs};

const TOTAL: u64 = 100_000;

fn used(used: u64) -> Space {
    Space { used, free: TOTAL - used }
}

fn settings(mode: GcMode) -> Settings {
    let gc = GcSettings { mode, high: 75, low: 70, min_age: secs(60) };
    Settings { gc, max_in_flight: 5, ..brisk() }
}

/// Connected and proven, with these images pulled by the machine itself.
fn world_with(mode: GcMode, names: &[&str]) -> World {
    let mut world = World::with(settings(mode), None, 1);
    world.disk = Some(used(10_000));
    world.assign(&["all"]);
    for name in names {
        world.put("all", intent(name));
    }
    world.connect();
    run(&mut world, 5);
    assert_eq!(world.pulls().len(), names.len());
    world.forget();
    world
}

/// Lets seconds pass, with a beat in each.
fn run(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        world.send_beat("all");
        world.run(secs(1));
    }
}

fn withdraw(world: &mut World, names: &[&str]) {
    for name in names {
        world.purge("all", name);
    }
    world.send_delta("all");
}

fn removals(world: &World) -> Vec<String> {
    world
        .log
        .iter()
        .filter_map(|(_, effect)| match effect {
            Effect::RemoveImage { image, is_dry_run: false, .. } => Some(name_of(image)),
            _ => None,
        })
        .collect()
}

fn plans(world: &World) -> Vec<String> {
    world
        .log
        .iter()
        .filter_map(|(_, effect)| match effect {
            Effect::RemoveImage { image, is_dry_run: true, .. } => Some(name_of(image)),
            _ => None,
        })
        .collect()
}

fn name_of(image: &str) -> String {
    image.trim_start_matches("registry.test/").split([':', '@']).next().unwrap().to_owned()
}

fn gc(world: &World) -> serde_json::Value {
    world.node.summary(world.now)["gc"].clone()
}

#[test]
fn above_high_what_nobody_wants_goes_the_longest_unwanted_first_until_low() {
    let mut world = world_with(GcMode::On, &["a", "b", "c", "d"]);
    withdraw(&mut world, &["c"]);
    run(&mut world, 5);
    withdraw(&mut world, &["a", "b"]);
    run(&mut world, 70);
    assert_eq!(removals(&world), Vec::<String>::new(), "below high nothing goes");
    world.disk = Some(used(75_000));
    run(&mut world, 10);
    assert_eq!(removals(&world), Vec::<String>::new(), "at high nothing goes");
    for image in world.images.values_mut() {
        image.bytes = 2_501;
    }
    world.disk = Some(used(75_001));
    run(&mut world, 30);
    assert_eq!(removals(&world), ["c", "a"], "and not b, for no more than 70 percent are used");
    assert_eq!(world.disk, Some(used(69_999)));
    assert_eq!(world.state_of("d").map(|(st, _)| st), Some(shared::state::ImageState::Warm));
    assert!(!world.saved.clone().unwrap().ledger.contains_key(&reference("c")));
}

#[test]
fn nothing_young_goes_and_being_wanted_again_starts_anew() {
    let mut world = world_with(GcMode::On, &["a"]);
    world.disk = Some(used(90_000));
    withdraw(&mut world, &["a"]);
    run(&mut world, 50);
    world.announce("all", intent("a"));
    withdraw(&mut world, &["a"]);
    run(&mut world, 50);
    assert_eq!(removals(&world), Vec::<String>::new());
    run(&mut world, 15);
    assert_eq!(removals(&world), ["a"]);
}

#[test]
fn a_dry_run_says_once_what_would_go_and_no_more_than_enough() {
    let mut world = world_with(GcMode::DryRun, &["a", "b", "c"]);
    withdraw(&mut world, &["a", "b", "c"]);
    run(&mut world, 61);
    // Each is taken to free three times its 1,000.
    world.disk = Some(used(75_500));
    run(&mut world, 120);
    assert_eq!(plans(&world), ["a", "b"]);
    assert_eq!(removals(&world), Vec::<String>::new());
    assert_eq!(world.images.len(), 3);
    assert_eq!(gc(&world)["planned"], serde_json::json!([reference("a"), reference("b")]));
    assert_eq!(gc(&world)["last"]["outcome"], "planned");
}

#[test]
fn switched_off_it_asks_nothing() {
    let mut world = world_with(GcMode::Off, &["a"]);
    withdraw(&mut world, &["a"]);
    world.disk = Some(used(99_000));
    run(&mut world, 120);
    assert_eq!(world.count(|e| matches!(e, Effect::RemoveImage { .. } | Effect::ListContainers)), 0);
}

/// An old, unwanted image of ours on a full disk, and one thing that speaks for it.
#[rstest]
#[case::used_by_its_id(|world: &mut World| { world.used.insert("id-a".into()); })]
#[case::used_by_its_tag(|world: &mut World| { world.used.insert(reference("a")); })]
#[case::used_by_its_digest(|world: &mut World| {
    world.used.insert(format!("registry.test/a@{}", digest_text("a")));
})]
#[case::pinned(|world: &mut World| { world.images.get_mut("a").unwrap().pinned = true; })]
#[case::another_tag(|world: &mut World| {
    world.images.get_mut("a").unwrap().repo_tags.push("registry.test/other:1".into());
})]
#[case::another_digest(|world: &mut World| {
    let digest = format!("registry.test/other@{}", digest_text("a"));
    world.images.get_mut("a").unwrap().repo_digests.push(digest);
})]
#[case::another_image_by_now(|world: &mut World| { world.images.insert("a".into(), held("a", "newer")); })]
#[case::paused(|world: &mut World| {
    let mut assignment = world.assign(&["all"]);
    assignment.limits.insert("pullsInFlight".into(), 0);
    world.assignment = Some(assignment.clone());
    world.tell(Fact::AssignmentCopy { epoch: "e1".into(), assignment });
})]
#[case::an_intent_that_cannot_be_decoded(|world: &mut World| {
    world.garble("all", "strange");
    world.send_beat("all");
    world.run(ms(600));
})]
#[case::a_disk_that_cannot_be_measured(|world: &mut World| { world.disk = None; })]
#[case::a_runtime_that_is_away(|world: &mut World| { world.is_runtime_up = false; })]
fn what_speaks_for_an_image_keeps_it(#[case] happens: fn(&mut World)) {
    let mut world = world_with(GcMode::On, &["a"]);
    withdraw(&mut world, &["a"]);
    run(&mut world, 61);
    world.disk = Some(used(90_000));
    happens(&mut world);
    run(&mut world, 120);
    assert_eq!(removals(&world), Vec::<String>::new());
}

#[test]
fn what_somebody_else_pulled_is_never_touched() {
    let mut world = world_with(GcMode::On, &["a"]);
    world.images.insert("theirs".into(), held("theirs", "theirs"));
    // Theirs by digest before we pulled the tag: afterwards the names look like those of a pull by tag.
    world.images.insert("mixed".into(), RuntimeImage { repo_tags: vec![], ..held("mixed", "mixed") });
    run(&mut world, 3);
    world.announce("all", intent("theirs"));
    world.announce("all", intent("mixed"));
    run(&mut world, 3);
    assert_eq!(world.pulls(), ["mixed"]);
    withdraw(&mut world, &["theirs", "mixed", "a"]);
    world.disk = Some(used(99_000));
    run(&mut world, 120);
    assert_eq!(removals(&world), ["a"]);
}

#[test]
fn what_somebody_else_pulled_since_the_last_list_is_theirs() {
    let mut world = world_with(GcMode::On, &["a"]);
    world.lists_hang = true;
    run(&mut world, 3);
    world.images.insert("theirs".into(), held("theirs", "theirs"));
    // A moved tag: what we pull is not what they had.
    world.images.insert("moved".into(), held("moved", "old"));
    world.announce("all", intent("theirs"));
    world.announce("all", intent("moved"));
    world.run(ms(10));
    assert_eq!(world.pulls(), ["theirs", "moved"]);
    world.lists_hang = false;
    let list = world.list();
    world.tell(Fact::Images(list));
    withdraw(&mut world, &["theirs", "moved"]);
    world.disk = Some(used(99_000));
    run(&mut world, 120);
    assert_eq!(removals(&world), ["moved"]);
}

#[test]
fn two_names_of_ours_go_when_nobody_wants_either() {
    let mut world = world_with(GcMode::On, &["a"]);
    let by_digest = format!("registry.test/a@{}", digest_text("a"));
    let other = Intent { id: ImageKey::of(&by_digest), image: by_digest.clone(), ..intent("a") };
    world.announce("all", other);
    run(&mut world, 3);
    withdraw(&mut world, &["a"]);
    world.disk = Some(used(99_000));
    run(&mut world, 120);
    assert_eq!(removals(&world), Vec::<String>::new(), "the digest is wanted, and would go with the tag");
    let wanted = Reference::parse(&by_digest).unwrap().key();
    world.purge_key("all", &wanted);
    world.send_delta("all");
    run(&mut world, 120);
    assert_eq!(removals(&world), ["a"]);
}

#[test]
fn nothing_goes_while_partitioned_and_all_goes_on_after() {
    let mut world = world_with(GcMode::On, &["a", "b"]);
    withdraw(&mut world, &["a"]);
    run(&mut world, 61);
    world.disconnect();
    world.disk = Some(used(90_000));
    world.run(secs(300));
    assert_eq!(removals(&world), Vec::<String>::new());
    assert_eq!(gc(&world)["heldBackBy"], "what is wanted is not proven");
    world.connect();
    world.run(secs(300));
    assert_eq!(removals(&world), Vec::<String>::new(), "what was only read proves nothing");
    run(&mut world, 5);
    assert_eq!(removals(&world), ["a"]);
}

#[test]
fn neither_a_new_epoch_nor_a_restart_lets_anything_go_before_a_beat() {
    let mut world = world_with(GcMode::On, &["a", "b"]);
    withdraw(&mut world, &["a"]);
    run(&mut world, 30);
    world.disk = Some(used(90_000));
    world.wipe("e2");
    world.assign(&["all"]);
    world.connect();
    world.run(secs(300));
    assert_eq!(removals(&world), Vec::<String>::new());
    world.restart_with(settings(GcMode::On), 2);
    world.connect();
    world.run(secs(300));
    assert_eq!(removals(&world), Vec::<String>::new());
    // Now the empty set is said by a beat: b's grace runs first, and then its age.
    world.announce("all", intent("b"));
    run(&mut world, 61);
    assert_eq!(removals(&world), ["a"], "b is wanted again");
}

#[test]
fn how_long_nobody_wanted_it_survives_a_restart_and_the_time_between_does_not_count() {
    let mut world = world_with(GcMode::On, &["a"]);
    withdraw(&mut world, &["a"]);
    run(&mut world, 40);
    // Something else is written, and the age along with it.
    world.announce("all", intent("b"));
    run(&mut world, 2);
    world.disk = Some(used(90_000));
    world.set_clock(world.now.mono + secs(10_000));
    world.restart_with(settings(GcMode::On), 2);
    world.connect();
    run(&mut world, 15);
    assert_eq!(removals(&world), Vec::<String>::new());
    run(&mut world, 10);
    assert_eq!(removals(&world), ["a"]);
}

#[test]
fn another_node_object_drops_the_pools_and_not_the_ledger() {
    let mut world = world_with(GcMode::On, &["a"]);
    withdraw(&mut world, &["a"]);
    run(&mut world, 61);
    let mut assignment = world.assign(&["all"]);
    assignment.uid = "another".into();
    world.assignment = Some(assignment.clone());
    world.tell(Fact::AssignmentCopy { epoch: "e1".into(), assignment });
    world.disk = Some(used(90_000));
    world.run(secs(5));
    assert_eq!(removals(&world), Vec::<String>::new(), "the new Node's pools were read, and no beat was heard");
    run(&mut world, 5);
    assert_eq!(removals(&world), ["a"]);
}

#[rstest]
#[case(Ok(Removal::Used))]
#[case(Ok(Removal::Changed))]
#[case(Err(Reason::RuntimeUnavailable))]
fn what_a_last_look_or_the_runtime_refuses_waits_and_the_next_goes(#[case] outcome: Result<Removal, Reason>) {
    let mut world = world_with(GcMode::On, &["a", "b"]);
    withdraw(&mut world, &["a", "b"]);
    run(&mut world, 61);
    world.removals.push_back(outcome);
    world.disk = Some(used(90_000));
    run(&mut world, 2);
    assert_eq!(removals(&world), ["a", "b"]);
    run(&mut world, 10);
    assert_eq!(removals(&world), ["a", "b", "a"]);
}

#[test]
fn no_removal_runs_beside_a_pull() {
    let mut world = world_with(GcMode::On, &["a"]);
    withdraw(&mut world, &["a"]);
    run(&mut world, 61);
    world.pulls_hang = true;
    world.announce("all", intent("b"));
    world.disk = Some(used(76_000));
    run(&mut world, 30);
    assert_eq!(removals(&world), Vec::<String>::new());
    assert_eq!(gc(&world)["heldBackBy"], "a pull is in flight");
    world.pulls_hang = false;
    let fact = world.end_pull(&key("b")).unwrap();
    world.tell(fact);
    run(&mut world, 10);
    assert_eq!(removals(&world), ["a"]);
}

#[test]
fn while_containers_cannot_be_listed_nothing_goes_and_nobody_is_stormed() {
    let mut world = world_with(GcMode::On, &["a"]);
    withdraw(&mut world, &["a"]);
    run(&mut world, 61);
    world.disk = Some(used(90_000));
    world.uses_fail = true;
    run(&mut world, 30);
    assert_eq!(removals(&world), Vec::<String>::new());
    let asked = world.count(|e| matches!(e, Effect::ListContainers));
    assert!((2..=11).contains(&asked), "{asked}");
    world.uses_fail = false;
    run(&mut world, 10);
    assert_eq!(removals(&world), ["a"]);
}

#[test]
fn names_of_containers_are_matched_as_ids_with_or_without_prefix_and_as_references() {
    let image = RuntimeImage {
        runtime_id: "sha256:abc".into(),
        repo_tags: vec!["docker.io/library/nginx:latest".into()],
        ..held("a", "a")
    };
    let uses = |name: &str| node_plan::gc::is_used(&image, &BTreeSet::from([name.to_owned()]));
    let digest = image.repo_digests[0].clone();
    for name in ["sha256:abc", "abc", "nginx", "docker.io/library/nginx", &digest] {
        assert!(uses(name), "{name}");
    }
    for name in ["nginx:1", "sha256:abd", "example.test/nginx", ""] {
        assert!(!uses(name), "{name}");
    }
}
