//! Whose images are wanted: reloadable configuration.
//!
//! Owns the words of `select:`. What they decide is `select`'s.

mod labels;

use serde::{Deserialize, Serialize};

pub use self::labels::{LabelOperator, LabelRequirement, LabelSelector};

/// `select:` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Selection {
    /// Namespaces by include and exclude lists; exclude wins.
    pub namespaces: Namespaces,
    /// `optOut`: everything not opted out; `optIn`: only what is opted in by annotation.
    pub mode: Mode,
    /// If there are any, one of them must match.
    pub include: Vec<Rule>,
    /// None of them may match: exclude wins.
    pub exclude: Vec<Rule>,
    /// The first that matches gives the priority, where no annotation does.
    pub priorities: Vec<Rule>,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            namespaces: Namespaces::default(),
            mode: Mode::OptOut,
            include: Vec::new(),
            exclude: Vec::new(),
            priorities: Vec::new(),
        }
    }
}

impl Selection {
    /// Every CEL expression, each once, in the order of the rules.
    pub fn expressions(&self) -> Vec<&str> {
        let mut all: Vec<&str> = Vec::new();
        for expression in self.rules().filter_map(|rule| rule.expression.as_deref()) {
            if !all.contains(&expression) {
                all.push(expression);
            }
        }
        all
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.include.iter().chain(&self.exclude).chain(&self.priorities)
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

/// One rule: it matches an image of a workload if every condition that is given holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rule {
    /// What people call it, where it is said which rule decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Globs over the namespace's name: one must match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// The namespace's labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Kinds as they are shown: `Deployment`, `Rollout.argoproj.io`. One must be that of the workload.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// The workload's own labels, not those of its pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_selector: Option<LabelSelector>,
    /// One must match the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageMatch>,
    /// CEL over the variable `object`, the whole object as the API server shows it: must be true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// From 0 to 100. Of the rules of `priorities`, and of no others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
}

impl Rule {
    /// Whether it has any condition; one without matches everything.
    pub fn has_conditions(&self) -> bool {
        let Self { name: _, namespaces, namespace_selector, kinds, object_selector, images, expression, priority: _ } =
            self;
        let lists = !(namespaces.is_empty() && kinds.is_empty() && images.is_empty());
        lists || namespace_selector.is_some() || object_selector.is_some() || expression.is_some()
    }
}

/// What an image must look like: everything that is given must hold of its canonical reference, such as
/// `docker.io/library/nginx:1.27`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ImageMatch {
    /// Of all of it: `*` any text, `/` too, `?` one character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glob: Option<String>,
    /// Somewhere in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// RE2 syntax; somewhere in it, unless `^` and `$` say otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Glob over the registry's host and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
}

impl ImageMatch {
    /// What is wrong with the regular expression, on one line.
    pub fn bad_regex(&self) -> Option<String> {
        let error = crate::select::regex(self.regex.as_deref()?).err()?;
        let text = error.to_string();
        // The last line says what is wrong, those above show where.
        let last = text.lines().next_back().unwrap_or("it cannot be used");
        Some(last.trim_start_matches("error: ").to_owned())
    }
}
