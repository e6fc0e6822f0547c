//! Whatever happens, nothing is removed that should stay.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use node_plan::fact::{Removal, RuntimeImage, Space};
use node_plan::gc::is_used;
use node_plan::{GcMode, GcSettings, Settings};
use shared::machine::Moment;

use crate::world::{World, brisk, held, intent, key, ms, pool, reference, secs};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const TOTAL: u64 = 10_000;
const HIGH: u64 = 5_000;
const LOW: u64 = 3_000;
const MIN_AGE: u64 = 5;
const RUNS: u64 = 50;

fn settings() -> Settings {
    let gc = GcSettings { mode: GcMode::On, high: 50, low: 30, min_age: secs(MIN_AGE) };
    Settings { gc, ..brisk() }
}

/// A world, and what an onlooker knows of it without asking the machine for its reasons.
struct Onlooker {
    world: World,
    rng: Rng,
    is_connected: bool,
    /// When the machine held it for wanted last, at the looks there were.
    wanted: BTreeMap<&'static str, Moment>,
    /// Written without a word since the last beat: the machine cannot know.
    silent: BTreeSet<&'static str>,
    /// How many images went, and when the last one did.
    gone: u64,
    last: Option<Moment>,
}

impl Onlooker {
    fn new(seed: u64) -> Self {
        let mut world = World::with(settings(), None, seed);
        world.disk = Some(Space { used: 1_000, free: TOTAL - 1_000 });
        world.assign(&["all"]);
        world.connect();
        world.run(secs(1));
        Self {
            world,
            rng: Rng::with_seed(seed),
            is_connected: true,
            wanted: BTreeMap::new(),
            silent: BTreeSet::new(),
            gone: 0,
            last: None,
        }
    }

    /// Lets something happen, and some time pass.
    fn go_on(&mut self) {
        let name = NAMES[self.rng.usize(..NAMES.len())];
        self.happen(name);
        for _ in 0..self.rng.u8(1..4) {
            if self.is_connected && self.rng.u8(..5) > 0 {
                self.world.send_beat("all");
                self.silent.clear();
            }
            self.world.run(ms(self.rng.u64(200..1_500)));
            self.look();
        }
        if !self.is_connected && self.rng.bool() {
            self.reconnect();
        }
    }

    fn happen(&mut self, name: &'static str) {
        let world = &mut self.world;
        match self.rng.u8(..24) {
            0..=2 => {
                world.put("all", intent(name));
                self.say(name);
            }
            3..=7 => {
                world.purge("all", name);
                self.say(name);
            }
            8 => {
                world.put("all", intent(name));
                self.silent.insert(name);
            }
            9 => drop(world.images.remove(name)),
            10 => {
                let theirs = RuntimeImage { bytes: 500, ..held(name, &format!("{name}-of-others")) };
                world.images.insert(name.into(), theirs);
            }
            11 => {
                if let Some(image) = world.images.get_mut(name) {
                    image.pinned = !image.pinned;
                }
            }
            12 => {
                let id = format!("id-{name}");
                let is_used = world.used.remove(&id);
                world.used.extend((!is_used).then_some(id));
            }
            13 => {
                if let Some(image) = world.images.get_mut(name) {
                    image.repo_tags.push("registry.test/another:1".into());
                }
            }
            14..=17 => {
                let used = self.rng.u64(..TOTAL);
                world.disk = Some(Space { used, free: TOTAL - used });
            }
            18 => self.reconnect(),
            19 => {
                world.restart_with(settings(), self.rng.u64(..));
                self.is_connected = false;
            }
            20 if self.rng.u8(..4) == 0 => {
                world.wipe(&format!("e{}", self.rng.u32(..)));
                world.assign(&["all"]);
                self.silent.clear();
            }
            21 => world.is_runtime_up = !world.is_runtime_up || self.rng.u8(..4) > 0,
            _ => {}
        }
    }

    fn say(&mut self, name: &'static str) {
        if self.is_connected {
            self.world.send_delta("all");
        } else {
            self.silent.insert(name);
        }
    }

    fn reconnect(&mut self) {
        self.is_connected = !self.is_connected;
        if self.is_connected { self.world.connect() } else { self.world.disconnect() }
    }

    /// Judges every removal since the last look.
    fn look(&mut self) {
        for (at, image, result) in std::mem::take(&mut self.world.removed) {
            self.judge(at, &image, result == Ok(Removal::Removed));
        }
        for name in NAMES {
            if self.world.state_of(name).is_some() {
                self.wanted.insert(name, self.world.now.mono);
            }
        }
    }

    fn judge(&mut self, at: Moment, image: &RuntimeImage, is_gone: bool) {
        let name = NAMES.into_iter().find(|name| image.runtime_id == format!("id-{name}"));
        let Some(name) = name else { panic!("somebody else's image: {image:?}") };
        assert_eq!(image.repo_tags, [reference(name)], "another name goes with it");
        assert!(!image.pinned, "{name} is pinned");
        let last = self.wanted.get(name).copied().expect("it was wanted once, or it would not be ours");
        assert!(at.since(last) >= secs(MIN_AGE), "{name} is young: wanted at {last:?}, removed at {at:?}");
        let is_live = self.world.live(&pool("all")).contains_key(&key(name));
        assert!(!is_live || self.silent.contains(name), "{name} is wanted");
        let (_, used) = self.world.uses.iter().rfind(|(seen, _)| *seen < at).expect("containers were looked at");
        assert!(!is_used(image, used), "{name} is used");
        let mut is_above = false;
        for (_, space) in self.world.observations.iter().filter(|(seen, _)| *seen < at) {
            let used = space.expect("it is always known here").used;
            is_above = (is_above && used > LOW) || used > HIGH;
        }
        assert!(is_above, "the disk does not ask for it");
        let looked = |since| self.world.observations.iter().any(|(seen, _)| *seen >= since && *seen < at);
        assert!(self.last.is_none_or(looked), "the disk was not looked at since the last removal");
        if is_gone {
            (self.gone, self.last) = (self.gone + 1, Some(at));
        }
    }
}

#[test]
fn nothing_used_pinned_wanted_young_or_foreign_is_ever_removed_nor_more_than_is_needed() {
    let mut removals = 0;
    for seed in 0..RUNS {
        let mut onlooker = Onlooker::new(seed);
        for _ in 0..120 {
            onlooker.go_on();
        }
        removals += onlooker.gone;
    }
    assert!(removals > RUNS, "only {removals} removals in {RUNS} runs");
}
