//! Files that are made from tables in the code: owns which there are and their text. They are committed; a test fails when
//! one differs, `cargo xtask generate` writes them.

mod values;

use std::fmt::Write as _;

use controller::api::access::{self, Access, Scope};
use controller::api::image_set;
use shared::metric::{self, MetricKind, Process};
use shared::reason::Reason;
use shared::state::ImageState;

/// A file of the repository and what it has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Path from the top of the repository.
    pub path: &'static str,
    /// Its whole text.
    pub text: String,
}

/// Every generated file.
pub fn all() -> Vec<Generated> {
    vec![
        Generated { path: "docs/reference/metrics.md", text: metrics() },
        Generated { path: "docs/reference/reasons.md", text: reasons() },
        Generated { path: "docs/reference/rbac.md", text: rbac() },
        Generated { path: "helm/warm-images/files/presets.json", text: controller::config::PRESETS.to_owned() },
        Generated { path: "docs/reference/values.md", text: values::table() },
        Generated { path: "helm/warm-images/files/imagesets.yaml", text: image_sets() },
    ]
}

fn heading(title: &str, from: &str) -> String {
    format!("# {title}\n\nGenerated from `{from}` by `cargo xtask generate`; edit that instead.\n\n")
}

/// The chart puts labels and annotations to it; as it is it can be applied by hand.
fn image_sets() -> String {
    let from = "# Generated from `controller/src/api/image_set.rs` by `cargo xtask generate`; edit that instead.\n";
    // Made of types alone: it always serialises.
    from.to_owned() + &serde_saphyr::to_string(&image_set::definition()).unwrap_or_default()
}

fn metrics() -> String {
    let mut text = heading("Metrics", "shared/src/metric.rs");
    text.push_str("Labels are bounded words: never an image, a node or a pod.\n\n");
    text.push_str("| metric | kind | labels | of | meaning |\n| --- | --- | --- | --- | --- |\n");
    for metric in metric::ALL {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram, seconds",
        };
        let process = match metric.process {
            Process::Both => "both",
            Process::Controller => "controller",
            Process::Agent => "agent",
        };
        let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{}` | {kind} | {} | {process} | {} |", metric.name, labels.join(" "), metric.help);
    }
    text
}

fn reasons() -> String {
    let mut text = heading("States and reasons", "shared/src/{state,reason}.rs");
    text.push_str("The same words stand in inventories, events, logs, metrics and `/state`.\n\nStates: ");
    let states: Vec<String> = ImageState::ALL.iter().map(|s| format!("`{s}`")).collect();
    let _ = writeln!(text, "{}.\n\n| reason | meaning |\n| --- | --- |", states.join(" "));
    for (reason, meaning) in Reason::ALL {
        let _ = writeln!(text, "| `{reason}` | {meaning} |");
    }
    text
}

fn rbac() -> String {
    let mut text = heading("What the controller may do", "controller/src/api/access.rs");
    text.push_str(
        "Agents have no rights in Kubernetes at all.\n\n| group | resources | verbs | where | what for |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    grants(&mut text, access::ACCESS);
    text.push_str(
        "\n## What the cleanup may do\n\nAfter `helm uninstall`, for as long as the hook runs.\n\n\
         | group | resources | verbs | where | what for |\n| --- | --- | --- | --- | --- |\n",
    );
    grants(&mut text, access::CLEANUP);
    text.push_str(
        "\n## What `init-nats` may do\n\nBefore an install or upgrade, for as long as the hook runs.\n\n\
         | group | resources | verbs | where | what for |\n| --- | --- | --- | --- | --- |\n",
    );
    grants(&mut text, access::INIT_NATS);
    text
}

fn grants(text: &mut String, rows: &[Access]) {
    for row in rows {
        let group = match row.group {
            _ if row.scope == Scope::Path => "–",
            "" => "core",
            group => group,
        };
        let (verbs, scope) = (row.verbs.join(" "), row.scope.as_str());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {group} | {} | {verbs} | {scope} | {} |", row.resource, row.purpose);
    }
}
