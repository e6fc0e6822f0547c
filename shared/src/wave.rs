//! Waves: how much of a pool may pull an image now.
//!
//! Owns the choice of nodes; it is a pure function of names, so it survives restarts of both sides.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::name::{ImageKey, NodeName};

/// How far an image is open. One update of the intent moves a whole wave.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wave {
    /// Nodes whose [`slot`] lies below may start: 0 none, 65536 all.
    pub open: u32,
    /// Nodes that may start in any case (canaries), at most 16.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// Whether leave must be asked before each pull.
    #[serde(default)]
    pub permit: bool,
}

impl Wave {
    /// Open for every node, no permit.
    pub fn all() -> Self {
        Self { open: 65_536, nodes: Vec::new(), permit: false }
    }

    /// Whether this node may start.
    pub fn admits(&self, node: &NodeName, id: &ImageKey) -> bool {
        slot(node, id) < self.open || self.nodes.iter().any(|n| n == node.as_str())
    }
}

impl Default for Wave {
    fn default() -> Self {
        Self::all()
    }
}

/// First two bytes of SHA-256(node ‖ id): 0-65535.
pub fn slot(node: &NodeName, id: &ImageKey) -> u32 {
    let hash = Sha256::new().chain_update(node.as_str()).chain_update(id.as_str()).finalize();
    match hash.as_slice() {
        [high, low, ..] => u32::from(*high) << 8 | u32::from(*low),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_zero_admits_only_named_nodes_and_65536_everyone() {
        let id = ImageKey::of("docker.io/library/nginx:latest");
        for i in 0..200 {
            let node = NodeName::parse(&format!("n{i}")).unwrap();
            assert!(Wave::all().admits(&node, &id));
            let mut closed = Wave { open: 0, ..Wave::all() };
            assert!(!closed.admits(&node, &id));
            closed.nodes.push(node.as_str().to_owned());
            assert!(closed.admits(&node, &id));
        }
    }

    #[test]
    fn a_slot_is_pinned_for_ever() {
        let id = ImageKey::of("docker.io/library/nginx:latest");
        let expected = {
            let hash = Sha256::digest(format!("a{id}"));
            u32::from(hash[0]) * 256 + u32::from(hash[1])
        };
        assert_eq!(slot(&NodeName::parse("a").unwrap(), &id), expected);
    }
}
