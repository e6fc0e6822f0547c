//! Which images count as warm, which as gone.

use node_plan::Fact;
use node_plan::fact::RuntimeImage;
use shared::message::{Content, Intent};
use shared::name::ImageKey;
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::RequestVerb;

use crate::world::{World, digest, digest_text, held, intent, key, ms, secs};

#[test]
fn what_is_there_already_is_warm_without_a_pull() {
    let mut world = World::synced(&["all"]);
    world.images.insert("x".into(), held("x", "x"));
    world.run(secs(61));
    world.announce("all", intent("x"));
    assert_eq!(world.story("x"), [ImageState::Warm]);
    assert_eq!(world.pulls(), Vec::<String>::new());
    assert_eq!(world.events()[0].digest, Some(digest("x")));
}

#[test]
fn an_image_by_digest_is_found_among_the_digests_of_its_repository() {
    let mut world = World::synced(&["all"]);
    let image = format!("registry.test/x@{}", digest_text("d"));
    let by_digest = Intent { id: ImageKey::of(&image), image: image.clone(), digest: Some(digest("d")), ..intent("x") };
    world.images.insert("x".into(), RuntimeImage { repo_tags: vec![], ..held("x", "d") });
    world.images.insert("y".into(), held("y", "y"));
    world.run(secs(61));
    world.announce("all", by_digest.clone());
    assert_eq!(world.events().last().unwrap().st, ImageState::Warm);
    let other = format!("registry.test/other@{}", digest_text("d"));
    world.announce("all", Intent { id: ImageKey::of(&other), image: other, ..by_digest });
    assert_eq!(world.pulls(), ["other"], "the same digest in another repository is another reference");
}

#[test]
fn of_several_digests_the_wanted_one_is_reported_else_the_known_one_else_the_first() {
    let several = |of: &[&str]| {
        let repo_digests = of.iter().map(|d| format!("registry.test/x@{}", digest_text(d))).collect();
        RuntimeImage { repo_digests, ..held("x", "x") }
    };
    let mut world = World::synced(&["all"]);
    world.images.insert("x".into(), several(&["p", "q", "r"]));
    world.run(secs(61));
    world.announce("all", intent("x"));
    let mut sorted = [digest("p"), digest("q"), digest("r")];
    sorted.sort();
    assert_eq!(world.events().last().unwrap().digest, Some(sorted[0].clone()));
    let gone = ["p", "q", "r"].into_iter().find(|d| digest(d) == sorted[0]).unwrap();
    let rest: Vec<&str> = ["p", "q", "r"].into_iter().filter(|d| *d != gone).collect();
    world.images.insert("x".into(), several(&rest));
    world.run(secs(61));
    assert_eq!(world.events().last().unwrap().digest, Some(sorted[1].clone()), "a change of digest is said");
    world.images.insert("x".into(), several(&["p", "q", "r"]));
    world.forget();
    world.run(secs(61));
    assert_eq!(world.events(), [], "the known one is still there");
    world.announce("all", Intent { digest: Some(sorted[2].clone()), ..intent("x") });
    assert_eq!(world.events().last().unwrap().digest, Some(sorted[2].clone()));
}

#[test]
fn another_digest_than_the_wanted_one_is_failed_and_pulled_with_backoff() {
    let mut world = World::synced(&["all"]);
    world.images.insert("x".into(), held("x", "old"));
    world.script.entry("x".into()).or_default().extend([Ok(held("x", "old")), Ok(held("x", "new"))]);
    world.run(secs(61));
    world.announce("all", Intent { digest: Some(digest("new")), ..intent("x") });
    world.run(secs(1));
    assert_eq!(world.pulls().len(), 1);
    assert_eq!(world.state_of("x"), Some((ImageState::Failed, Some(Reason::Corrupt))));
    world.request(RequestVerb::Inventory, "");
    let Content::Except(except) = world.inventories().pop().unwrap().content else { panic!("a list of exceptions") };
    assert_eq!(except[0].digest, Some(digest("old")));
    world.run(secs(10));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    assert_eq!(world.pulls().len(), 2);
}

#[test]
fn an_evicted_image_is_told_and_pulled_again_at_once_and_then_ever_later() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(61));
    world.forget();
    let mut waits = vec![];
    for _ in 0..4 {
        world.images.clear();
        let before = world.pulls().len();
        while world.count(|e| matches!(e, node_plan::Effect::PublishEvent(e) if e.st == ImageState::Evicted))
            <= waits.len()
        {
            world.run(ms(500));
        }
        let evicted = world.events().iter().rev().find(|e| e.st == ImageState::Evicted).unwrap().ts;
        while world.pulls().len() == before {
            world.run(ms(100));
        }
        world.run(ms(500));
        let pulling = world.events().iter().rev().find(|e| e.st == ImageState::Pulling).unwrap().ts;
        waits.push(pulling.duration_since(evicted).as_millis());
    }
    assert_eq!(waits[0], 0);
    assert!((2_500..=5_100).contains(&waits[1]), "{waits:?}");
    assert!((5_000..=10_100).contains(&waits[2]), "{waits:?}");
    assert!((10_000..=20_100).contains(&waits[3]), "{waits:?}");
    assert_eq!(world.story("x")[..3], [ImageState::Evicted, ImageState::Pulling, ImageState::Warm]);
}

#[test]
fn evictions_far_apart_do_not_add_up() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    for _ in 0..3 {
        world.run(secs(3_700));
        world.images.clear();
        world.forget();
        world.run(secs(61));
        assert_eq!(world.story("x"), [ImageState::Evicted, ImageState::Pulling, ImageState::Warm]);
    }
}

#[test]
fn a_list_asked_for_before_a_pull_ended_evicts_nothing() {
    let mut world = World::synced(&["all"]);
    world.lists_hang = true;
    let stale = world.list();
    world.run(secs(61));
    assert_eq!(world.hung_lists, 1);
    world.announce("all", intent("x"));
    world.run(ms(10));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    world.tell(Fact::Images(stale));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    // The next one was asked for later and counts.
    world.lists_hang = false;
    world.images.clear();
    world.forget();
    world.run(secs(61));
    assert_eq!(world.story("x"), [ImageState::Evicted, ImageState::Pulling, ImageState::Warm]);
}

#[test]
fn an_image_withdrawn_and_wanted_again_is_not_pulled_twice_between_two_lists() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(ms(10));
    world.purge("all", "x");
    world.send_delta("all");
    world.announce("all", intent("x"));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    assert_eq!(world.pulls(), ["x"]);
}

#[test]
fn what_somebody_else_pulled_while_it_failed_is_warm() {
    let mut world = World::synced(&["all"]);
    world.fail_next("x", &[Reason::Unauthorized]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    world.images.insert("x".into(), held("x", "x"));
    world.run(secs(61));
    assert_eq!(world.story("x"), [ImageState::Pulling, ImageState::Refused, ImageState::Warm]);
    assert_eq!(world.pulls(), ["x"]);
    assert!(world.events().last().unwrap().ms.is_none());
}

#[test]
fn the_runtime_is_looked_at_between_every_thirty_and_sixty_seconds() {
    let mut world = World::synced(&["all"]);
    world.forget();
    world.run(secs(3_600));
    let looks = world.count(|e| matches!(e, node_plan::Effect::ListImages));
    assert!((60..=120).contains(&looks), "{looks}");
}

#[test]
fn a_runtime_that_went_away_makes_nothing_evicted() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    world.is_runtime_up = false;
    world.run(secs(600));
    assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    assert_eq!(world.story("x"), [ImageState::Pulling, ImageState::Warm]);
    assert_eq!(world.node.summary(world.now)["runtime"]["away"], true);
    assert_eq!(world.state_of(key("x").as_str()), None);
}

#[test]
fn an_image_without_a_digest_is_pulled_again_if_a_pull_of_ours_was_cut_off_and_is_left_alone_if_not() {
    for is_ours in [true, false] {
        let mut world = World::synced(&["all"]);
        if is_ours {
            world.pulls_hang = true;
            world.announce("all", intent("x"));
            world.run(secs(6));
        }
        world.images.insert("x".into(), RuntimeImage { repo_digests: vec![], ..held("x", "x") });
        world.pulls_hang = false;
        world.restart(7);
        world.connect();
        world.run(secs(61));
        if is_ours {
            assert_eq!(world.pulls(), ["x"]);
            assert_eq!(world.events().last().unwrap().digest, Some(digest("x")));
        } else {
            world.announce("all", intent("x"));
            world.run(secs(1));
            assert!(world.pulls().is_empty(), "somebody has loaded it by hand");
        }
        assert_eq!(world.state_of("x"), Some((ImageState::Warm, None)));
    }
}

/// A pull of ours was cut off when nobody wanted the image any more; then somebody does again.
#[test]
fn what_a_withdrawn_pull_left_is_not_taken_for_loaded_by_hand() {
    for restarts in [false, true] {
        let mut world = World::synced(&["all"]);
        world.pulls_hang = true;
        world.announce("all", intent("x"));
        world.run(secs(1));
        world.purge("all", "x");
        world.send_delta("all");
        world.run(secs(1));
        world.images.insert("x".into(), RuntimeImage { repo_digests: vec![], ..held("x", "x") });
        world.pulls_hang = false;
        world.run(secs(120));
        if restarts {
            world.restart(7);
            world.connect();
            world.run(secs(120));
        }
        let before = world.pulls().len();
        world.announce("all", intent("x"));
        world.run(secs(1));
        assert_eq!(world.pulls().len(), if restarts { 1 } else { before + 1 }, "restarts: {restarts}");
        assert_eq!(world.events().last().unwrap().digest, Some(digest("x")));

        // Known as a whole: what has no digest after that, somebody has loaded.
        world.purge("all", "x");
        world.send_delta("all");
        world.run(secs(120));
        world.images.insert("x".into(), RuntimeImage { repo_digests: vec![], ..held("x", "y") });
        world.run(secs(120));
        let before = world.pulls().len();
        world.announce("all", intent("x"));
        world.run(secs(1));
        assert_eq!(world.pulls().len(), before, "restarts: {restarts}");
    }
}
