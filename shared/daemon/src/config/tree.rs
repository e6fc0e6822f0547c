//! A YAML document that knows its lines.
//!
//! Owns finding and removing what lies under a key. Never knows which keys there should be.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_saphyr::Spanned;

use super::problem::Key;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    line: u64,
    node: Node,
}

#[derive(Debug, Clone)]
enum Node {
    /// Counts as absent.
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
    /// With the place that each element had in the file.
    List(Vec<(usize, Tree)>),
    /// With the line of the key.
    Map(Vec<(String, u64, Tree)>),
}

impl Tree {
    /// `None` for a document without content; an error is a line and a text.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, (Option<u64>, String)> {
        match serde_saphyr::from_str::<Option<Self>>(text) {
            Ok(Some(Self { node: Node::Null, .. }) | None) => Ok(None),
            Ok(Some(tree @ Self { node: Node::Map(_), .. })) => Ok(Some(tree)),
            Ok(Some(tree)) => Err((Some(tree.line), "a map of keys is expected, such as `nats:`".to_owned())),
            Err(error) => {
                let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
                let text = error.without_snippet().to_string();
                Err((line, format!("this is not YAML: {}", text.lines().next().unwrap_or_default())))
            }
        }
    }

    /// The line of `key`, or of the nearest section above it that stands in the file.
    pub(super) fn line_of(&self, key: &Key) -> Option<u64> {
        let mut at = self;
        let mut found = None;
        for token in key.tokens() {
            let Some((line, next)) = at.child(token) else { break };
            found = Some(line);
            at = next;
        }
        found
    }

    /// `key` with the places its list elements had in the file.
    pub(super) fn original(&self, key: &Key) -> Key {
        let mut at = Some(self);
        let mut tokens = Vec::new();
        for token in key.tokens() {
            let index = index_of(token);
            match (at.map(|tree| &tree.node), index) {
                (Some(Node::List(items)), Some(index)) => {
                    let item = items.get(index);
                    tokens.push(format!("[{}]", item.map_or(index, |(place, _)| *place)));
                    at = item.map(|(_, tree)| tree);
                }
                (_, Some(index)) => tokens.push(format!("[{index}]")),
                _ => {
                    tokens.push(token.clone());
                    at = at.and_then(|tree| tree.child(token)).map(|(_, tree)| tree);
                }
            }
        }
        Key::from_tokens(tokens)
    }

    /// Whether there was something to remove. An element of a list is named by its place in the file.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        let Some((last, above)) = key.tokens().split_last() else {
            return false;
        };
        let mut at = self;
        for token in above {
            let Some(next) = at.child_mut(token) else { return false };
            at = next;
        }
        match &mut at.node {
            Node::Map(entries) => {
                let before = entries.len();
                entries.retain(|(name, _, _)| name != last);
                before != entries.len()
            }
            Node::List(items) => {
                let before = items.len();
                items.retain(|(place, _)| Some(*place) != index_of(last));
                before != items.len()
            }
            _ => false,
        }
    }

    fn child(&self, token: &str) -> Option<(u64, &Self)> {
        match &self.node {
            Node::Map(entries) => {
                entries.iter().find(|(name, _, _)| name == token).map(|(_, line, tree)| (*line, tree))
            }
            Node::List(items) => {
                let place = index_of(token)?;
                items.iter().find(|(at, _)| *at == place).map(|(_, tree)| (tree.line, tree))
            }
            _ => None,
        }
    }

    fn child_mut(&mut self, token: &str) -> Option<&mut Self> {
        match &mut self.node {
            Node::Map(entries) => entries.iter_mut().find(|(name, _, _)| name == token).map(|(_, _, tree)| tree),
            Node::List(items) => {
                let place = index_of(token)?;
                items.iter_mut().find(|(at, _)| *at == place).map(|(_, tree)| tree)
            }
            _ => None,
        }
    }
}

fn index_of(token: &str) -> Option<usize> {
    token.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), node: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Uint(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push((list.len(), item));
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some((key, tree)) = entries.next_entry::<Spanned<String>, Tree>()? {
            map.push((key.value, key.referenced.line(), tree));
        }
        Ok(Node::Map(map))
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.node {
            Node::Null => serializer.serialize_unit(),
            Node::Bool(value) => serializer.serialize_bool(*value),
            Node::Int(value) => serializer.serialize_i64(*value),
            Node::Uint(value) => serializer.serialize_u64(*value),
            Node::Float(value) => serializer.serialize_f64(*value),
            Node::Text(value) => serializer.serialize_str(value),
            Node::List(items) => serializer.collect_seq(items.iter().map(|(_, tree)| tree)),
            Node::Map(entries) => {
                let mut map = serializer.serialize_map(None)?;
                for (name, _, tree) in entries {
                    if !matches!(tree.node, Node::Null) {
                        map.serialize_entry(name, tree)?;
                    }
                }
                map.end()
            }
        }
    }
}
