//! What happens to the universe from outside: a list of timed changes and faults, and its text form.
//!
//! Owns the words of schedules. Each line of the text is one entry as JSON, so that a schedule that found something can
//! be kept and read.

use serde::{Deserialize, Serialize};

/// How a universe begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Setup {
    /// Seed of all chance that no entry of the schedule fixes.
    pub(super) seed: u64,
    /// How many nodes can exist.
    pub(super) nodes: usize,
    /// How many images the registry knows.
    pub(super) images: usize,
    /// Replicas of the controller.
    pub(super) controllers: usize,
    /// Most pulls at once on a node.
    pub(super) pulls: usize,
    /// Most image labels a node carries.
    pub(super) labels: usize,
    /// Most label patches a second.
    pub(super) patches: u32,
}

/// Where pods of a workload may land.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Place {
    /// On every node without a taint.
    Anywhere,
    /// On nodes with a fast disk.
    Ssd,
    /// On every node, tainted or not.
    Tolerant,
    /// On this node.
    Node(usize),
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Kind {
    /// It has a fast disk.
    pub(super) ssd: bool,
    /// It is tainted.
    pub(super) tainted: bool,
}

/// What becomes of the disk of a node when its agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Disk {
    /// The state file stays.
    Kept,
    /// It is gone.
    Lost,
    /// It is an older copy.
    Older,
}

/// What a registry answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answer {
    /// The image.
    Good,
    /// There is no such image.
    Missing,
    /// Too many requests.
    Throttled,
    /// An error.
    Failing,
    /// Nothing, until the deadline.
    Stalling,
}

/// A process, as a schedule names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Peer {
    /// A replica of the controller.
    Controller(usize),
    /// The agent of a node.
    Agent(usize),
}

/// The ways between a client and NATS that are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Way {
    /// What the client sends is lost.
    Up,
    /// What it is sent is lost.
    Down,
    /// Both.
    Both,
}

/// A bucket, as a schedule names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum BucketName {
    /// Intents.
    Intents,
    /// Assignments.
    Assign,
    /// Inventories.
    Nodes,
}

/// One thing that happens from outside. Durations are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Op {
    /// A workload is created or changed.
    Workload { name: usize, images: Vec<usize>, place: Place },
    /// It is deleted.
    Delete { name: usize },
    /// A set is made or changed.
    Set {
        name: usize,
        images: Vec<usize>,
        place: Place,
        suspend: bool,
        /// It follows tags that move, as often as is allowed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        refresh: bool,
    },
    /// It is deleted.
    DropSet { name: usize },
    /// Somebody writes into its status.
    EditStatus { name: usize },
    /// The namespace of the workloads opts out, or in again.
    OptOut { is_out: bool },
    /// A Node appears, with an agent, on a machine that keeps or lost its disk.
    Join { node: usize, kind: Kind, is_fresh: bool },
    /// It goes, with its agent.
    Leave { node: usize },
    /// It goes and comes back under the same name.
    Recreate { node: usize, is_fresh: bool },
    /// Its labels and taints change.
    Become { node: usize, kind: Kind },
    /// The kubelet reports disk pressure, or none.
    Pressure { node: usize, is_on: bool },
    /// An agent ends and starts again after `down`.
    CrashAgent { node: usize, disk: Disk, down: u64 },
    /// A controller ends and starts again after `down`.
    CrashController { replica: usize, down: u64 },
    /// A controller does not run for a while, and does not know.
    PauseController { replica: usize, down: u64 },
    /// An agent does not run for a while, and does not know.
    PauseAgent { node: usize, down: u64 },
    /// NATS restarts.
    RestartNats { down: u64 },
    /// NATS restarts with nothing in its store.
    WipeNats { down: u64 },
    /// One bucket is deleted by somebody.
    WipeBucket { bucket: BucketName },
    /// A copy of the store is made.
    SaveNats,
    /// NATS restarts with the copy that was made last.
    RollBackNats { down: u64 },
    /// A client is cut off.
    Cut { peer: Peer, way: Way, down: u64 },
    /// Of each hundred messages on core NATS so many are lost, doubled or late, until it is said anew.
    Lossy { lost: u8, doubled: u8, late: u8 },
    /// A watch of a bucket misses a message and begins anew.
    LoseWatch { replica: usize, bucket: BucketName },
    /// The API server answers nobody.
    ApiDown { down: u64 },
    /// A replica's watches of the API server end and it lists again.
    Relist { replica: usize },
    /// A replica hears of changes late.
    SlowWatch { replica: usize, late: u64, down: u64 },
    /// What the registry answers for an image.
    Registry { image: usize, answer: Answer },
    /// A tag points to another digest.
    MoveTag { image: usize },
    /// A node's runtime does not answer.
    RuntimeDown { node: usize, down: u64 },
    /// The kubelet removes an image.
    Evict { node: usize, image: usize },
    /// A container uses an image, or no longer.
    Use { node: usize, image: usize, is_used: bool },
    /// The disk of a node is full, or has room again.
    DiskFull { node: usize, is_full: bool },
    /// Others take so many percent of a node's disk.
    Fill { node: usize, percent: u8 },
    /// The kubelet pulls an image; it may be pinned.
    Preload { node: usize, image: usize, is_pinned: bool },
    /// A person pauses or resumes everything, at one replica.
    Order { replica: usize, paused: bool },
    /// A wall clock jumps by so many seconds.
    Jump { peer: Peer, seconds: i64 },
    /// A stored value becomes something that cannot be decoded.
    Corrupt { bucket: BucketName, nth: usize },
    /// Somebody removes a key.
    Remove { bucket: BucketName, nth: usize },
    /// Somebody writes a well-formed value of his own.
    Foreign { bucket: BucketName, nth: usize },
    /// Somebody sends a message that he has no right to send.
    Forge { nth: usize },
    /// Somebody asks an agent.
    Ask { node: usize, is_resync: bool },
}

/// An entry: when, in milliseconds from the beginning, and what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// When.
    pub(super) at: u64,
    /// What.
    #[serde(flatten)]
    pub(super) op: Op,
}

/// A universe and what happens to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// How it begins.
    pub(super) setup: Setup,
    /// What happens, in the order of time.
    pub(super) entries: Vec<Entry>,
}

impl Schedule {
    /// How many things happen.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing happens.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The seed of its chance.
    pub fn seed(&self) -> u64 {
        self.setup.seed
    }

    /// The text form: the setup, then one entry a line.
    pub fn print(&self) -> String {
        let setup = serde_json::to_string(&self.setup).unwrap_or_default();
        let entries = self.entries.iter().map(|entry| serde_json::to_string(entry).unwrap_or_default());
        std::iter::once(setup).chain(entries).map(|line| line + "\n").collect()
    }

    /// The inverse; lines that begin with `#` and empty ones are skipped. The error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let bad = |at: usize, error: serde_json::Error| format!("line {at}: {error}");
        let (at, first) = lines.next().ok_or("the schedule is empty")?;
        let setup = serde_json::from_str(first).map_err(|error| bad(at, error))?;
        let entries = lines.map(|(at, line)| serde_json::from_str(line).map_err(|error| bad(at, error)));
        Ok(Self { setup, entries: entries.collect::<Result<_, _>>()? })
    }
}
