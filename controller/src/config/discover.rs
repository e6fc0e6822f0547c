//! `discover:`: which objects are workloads.
//!
//! Owns the form of configured kinds and the presets, which are kinds of the same form.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_plan::input::WorkloadKind;
use daemon::config::{Problems, Validate};
use serde::{Deserialize, Serialize};

use crate::watch::configured::path_problem;

/// Every preset, as JSON: name to kinds.
pub const PRESETS: &str = include_str!("presets.json");

/// `discover:` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DiscoverSettings {
    /// Which Pods are looked at.
    pub pods: PodsMode,
    /// For how long an image that only Pods show stays wanted after the last such Pod has gone.
    #[serde(with = "shared::duration")]
    pub linger: Duration,
    /// Kinds that are known by name.
    pub presets: BTreeSet<String>,
    /// More kinds. One that a preset has too is taken from here.
    pub kinds: Vec<KindSettings>,
    /// How often a kind that the cluster does not have is looked for.
    #[serde(with = "shared::duration")]
    pub look_again: Duration,
}

impl Default for DiscoverSettings {
    fn default() -> Self {
        Self {
            pods: PodsMode::All,
            linger: Duration::from_mins(10),
            presets: BTreeSet::new(),
            kinds: Vec::new(),
            look_again: Duration::from_secs(30),
        }
    }
}

/// Which Pods are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodsMode {
    /// Those that nothing watched controls.
    Unowned,
    /// The others too, for the images that their templates do not name.
    #[default]
    All,
}

/// One kind of `discover.kinds`, and of a preset.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KindSettings {
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// As in `kind:` of its objects.
    pub kind: String,
    /// As in the API's paths; absent: the kind in lower case with an `s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plural: Option<String>,
    /// `JSONPath`s to pod templates, or to pod specs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<String>,
    /// `JSONPath`s to image references.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// `JSONPath` to the reference of an object (`apiVersion`, `kind`, `name`) whose templates are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_ref: Option<String>,
    /// `JSONPath`s of which one finds something in an object that has ended and starts no Pod any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<String>,
    /// It names no image itself: its children are counted as its owner's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub through: bool,
}

impl KindSettings {
    /// Its kind.
    pub fn workload_kind(&self) -> WorkloadKind {
        WorkloadKind::of(&self.group, &self.kind)
    }

    /// As in the API's paths.
    pub fn plural(&self) -> String {
        self.plural.clone().unwrap_or_else(|| format!("{}s", self.kind.to_lowercase()))
    }
}

impl DiscoverSettings {
    /// Every preset.
    pub fn presets() -> BTreeMap<String, Vec<KindSettings>> {
        // A test reads it.
        serde_json::from_str(PRESETS).unwrap_or_default()
    }

    /// Every kind that is watched beside the built-in ones, each once.
    pub fn kinds(&self) -> BTreeMap<WorkloadKind, KindSettings> {
        let presets = Self::presets();
        let of_presets = self.presets.iter().filter_map(|name| presets.get(name)).flatten();
        of_presets.chain(&self.kinds).map(|kind| (kind.workload_kind(), kind.clone())).collect()
    }
}

impl Validate for DiscoverSettings {
    fn problems(&self, found: &mut Problems) {
        if self.look_again < Duration::from_secs(1) {
            found.add("lookAgain", "is below 1s; raise it, 30s is usual");
        }
        let presets = Self::presets();
        for name in self.presets.iter().filter(|name| !presets.contains_key(*name)) {
            let known: Vec<&str> = presets.keys().map(String::as_str).collect();
            found.add("presets", format!("`{name}` is no preset; there are {}", known.join(", ")));
        }
        let mut seen = BTreeSet::new();
        for (index, kind) in self.kinds.iter().enumerate() {
            found.section(&format!("kinds[{index}]"), kind);
            if !seen.insert(kind.workload_kind()) {
                found.add(&format!("kinds[{index}]"), format!("`{}` is there twice; keep one", kind.workload_kind()));
            }
        }
    }
}

impl Validate for KindSettings {
    fn problems(&self, found: &mut Problems) {
        let is_label = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        let is_kind = self.kind.starts_with(|c: char| c.is_ascii_uppercase())
            && self.kind.chars().all(|c| c.is_ascii_alphanumeric());
        if !self.group.split('.').all(is_label) {
            found.add("group", format!("`{}` is no API group; write one such as apps.example.com", self.group));
        }
        if !is_label(&self.version) {
            found.add("version", format!("`{}` is no API version; write one such as v1alpha1", self.version));
        }
        if !is_kind {
            found.add(
                "kind",
                format!("`{}` is no kind; write it as in the objects' `kind:`, such as Rollout", self.kind),
            );
        } else if !matches!(self.workload_kind(), WorkloadKind::Other(_)) {
            found.add("kind", format!("`{}` is always watched; remove it", self.kind));
        }
        if self.plural.as_deref().is_some_and(|plural| !is_label(plural)) {
            found.add("plural", "is no name of a resource; write it as `kubectl api-resources` does, such as rollouts");
        }
        let is_silent = self.templates.is_empty() && self.images.is_empty() && self.workload_ref.is_none();
        if is_silent != self.through {
            let text = if self.through {
                "is true beside templates, images or workloadRef; remove one or the other"
            } else {
                "is false, and there are neither templates nor images nor workloadRef; give a JSONPath such as $.spec.template"
            };
            found.add("through", text);
        }
        let lists = [("templates", &self.templates), ("images", &self.images), ("ended", &self.ended)];
        let of_lists = lists.into_iter().flat_map(|(key, list)| {
            list.iter().enumerate().map(move |(index, path)| (format!("{key}[{index}]"), path))
        });
        let reference = self.workload_ref.iter().map(|path| ("workloadRef".to_owned(), path));
        for (key, path) in of_lists.chain(reference) {
            if let Some(problem) = path_problem(path) {
                found.add(&key, format!("`{path}` is no JSONPath (RFC 9535): {problem}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_one_that_check_config_would_let_through() {
        let presets = DiscoverSettings::presets();
        assert_eq!(presets.len(), 10);
        let kinds = presets.into_values().flatten().collect();
        let all = DiscoverSettings { kinds, ..DiscoverSettings::default() };
        let mut found = Problems::default();
        all.problems(&mut found);
        assert!(found.is_empty(), "{:?}", found.messages());
        assert!(all.kinds.iter().all(|kind| kind.plural.is_some()));
    }

    #[test]
    fn what_is_wrong_with_a_kind_is_said_where_it_stands() {
        let text = r#"{"presets":["argo"],"kinds":[
            {"group":"Example","version":"","kind":"thing","templates":["spec.template"]},
            {"group":"apps","version":"v1","kind":"Deployment","images":["$.x[?"]},
            {"group":"a.b","version":"v1","kind":"Empty"}]}"#;
        let mut found = Problems::default();
        serde_json::from_str::<DiscoverSettings>(text).unwrap().problems(&mut found);
        let said = found.messages().join("\n");
        for part in [
            "`argo` is no preset; there are argo-rollouts, argo-workflows",
            "kinds[0].group",
            "kinds[0].version",
            "kinds[0].kind",
            "kinds[0].templates[0]",
            "kinds[1].kind",
            "is always watched",
            "kinds[1].images[0]",
            "kinds[2].through",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
