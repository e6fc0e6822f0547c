//! Schedules from seeds.
//!
//! Owns which worlds and faults are common. Each seed allows only some kinds of faults, so that few meet often instead of
//! all meeting rarely (swarm testing).

use fastrand::Rng;

use super::schedule::{Answer, BucketName, Disk, Entry, Kind, Op, Peer, Place, Schedule, Setup, Way};

/// The period of sets that follow their tags, in milliseconds.
const REFRESH_MS: u64 = 60_000;
/// Most entries of a schedule.
const MAX: usize = 300;

/// A kind of change or fault, for the swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nodes,
    Recreate,
    CrashAgent,
    CrashController,
    PauseController,
    PauseAgent,
    RestartNats,
    WipeNats,
    RollBack,
    Cut,
    Lossy,
    Watch,
    Api,
    Registry,
    MoveTag,
    Runtime,
    Evict,
    Disk,
    Jump,
    Corrupt,
    Foreign,
    Forge,
    OptOut,
    Fill,
    Order,
    Sets,
}

const FAULTS: [Fault; 26] = [
    Fault::Nodes,
    Fault::Recreate,
    Fault::CrashAgent,
    Fault::CrashController,
    Fault::PauseController,
    Fault::PauseAgent,
    Fault::RestartNats,
    Fault::WipeNats,
    Fault::RollBack,
    Fault::Cut,
    Fault::Lossy,
    Fault::Watch,
    Fault::Api,
    Fault::Registry,
    Fault::MoveTag,
    Fault::Runtime,
    Fault::Evict,
    Fault::Disk,
    Fault::Jump,
    Fault::Corrupt,
    Fault::Foreign,
    Fault::Forge,
    Fault::OptOut,
    Fault::Fill,
    Fault::Order,
    Fault::Sets,
];

impl Schedule {
    /// The schedule of a seed.
    pub fn generate(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let setup = Setup {
            seed,
            nodes: rng.usize(1..=4),
            images: rng.usize(1..=8),
            controllers: rng.usize(1..=2),
            pulls: rng.usize(1..=3),
            labels: if rng.u8(..) < 64 { rng.usize(1..=3) } else { 64 },
            patches: if rng.u8(..) < 64 { 2 } else { 20 },
        };
        let share = rng.u8(32..200);
        let allowed: Vec<Fault> = FAULTS.into_iter().filter(|_| rng.u8(..) < share).collect();
        let length = match rng.u8(..) {
            0..128 => rng.usize(5..40),
            128..230 => rng.usize(40..120),
            _ => rng.usize(120..=MAX),
        };
        let pace = one_of([30, 100, 400], &mut rng);
        let mut maker = Maker { rng, setup, allowed };
        let mut entries = Vec::new();
        let mut at = 0;
        for node in 0..maker.setup.nodes {
            if maker.rng.u8(..) < 220 {
                let kind = maker.kind();
                entries.push(Entry { at, op: Op::Join { node, kind, is_fresh: false } });
            }
        }
        while entries.len() < length {
            at += maker.rng.u64(1..=pace * 2);
            let op = maker.op();
            // A set that follows its tags does so after a minute.
            let is_followed = matches!(op, Op::Set { refresh: true, .. }) && maker.rng.bool();
            entries.push(Entry { at, op });
            at += if is_followed { maker.rng.u64(0..REFRESH_MS * 3 / 2) } else { 0 };
        }
        Self { setup: maker.setup, entries }
    }
}

struct Maker {
    rng: Rng,
    setup: Setup,
    allowed: Vec<Fault>,
}

impl Maker {
    fn node(&mut self) -> usize {
        self.rng.usize(0..self.setup.nodes)
    }

    fn image(&mut self) -> usize {
        self.rng.usize(0..self.setup.images)
    }

    fn replica(&mut self) -> usize {
        self.rng.usize(0..self.setup.controllers)
    }

    fn kind(&mut self) -> Kind {
        Kind { ssd: self.rng.bool(), tainted: self.rng.u8(..) < 40 }
    }

    fn peer(&mut self) -> Peer {
        if self.rng.u8(..) < 90 { Peer::Controller(self.replica()) } else { Peer::Agent(self.node()) }
    }

    fn bucket(&mut self) -> BucketName {
        match self.rng.u8(0..4) {
            0 => BucketName::Assign,
            1 => BucketName::Nodes,
            _ => BucketName::Intents,
        }
    }

    /// A time: mostly short, sometimes long.
    fn down(&mut self) -> u64 {
        if self.rng.u8(..) < 200 { self.rng.u64(5..800) } else { self.rng.u64(800..5_000) }
    }

    fn op(&mut self) -> Op {
        if self.allowed.is_empty() || self.rng.u8(..) < 110 {
            return self.change();
        }
        let at = self.rng.usize(0..self.allowed.len());
        match self.allowed.get(at) {
            Some(fault) => self.fault(*fault),
            None => self.change(),
        }
    }

    fn change(&mut self) -> Op {
        let name = self.rng.usize(0..5);
        if self.rng.u8(..) < 70 {
            return Op::Delete { name };
        }
        let count = self.rng.usize(1..=3);
        let images = (0..count).map(|_| self.image()).collect();
        let place = match self.rng.u8(0..8) {
            0 | 1 => Place::Ssd,
            2 => Place::Tolerant,
            3 => Place::Node(self.node()),
            _ => Place::Anywhere,
        };
        Op::Workload { name, images, place }
    }

    fn set(&mut self) -> Op {
        let name = self.rng.usize(0..3);
        match self.rng.u8(0..8) {
            0 | 1 => return Op::DropSet { name },
            2 => return Op::EditStatus { name },
            _ => {}
        }
        let images = (0..self.rng.usize(1..=3)).map(|_| self.image()).collect();
        let place = match self.rng.u8(0..6) {
            0 | 1 => Place::Ssd,
            2 => Place::Tolerant,
            _ => Place::Anywhere,
        };
        Op::Set { name, images, place, suspend: self.rng.u8(..) < 50, refresh: self.rng.u8(..) < 100 }
    }

    fn fault(&mut self, fault: Fault) -> Op {
        let (node, image, replica, down) = (self.node(), self.image(), self.replica(), self.down());
        match fault {
            Fault::Nodes => match self.rng.u8(0..6) {
                0 => Op::Leave { node },
                1 => Op::Become { node, kind: self.kind() },
                2 => Op::Pressure { node, is_on: self.rng.bool() },
                _ => Op::Join { node, kind: self.kind(), is_fresh: self.rng.bool() },
            },
            Fault::Recreate => Op::Recreate { node, is_fresh: self.rng.bool() },
            Fault::CrashAgent => {
                let disk = match self.rng.u8(0..4) {
                    0 => Disk::Lost,
                    1 => Disk::Older,
                    _ => Disk::Kept,
                };
                Op::CrashAgent { node, disk, down }
            }
            Fault::CrashController => Op::CrashController { replica, down },
            Fault::PauseController => Op::PauseController { replica, down },
            Fault::PauseAgent => Op::PauseAgent { node, down },
            Fault::RestartNats => Op::RestartNats { down },
            Fault::WipeNats if self.rng.u8(..) < 80 => Op::WipeBucket { bucket: self.bucket() },
            Fault::WipeNats => Op::WipeNats { down },
            Fault::RollBack if self.rng.bool() => Op::SaveNats,
            Fault::RollBack => Op::RollBackNats { down },
            Fault::Cut => {
                let way = one_of([Way::Up, Way::Down, Way::Both], &mut self.rng);
                Op::Cut { peer: self.peer(), way, down }
            }
            Fault::Lossy => {
                let mut percent = || if self.rng.bool() { 0 } else { self.rng.u8(1..60) };
                Op::Lossy { lost: percent(), doubled: percent(), late: percent() }
            }
            Fault::Watch => Op::LoseWatch { replica, bucket: self.bucket() },
            Fault::Api => match self.rng.u8(0..3) {
                0 => Op::ApiDown { down },
                1 => Op::Relist { replica },
                _ => Op::SlowWatch { replica, late: self.rng.u64(10..2_000), down },
            },
            Fault::Registry => {
                let answers =
                    [Answer::Good, Answer::Missing, Answer::Throttled, Answer::Failing, Answer::Stalling, Answer::Good];
                Op::Registry { image, answer: one_of(answers, &mut self.rng) }
            }
            Fault::MoveTag => Op::MoveTag { image },
            Fault::Runtime => Op::RuntimeDown { node, down },
            Fault::Evict if self.rng.u8(..) < 60 => Op::Use { node, image, is_used: self.rng.bool() },
            Fault::Evict => Op::Evict { node, image },
            Fault::Disk => Op::DiskFull { node, is_full: self.rng.bool() },
            Fault::Jump => Op::Jump { peer: self.peer(), seconds: self.rng.i64(-100_000..100_000) },
            Fault::Corrupt => Op::Corrupt { bucket: self.bucket(), nth: self.rng.usize(0..20) },
            Fault::Foreign if self.rng.bool() => Op::Remove { bucket: self.bucket(), nth: self.rng.usize(0..20) },
            Fault::Foreign => Op::Foreign { bucket: self.bucket(), nth: self.rng.usize(0..20) },
            Fault::Forge if self.rng.u8(..) < 60 => Op::Ask { node, is_resync: self.rng.bool() },
            Fault::Forge => Op::Forge { nth: self.rng.usize(0..60) },
            Fault::Fill => match self.rng.u8(0..4) {
                0 => Op::Preload { node, image, is_pinned: self.rng.bool() },
                1 => Op::Use { node, image, is_used: self.rng.bool() },
                _ => Op::Fill { node, percent: self.rng.u8(0..75) },
            },
            Fault::Order => Op::Order { replica, paused: self.rng.bool() },
            Fault::Sets => self.set(),
            Fault::OptOut => Op::OptOut { is_out: self.rng.u8(..) < 100 },
        }
    }
}

fn one_of<T: Copy, const N: usize>(all: [T; N], rng: &mut Rng) -> T {
    let at = rng.usize(..N);
    all.get(at).copied().unwrap_or(all[0])
}
