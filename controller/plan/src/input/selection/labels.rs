//! Label selectors, as Kubernetes has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `meta/v1 LabelSelector`: everything must hold. An empty one matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LabelSelector {
    /// These labels with these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// These requirements.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// `meta/v1 LabelSelectorRequirement`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelRequirement {
    /// Label key.
    pub key: String,
    /// How to compare.
    pub operator: LabelOperator,
    /// With what: for `In` and `NotIn` at least one, for the others none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// `meta/v1 LabelSelectorOperator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words of meta/v1 LabelSelectorOperator")]
pub enum LabelOperator {
    In,
    /// Also where there is no such label.
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Whether labels are selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.holds(labels))
    }
}

impl LabelRequirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => value.is_some_and(|value| self.values.contains(value)),
            LabelOperator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing("{}", &[], true)]
    #[case::label(r#"{"matchLabels":{"team":"a"}}"#, &[("team", "a")], true)]
    #[case::other_value(r#"{"matchLabels":{"team":"a"}}"#, &[("team", "b")], false)]
    #[case::absent(r#"{"matchLabels":{"team":"a"}}"#, &[], false)]
    #[case::empty_value(r#"{"matchLabels":{"team":""}}"#, &[("team", "")], true)]
    #[case::one_in(r#"{"matchExpressions":[{"key":"team","operator":"In","values":["a","b"]}]}"#, &[("team", "b")], true)]
    #[case::none_in(r#"{"matchExpressions":[{"key":"team","operator":"In","values":["a","b"]}]}"#, &[("team", "c")], false)]
    #[case::absent_in(r#"{"matchExpressions":[{"key":"team","operator":"In","values":["a"]}]}"#, &[], false)]
    #[case::not_in(r#"{"matchExpressions":[{"key":"team","operator":"NotIn","values":["a"]}]}"#, &[("team", "a")], false)]
    #[case::other_not_in(r#"{"matchExpressions":[{"key":"team","operator":"NotIn","values":["a"]}]}"#, &[("team", "b")], true)]
    #[case::absent_not_in(r#"{"matchExpressions":[{"key":"team","operator":"NotIn","values":["a"]}]}"#, &[], true)]
    #[case::exists(r#"{"matchExpressions":[{"key":"team","operator":"Exists"}]}"#, &[("team", "")], true)]
    #[case::exists_not(r#"{"matchExpressions":[{"key":"team","operator":"Exists"}]}"#, &[], false)]
    #[case::no_such(r#"{"matchExpressions":[{"key":"team","operator":"DoesNotExist"}]}"#, &[], true)]
    #[case::such(r#"{"matchExpressions":[{"key":"team","operator":"DoesNotExist"}]}"#, &[("team", "a")], false)]
    #[case::both(
        r#"{"matchLabels":{"a":"1"},"matchExpressions":[{"key":"b","operator":"Exists"}]}"#, &[("a", "1"), ("b", "2")], true
    )]
    #[case::one_of_both(
        r#"{"matchLabels":{"a":"1"},"matchExpressions":[{"key":"b","operator":"Exists"}]}"#, &[("a", "1")], false
    )]
    fn a_selector_means_what_it_means_in_kubernetes(
        #[case] selector: &str,
        #[case] labels: &[(&str, &str)],
        #[case] expected: bool,
    ) {
        let selector: LabelSelector = serde_json::from_str(selector).unwrap();
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(selector.matches(&labels), expected);
    }
}
