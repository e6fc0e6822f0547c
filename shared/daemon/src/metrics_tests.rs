use super::*;

fn recorded(what: impl FnOnce(&MetricsHandle)) -> String {
    let recorder = build();
    let handle = MetricsHandle(recorder.handle());
    ::metrics::with_local_recorder(&recorder, || {
        with_recorder(describe);
        what(&handle);
    });
    handle.render()
}

#[test]
fn counters_gauges_and_histograms_render_with_their_help_and_labels() {
    let text = recorded(|_| {
        count(metric::FACTS, &["node"], 2);
        count(metric::FACTS, &["node"], 1);
        gauge(metric::NATS_CONNECTED, &[], 1.0);
        observe(metric::STEP_SECONDS, &[], Duration::from_micros(200));
        effect_done("put-intent", Outcome::Ok, None);
        effect_done("put-intent", Outcome::from(Class::Conflict), Some(Reason::Conflict));
    });
    for line in [
        "# HELP warm_facts_total Facts taken in by the loop.",
        "# TYPE warm_facts_total counter",
        "warm_facts_total{kind=\"node\"} 3",
        "warm_nats_connected 1",
        "warm_step_seconds_bucket{le=\"0.0001\"} 0",
        "warm_step_seconds_bucket{le=\"0.0003\"} 1",
        "warm_step_seconds_count 1",
        "warm_effects_total{kind=\"put-intent\",outcome=\"ok\",reason=\"\"} 1",
        "warm_effects_total{kind=\"put-intent\",outcome=\"conflict\",reason=\"conflict\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
}

#[test]
fn what_has_no_labels_starts_at_zero_for_its_process_only() {
    let text = recorded(|handle| handle.start_at_zero(Process::Agent));
    assert!(text.contains("warm_evictions_total 0"), "{text}");
    assert!(text.contains("warm_inbox_depth 0"), "{text}");
    assert!(!text.contains("warm_leading"), "{text}");
}

#[test]
fn every_row_of_the_table_can_be_counted() {
    let text = recorded(|_| {
        for metric in metric::ALL {
            let labels = vec!["x"; metric.labels.len()];
            match metric.kind {
                MetricKind::Counter => count(*metric, &labels, 1),
                MetricKind::Gauge => gauge(*metric, &labels, 1.0),
                MetricKind::Histogram => observe(*metric, &labels, Duration::from_secs(1)),
            }
        }
    });
    for metric in metric::ALL {
        assert!(text.contains(&format!("# HELP {} ", metric.name)), "{} is not in\n{text}", metric.name);
    }
}

#[test]
fn installing_twice_gives_the_same() {
    let (one, two) = (install(), install());
    count(metric::READS, &["full"], 1);
    assert!(one.render().contains("warm_reads_total"));
    assert!(two.render().contains("warm_reads_total"));
}
