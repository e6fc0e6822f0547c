//! What a person reads when a value is wrong.

use daemon::config::{ConfigError, load};

use super::*;

fn loaded(yaml: &str) -> Result<AgentConfig, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.yaml");
    std::fs::write(&path, yaml).unwrap();
    load(&path, &[])
}

fn complaints(yaml: &str) -> Vec<String> {
    let text = loaded(yaml).unwrap_err().to_string();
    text.lines().map(|line| line.split_once("agent.yaml").map_or(line, |(_, rest)| rest).to_owned()).collect()
}

#[test]
fn the_defaults_need_a_node_and_nothing_else() {
    let config = loaded("node: a").unwrap();
    assert_eq!(config, AgentConfig { node: Some(NodeName::parse("a").unwrap()), ..AgentConfig::default() });
    assert_eq!(config.cluster_id, ClusterId::default());
    assert_eq!(config.state_dir, PathBuf::from("/var/lib/warm-images"));
    assert_eq!(config.admin.listen, "0.0.0.0:9180");
    assert_eq!(config.runtime.sandbox_namespace, "warm-images");
    assert_eq!((config.pull.max_in_flight, config.pull.final_after), (1, 5));
    assert_eq!(config.timing, Timing::default());
    assert_eq!((config.disk, config.gc), (DiskSettings { mark: 80, resume: 77 }, GcSettings::default()));
    assert_eq!(config.runtime.socket, None);
}

#[test]
fn every_key_can_be_set() {
    let config = loaded(
        "
node: ip-10-0-1-5.ec2.internal
clusterId: prod
nats: { urls: ['nats://nats:4222'] }
runtime: { socket: /run/x.sock, sandboxNamespace: images, requestTimeout: 2s }
stateDir: /data
pull: { maxInFlight: 2, finalAfter: 3 }
disk: { mark: 70, resume: 60 }
gc: { mode: dryRun, high: 50, low: 40, minAge: 2h }
timing: { heartbeat: 1s, verifyMin: 200ms, verifyMax: 400ms }
admin: { listen: '127.0.0.1:0' }
log: { format: text, filter: debug }
shutdownGrace: 3s
",
    )
    .unwrap();
    assert_eq!(config.runtime.socket.as_deref(), Some("/run/x.sock"));
    assert_eq!(config.disk, DiskSettings { mark: 70, resume: 60 });
    let min_age = Duration::from_hours(2);
    assert_eq!(config.gc, GcSettings { mode: node_plan::GcMode::DryRun, high: 50, low: 40, min_age });
    assert_eq!(config.timing.verify_max, Duration::from_millis(400));
    assert_eq!(config.timing.poll, Timing::default().poll);
    assert_eq!(config.shutdown_grace, Duration::from_secs(3));
}

#[test]
fn a_missing_node_says_where_it_comes_from() {
    assert_eq!(
        complaints("{}"),
        [": node: is missing: give the name of the Node, in a pod by the environment variable WARM_NODE_NAME from \
             fieldRef spec.nodeName"]
    );
}

#[test]
fn everything_wrong_is_said_at_once() {
    let found = complaints(
        "
node: Not_A_Node
clusterId: a.b
colour: red
runtime:
  socket: run/x.sock
  sandboxNamespace: Images
  requestTimeout: 0s
stateDir: here
pull: { maxInFlight: 0, finalAfter: 0 }
timing:
  heartbeat: 0s
  verifyMin: 2m
  poll: soon
nats: { urls: [] }
admin: { listen: '0.0.0.0:99999' }
",
    );
    let all = found.join("\n");
    for piece in [
        ":2: node: ",
        ":3: clusterId: ",
        ":4: colour: ",
        ":6: runtime.socket: `run/x.sock` is not an absolute path, such as /run/containerd/containerd.sock",
        ":7: runtime.sandboxNamespace: `Images` is not the name of a namespace: a DNS label",
        ":8: runtime.requestTimeout: must be more than zero",
        ":9: stateDir: `here` is not an absolute path",
        ":10: pull.maxInFlight: 0 is not in 1-16",
        ":10: pull.finalAfter: must be at least 1",
        ":12: timing.heartbeat: must be more than zero",
        "timing.verifyMax: must not be less than timing.verifyMin",
        ":14: timing.poll: `soon` is not a duration such as 500ms, 30s, 5m or 1h",
        ":15: nats.urls: is empty",
        ":16: admin.listen: `0.0.0.0:99999` is not an address and port such as 0.0.0.0:9180",
    ] {
        assert!(all.contains(piece), "no `{piece}` in:\n{all}");
    }
}

#[test]
fn a_socket_may_be_a_url_and_must_fit() {
    loaded("{node: a, runtime: {socket: 'unix:///run/x.sock'}}").unwrap();
    let found = complaints("{node: a, runtime: {socket: \"/run/x\\0.sock\"}}");
    assert!(found[0].contains("runtime.socket: `/run/x\\0.sock` cannot be the path of a socket"), "{found:?}");
    let long = format!("{{node: a, runtime: {{socket: '/{}'}}}}", "x".repeat(107));
    assert!(complaints(&long).iter().any(|c| c.contains("has at most 107 bytes")), "{:?}", complaints(&long));
}

#[test]
fn marks_in_an_order_that_makes_no_sense_are_refused() {
    assert_eq!(
        complaints("{ node: a, disk: { mark: 70, resume: 70 }, gc: { mode: 'on', low: 75 } }"),
        [
            ":1: disk.resume: 70 must be less than disk.mark, which is 70",
            ":1: gc.high: 75 must be less than disk.mark, which is 70",
            ":1: gc.low: 75 must be less than gc.high, which is 75",
        ]
    );
    assert_eq!(complaints("{ node: a, disk: { mark: 101 } }"), [":1: disk.mark: 101 is no percentage: 1-100"]);
    assert_eq!(complaints("{ node: a, gc: { low: 0 } }"), [":1: gc.low: 0 is no percentage: 1-100"]);
    assert!(loaded("{ node: a, gc: { mode: sometimes } }").unwrap_err().to_string().contains("dryRun"));
}

#[test]
fn an_address_to_listen_on_is_whole() {
    for address in [":9180", "host name:80", "::1:80", "1.2.3.4", ""] {
        let found = complaints(&format!("{{node: a, admin: {{listen: '{address}'}}}}"));
        assert!(found[0].contains("is not an address and port such as 0.0.0.0:9180"), "{found:?}");
    }
}
