//! Whose images are wanted: reloadable configuration.

use serde::{Deserialize, Serialize};

/// `select:` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Selection {
    /// Namespaces by include and exclude lists; exclude wins.
    pub namespaces: Namespaces,
    /// `optOut`: everything not opted out; `optIn`: only what is opted in by annotation.
    pub mode: Mode,
}

impl Default for Selection {
    fn default() -> Self {
        Self { namespaces: Namespaces::default(), mode: Mode::OptOut }
    }
}

/// Globs over namespace names: `*` any text, `?` one character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Namespaces {
    /// Default `*`.
    pub include: Vec<String>,
    /// Default `kube-system kube-public kube-node-lease`; the release's own namespace is added by the process.
    pub exclude: Vec<String>,
}

impl Default for Namespaces {
    fn default() -> Self {
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Self { include: words(&["*"]), exclude: words(&["kube-system", "kube-public", "kube-node-lease"]) }
    }
}

/// What an object without the annotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Wanted.
    #[default]
    OptOut,
    /// Not wanted.
    OptIn,
}
