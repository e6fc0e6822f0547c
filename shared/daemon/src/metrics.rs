//! Metrics: the one table of `shared::metric`, registered, counted and rendered.
//!
//! Owns every use of the metrics crates. Never invents a name or a label.

use std::sync::OnceLock;
use std::time::Duration;

use ::metrics::{Key, KeyName, Label, Level, Metadata, SharedString, with_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use shared::metric::{self, Metric, MetricKind, Process};
use shared::reason::{Class, Reason};

use crate::supervise::Shutdown;

/// A step of the machine: 10 µs to 1 s.
const FINE: &[f64] = &[0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];
/// A pull, or anything else that goes over a network: 50 ms to 20 minutes.
const COARSE: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0];
const UPKEEP: Duration = Duration::from_secs(5);

static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// How an effect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Ok,
    /// Failed; later it may succeed.
    Transient,
    /// The peer asks for patience.
    Throttled,
    /// Another was first.
    Conflict,
    /// Failed, and will again.
    Permanent,
}

impl Outcome {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::Conflict => "conflict",
            Self::Permanent => "permanent",
        }
    }
}

impl From<Class> for Outcome {
    fn from(class: Class) -> Self {
        match class {
            Class::Transient => Self::Transient,
            Class::Throttled => Self::Throttled,
            Class::Conflict => Self::Conflict,
            Class::Permanent => Self::Permanent,
        }
    }
}

/// Counts an effect that ended. Without a reason the label is empty.
pub fn effect_done(kind: &'static str, outcome: Outcome, reason: Option<Reason>) {
    count(metric::EFFECTS, &[kind, outcome.as_str(), reason.map_or("", Reason::as_str)], 1);
}

/// Adds `n` to a counter. `labels` are the values, in the order of the table.
pub fn count(metric: Metric, labels: &[&str], n: u64) {
    debug_assert_eq!(metric.kind, MetricKind::Counter, "{} is no counter", metric.name);
    with_recorder(|recorder| recorder.register_counter(&key(metric, labels), &METADATA).increment(n));
}

/// Sets a counter to a total that only grows and is kept elsewhere.
pub fn total(metric: Metric, labels: &[&str], n: u64) {
    debug_assert_eq!(metric.kind, MetricKind::Counter, "{} is no counter", metric.name);
    with_recorder(|recorder| recorder.register_counter(&key(metric, labels), &METADATA).absolute(n));
}

/// Sets a gauge.
pub fn gauge(metric: Metric, labels: &[&str], value: f64) {
    debug_assert_eq!(metric.kind, MetricKind::Gauge, "{} is no gauge", metric.name);
    with_recorder(|recorder| recorder.register_gauge(&key(metric, labels), &METADATA).set(value));
}

/// Adds a duration to a histogram.
pub fn observe(metric: Metric, labels: &[&str], seconds: Duration) {
    debug_assert_eq!(metric.kind, MetricKind::Histogram, "{} is no histogram", metric.name);
    with_recorder(|recorder| {
        recorder.register_histogram(&key(metric, labels), &METADATA).record(seconds.as_secs_f64());
    });
}

fn key(metric: Metric, values: &[&str]) -> Key {
    debug_assert_eq!(metric.labels.len(), values.len(), "{} has the labels {:?}", metric.name, metric.labels);
    let labels: Vec<Label> = metric
        .labels
        .iter()
        .zip(values)
        .map(|(name, value)| Label::new(*name, SharedString::from((*value).to_owned())))
        .collect();
    Key::from_parts(metric.name, labels)
}

/// Renders what was counted.
#[derive(Debug, Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// The text format of Prometheus.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Shows every counter and gauge without labels of `process` from the start, at 0.
    pub fn start_at_zero(&self, process: Process) {
        let ours = |metric: &&Metric| metric.process == Process::Both || metric.process == process;
        for metric in metric::ALL.iter().filter(ours).filter(|metric| metric.labels.is_empty()) {
            match metric.kind {
                MetricKind::Counter => count(*metric, &[], 0),
                MetricKind::Gauge => gauge(*metric, &[], 0.0),
                MetricKind::Histogram => {}
            }
        }
    }

    /// Keeps histograms small until the shutdown: a task for [`crate::supervise::Tasks::spawn`].
    pub async fn upkeep(self, shutdown: Shutdown) {
        let mut tick = tokio::time::interval(UPKEEP);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => self.0.run_upkeep(),
            }
        }
    }
}

/// Registers the table for this process. A second call gives the same.
pub fn install() -> MetricsHandle {
    let handle = HANDLE.get_or_init(|| {
        let recorder = build();
        let handle = recorder.handle();
        // An error means that another crate has installed a recorder: then ours renders nothing, and nothing breaks.
        if ::metrics::set_global_recorder(recorder).is_err() {
            tracing::error!("another metrics recorder is installed; /metrics stays empty");
        }
        with_recorder(describe);
        handle
    });
    MetricsHandle(handle.clone())
}

fn build() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for metric in metric::ALL.iter().filter(|metric| metric.kind == MetricKind::Histogram) {
        let is_fine = [metric::STEP_SECONDS, metric::LOGIN_SECONDS].contains(metric);
        let buckets = if is_fine { FINE } else { COARSE };
        let name = Matcher::Full(metric.name.to_owned());
        builder = builder.set_buckets_for_metric(name, buckets).unwrap_or_else(|error| {
            // The only error is an empty list of buckets, which neither is.
            tracing::error!(metric = metric.name, %error, "no buckets");
            PrometheusBuilder::new()
        });
    }
    builder.build_recorder()
}

fn describe(recorder: &dyn ::metrics::Recorder) {
    for metric in metric::ALL {
        let (name, help) = (KeyName::from_const_str(metric.name), SharedString::const_str(metric.help));
        match metric.kind {
            MetricKind::Counter => recorder.describe_counter(name, None, help),
            MetricKind::Gauge => recorder.describe_gauge(name, None, help),
            MetricKind::Histogram => recorder.describe_histogram(name, None, help),
        }
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
