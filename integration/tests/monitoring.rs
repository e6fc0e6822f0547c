//! Alerts and dashboard, as far as no cluster is needed.
//!
//! Shows: each alert fires on the trouble it is for and is silent in a healthy cluster (promtool), names a severity, says
//! what is the case and has a runbook page with the sections that people look for; expressions name nothing that is not in
//! the table of metrics, and the dashboard shows every metric there is; the chart brings the rules and the dashboard as they
//! are, and leaves out monitors where nobody knows them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a helper of a test fails the test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use integration::chart::Chart;
use integration::monitoring::{DASHBOARD, RULES, RUNBOOKS, alerts, metrics_of, queries, read, root};
use integration::prometheus;
use serde_json::Value;
use shared::metric;

/// The headings of a runbook page, in order.
const SECTIONS: [&str; 4] = ["## What it means", "## What users feel", "## How to find out why", "## How to mend it"];

fn promtool(args: &[&str], folder: &Path) -> Output {
    let program = prometheus::program("promtool").unwrap();
    Command::new(program).args(args).current_dir(folder).output().unwrap()
}

/// Runs the unit tests of the rules over these rules.
fn unit_tests(rules: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yaml"), rules).unwrap();
    let tests = read("integration/tests/monitoring/rules_test.yaml").unwrap();
    std::fs::write(folder.path().join("rules_test.yaml"), tests).unwrap();
    let output = promtool(&["test", "rules", "rules_test.yaml"], folder.path());
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

#[test]
fn each_alert_fires_on_its_trouble_alone_and_none_in_a_healthy_cluster() {
    let rules = read(RULES).unwrap();
    let output = promtool(&["check", "rules", "--lint=all", "--lint-fatal", RULES], &root());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (is_passed, said) = unit_tests(&rules);
    assert!(is_passed, "{said}");
    let tests = read("integration/tests/monitoring/rules_test.yaml").unwrap();
    for alert in alerts().unwrap() {
        assert!(tests.contains(&format!("alertname=\"{}\"", alert.name)), "{} has no unit test", alert.name);
        // Without it, or always on: both are found.
        let broken = rules.replace(&format!("'{}'", alert.expression.replace('\'', "''")), "'vector(0) == 1'");
        assert_ne!(broken, rules, "{}", alert.name);
        assert!(!unit_tests(&broken).0, "nobody misses {}", alert.name);
    }
    let (is_passed, _) = unit_tests(&rules.replacen("'max(warm_leading) == 0'", "'max(warm_leading) >= 0'", 1));
    assert!(!is_passed, "an alert that always fires is not found");
}

#[test]
fn alerts_and_dashboard_name_only_metrics_and_labels_of_the_table_and_the_dashboard_shows_all() {
    for alert in alerts().unwrap() {
        metrics_of(&alert.expression).unwrap_or_else(|error| panic!("{}: {error:#}", alert.name));
    }
    let mut shown = BTreeSet::new();
    for query in queries("1m").unwrap() {
        let metrics = metrics_of(&query.expression).unwrap_or_else(|error| panic!("{}: {error:#}", query.title));
        shown.extend(metrics.iter().map(|metric| metric.name));
    }
    let all: BTreeSet<_> = metric::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(shown, all, "the dashboard shows every metric there is");
    let docs = read("docs/reference/metrics.md").unwrap();
    for name in all {
        assert!(docs.contains(&format!("`{name}`")), "{name} is not documented");
    }
}

#[test]
fn each_alert_says_how_bad_it_is_and_has_a_page_that_says_what_to_do() {
    let index = read(&format!("{RUNBOOKS}/README.md")).unwrap();
    let mut pages = BTreeSet::from(["README.md".to_owned()]);
    for alert in alerts().unwrap() {
        let name = &alert.name;
        assert!(["critical", "warning", "info"].contains(&alert.severity.as_str()), "{name}: {}", alert.severity);
        for annotation in ["summary", "description"] {
            assert!(alert.annotation(annotation).ends_with('.'), "{name}: {annotation}");
        }
        assert_eq!(alert.annotation("runbook_url"), format!("{RUNBOOKS}/{name}.md"));
        let page = read(&format!("{RUNBOOKS}/{name}.md")).unwrap();
        assert!(page.starts_with(&format!("# {name}\n")), "{name}: another heading");
        let mut rest = page.as_str();
        for section in SECTIONS {
            let at = rest.find(&format!("\n{section}\n")).unwrap_or_else(|| panic!("{name}: no `{section}`"));
            rest = &rest[at + 1..];
        }
        assert!(page.contains("```console\n"), "{name}: no command to find out with");
        assert!(index.contains(&format!("({name}.md)")), "{name} is not in the index");
        pages.insert(format!("{name}.md"));
    }
    let there = std::fs::read_dir(root().join(RUNBOOKS)).unwrap();
    let there: BTreeSet<String> = there.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, pages, "pages without an alert");
}

fn objects(text: &str) -> Vec<Value> {
    let all = text.split("\n---").filter_map(|text| serde_saphyr::from_str::<Option<Value>>(text).unwrap());
    all.filter(|object| !object.is_null()).collect()
}

fn kinds(args: &[&str]) -> Result<BTreeSet<String>, String> {
    let text = Chart::new().unwrap().template(args).unwrap()?;
    Ok(objects(&text).iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect())
}

#[test]
fn the_chart_brings_rules_and_dashboard_as_they_are() {
    let all = objects(&Chart::new().unwrap().rendered("production").unwrap());
    let find = |kind: &str, name: &str| {
        let is_it = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == name;
        all.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}")).clone()
    };
    let rule = find("PrometheusRule", "warm-images-alerts");
    let at = "https://runbooks.example.com/warm-images";
    let expected: Value = serde_saphyr::from_str(&read(RULES).unwrap().replace(RUNBOOKS, at)).unwrap();
    assert_eq!(rule["spec"], expected);
    assert_eq!(rule["metadata"]["labels"]["release"], "prometheus");
    let map = find("ConfigMap", "warm-images-dashboard");
    let dashboard: Value = serde_json::from_str(map["data"]["warm-images.json"].as_str().unwrap()).unwrap();
    assert_eq!(dashboard, serde_json::from_str::<Value>(&read(DASHBOARD).unwrap()).unwrap());
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
}

#[test]
fn monitors_are_made_where_the_operator_is_known_and_otherwise_as_the_value_says() {
    let on = ["--set", "monitoring.enabled=true,monitoring.rules.enabled=true"];
    let operator = ["ServiceMonitor", "PodMonitor", "PrometheusRule"].map(ToOwned::to_owned);
    let with = |more: &[&str]| kinds(&[&on, more].concat());
    let made = |kinds: &BTreeSet<String>| operator.iter().filter(|kind| kinds.contains(*kind)).count();
    assert_eq!(made(&with(&[]).unwrap()), 0, "nobody knows them");
    assert_eq!(made(&with(&["--api-versions", "monitoring.coreos.com/v1"]).unwrap()), 3);
    assert_eq!(made(&with(&["--set", "monitoring.renderMode=alwaysRender"]).unwrap()), 3);
    let refused = with(&["--set", "monitoring.renderMode=failIfMissing"]).unwrap_err();
    assert!(refused.contains("install the Prometheus operator first"), "{refused}");
    assert_eq!(made(&kinds(&[]).unwrap()), 0);
}
