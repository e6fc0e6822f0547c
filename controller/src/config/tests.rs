//! Defaults, and what is said of values that are wrong.

use rstest::rstest;

use super::*;

fn load(text: &str) -> Result<ControllerConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, text).unwrap();
    let prefix = format!("{}:", path.display());
    daemon::config::load(&path, &[]).map_err(|error| error.to_string().replace(&prefix, ""))
}

#[test]
fn an_empty_section_takes_every_default() {
    let config = load("{}").unwrap();
    assert_eq!(config, ControllerConfig::default());
    assert_eq!(config.admin.listen, "0.0.0.0:9180");
    assert_eq!((config.step_window, config.reload), (Duration::from_millis(50), Duration::from_secs(2)));
    assert_eq!((config.kube.watch_timeout, config.kube.silence()), (Duration::from_secs(30), Duration::from_secs(40)));
    assert!(config.buckets.manage && config.buckets.replicas == 1);
    assert_eq!(config.labels.stale_after, Duration::from_hours(24));
    let leader = serde_json::to_string(&config.leader).unwrap();
    assert_eq!(
        leader,
        r#"{"enabled":true,"leaseName":"warm-images-controller","leaseDuration":"15s","renewDeadline":"10s","retryPeriod":"2s"}"#
    );
}

#[test]
fn every_default_can_be_written_down_and_read_again() {
    let text = serde_json::to_string(&ControllerConfig::default()).unwrap();
    assert_eq!(load(&text), Ok(ControllerConfig::default()));
}

#[rstest]
#[case::empty_pattern("select: { namespaces: { include: ['*', ''] } }", "select.namespaces.include[1]: is empty")]
#[case::capital(
    "select: { namespaces: { exclude: [Shop] } }",
    "select.namespaces.exclude[0]: `Shop` matches no namespace"
)]
#[case::regex("select: { namespaces: { include: ['shop-[ab]'] } }", "not `[`")]
#[case::unknown("select: { namespace: {} }", "did you mean `namespaces`?")]
#[case::no_condition("select: { exclude: [{ name: all }] }", "select.exclude[0]: has no condition")]
#[case::rule_key("select: { exclude: [{ image: [] }] }", "did you mean `images`?")]
#[case::rule_name("select: { exclude: [{ name: '', kinds: [Pod] }] }", "select.exclude[0].name: is not 1 to 63")]
#[case::kind(
    "select: { exclude: [{ kinds: ['apps/v1 Pod'] }] }",
    "select.exclude[0].kinds[0]: `apps/v1 Pod` is no kind"
)]
#[case::rule_namespace(
    "select: { include: [{ namespaces: [A] }] }",
    "select.include[0].namespaces[0]: `A` matches no namespace"
)]
#[case::image("select: { exclude: [{ images: [{}] }] }", "select.exclude[0].images[0].glob: is missing")]
#[case::no_regex(
    "select: { exclude: [{ images: [{ regex: 'a(' }] }] }",
    "select.exclude[0].images[0].regex: is no regular expression: unclosed group"
)]
#[case::empty_glob("select: { exclude: [{ images: [{ glob: '' }] }] }", "select.exclude[0].images[0].glob: is empty")]
#[case::registry("select: { exclude: [{ images: [{ registry: quay.io/team }] }] }", "images[0].registry: has a `/`")]
#[case::no_cel(
    "select: { exclude: [{ expression: 'object.' }] }",
    "select.exclude[0].expression: is no CEL: line 1, column "
)]
#[case::variable(
    "select: { exclude: [{ expression: 'pod.spec.x == 1' }] }",
    "select.exclude[0].expression: there is no `pod`"
)]
#[case::no_bool("select: { exclude: [{ expression: '1' }] }", "select.exclude[0].expression: gives a number")]
#[case::operator(
    "select: { exclude: [{ objectSelector: { matchExpressions: [{ key: a, operator: Equals }] } }] }",
    "Equals"
)]
#[case::no_values(
    "select: { exclude: [{ objectSelector: { matchExpressions: [{ key: a, operator: In }] } }] }",
    "select.exclude[0].objectSelector.matchExpressions[0].values: is empty"
)]
#[case::values(
    "select: { exclude: [{ namespaceSelector: { matchExpressions: [{ key: a, operator: Exists, values: [b] }] } }] }",
    "select.exclude[0].namespaceSelector.matchExpressions[0].values: is not empty"
)]
#[case::label_key(
    "select: { exclude: [{ objectSelector: { matchLabels: { 'a b': c } } }] }",
    "`a b` is no key of a label"
)]
#[case::label_value(
    "select: { exclude: [{ objectSelector: { matchLabels: { a: '-' } } }] }",
    "`-` is no value of a label"
)]
#[case::no_priority("select: { priorities: [{ kinds: [Pod] }] }", "select.priorities[0].priority: is missing")]
#[case::priority(
    "select: { priorities: [{ priority: 101 }] }",
    "select.priorities[0].priority: 101 is not from 0 to 100"
)]
#[case::priority_elsewhere(
    "select: { exclude: [{ kinds: [Pod], priority: 5 }] }",
    "select.exclude[0].priority: belongs to"
)]
#[case::replicas("buckets: { replicas: 2 }", "buckets.replicas: 2 is not")]
#[case::tiny("buckets: { maxBytes: 5 }", "buckets.maxBytes: 5 is not")]
#[case::zero("timing: { beat: 0s }", "timing.beat: is 0s")]
#[case::backoff("timing: { writeBackoff: 10s, writeBackoffMax: 1s }", "timing.writeBackoffMax: is below writeBackoff")]
#[case::marker("timing: { markerTtl: 10ms }", "timing.markerTtl: is below 1s")]
#[case::watch("kube: { watchTimeout: 500ms }", "kube.watchTimeout: is not within 1s and 300s")]
#[case::renewal("leader: { leaseDuration: 10s }", "leader.renewDeadline: is not below leaseDuration")]
#[case::retry("leader: { retryPeriod: 10s }", "leader.renewDeadline: is not above retryPeriod")]
#[case::lease("leader: { leaseDuration: 10500ms, renewDeadline: 5s }", "leader.leaseDuration: is not whole seconds")]
#[case::lease_name("leader: { leaseName: My_Lease }", "leader.leaseName: `My_Lease` is no name")]
#[case::stale("labels: { staleAfter: 90s }", "labels.staleAfter: is not above three timing.heartbeat")]
#[case::duration("stepWindow: fast", "`fast` is not a duration")]
#[case::cluster("clusterId: Prod_1", "`Prod_1` is not a valid cluster id")]
#[case::listen("admin: { listen: '9180' }", "admin.listen: `9180` is not an address and port")]
fn a_wrong_value_is_said_with_its_key_and_line(#[case] text: &str, #[case] expected: &str) {
    let said = load(text).unwrap_err();
    assert!(said.contains(expected), "{said}");
    assert!(said.starts_with("1: "), "{said}");
}

#[test]
fn a_rule_with_every_key_is_read_and_written_the_same() {
    let text = "select:
  exclude:
  - name: no-ci
    namespaces: [ci-*]
    namespaceSelector: { matchLabels: { example.com/team: ci } }
    kinds: [Job, Rollout.argoproj.io]
    objectSelector: { matchExpressions: [{ key: tier, operator: NotIn, values: [front, ''] }] }
    images: [{ glob: '*/ci/*' }, { contains: debug, registry: '*.gcr.io' }, { regex: ':[0-9a-f]{40}$' }]
    expression: has(object.spec.suspend) && object.spec.suspend
  priorities: [{ namespaces: [shop], priority: 80 }, { priority: 20 }]
";
    let config = load(text).unwrap();
    assert_eq!(load(&serde_json::to_string(&config).unwrap()).as_ref(), Ok(&config));
    assert_eq!(config.select.exclude[0].images.len(), 3);
    assert_eq!(config.select.expressions().len(), 1);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let said = load("reload: 0s\nbuckets:\n  replicas: 4\nnonsense: 1\n").unwrap_err();
    for expected in ["1: reload: is 0s", "3: buckets.replicas: 4", "4: nonsense: there is no such key"] {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn our_own_namespace_is_never_selected() {
    let mut config = ControllerConfig { pod_namespace: Some("warm-images".into()), ..ControllerConfig::default() };
    assert!(config.selection().namespaces.exclude.contains(&"warm-images".to_owned()));
    config.select.namespaces.exclude = vec!["warm-images".into()];
    assert_eq!(config.selection().namespaces.exclude, ["warm-images"]);
    config.pod_namespace = None;
    assert_eq!(config.selection(), config.select);
}
