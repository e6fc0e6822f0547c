//! What the chart brings for Prometheus and Grafana: owns reading its alert rules and its dashboard, and which names of
//! metrics and labels an expression uses. Asks nobody.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use regex::Regex;
use serde_json::Value;
use shared::metric::{self, Metric, MetricKind};

/// The alert rules, from the top of the repository.
pub const RULES: &str = "helm/warm-images/files/rules.yaml";
/// The dashboard.
pub const DASHBOARD: &str = "helm/warm-images/files/dashboard.json";
/// The folder of the runbooks.
pub const RUNBOOKS: &str = "docs/operate/runbooks";

/// What stands in Grafana's queries for a time over which a rate can be told.
const INTERVAL: &str = "$__rate_interval";

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Its name.
    pub name: String,
    /// When it fires.
    pub expression: String,
    /// `critical`, `warning` or `info`.
    pub severity: String,
    /// Summary, description, and where its page is.
    pub annotations: Vec<(String, String)>,
}

impl Alert {
    /// What is compared with a bound, or said to be absent: that gives something in a healthy cluster too.
    pub fn measured(&self) -> Result<String> {
        if let Some(inner) = self.expression.strip_prefix("absent(").and_then(|rest| rest.strip_suffix(')')) {
            return Ok(inner.to_owned());
        }
        let bound = Regex::new(r"^(.*) (?:==|>=|<=|>|<) [0-9.]+$")?;
        let found = bound.captures(&self.expression).and_then(|found| found.get(1));
        found.map(|found| found.as_str().to_owned()).with_context(|| format!("{}: no bound at its end", self.name))
    }

    /// The value of an annotation.
    pub fn annotation(&self, name: &str) -> &str {
        self.annotations.iter().find(|(there, _)| there == name).map_or("", |(_, text)| text)
    }
}

/// A query of the dashboard with the title of its panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Of the panel.
    pub title: String,
    /// For Prometheus, with times in place of Grafana's variables.
    pub expression: String,
}

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of the repository.
pub fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(root().join(path)).with_context(|| format!("reading {path}"))
}

/// Every alert.
pub fn alerts() -> Result<Vec<Alert>> {
    let file: Value = serde_saphyr::from_str(&read(RULES)?).map_err(|error| anyhow!("{RULES}: {error}"))?;
    let groups = file.get("groups").and_then(Value::as_array).context("no groups")?;
    let rules = groups.iter().filter_map(|group| group.get("rules")?.as_array()).flatten();
    rules
        .map(|rule| {
            let text = |at: &str| rule.pointer(at).and_then(Value::as_str).map(ToOwned::to_owned);
            let annotations = rule.get("annotations").and_then(Value::as_object).into_iter().flatten();
            Ok(Alert {
                name: text("/alert").with_context(|| format!("not an alert: {rule}"))?,
                expression: text("/expr").with_context(|| format!("no expression: {rule}"))?,
                severity: text("/labels/severity").unwrap_or_default(),
                annotations: annotations
                    .map(|(name, text)| (name.clone(), text.as_str().unwrap_or_default().to_owned()))
                    .collect(),
            })
        })
        .collect()
}

/// Every query of the dashboard; rates are over `interval`.
pub fn queries(interval: &str) -> Result<Vec<Query>> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)?).context(DASHBOARD)?;
    let panels = dashboard.get("panels").and_then(Value::as_array).context("no panels")?;
    let mut queries = Vec::new();
    for panel in panels {
        let title = panel.get("title").and_then(Value::as_str).context("a panel without a title")?;
        for target in panel.get("targets").and_then(Value::as_array).into_iter().flatten() {
            let expression = target.get("expr").and_then(Value::as_str).with_context(|| title.to_owned())?;
            let expression = expression.replace(INTERVAL, interval);
            ensure!(!expression.contains('$'), "{title}: a variable that is not known: {expression}");
            queries.push(Query { title: title.to_owned(), expression });
        }
    }
    Ok(queries)
}

/// The metrics of an expression, all of them of the table, with labels of theirs alone.
pub fn metrics_of(expression: &str) -> Result<Vec<Metric>> {
    let mut found: Vec<Metric> = Vec::new();
    for name in Regex::new(r"\bwarm_[a-z0-9_]+")?.find_iter(expression).map(|m| m.as_str()) {
        let plain = metric::ALL.iter().find(|m| m.name == name && m.kind != MetricKind::Histogram);
        let of_histogram =
            |m: &&Metric| m.kind == MetricKind::Histogram && name.strip_prefix(m.name) == Some("_bucket");
        let metric = plain.or_else(|| metric::ALL.iter().find(of_histogram));
        found.push(*metric.with_context(|| format!("{name} is not in the table: {expression}"))?);
    }
    ensure!(!found.is_empty(), "no metric of ours: {expression}");
    let is_histogram = found.iter().any(|m| m.kind == MetricKind::Histogram);
    let known: BTreeSet<&str> =
        found.iter().flat_map(|m| m.labels).copied().chain(is_histogram.then_some("le")).collect();
    let matched = Regex::new(r"([a-z_]+)(?:=~|!~|!=|=)\x22")?;
    let grouped = Regex::new(r"(?:by|ignoring|on|without) \(([a-z_, ]*)\)")?;
    let names = matched.captures_iter(expression).filter_map(|c| c.get(1)).map(|m| m.as_str());
    let lists = grouped.captures_iter(expression).filter_map(|c| c.get(1)).flat_map(|m| m.as_str().split(", "));
    for label in names.chain(lists) {
        ensure!(
            known.contains(label),
            "{label} is no label of {:?}: {expression}",
            found.iter().map(|m| m.name).collect::<Vec<_>>()
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_with_a_name_or_label_that_is_not_in_the_table_is_found() {
        let names = |text: &str| metrics_of(text).map(|all| all.iter().map(|m| m.name).collect::<Vec<_>>());
        assert_eq!(names("sum by (state) (warm_images_objects)").unwrap(), ["warm_images_objects"]);
        assert!(names("histogram_quantile(0.9, sum by (le) (rate(warm_step_seconds_bucket[1m])))").is_ok());
        for wrong in [
            "warm_no_such_total",
            "warm_step_seconds",
            "sum by (node) (warm_images_objects)",
            "warm_images_objects{image=\"a\"}",
            "sum by (le) (warm_images_objects)",
            "up",
        ] {
            assert!(metrics_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_an_alert_measures_is_its_expression_without_the_bound() {
        let alert = |expression: &str| Alert {
            name: "A".to_owned(),
            expression: expression.to_owned(),
            severity: String::new(),
            annotations: Vec::new(),
        };
        assert_eq!(alert("max(a) >= 0.5").measured().unwrap(), "max(a)");
        assert_eq!(alert("absent(a)").measured().unwrap(), "a");
        assert!(alert("max(a)").measured().is_err());
    }
}
