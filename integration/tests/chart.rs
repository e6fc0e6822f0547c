//! The chart, rendered by the real Helm.
//!
//! Shows: it passes `helm lint --strict` and renders as the snapshots say; wrong values are refused with what is wrong; the
//! rights it grants are the code's table and nobody else has any; what it configures is accepted by the processes' own
//! loaders and by the real NATS server, says the processes' defaults, and leaves out no key; containers are as harmless as
//! they can be, agents have no token; passwords stand in Secrets alone.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a helper of a test fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use agent::config::AgentConfig;
use base64::Engine as _;
use controller::api::access::{self, Names};
use controller::config::ControllerConfig;
use controller::identity::IdentitySettings;
use daemon::bus::NatsConfig;
use daemon::config::SecretFile;
use integration::chart::{CASES, Chart, RELEASE};
use integration::helm::Helm;
use integration::installation::identity::CalloutKeys;
use integration::installation::{accounts, agent_user, callout, reader};
use integration::nats::Permission;
use integration::parts::{HELM3, Parts, Tool};
use regex::Regex;
use serde_json::{Value, json};

/// Beside those with a snapshot.
const DEPRECATED: &str = "deprecated";

fn cases() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|(case, _)| *case).chain([DEPRECATED])
}

/// The objects of a rendered chart.
fn objects(text: &str) -> Vec<Value> {
    let all = text.split("\n---").filter_map(|text| serde_saphyr::from_str::<Option<Value>>(text).unwrap());
    all.filter(|object| !object.is_null()).collect()
}

fn rendered(case: &str) -> Vec<Value> {
    objects(&Chart::new().unwrap().rendered(case).unwrap())
}

fn of_kind<'a>(all: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    all.iter().filter(move |object| object["kind"] == kind)
}

fn named<'a>(all: &'a [Value], kind: &'a str, name: &str) -> &'a Value {
    of_kind(all, kind).find(|object| object["metadata"]["name"] == name).unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// What a `ConfigMap` with one file holds.
fn file(all: &[Value], name: &str) -> String {
    let data = named(all, "ConfigMap", name)["data"].as_object().unwrap();
    assert_eq!(data.len(), 1);
    data.values().next().unwrap().as_str().unwrap().to_owned()
}

fn controller_config(all: &[Value]) -> ControllerConfig {
    let text = file(all, "warm-images-controller");
    daemon::config::read(Path::new("controller.yaml"), &text, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn agent_config(all: &[Value]) -> AgentConfig {
    // What a pod learns from its environment.
    let text = format!("node: a\n{}", file(all, "warm-images-agent"));
    daemon::config::read(Path::new("agent.yaml"), &text, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The pod templates, by the name of what makes pods of them.
fn pods(all: &[Value]) -> BTreeMap<String, &Value> {
    // A pod by itself, or what makes pods.
    let specs = all.iter().map(|object| match object["kind"].as_str() {
        Some("Pod") => (object, &object["spec"]),
        _ => (object, &object["spec"]["template"]["spec"]),
    });
    let pods = specs.filter(|(_, spec)| spec["containers"].is_array());
    pods.map(|(object, spec)| (object["metadata"]["name"].as_str().unwrap().to_owned(), spec)).collect()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn it_passes_the_strict_lint_with_each_set_of_values() {
    let chart = Chart::new().unwrap();
    for case in cases() {
        let folder = chart.folder().display().to_string();
        let fixed = ["lint", "--strict", "--quiet", folder.as_str()];
        let output = chart.helm(fixed.into_iter().map(str::to_owned).chain(chart.values(case))).unwrap();
        assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn it_renders_as_the_snapshots_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for snapshot in Chart::new().unwrap().snapshots().unwrap() {
        let kept = std::fs::read_to_string(root.join(snapshot.path)).unwrap_or_default();
        let differs = kept.lines().zip(snapshot.text.lines()).position(|(kept, now)| kept != now);
        assert!(
            kept == snapshot.text,
            "{} is not current from line {}; `cargo xtask generate` writes it",
            snapshot.path,
            differs.map_or(kept.lines().count(), |line| line) + 1
        );
    }
}

/// Helm 3 assumes the Kubernetes of its own time where it cannot ask one.
const KUBERNETES: [&str; 2] = ["--kube-version", "1.36.3"];

#[test]
fn the_oldest_supported_helm_makes_the_same_objects_of_it() {
    let (old, new) = (Chart::by(Helm::Three).unwrap(), Chart::new().unwrap());
    let version = old.helm(["version", "--short"]).unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with(HELM3));
    // Passwords are made anew each time.
    let without_secrets = |text: &str| {
        let mut all = objects(text);
        for secret in all.iter_mut().filter(|object| object["kind"] == "Secret") {
            secret.as_object_mut().unwrap().remove("data");
        }
        all
    };
    for case in cases() {
        let values = new.values(case);
        let args: Vec<String> = values.iter().cloned().chain(KUBERNETES.map(str::to_owned)).collect();
        let [of_old, of_new] = [&old, &new].map(|chart| without_secrets(&chart.template(&args).unwrap().unwrap()));
        assert!(of_old == of_new, "{case}: {} and {} objects", of_old.len(), of_new.len());
        let folder = old.folder().display().to_string();
        let fixed = ["lint", "--strict", "--quiet", folder.as_str()].map(str::to_owned);
        let output = old.helm(fixed.into_iter().chain(args)).unwrap();
        assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stdout));
    }
    let output = old.template(
        &["--set", "config.unknown=1"]
            .map(str::to_owned)
            .into_iter()
            .chain(KUBERNETES.map(str::to_owned))
            .collect::<Vec<_>>(),
    );
    let why = output.unwrap().unwrap_err();
    assert!(why.contains("unknown"), "{why}");
}

#[test]
fn wrong_values_are_refused_with_what_is_wrong() {
    let chart = Chart::new().unwrap();
    for (set, said) in [
        ("config.unknown=1", "at '/config': additional properties 'unknown' not allowed"),
        ("config.labels.mode=some", "at '/config/labels/mode': value must be one of 'all', 'optedIn', 'sets', 'none'"),
        ("contoller.replicas=2", "additional properties 'contoller' not allowed"),
        ("config.select.mode=sometimes", "at '/config/select/mode': value must be one of 'optOut', 'optIn'"),
        ("config.labels.staleAfter=soon", "at '/config/labels/staleAfter'"),
        ("config.clusterId=No_", "at '/config/clusterId'"),
        ("config.disk.mark=101", "at '/config/disk/mark': maximum: got 101, want 100"),
        ("config.controller.clusterId=x", "at '/config/controller': additional properties 'clusterId' not allowed"),
        ("controller.replicas=0", "at '/controller/replicas': minimum: got 0, want 1"),
        ("nats.embedded.replicas=2", "at '/nats/embedded/replicas': value must be one of 1, 3, 5"),
        ("nats.external.urls[0]=http://x:1", "at '/nats/external/urls/0'"),
        ("nats.external.urls[0]=nats://u:p@x:1", "at '/nats/external/urls/0'"),
        ("agent.runtime.preset=docker", "at '/agent/runtime/preset': value must be one of 'containerd', 'k3s'"),
        ("agent.runtime.preset=custom", "agent.runtime.socket is empty: with the preset `custom` give the path"),
        ("agent.runtime.socket=/run/x.sock", "set agent.runtime.preset to `custom`, or remove the socket"),
        ("agent.serviceAccount.create=false", "name the service account in agent.serviceAccount.name"),
        (
            "nats.external.urls[0]=nats://x:4222,nats.external.agent.user=a",
            "nats.external.agent.existingSecret is empty: name the Secret",
        ),
        (
            "nats.external.urls[0]=nats://x:4222,nats.external.agent.existingSecret=a",
            "nats.external.agent: give user (with a password) or credsKey (a credentials file)",
        ),
        ("nats.external.urls[0]=nats://x:4222,nats.url=nats://y:4222", "remove nats.url"),
    ] {
        let refused = chart.template(&["--set", set]).unwrap();
        let why = refused.err().unwrap_or_else(|| panic!("{set} is accepted"));
        assert!(why.contains(said), "{set}: {why}");
    }
}

#[test]
fn the_rights_are_those_of_the_tables_and_agents_have_none() {
    for case in cases() {
        let all = rendered(case);
        let name = "warm-images-controller";
        let lease = controller_config(&all).leader.lease_name;
        // What the hook before the installation makes is what the hook after the deletion takes away.
        let made: &[&str] = match case {
            "default" => &["warm-images-nats-identity", "warm-images-nats-server", "warm-images-nats-users"],
            _ => &[],
        };
        let init = "warm-images-init-nats";
        assert_eq!(pods(&all).contains_key(init), !made.is_empty(), "{case}");
        if !made.is_empty() {
            let names = Names { secrets: made, ..Names::default() };
            let wanted = access::role(access::INIT_NATS, init, RELEASE, names);
            assert_eq!(named(&all, "Role", init)["rules"], wanted["rules"], "{case}");
            let account = json!([{ "kind": "ServiceAccount", "name": init, "namespace": RELEASE }]);
            assert_eq!(named(&all, "RoleBinding", init)["subjects"], account, "{case}");
            assert_eq!(pods(&all)[init]["serviceAccountName"], init);
        }
        for (name, rows) in [(name, access::ACCESS), ("warm-images-cleanup", access::CLEANUP)] {
            let wanted = access::cluster_role(rows, name);
            assert_eq!(named(&all, "ClusterRole", name)["rules"], wanted["rules"], "{case}");
            let names = Names { lease: Some(&lease), daemon_set: Some("warm-images-cleanup"), secrets: made };
            let wanted = access::role(rows, name, RELEASE, names);
            assert_eq!(named(&all, "Role", name)["rules"], wanted["rules"], "{case}");
            for kind in ["ClusterRoleBinding", "RoleBinding"] {
                let binding = named(&all, kind, name);
                let account = json!([{ "kind": "ServiceAccount", "name": name, "namespace": RELEASE }]);
                assert_eq!((&binding["subjects"], &binding["roleRef"]["name"]), (&account, &json!(name)), "{case}");
            }
        }
        for kind in ["ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding"] {
            // Two that nobody is bound to are for people who may edit or view a namespace.
            let of_people = if kind == "ClusterRole" { 2 } else { 0 };
            let more = of_people + usize::from(!made.is_empty() && !kind.starts_with("Cluster"));
            assert_eq!(of_kind(&all, kind).count(), 2 + more, "{case}: {kind}");
        }
        assert_eq!(pods(&all)[name]["serviceAccountName"], name);
        assert_ne!(pods(&all)["warm-images-agent"]["serviceAccountName"], name);
    }
}

#[test]
fn a_lease_of_another_name_may_be_used_too() {
    let chart = Chart::new().unwrap();
    let all = objects(&chart.template(&["--set", "config.controller.leader.leaseName=other"]).unwrap().unwrap());
    assert_eq!(controller_config(&all).leader.lease_name, "other");
    assert_eq!(named(&all, "Role", "warm-images-controller")["rules"][1]["resourceNames"], json!(["other"]));
}

#[test]
fn what_people_add_to_pods_is_there() {
    let chart = Chart::new().unwrap();
    for component in ["controller", "agent"] {
        let added = json!({ component: {
            "extraArgs": ["--x"],
            "extraEnv": [{ "name": "A", "value": "b" }],
            "extraEnvFrom": [{ "secretRef": { "name": "env" } }],
            "extraContainers": [{ "name": "beside", "image": "a/b" }],
            "extraVolumes": [{ "name": "more", "emptyDir": {} }],
            "extraVolumeMounts": [{ "name": "more", "mountPath": "/more" }],
            "hostAliases": [{ "ip": "10.0.0.1", "hostnames": ["a.example"] }],
        } });
        let set = format!("{component}={}", added[component]);
        let all = objects(&chart.template(&["--set-json", &set]).unwrap().unwrap());
        let pods = pods(&all);
        let pod = pods[&format!("warm-images-{component}")];
        let (ours, wanted) = (&pod["containers"][0], &added[component]);
        let last = |list: &Value| list.as_array().unwrap().last().unwrap().clone();
        assert_eq!(last(&ours["args"]), "--x");
        assert_eq!(last(&ours["env"]), wanted["extraEnv"][0]);
        assert_eq!(ours["envFrom"], wanted["extraEnvFrom"]);
        assert_eq!(last(&ours["volumeMounts"]), wanted["extraVolumeMounts"][0]);
        assert_eq!(last(&pod["volumes"]), wanted["extraVolumes"][0]);
        assert_eq!(last(&pod["containers"]), wanted["extraContainers"][0]);
        assert_eq!(pod["hostAliases"], wanted["hostAliases"]);
    }
}

#[test]
fn the_processes_accept_what_they_are_configured_with() {
    for case in cases() {
        let all = rendered(case);
        let (controller, agent) = (controller_config(&all), agent_config(&all));
        let IdentitySettings { issuer_seed_file, nkey_seed_file, xkey_seed_file, service_account, .. } =
            &controller.identity;
        let seeds = [issuer_seed_file, nkey_seed_file, xkey_seed_file].into_iter().flatten();
        let mounted = mounted_files(pods(&all)["warm-images-controller"]);
        for seed in seeds.map(SecretFile::path) {
            assert!(mounted.contains(seed.to_str().unwrap()), "{case}: no {} of {mounted:?}", seed.display());
        }
        assert_eq!(controller.identity.is_on(), agent.nats.token_file.is_some(), "{case}");
        assert_eq!(pods(&all)["warm-images-agent"]["serviceAccountName"], service_account.as_str(), "{case}");
        assert_eq!(controller.cluster_id, agent.cluster_id, "{case}");
        assert_eq!(controller.nats.urls, agent.nats.urls, "{case}");
        for (name, nats) in [("warm-images-controller", &controller.nats), ("warm-images-agent", &agent.nats)] {
            let NatsConfig { password_file, creds_file, nkey_seed_file, token_file, .. } = nats;
            let files = [password_file, creds_file, nkey_seed_file, token_file].into_iter().flatten();
            let tls = [&nats.tls.ca_file, &nats.tls.cert_file, &nats.tls.key_file].into_iter().flatten();
            let files: Vec<_> = files.map(SecretFile::path).chain(tls.map(PathBuf::as_path)).collect();
            assert!(!files.is_empty(), "{case}: {name} logs in with nothing");
            let mounted = mounted_files(pods(&all)[name]);
            for file in files {
                assert!(
                    mounted.contains(file.to_str().unwrap()),
                    "{case}: {name} has no {} of {mounted:?}",
                    file.display()
                );
            }
        }
    }
}

/// Files that Secrets put into the container of a pod.
fn mounted_files(pod: &Value) -> BTreeSet<String> {
    let projected = |volume: &Value| {
        volume["projected"]["sources"][0]["serviceAccountToken"].as_object().map(|of| vec![Value::Object(of.clone())])
    };
    let volumes: BTreeMap<&str, &Value> =
        pod["volumes"].as_array().unwrap().iter().map(|volume| (volume["name"].as_str().unwrap(), volume)).collect();
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    let files = mounts.iter().flat_map(|mount| {
        let volume = volumes[mount["name"].as_str().unwrap()];
        let items = volume["secret"]["items"].as_array().cloned().or_else(|| projected(volume));
        items
            .into_iter()
            .flatten()
            .map(|item| format!("{}/{}", mount["mountPath"].as_str().unwrap(), item["path"].as_str().unwrap()))
    });
    files.collect()
}

#[test]
fn the_defaults_that_the_chart_shows_are_those_of_the_processes() {
    let all = rendered("default");
    let (controller, agent) = (controller_config(&all), agent_config(&all));
    let expected = ControllerConfig {
        nats: controller.nats.clone(),
        identity: IdentitySettings {
            issuer_seed_file: controller.identity.issuer_seed_file.clone(),
            nkey_seed_file: controller.identity.nkey_seed_file.clone(),
            xkey_seed_file: controller.identity.xkey_seed_file.clone(),
            namespace: Some(RELEASE.to_owned()),
            ..IdentitySettings::default()
        },
        ..ControllerConfig::default()
    };
    assert_eq!(controller, expected);
    let expected = AgentConfig {
        node: agent.node.clone(),
        nats: agent.nats.clone(),
        runtime: agent.runtime.clone(),
        ..AgentConfig::default()
    };
    assert_eq!(agent, expected);
}

#[test]
fn every_key_of_the_processes_can_be_set() {
    let schema: Value = serde_json::from_str(&Chart::new().unwrap().read("values.schema.json").unwrap()).unwrap();
    let all = rendered("default");
    for (component, defaults, from_pod) in [
        ("controller", serde_json::to_value(ControllerConfig::default()).unwrap(), &["podName", "podNamespace"][..]),
        ("agent", serde_json::to_value(AgentConfig::default()).unwrap(), &["node"][..]),
    ] {
        let rendered: Value = serde_saphyr::from_str(&file(&all, &format!("warm-images-{component}"))).unwrap();
        let further = &schema["properties"]["config"]["properties"][component]["properties"];
        let settable: BTreeSet<_> = keys(&rendered).union(&keys(further)).copied().collect();
        let wanted: BTreeSet<_> = keys(&defaults).into_iter().filter(|key| !from_pod.contains(key)).collect();
        assert_eq!(settable, wanted, "{component}");
        assert_eq!(keys(&further["timing"]["properties"]), keys(&defaults["timing"]), "{component}.timing");
        for section in keys(&rendered).into_iter().filter(|key| defaults[key].is_object() && *key != "nats") {
            let known = &further[section]["properties"];
            let settable: BTreeSet<_> = keys(&rendered[section]).union(&keys(known)).copied().collect();
            assert_eq!(settable, keys(&defaults[section]), "{component}.{section}");
        }
    }
}

#[test]
fn the_deprecated_keys_do_what_they_did() {
    let all = rendered(DEPRECATED);
    let (controller, agent) = (controller_config(&all), agent_config(&all));
    assert_eq!(controller.select.namespaces.include, ["shop", "team-a"]);
    assert_eq!(
        controller.select.namespaces.exclude,
        ["kube-system", "kube-public", "kube-node-lease", "sandbox", "test"]
    );
    for nats in [controller.nats, agent.nats] {
        assert_eq!(nats.urls, ["nats://wi-nats-client:4222"]);
        assert_eq!(nats.user.as_deref(), Some("nats_client"));
    }
    assert_eq!(of_kind(&all, "StatefulSet").count(), 0, "a server of our own stands beside the old one");
    // `ignore: ""` and `list: "*"` were its defaults.
    let chart = Chart::new().unwrap();
    let all = objects(&chart.template(&["--set", "list=*,ignore="]).unwrap().unwrap());
    assert_eq!(controller_config(&all).select, ControllerConfig::default().select);
}

#[test]
fn other_namespaces_restart_no_controller() {
    let chart = Chart::new().unwrap();
    let checksum = |set: &str| {
        let all = objects(&chart.template(&["--set", set]).unwrap().unwrap());
        let template = &named(&all, "Deployment", "warm-images-controller")["spec"]["template"];
        template["metadata"]["annotations"]["warm-images.dev/config-checksum"].as_str().unwrap().to_owned()
    };
    let usual = checksum("config.select.mode=optOut");
    assert_eq!(checksum("config.select.namespaces.exclude={a,b}"), usual);
    assert_ne!(checksum("config.labels.perSecond=5"), usual);
}

#[test]
fn containers_are_as_harmless_as_they_can_be() {
    for case in cases() {
        let all = rendered(case);
        for (name, pod) in pods(&all) {
            let is_agent = name == "warm-images-agent";
            let asks_kubernetes =
                ["warm-images-controller", "warm-images-cleanup", "warm-images-init-nats"].contains(&name.as_str());
            assert_eq!(pod["automountServiceAccountToken"], json!(asks_kubernetes), "{case}: {name}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{case}: {name}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"] == true, !is_agent, "{case}: {name}");
            for shared in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod[shared].is_null(), "{case}: {name} has {shared}");
            }
            for container in pod["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false, "{case}: {name}");
                assert_eq!(context["readOnlyRootFilesystem"], true, "{case}: {name}");
                assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }), "{case}: {name}");
                assert_ne!(context["privileged"], true, "{case}: {name}");
                let ends = !pod["restartPolicy"].is_null();
                for probe in ["livenessProbe", "readinessProbe"].iter().filter(|_| !ends) {
                    assert!(container[probe]["httpGet"]["path"].is_string(), "{case}: {name} has no {probe}");
                }
            }
            let paths: Vec<_> = pod["volumes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| v["hostPath"]["path"].as_str())
                .collect();
            assert_eq!(paths.len(), if is_agent { 2 } else { 0 }, "{case}: {name} mounts {paths:?}");
        }
        for account in of_kind(&all, "ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], false, "{case}");
        }
    }
}

#[test]
fn whoever_logs_in_to_the_embedded_nats_may_connect_to_it() {
    let all = rendered("default");
    let policy = named(&all, "NetworkPolicy", "warm-images-nats");
    let admitted: BTreeSet<&str> = policy["spec"]["ingress"][0]["from"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|peer| peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"].as_str())
        .collect();
    let logs_in = |spec: &Value| {
        let volumes = spec["volumes"].as_array().into_iter().flatten();
        volumes.filter_map(|volume| volume["name"].as_str()).any(|name| name == "nats")
    };
    let all = pods(&all);
    let wanted: BTreeSet<&str> = all
        .iter()
        .filter(|(_, spec)| logs_in(spec))
        .map(|(name, _)| name.strip_prefix("warm-images-").unwrap())
        .collect();
    assert_eq!(wanted, admitted);
}

#[test]
fn passwords_stand_in_secrets_alone() {
    for case in cases() {
        let all = rendered(case);
        let secrets: Vec<_> = of_kind(&all, "Secret").collect();
        let data = |secret: &&Value| secret["data"].as_object().unwrap().values().cloned().collect::<Vec<_>>();
        let values: Vec<Value> = secrets.iter().flat_map(data).collect();
        let elsewhere: Vec<_> = all.iter().filter(|object| object["kind"] != "Secret").collect();
        let elsewhere = serde_json::to_string(&elsewhere).unwrap();
        for value in values {
            let encoded = value.as_str().unwrap();
            let plain = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
            let plain = String::from_utf8(plain).unwrap();
            assert!(!elsewhere.contains(encoded) && !elsewhere.contains(&plain), "{case}: a password stands elsewhere");
        }
        let wanted = match case {
            "minimal" => 3,
            DEPRECATED => 1,
            _ => 0,
        };
        assert_eq!(secrets.len(), wanted, "{case}");
    }
}

#[test]
fn the_nats_server_takes_its_configuration() {
    let server = Parts::ensure(&[Tool::NatsServer]).unwrap().path(Tool::NatsServer).unwrap();
    for case in ["default", "minimal", "production"] {
        let all = rendered(case);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nats.conf");
        std::fs::write(&path, file(&all, "warm-images-nats").replace("/data", folder.path().to_str().unwrap()))
            .unwrap();
        let env = pods(&all)["warm-images-nats"]["containers"][0]["env"].as_array().unwrap();
        // What Kubernetes would put there.
        let public = controller::nats_keys::complete_identity(BTreeMap::new())
            .and_then(|seeds| controller::nats_keys::complete_server(BTreeMap::new(), &seeds))
            .unwrap();
        let value = |of: &Value| {
            let key = of["valueFrom"]["secretKeyRef"]["key"].as_str().unwrap_or_default();
            let held = public.get(key).map_or("w0", |held| std::str::from_utf8(held).unwrap());
            of["value"].as_str().unwrap_or(held).replace("$(ROUTES_PASSWORD)", "w0")
        };
        let check = |env: &[Value]| {
            let env = env.iter().map(|of| (of["name"].as_str().unwrap().to_owned(), value(of)));
            Command::new(&server).arg("-t").arg("--config").arg(&path).env_clear().envs(env).output().unwrap()
        };
        let output = check(env);
        assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!check(&[]).status.success(), "{case}: passwords are not from the environment");
    }
}

#[test]
fn the_nats_users_may_do_what_those_of_the_system_tests_may() {
    let by_token = file(&rendered("default"), "warm-images-nats");
    let text = file(&rendered("minimal"), "warm-images-nats");
    let (system, answering) = (accounts("default", &["*"]), callout("default", &CalloutKeys::new()));
    let user = |name: &str| {
        let system = if name == "callout" { &answering } else { &system };
        let user = system.user(name).unwrap();
        (permitted(&user.publish), permitted(&user.subscribe))
    };
    let mut operator = user(reader());
    operator.0.retain(|subject| !subject.contains(".ctl."));
    operator.0.insert("allow warm.v1.default.ctl.*".to_owned());
    let mut wanted = BTreeMap::from([
        ("controller".to_owned(), user("controller")),
        ("agent".to_owned(), user(&agent_user("*"))),
        ("reader".to_owned(), user(reader())),
        ("operator".to_owned(), operator),
    ]);
    assert_eq!(users_of(&text), wanted);
    // What agents may do then is in what the controllers sign.
    wanted.remove("agent");
    wanted.insert("callout".to_owned(), user("callout"));
    assert_eq!(users_of(&by_token), wanted);
    assert!(!by_token.contains("allow_responses"), "somebody answers in the place of agents");
    assert_eq!(text.matches("allow_responses { max: 1, expires: 30s }").count(), 1, "agents answer requests");
}

/// What each user of a server's configuration may publish and subscribe to.
fn users_of(text: &str) -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let list = |word: &str| format!(r"{word} \{{ (allow|deny): \[([^\]]*)\] \}}");
    let pattern = format!(
        r"(?:user|nkey): \$?(\w+)(?:, password: \$\w+)?\s+permissions \{{\s+{}\s+{}",
        list("publish"),
        list("subscribe")
    );
    let said = |rule: &str, list: &str| quoted(list).map(|subject| format!("{rule} {subject}")).collect();
    let users = Regex::new(&pattern).unwrap();
    let users = users
        .captures_iter(text)
        .map(|of| (of[1].to_lowercase().replace("_nkey", ""), (said(&of[2], &of[3]), said(&of[4], &of[5]))));
    users.collect()
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

fn permitted(permission: &Permission) -> BTreeSet<String> {
    let allowed = permission.allow.iter().map(|subject| format!("allow {subject}"));
    allowed.chain(permission.deny.iter().map(|subject| format!("deny {subject}"))).collect()
}

#[test]
fn the_nats_accounts_share_what_those_of_the_system_tests_share() {
    for case in ["default", "minimal"] {
        shares_as_the_system_tests(&file(&rendered(case), "warm-images-nats"));
    }
}

fn shares_as_the_system_tests(text: &str) {
    let pattern = r#"\{ (service|stream): (?:\{ account: (\w+), subject: )?"([^"]+)""#;
    let pattern = Regex::new(pattern).unwrap();
    for account in accounts("default", &["*"]).accounts {
        // Accounts stand one after the other, users first.
        let from = text.find(&format!("  {} {{", account.name)).unwrap();
        let to = text[from..].find("\n  }\n").map_or(text.len(), |length| from + length);
        let given: BTreeSet<String> = pattern
            .captures_iter(&text[from..to])
            .map(|of| format!("{} {} {}", &of[1], of.get(2).map_or("", |account| account.as_str()), &of[3]))
            .collect();
        let entries = account.exports.iter().chain(&account.imports);
        let wanted: BTreeSet<String> = entries
            .map(|entry| {
                let kind = if entry["service"].is_null() { "stream" } else { "service" };
                let subject = entry[kind].as_str().or_else(|| entry[kind]["subject"].as_str()).unwrap();
                format!("{kind} {} {subject}", entry[kind]["account"].as_str().unwrap_or_default())
            })
            .collect();
        assert_eq!(given, wanted, "{}", account.name);
    }
    assert!(text.contains(r#"{ service: "$JS.API.DIRECT.GET.KV_warm-default-intents", response: stream }"#));
}
