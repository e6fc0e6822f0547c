//! `select:`: what makes its patterns and rules wrong.
//!
//! Owns what is said of them. What they mean is `cluster_plan`'s.

use cluster_plan::input::Selection;
use cluster_plan::input::selection::{ImageMatch, LabelOperator, LabelSelector, Rule};
use daemon::config::{Problems, Validate};
use shared::name::NodeName;

use crate::expression::Expressions;

/// `select:`, to be looked through.
pub(super) struct Select<'a>(pub(super) &'a Selection);

impl Validate for Select<'_> {
    fn problems(&self, found: &mut Problems) {
        let Selection { namespaces, mode: _, include, exclude, priorities } = self.0;
        found.within("namespaces", |found| {
            patterns(found, "include", &namespaces.include);
            patterns(found, "exclude", &namespaces.exclude);
        });
        for (list, rules) in [("include", include), ("exclude", exclude), ("priorities", priorities)] {
            for (index, rule) in rules.iter().enumerate() {
                let key = format!("{list}[{index}]");
                if list != "priorities" && !rule.has_conditions() {
                    found.add(&key, "has no condition and matches everything; add one, or remove the rule");
                }
                found.within(&key, |found| of_rule(found, list, rule));
            }
        }
    }
}

fn of_rule(found: &mut Problems, list: &str, rule: &Rule) {
    let Rule { name, namespaces, namespace_selector, kinds, object_selector, images, expression, priority } = rule;
    if name.as_ref().is_some_and(|name| name.trim().is_empty() || name.len() > 63 || name.contains(char::is_control)) {
        found.add("name", "is not 1 to 63 characters on one line; leave it away, or call the rule something");
    }
    let is_for_priority = list == "priorities";
    match priority {
        None if is_for_priority => {
            found.add("priority", "is missing: give 0 to 100; 50 is that of what no rule matches");
        }
        Some(_) if !is_for_priority => found.add("priority", "belongs to the rules of select.priorities; remove it"),
        Some(priority) if *priority > 100 => found.add("priority", format!("{priority} is not from 0 to 100")),
        _ => {}
    }
    patterns(found, "namespaces", namespaces);
    for (index, kind) in kinds.iter().enumerate() {
        if kind.is_empty() || !kind.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')) {
            let key = format!("kinds[{index}]");
            found.add(&key, format!("`{kind}` is no kind; write Deployment, or Rollout.argoproj.io"));
        }
    }
    for (key, selector) in [("namespaceSelector", namespace_selector), ("objectSelector", object_selector)] {
        if let Some(selector) = selector {
            found.within(key, |found| of_selector(found, selector));
        }
    }
    for (index, image) in images.iter().enumerate() {
        found.within(&format!("images[{index}]"), |found| of_image(found, image));
    }
    if let Some(problem) = expression.as_deref().and_then(Expressions::problem) {
        found.add("expression", problem);
    }
}

fn of_image(found: &mut Problems, image: &ImageMatch) {
    let ImageMatch { glob, contains, regex, registry } = image;
    let conditions = [("glob", glob), ("contains", contains), ("regex", regex), ("registry", registry)];
    if conditions.iter().all(|(_, condition)| condition.is_none()) {
        found.add(
            "glob",
            "is missing, and so are contains, regex and registry: give one, such as `docker.io/library/*`",
        );
    }
    for (key, condition) in conditions {
        if condition.as_ref().is_some_and(String::is_empty) {
            found.add(key, "is empty; give a text, or remove the key");
        }
    }
    if let Some(problem) = image.bad_regex() {
        found.add("regex", format!("is no regular expression: {problem}"));
    }
    if registry.as_ref().is_some_and(|host| host.contains('/')) {
        found.add("registry", "has a `/`: it is compared with the host alone, such as `quay.io`; use glob for more");
    }
}

fn of_selector(found: &mut Problems, selector: &LabelSelector) {
    for (key, value) in &selector.match_labels {
        if !is_label_key(key) {
            found.add("matchLabels", format!("`{key}` is no key of a label"));
        }
        if !is_label_value(value) {
            found.add("matchLabels", format!("`{value}` is no value of a label"));
        }
    }
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        found.within(&format!("matchExpressions[{index}]"), |found| {
            if !is_label_key(&requirement.key) {
                found.add("key", format!("`{}` is no key of a label", requirement.key));
            }
            let needs_values = matches!(requirement.operator, LabelOperator::In | LabelOperator::NotIn);
            if needs_values && requirement.values.is_empty() {
                found.add("values", "is empty: In and NotIn need at least one");
            } else if !needs_values && !requirement.values.is_empty() {
                found.add("values", "is not empty: Exists and DoesNotExist take none");
            }
            for value in requirement.values.iter().filter(|value| !is_label_value(value)) {
                found.add("values", format!("`{value}` is no value of a label"));
            }
        });
    }
}

/// A qualified name of Kubernetes: `app`, `example.com/app`. The prefix obeys the rule of a Node's name (RFC 1123 subdomain).
fn is_label_key(key: &str) -> bool {
    match key.rsplit_once('/') {
        Some((prefix, name)) => NodeName::parse(prefix).is_ok() && is_label_word(name),
        None => is_label_word(key),
    }
}

fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_label_word(value)
}

fn is_label_word(word: &str) -> bool {
    let is_edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    word.len() <= 63 && word.chars().all(is_inner) && is_edge(word.chars().next()) && is_edge(word.chars().next_back())
}

/// A pattern that can match no namespace name (RFC 1123 label) is a mistake of typing.
fn patterns(found: &mut Problems, key: &str, patterns: &[String]) {
    for (index, pattern) in patterns.iter().enumerate() {
        let key = format!("{key}[{index}]");
        let stray = pattern.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '*' | '?'));
        if pattern.is_empty() {
            found.add(&key, "is empty and matches no namespace; remove it, or write * for all");
        } else if let Some(stray) = stray {
            found.add(
                &key,
                format!(
                    "`{pattern}` matches no namespace: names have a-z, 0-9 and -, patterns * and ? too, not `{stray}`"
                ),
            );
        }
    }
}
