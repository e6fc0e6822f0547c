//! The grammar of subjects, buckets and keys: the only place that knows how a name becomes a subject.
//!
//! Owns printing and its inverse, parsing. `protocol.md` section 2. Positions are never counted anywhere else.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::{ClusterId, ImageKey, NodeName, PoolId};
use crate::state::ImageState;

/// A verb of `node.<n>.req.<verb>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestVerb {
    /// Put the inventory now.
    Inventory,
    /// Read everything again.
    Resync,
    /// Say what is known of one image.
    Explain,
}

impl RequestVerb {
    /// Every verb.
    pub const ALL: [Self; 3] = [Self::Inventory, Self::Resync, Self::Explain];

    /// The token.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::Resync => "resync",
            Self::Explain => "explain",
        }
    }

    /// The verb of a token.
    pub fn parse(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == token)
    }
}

/// A verb of `ctl.<verb>`: what people ask of the controllers. Any replica answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlVerb {
    /// Say how things stand.
    Status,
    /// Say why an image is where it is, or is not.
    Explain,
    /// Change no intent and start no pull any more.
    Pause,
    /// Go on.
    Resume,
}

impl ControlVerb {
    /// Every verb.
    pub const ALL: [Self; 4] = [Self::Status, Self::Explain, Self::Pause, Self::Resume];

    /// The token.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Explain => "explain",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// The verb of a token.
    pub fn parse(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == token)
    }
}

/// A core subject of one cluster, without its prefix `warm.v1.<c>.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Changes of a pool, controller to agents.
    Delta(PoolId),
    /// The pulse of a pool, controller to agents.
    Beat(PoolId),
    /// A copy of an assignment, controller to one agent.
    Assign(NodeName),
    /// One transition of one image, agent to anyone.
    Event(NodeName, ImageState),
    /// The pulse of an agent.
    Heartbeat(NodeName),
    /// A request to an agent.
    Request(NodeName, RequestVerb),
    /// A request to the controllers.
    Control(ControlVerb),
}

impl Subject {
    /// The full subject in `cluster`.
    pub fn print(&self, cluster: &ClusterId) -> String {
        format!("warm.v1.{cluster}.{self}")
    }

    /// The inverse of [`Subject::print`]; `None` for a subject of another cluster, version or shape.
    pub fn parse(cluster: &ClusterId, subject: &str) -> Option<Self> {
        let rest = subject.strip_prefix("warm.v1.")?.strip_prefix(cluster.as_str())?.strip_prefix('.')?;
        let tokens: Vec<&str> = rest.split('.').collect();
        match tokens.as_slice() {
            ["delta", pool] => PoolId::parse(pool).ok().map(Self::Delta),
            ["beat", pool] => PoolId::parse(pool).ok().map(Self::Beat),
            ["assign", node] => NodeName::from_token(node).ok().map(Self::Assign),
            ["node", node, "ev", state] => {
                Some(Self::Event(NodeName::from_token(node).ok()?, ImageState::parse(state)?))
            }
            ["node", node, "hb"] => NodeName::from_token(node).ok().map(Self::Heartbeat),
            ["node", node, "req", verb] => {
                Some(Self::Request(NodeName::from_token(node).ok()?, RequestVerb::parse(verb)?))
            }
            ["ctl", verb] => ControlVerb::parse(verb).map(Self::Control),
            _ => None,
        }
    }

    /// Every event of every node, for the controller's subscription.
    pub fn all_events(cluster: &ClusterId) -> String {
        format!("warm.v1.{cluster}.node.*.ev.*")
    }

    /// Every heartbeat.
    pub fn all_heartbeats(cluster: &ClusterId) -> String {
        format!("warm.v1.{cluster}.node.*.hb")
    }

    /// What every request to the controllers begins with, without the dot before the verb.
    pub fn control_prefix(cluster: &ClusterId) -> String {
        format!("warm.v1.{cluster}.ctl")
    }

    /// Every request to one agent.
    pub fn requests_of(cluster: &ClusterId, node: &NodeName) -> String {
        format!("warm.v1.{cluster}.node.{}.req.*", node.token())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delta(pool) => write!(f, "delta.{pool}"),
            Self::Beat(pool) => write!(f, "beat.{pool}"),
            Self::Assign(node) => write!(f, "assign.{}", node.token()),
            Self::Event(node, state) => write!(f, "node.{}.ev.{state}", node.token()),
            Self::Heartbeat(node) => write!(f, "node.{}.hb", node.token()),
            Self::Request(node, verb) => write!(f, "node.{}.req.{}", node.token(), verb.as_str()),
            Self::Control(verb) => write!(f, "ctl.{}", verb.as_str()),
        }
    }
}

/// The three KV buckets of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Epoch document, pool definitions, intents. Written by the controller.
    Intents,
    /// Assignments. Written by the controller.
    Assign,
    /// Inventories. Each written by its agent.
    Nodes,
}

impl Bucket {
    /// Every bucket.
    pub const ALL: [Self; 3] = [Self::Intents, Self::Assign, Self::Nodes];

    /// The word in the bucket's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Intents => "intents",
            Self::Assign => "assign",
            Self::Nodes => "nodes",
        }
    }

    /// The largest message it takes, in bytes, headers included.
    pub fn max_message_bytes(self) -> u32 {
        match self {
            Self::Intents => 64 * 1024,
            Self::Assign => 8 * 1024,
            Self::Nodes => 256 * 1024,
        }
    }

    /// The KV bucket's name, `warm-<c>-intents`: what `nats kv` takes.
    pub fn name(self, cluster: &ClusterId) -> String {
        format!("warm-{cluster}-{}", self.word())
    }

    /// The stream under the bucket, `KV_warm-<c>-intents`.
    pub fn stream(self, cluster: &ClusterId) -> String {
        format!("KV_{}", self.name(cluster))
    }

    /// The subject of a key, `$KV.warm-<c>-intents.<key>`; the key may be a wildcard.
    pub fn subject(self, cluster: &ClusterId, key: &str) -> String {
        format!("$KV.{}.{key}", self.name(cluster))
    }

    /// The key of a subject of this bucket.
    pub fn key_of<'a>(self, cluster: &ClusterId, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix("$KV.")?.strip_prefix(&self.name(cluster))?.strip_prefix('.')
    }
}

/// A key of the intents bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum IntentsKey {
    /// The epoch document.
    Meta,
    /// The pause switch.
    Control,
    /// A pool's constraint, for people.
    Definition(PoolId),
    /// An intent.
    Intent(PoolId, ImageKey),
    /// The head of a pool's snapshot.
    Snapshot(PoolId),
}

impl IntentsKey {
    /// The inverse of printing; `None` for any other text.
    pub fn parse(key: &str) -> Option<Self> {
        if key == "_meta" {
            return Some(Self::Meta);
        }
        if key == "_ctl" {
            return Some(Self::Control);
        }
        let tokens: Vec<&str> = key.split('.').collect();
        match tokens.as_slice() {
            [pool, "def"] => PoolId::parse(pool).ok().map(Self::Definition),
            [pool, "snap", "head"] => PoolId::parse(pool).ok().map(Self::Snapshot),
            [pool, "i", id] => Some(Self::Intent(PoolId::parse(pool).ok()?, ImageKey::parse(id).ok()?)),
            _ => None,
        }
    }

    /// The wildcard over the intents of a pool.
    pub fn all_of(pool: &PoolId) -> String {
        format!("{pool}.i.*")
    }
}

impl fmt::Display for IntentsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta => f.write_str("_meta"),
            Self::Control => f.write_str("_ctl"),
            Self::Definition(pool) => write!(f, "{pool}.def"),
            Self::Intent(pool, id) => write!(f, "{pool}.i.{id}"),
            Self::Snapshot(pool) => write!(f, "{pool}.snap.head"),
        }
    }
}

impl TryFrom<String> for IntentsKey {
    type Error = String;
    fn try_from(key: String) -> Result<Self, String> {
        Self::parse(&key).ok_or_else(|| format!("`{key}` is not a key of the intents bucket"))
    }
}

impl From<IntentsKey> for String {
    fn from(key: IntentsKey) -> Self {
        key.to_string()
    }
}

/// The key of a chunk of a pool's snapshot, `<pool>.snap.<number>`.
pub fn snapshot_chunk(pool: &PoolId, number: u64) -> String {
    format!("{pool}.snap.{number}")
}

/// The wildcard over head and chunks of a pool's snapshot.
pub fn snapshot_keys(pool: &PoolId) -> String {
    format!("{pool}.snap.*")
}

/// Pool and number of a chunk's key.
pub fn parse_snapshot_chunk(key: &str) -> Option<(PoolId, u64)> {
    let (pool, number) = key.split_once(".snap.")?;
    let chunk = number.parse().ok().filter(|chunk: &u64| chunk.to_string() == number)?;
    Some((PoolId::parse(pool).ok()?, chunk))
}

/// The key of a node's assignment: its token.
pub fn assignment_key(node: &NodeName) -> String {
    node.token()
}

/// The node of an assignment's key.
pub fn parse_assignment_key(key: &str) -> Option<NodeName> {
    NodeName::from_token(key).ok()
}

/// The key of a node's inventory, `<n>.inv`.
pub fn inventory_key(node: &NodeName) -> String {
    format!("{}.inv", node.token())
}

/// The node of an inventory's key.
pub fn parse_inventory_key(key: &str) -> Option<NodeName> {
    NodeName::from_token(key.strip_suffix(".inv")?).ok()
}

/// The inbox prefix of an agent; permissions work on whole tokens, so the node is one.
pub fn agent_inbox(cluster: &ClusterId, node: &NodeName) -> String {
    format!("_WI.{cluster}.agent.{}", node.token())
}

/// The inbox prefix of a controller instance.
pub fn controller_inbox(cluster: &ClusterId, instance: &str) -> String {
    format!("_WI.{cluster}.ctl.{instance}")
}

/// The inbox prefix of a controller instance where it answers who a client of NATS is.
pub fn callout_inbox(cluster: &ClusterId, instance: &str) -> String {
    format!("_WI.{cluster}.callout.{instance}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn node_names() -> impl Strategy<Value = NodeName> {
        prop_oneof![
            Just("a".to_owned()),
            Just("a.b-c".to_owned()),
            Just("ctl".to_owned()),
            Just("all".to_owned()),
            Just(format!("{}b", "a.".repeat(126))),
            "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\\.[a-z0-9]{1,10}){0,5}",
        ]
        .prop_map(|n| NodeName::parse(&n).unwrap())
    }

    fn subjects() -> impl Strategy<Value = Subject> {
        let pool = "[a-z0-9-]{1,63}".prop_map(|p| PoolId::parse(&p).unwrap());
        prop_oneof![
            pool.clone().prop_map(Subject::Delta),
            pool.prop_map(Subject::Beat),
            node_names().prop_map(Subject::Assign),
            (node_names(), prop::sample::select(&ImageState::ALL[..])).prop_map(|(n, s)| Subject::Event(n, s)),
            node_names().prop_map(Subject::Heartbeat),
            (node_names(), prop::sample::select(&RequestVerb::ALL[..])).prop_map(|(n, v)| Subject::Request(n, v)),
            prop::sample::select(&ControlVerb::ALL[..]).prop_map(Subject::Control),
        ]
    }

    proptest! {
        #[test]
        fn parsing_is_the_inverse_of_printing(subject in subjects(), cluster in "[a-z]([a-z0-9-]{0,8}[a-z0-9])?") {
            let cluster = ClusterId::parse(&cluster).unwrap();
            prop_assert_eq!(Subject::parse(&cluster, &subject.print(&cluster)), Some(subject));
        }

        #[test]
        fn bucket_keys_are_reversible(node in node_names(), pool in "[a-z0-9-]{1,63}", image in ".{0,20}") {
            let pool = PoolId::parse(&pool).unwrap();
            for key in [IntentsKey::Meta, IntentsKey::Control, IntentsKey::Definition(pool.clone()), IntentsKey::Snapshot(pool.clone()), IntentsKey::Intent(pool.clone(), ImageKey::of(&image))] {
                prop_assert_eq!(IntentsKey::parse(&key.to_string()), Some(key));
            }
            prop_assert_eq!(parse_snapshot_chunk(&snapshot_chunk(&pool, 17)), Some((pool.clone(), 17)));
            prop_assert_eq!(parse_assignment_key(&assignment_key(&node)), Some(node.clone()));
            prop_assert_eq!(parse_inventory_key(&inventory_key(&node)), Some(node));
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let cluster = ClusterId::default();
            let _ = (Subject::parse(&cluster, &text), IntentsKey::parse(&text), parse_inventory_key(&text));
            let _ = Subject::parse(&cluster, &format!("warm.v1.default.{text}"));
        }
    }

    #[rstest]
    #[case("warm.v1.other.beat.all")]
    #[case("warm.v2.default.beat.all")]
    #[case("warm.v1.default.beat.all.more")]
    #[case("warm.v1.defaultx.beat.all")]
    #[case("warm.v1.default.node.a.ev.hot")]
    fn a_foreign_subject_is_not_parsed(#[case] subject: &str) {
        assert_eq!(Subject::parse(&ClusterId::default(), subject), None);
    }
}
