//! Whatever is lost, doubled, late or rolled back: once it stops, the agent's set is the bucket's.

use std::time::Duration;

use node_plan::Fact;
use proptest::prelude::*;
use shared::message::{Delta, Intent};
use shared::state::ImageState;

use crate::world::{World, brisk, intent, ms, secs};

const POOLS: [&str; 2] = ["all", "auto-0123456789"];

#[derive(Debug, Clone, Copy)]
enum Move {
    Put(usize, u8, u8),
    Purge(usize, u8),
    /// A key vanishes without a trace.
    Lose(usize, u8),
    /// The pool's delta is sent, lost, sent twice, or kept back to be sent later.
    Delta(usize, Fate),
    SendLate,
    Beat(usize),
    StreamMoves,
    Disconnect,
    Connect,
    /// The buckets answer nothing, though the connection stands.
    Mute(bool),
    NewTerm,
    Wipe,
    RememberStream,
    RollBack,
    Restart,
    Gap,
    Evict(u8),
    Run(u16),
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Sent,
    Lost,
    Twice,
    Late,
    Bodiless,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let fate = prop_oneof![
        5 => Just(Fate::Sent), 2 => Just(Fate::Lost), 1 => Just(Fate::Twice), 2 => Just(Fate::Late),
        1 => Just(Fate::Bodiless)
    ];
    let one = prop_oneof![
        8 => (0..2_usize, 0..6_u8, 0..3_u8).prop_map(|(p, n, v)| Move::Put(p, n, v)),
        4 => (0..2_usize, 0..6_u8).prop_map(|(p, n)| Move::Purge(p, n)),
        1 => (0..2_usize, 0..6_u8).prop_map(|(p, n)| Move::Lose(p, n)),
        10 => (0..2_usize, fate).prop_map(|(p, f)| Move::Delta(p, f)),
        1 => Just(Move::SendLate),
        4 => (0..2_usize).prop_map(Move::Beat),
        1 => Just(Move::StreamMoves),
        1 => Just(Move::Disconnect),
        2 => Just(Move::Connect),
        1 => any::<bool>().prop_map(Move::Mute),
        1 => Just(Move::NewTerm),
        1 => Just(Move::Wipe),
        1 => Just(Move::RememberStream),
        1 => Just(Move::RollBack),
        1 => Just(Move::Restart),
        1 => Just(Move::Gap),
        1 => (0..6_u8).prop_map(Move::Evict),
        8 => (0..3_000_u16).prop_map(Move::Run),
    ];
    prop::collection::vec(one, 1..60)
}

struct Chaos {
    world: World,
    late: Vec<Delta>,
    remembered: Option<World>,
    epochs: u32,
    restarts: u64,
}

impl Chaos {
    fn make(&mut self, step: Move) {
        let world = &mut self.world;
        match step {
            Move::Put(p, n, v) => {
                world.put(POOLS[p], Intent { priority: 50 + v, ..intent(&format!("x{n}")) });
            }
            Move::Purge(p, n) => {
                world.purge(POOLS[p], &format!("x{n}"));
            }
            Move::Lose(p, n) => world.lose(POOLS[p], &format!("x{n}")),
            Move::Delta(p, fate) => self.send(p, fate),
            Move::SendLate => {
                for delta in std::mem::take(&mut self.late) {
                    self.hear(Fact::Delta(delta));
                }
            }
            Move::Beat(p) => {
                let beat = world.beat_of(POOLS[p]);
                self.hear(Fact::Beat(beat));
            }
            Move::StreamMoves => world.stream_moves(3),
            Move::Disconnect => world.disconnect(),
            Move::Connect => world.connect(),
            Move::Mute(is_mute) => world.is_nats_up = !is_mute,
            Move::NewTerm => world.term += 1,
            Move::Wipe => {
                self.epochs += 1;
                world.wipe(&format!("e{}", self.epochs));
                world.assign(&POOLS);
                self.remembered = None;
            }
            Move::RememberStream => self.remembered = Some(world.clone()),
            Move::RollBack => {
                if let Some(before) = self.remembered.clone() {
                    world.roll_back_to(before);
                }
            }
            Move::Restart => {
                self.restarts += 1;
                world.restart_with(brisk(), self.restarts);
                world.connect();
            }
            Move::Gap => world.tell(Fact::Gap),
            Move::Evict(n) => {
                world.images.remove(&format!("x{n}"));
            }
            Move::Run(millis) => world.run(ms(millis.into())),
        }
    }

    fn send(&mut self, p: usize, fate: Fate) {
        let mut delta = self.world.delta_of(POOLS[p]);
        match fate {
            Fate::Lost => return,
            Fate::Late => return self.late.push(delta),
            Fate::Twice => self.hear(Fact::Delta(delta.clone())),
            Fate::Bodiless => delta.entries = None,
            Fate::Sent => {}
        }
        self.hear(Fact::Delta(delta));
    }

    fn hear(&mut self, fact: Fact) {
        if self.world.is_nats_up {
            self.world.tell(fact);
        }
    }

    /// Faults stop; beats go on every two seconds.
    fn settle(&mut self, span: Duration) {
        self.world.connect();
        for _ in 0..span.as_secs() / 2 {
            for pool in POOLS {
                self.world.send_beat(pool);
            }
            self.world.run(secs(2));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn the_set_is_the_buckets_in_the_end_and_everything_wanted_is_warm(
        moves in moves(),
        seed in any::<u64>(),
        spread in 0..300_u64,
    ) {
        let mut world = World::with(brisk(), None, seed);
        world.spread_ms = spread;
        world.assign(&POOLS);
        world.connect();
        let mut chaos = Chaos { world, late: vec![], remembered: None, epochs: 1, restarts: 0 };
        for step in moves {
            chaos.make(step);
        }
        chaos.settle(secs(60));
        let world = &mut chaos.world;
        for pool in POOLS {
            prop_assert!(world.is_in_step(pool), "{pool}: {:?} is not {:?}", world.held_set(pool), world.beat_of(pool));
            prop_assert_eq!(world.head(pool), world.stream.max(world.head(pool)));
        }
        let summary = world.node.summary(world.now);
        let wanted: std::collections::BTreeSet<String> = POOLS
            .iter()
            .flat_map(|p| world.live(&crate::world::pool(p)).into_keys())
            .map(|id| id.to_string())
            .collect();
        let images = summary["images"].as_object().unwrap();
        prop_assert_eq!(images.keys().cloned().collect::<std::collections::BTreeSet<_>>(), wanted);
        prop_assert!(images.values().all(|image| image["state"] == "warm"), "{summary:#}");
        prop_assert!(world.node.counts().keys().all(|st| *st == ImageState::Warm));
        // And at rest: nothing but pulses.
        world.run(secs(2));
        world.forget();
        for pool in POOLS {
            world.send_beat(pool);
        }
        world.run(secs(3));
        let effects = world.count(|e| {
            !matches!(e, node_plan::Effect::PublishHeartbeat(_) | node_plan::Effect::ListImages | node_plan::Effect::Observe
                | node_plan::Effect::PutInventory(_) | node_plan::Effect::ReadAssignment)
        });
        prop_assert_eq!(effects, 0, "{:?}", world.log);
        // What it would say is what is so: the last inventory or heartbeat names the exact sets.
        world.request(shared::subject::RequestVerb::Inventory, "");
        let inventory = world.inventories().pop().unwrap();
        prop_assert!(inventory.complete);
        for pool in POOLS {
            let is_same = inventory.pools[&crate::world::pool(pool)].is_same_set(&world.beat_of(pool).summary());
            prop_assert!(is_same);
        }
    }
}
