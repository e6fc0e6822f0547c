//! Inventories, heartbeats, events, answers.

use node_plan::{Effect, Fact, Settings};
use serde_json::json;
use shared::message::{Content, Intent, Message as _};
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::RequestVerb;
use shared::wave::Wave;

use crate::world::{World, brisk, digest, held, intent, key, ms, pool, reference, secs};

#[test]
fn the_first_inventory_follows_the_sync_though_nothing_is_wanted() {
    let mut world = World::new();
    world.assign(&[]);
    world.connect();
    world.run(ms(4_900));
    assert_eq!(world.inventories(), []);
    world.run(ms(200));
    let inventory = world.inventories().pop().unwrap();
    assert_eq!(inventory.content, Content::Except(vec![]));
    assert!(inventory.complete);
    assert_eq!((inventory.epoch.as_str(), inventory.uid.as_str()), ("e1", "uid"));
    assert_eq!(inventory.runtime.name, "containerd");
    world.run(secs(400));
    assert_eq!(world.inventories().len(), 1);
    world.run(secs(400));
    assert_eq!(world.inventories().len(), 2, "every ten minutes in any case");
}

#[test]
fn an_inventory_names_the_exact_sets_it_is_about() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(20));
    let inventory = world.inventories().pop().unwrap();
    assert!(inventory.pools[&pool("all")].is_same_set(&world.beat_of("all").summary()));
    assert!(inventory.complete);
    assert_eq!(inventory.content, Content::Except(vec![]));
    assert_eq!(inventory.digests[&key("x")], digest("x"));
}

#[test]
fn a_change_is_put_after_five_seconds_and_puts_are_ten_apart() {
    let mut world = World::synced(&["all"]);
    world.run(secs(60));
    world.forget();
    world.fail_next("x", &[Reason::NotFound; 9]);
    for n in 0..30 {
        world.announce("all", intent(&format!("x{n}")));
        world.run(secs(1));
    }
    let times: Vec<_> =
        world.log.iter().filter(|(_, e)| matches!(e, Effect::PutInventory(_))).map(|(at, _)| *at).collect();
    assert!((3..=4).contains(&times.len()), "{times:?}");
    assert!(times.windows(2).all(|w| w[1].since(w[0]) >= secs(10)), "{times:?}");
}

#[test]
fn fifty_wave_steps_over_a_warm_image_cost_no_put_and_heartbeats_say_the_moved_sets() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(60));
    world.forget();
    for step in 0..50_u32 {
        let open = 1 + step * 65_535 / 49;
        world.announce("all", Intent { wave: Wave { open, ..Wave::all() }, ..intent("x") });
        world.run(secs(1));
    }
    world.send_beat("all");
    world.run(secs(60));
    assert_eq!(world.inventories(), []);
    assert_eq!(world.pulls(), Vec::<String>::new());
    assert_eq!(world.events(), []);
    let heartbeats = world.heartbeats();
    assert!((3..=5).contains(&heartbeats.len()), "{}", heartbeats.len());
    let last = heartbeats.last().unwrap();
    assert!(last.pools[&pool("all")].is_same_set(&world.beat_of("all").summary()));
    assert!(heartbeats.iter().all(|h| h.inv_digest == last.inv_digest));
}

#[test]
fn a_heartbeat_repeats_the_digest_of_the_stored_inventory_and_only_the_sets_that_moved() {
    let mut world = World::synced(&["all", "auto-0123456789"]);
    world.announce("all", intent("x"));
    world.run(secs(120));
    let inventory = world.inventories().pop().unwrap();
    let heartbeat = world.heartbeats().pop().unwrap();
    assert_eq!(heartbeat.inv_digest, inventory.evidence_digest());
    assert!(heartbeat.pools.is_empty());
    world.announce("auto-0123456789", intent("x"));
    world.run(secs(60));
    let heartbeat = world.heartbeats().pop().unwrap();
    assert_eq!(heartbeat.pools.keys().collect::<Vec<_>>(), [&pool("auto-0123456789")]);
    assert_eq!(heartbeat.inv_digest, inventory.evidence_digest());
}

#[test]
fn heartbeats_come_at_once_after_the_first_connection_and_then_every_thirty_seconds_or_so() {
    let mut world = World::new();
    world.connect();
    assert_eq!(world.heartbeats().len(), 1);
    world.run(secs(11));
    world.forget();
    world.run(secs(3_600));
    let count = world.heartbeats().len();
    assert!((100..=150).contains(&count), "{count}");
}

#[test]
fn few_exceptions_are_named_and_of_long_lists_the_shorter_is_sent() {
    let mut world = World::synced(&["all"]);
    world.images.insert("warm".into(), held("warm", "warm"));
    world.run(secs(61));
    let closed = |n: u32| Intent { wave: Wave { open: 0, ..Wave::all() }, ..intent(&format!("c{n}")) };
    world.put("all", intent("warm"));
    (0..64).for_each(|n| {
        world.put("all", closed(n));
    });
    world.send_delta("all");
    world.request(RequestVerb::Inventory, "");
    let Content::Except(except) = world.inventories().pop().unwrap().content else { panic!("exceptions") };
    assert_eq!(except.len(), 64);
    assert!(except.iter().all(|e| (e.st, e.why) == (ImageState::Waiting, Some(Reason::Wave))));
    world.announce("all", closed(64));
    world.run(ms(5));
    world.request(RequestVerb::Inventory, "");
    assert_eq!(world.inventories().pop().unwrap().content, Content::WarmIds(vec![key("warm")]));
}

#[test]
fn an_inventory_of_more_images_than_a_message_holds_leaves_out_the_least_wanted_and_says_so() {
    let mut world = World::synced(&["all"]);
    let name = |n: u32| format!("t{n}");
    for n in 0..2_600 {
        world.images.insert(name(n), held(&name(n), &name(n)));
        world.put("all", Intent { priority: if n < 100 { 90 } else { 50 }, ..intent(&name(n)) });
    }
    world.run(secs(61));
    world.put("all", Intent { wave: Wave { open: 0, ..Wave::all() }, ..intent("missing") });
    world.send_delta("all");
    world.run(secs(20));
    let inventory = world.inventories().pop().unwrap();
    let bytes = inventory.encode().len();
    assert!((230_000..=262_144 - 100).contains(&bytes), "{bytes}");
    assert!(!inventory.complete);
    let Content::WarmIds(ids) = &inventory.content else { panic!("what is warm is listed") };
    assert!((0..100).all(|n| ids.contains(&key(&name(n)))), "what is wanted most is named");
    assert!(ids.iter().all(|id| inventory.digests.contains_key(id)), "with what is there");
    assert_eq!(
        inventory.not_warm.iter().map(|e| (&e.id, e.st)).collect::<Vec<_>>(),
        [(&key("missing"), ImageState::Waiting)]
    );
    assert_eq!(inventory.left_out, 2_601 - 1 - ids.len() as u64);

    // The same state is said the same way, and costs no put.
    world.forget();
    world.run(secs(90));
    assert_eq!(world.inventories(), []);
    let heartbeat = world.heartbeats().pop().unwrap();
    assert_eq!(heartbeat.inv_digest, inventory.evidence_digest());

    // What is gone is what is told first, though there was no room for it while it was there.
    let gone = (100..2_600).find(|n| !ids.contains(&key(&name(*n)))).unwrap();
    world.images.remove(&name(gone));
    world.pulls_hang = true;
    world.run(secs(61));
    let later = world.inventories().pop().unwrap();
    assert!(later.not_warm.iter().any(|e| e.id == key(&name(gone))), "{:?}", later.not_warm);

    // With room for everything it covers everything again.
    for n in 1_000..2_600 {
        world.purge("all", &name(n));
    }
    world.send_delta("all");
    world.send_beat("all");
    world.run(secs(700));
    let last = world.inventories().pop().unwrap();
    assert!(last.complete && last.left_out == 0 && last.not_warm.is_empty(), "{} left out", last.left_out);
}

#[test]
fn before_the_first_list_an_inventory_is_not_complete() {
    let mut world = World::new();
    world.lists_hang = true;
    world.assign(&["all"]);
    world.put("all", intent("x"));
    world.connect();
    world.run(secs(20));
    let inventory = world.inventories().pop().unwrap();
    assert!(!inventory.complete);
    let list = world.list();
    world.tell(Fact::Images(list));
    world.run(secs(20));
    assert!(world.inventories().pop().unwrap().complete);
}

#[test]
fn a_pool_that_was_not_read_in_this_epoch_is_not_reported() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(30));
    world.is_nats_up = false;
    world.put("node-0123456789", intent("y"));
    world.reassign(&["all", "node-0123456789"]);
    world.run(secs(1));
    world.request(RequestVerb::Inventory, "");
    let inventory = world.inventories().pop().unwrap();
    assert_eq!(inventory.pools.keys().collect::<Vec<_>>(), [&pool("all")]);
    assert!(!inventory.complete);
    assert_eq!(inventory.content, Content::WarmIds(vec![key("x")]), "what is listed is proven all the same");
}

#[test]
fn a_new_epoch_is_reported_though_the_evidence_is_the_same() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(60));
    world.wipe("e2");
    world.put("all", intent("x"));
    world.assign(&["all"]);
    world.forget();
    world.send_beat("all");
    world.run(secs(30));
    let inventory = world.inventories().pop().unwrap();
    assert_eq!(inventory.epoch, "e2");
    assert!(inventory.pools[&pool("all")].is_same_set(&world.beat_of("all").summary()));
}

#[test]
fn a_failed_put_backs_off_to_a_minute_and_comes_through() {
    let mut world = World::synced(&["all"]);
    world.run(secs(60));
    world.puts_fail = true;
    world.announce("all", intent("x"));
    world.forget();
    world.run(secs(600));
    let puts = world.inventories().len();
    assert!((10..60).contains(&puts), "{puts}");
    world.puts_fail = false;
    world.forget();
    world.run(secs(61));
    assert_eq!(world.inventories().len(), 1);
}

#[test]
fn what_changed_while_disconnected_is_said_by_the_inventory_and_by_no_event() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(60));
    world.disconnect();
    world.forget();
    world.images.clear();
    world.fail_next("x", &[Reason::NotFound; 99]);
    world.run(secs(100));
    assert_eq!(world.events(), []);
    assert_eq!(world.inventories(), []);
    world.connect();
    world.run(secs(30));
    let Content::Except(except) = world.inventories().pop().unwrap().content else { panic!("exceptions") };
    assert_eq!((except[0].st, except[0].why), (ImageState::Failed, Some(Reason::NotFound)));
    assert!(except[0].next.is_some() && except[0].tries.is_some());
}

#[test]
fn the_counter_orders_events_and_inventories() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(60));
    let counters: Vec<u64> = world
        .log
        .iter()
        .filter_map(|(_, effect)| match effect {
            Effect::PublishEvent(event) => Some(event.n),
            Effect::PutInventory(inventory) => Some(inventory.n),
            _ => None,
        })
        .collect();
    assert!(counters.windows(2).all(|w| w[0] < w[1]), "{counters:?}");
    let wall = u64::try_from(crate::world::start().wall.as_millisecond()).unwrap();
    assert_eq!(counters[0], wall + 1);
}

#[test]
fn explain_answers_by_reference_and_by_key_and_says_when_nobody_wants_it() {
    let mut world = World::synced(&["all"]);
    world.fail_next("x", &[Reason::NotFound]);
    world.announce("all", intent("x"));
    world.run(ms(10));
    for asked in [reference("x"), key("x").to_string()] {
        let answer = world.request(RequestVerb::Explain, &json!({ "image": asked }).to_string());
        assert_eq!((&answer["state"], &answer["why"]), (&json!("failed"), &json!("not-found")), "{answer}");
        assert_eq!(answer["pools"]["all"]["seq"], 1);
        assert_eq!(answer["tries"], 1);
        assert!(answer["next"].is_string());
    }
    let answer = world.request(RequestVerb::Explain, r#"{"image":"nginx"}"#);
    assert_eq!(answer["wanted"], false);
    assert!(world.request(RequestVerb::Explain, "nonsense")["error"].is_string());
    assert!(world.request(RequestVerb::Explain, r#"{"image":"a b"}"#)["error"].is_string());
}

#[test]
fn the_summary_shows_everything_a_person_asks_first() {
    let mut world = World::synced(&["all"]);
    world.announce("all", intent("x"));
    world.run(secs(1));
    let summary = world.node.summary(world.now);
    for field in
        ["epoch", "term", "connected", "assignment", "pools", "images", "queue", "inFlight", "ledger", "counters"]
    {
        assert!(summary.get(field).is_some(), "{field} is missing in {summary}");
    }
    assert_eq!(summary["counts"], json!({ "warm": 1 }));
    assert_eq!(summary["ledger"], 1);
    assert_eq!(world.node.counts().into_iter().collect::<Vec<_>>(), [(ImageState::Warm, 1)]);
}

#[test]
fn refused_messages_are_counted_in_the_heartbeat_and_forged_ones_apart() {
    let mut world = World::synced(&["all"]);
    world.tell(Fact::Refused { kind: "beat", reason: Reason::Invalid });
    world.tell(Fact::Refused { kind: "beat", reason: Reason::Forged });
    world.run(secs(40));
    assert_eq!(world.heartbeats().pop().unwrap().refused, 1);
    assert_eq!(world.node.summary(world.now)["counters"]["forged"], 1);
}

#[test]
fn with_brisk_timing_an_image_is_warm_and_reported_within_a_second() {
    let mut world = World::with(Settings { ..brisk() }, None, 3);
    world.assign(&["all"]);
    world.put("all", intent("x"));
    world.connect();
    world.run(secs(1));
    assert_eq!(world.inventories().pop().unwrap().content, Content::Except(vec![]));
}

#[test]
fn what_is_being_pulled_is_not_said_to_be_warm() {
    let mut world = World::synced(&["all"]);
    world.pulls_hang = true;
    world.announce("all", intent("x"));
    world.request(RequestVerb::Inventory, "");
    let Content::Except(except) = world.inventories().pop().unwrap().content else { panic!("exceptions") };
    assert_eq!((except[0].id.clone(), except[0].st), (key("x"), ImageState::Pulling));
}

#[test]
fn without_an_epoch_no_inventory_is_put() {
    let mut world = World::new();
    world.has_meta = false;
    world.connect();
    world.run(secs(1_000));
    assert!(world.node.is_synced());
    assert_eq!(world.inventories(), []);
    assert!(world.heartbeats().len() > 20);
    world.has_meta = true;
    world.run(secs(40));
    assert_eq!(world.inventories().len(), 1);
}
