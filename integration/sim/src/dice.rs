//! Chance, apart for each thing it decides about.
//!
//! Owns one stream of random numbers a subject, so that leaving out one entry of a schedule changes nothing elsewhere.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::process::Who;

/// What chance decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    /// Seeds of machines.
    Machine(Who),
    /// When a process takes its turn.
    Turn(Who),
    /// The way from a client to the NATS server.
    Up(Who),
    /// The way back.
    Down(Who),
    /// What happens to a message between publisher and subscriber.
    Delivery(Who),
    /// When a client connects.
    Connect(Who),
    /// The API server's watches and answers for one replica.
    Api(Who),
    /// How long a node's runtime takes.
    Runtime(usize),
    /// The state file of a node.
    Disk(usize),
    /// The election of one replica.
    Election(Who),
}

/// The dice.
pub(super) struct Dice {
    seed: u64,
    streams: BTreeMap<About, Rng>,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, streams: BTreeMap::new() }
    }

    /// The stream about something.
    pub(super) fn about(&mut self, what: About) -> &mut Rng {
        let seed = self.seed;
        self.streams.entry(what).or_insert_with(|| {
            // FNV-1a over its name: the same for ever, whatever the order in which streams are asked for.
            let name = format!("{what:?}");
            let hash = name
                .bytes()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            Rng::with_seed(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        })
    }
}
