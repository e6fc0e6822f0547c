//! What an agent does while everything is paused.

use node_plan::Settings;
use rstest::rstest;
use shared::message::assignment::PULLS_IN_FLIGHT;
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::RequestVerb;

use crate::world::{World, intent, key, reference, secs};

#[test]
fn nothing_starts_what_is_in_flight_ends_and_resuming_makes_up_for_it() {
    let mut world = World::synced(&["all"]);
    world.pulls_hang = true;
    world.announce("all", intent("first"));
    world.run(secs(1));
    world.pause(true);
    world.announce("all", intent("second"));
    world.run(secs(1));
    assert_eq!(world.state_of("first"), Some((ImageState::Pulling, None)));
    assert_eq!(world.state_of("second"), Some((ImageState::Waiting, Some(Reason::Paused))));
    let outcome = world.end_pull(&key("first")).unwrap();
    world.tell(outcome);
    world.pulls_hang = false;
    world.run(secs(600));
    assert_eq!(world.state_of("first"), Some((ImageState::Warm, None)), "it is verified and told");
    assert_eq!(world.pulls(), ["first"]);
    let answer = world.request(RequestVerb::Explain, &format!(r#"{{"image":"{}"}}"#, reference("second")));
    assert_eq!((&answer["paused"], &answer["why"]), (&true.into(), &"paused".into()), "{answer}");
    world.pause(false);
    world.run(secs(1));
    assert_eq!(world.pulls(), ["first", "second"]);
}

#[test]
fn it_is_remembered_over_a_restart_without_nats() {
    let mut world = World::synced(&["all"]);
    world.pause(true);
    world.announce("all", intent("x"));
    world.run(secs(10));
    world.disconnect();
    world.restart(2);
    world.run(secs(600));
    assert_eq!(world.state_of("x"), Some((ImageState::Waiting, Some(Reason::Paused))));
    assert!(world.pulls().is_empty());
}

#[rstest]
#[case::lower(4, 2, 2)]
#[case::never_above_the_own(1, 5, 1)]
fn the_lower_limit_counts(#[case] own: usize, #[case] assigned: u64, #[case] in_flight: usize) {
    let mut world = World::with(Settings { max_in_flight: own, ..Settings::default() }, None, 1);
    let mut assignment = world.assign(&["all"]);
    assignment.limits.insert(PULLS_IN_FLIGHT.to_owned(), assigned);
    world.assignment = Some(assignment);
    world.pulls_hang = true;
    for n in 0..10 {
        world.put("all", intent(&format!("x{n}")));
    }
    world.connect();
    world.run(secs(20));
    assert_eq!(world.pulls().len(), in_flight);
    assert!(world.state_of("x9").is_some_and(|(_, why)| why != Some(Reason::Paused)));
}
