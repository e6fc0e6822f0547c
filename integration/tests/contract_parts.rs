//! The harness against the real parts: what every other test relies on holds.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::apiserver::ApiServer;
use integration::cluster::{Cluster, ClusterSpec, REGISTRY};
use integration::eventually::eventually;
use integration::image::Image;
use integration::nats::{Nats, NatsConfig, Permission, User};
use integration::node::{NodeSpec, Nodes};
use integration::parts::{Parts, Tool};
use integration::process::{Invocation, Process};
use integration::run::scenario;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};

/// For a whole test, on a machine that builds at the same time.
const TEST: Duration = Duration::from_mins(3);
/// For one state to be seen.
const SOON: Duration = Duration::from_secs(20);

const NATS: &[Tool] = &[Tool::NatsServer, Tool::Nats];

#[test]
fn the_control_plane_answers_and_obeys_rbac() -> Result<()> {
    scenario("control_plane", TEST, async |run| {
        let parts = Parts::ensure(&[Tool::Etcd, Tool::KubeApiserver, Tool::Kubectl])?;
        let mut api = ApiServer::start(&run, &parts).await?;
        let nodes = Nodes::new(api.client());
        let created = nodes.create(&NodeSpec::new("a").label("pool", "gpu").taint("only", "", "NoSchedule")).await?;
        let node = nodes.get("a").await?;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        assert!(conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"));
        assert_eq!(
            node.spec.and_then(|spec| spec.taints).map(|taints| taints.len()),
            Some(1),
            "only the taint asked for"
        );
        assert_eq!(nodes.labels("a").await?.get("pool").map(String::as_str), Some("gpu"));

        nodes.set_ready("a", false).await?;
        let heartbeats = nodes.keep_ready(&["a"], Duration::from_secs(1));
        eventually("the node is ready again", SOON, async || {
            let conditions = nodes.get("a").await?.status.and_then(|status| status.conditions);
            let mut conditions = conditions.unwrap_or_default().into_iter();
            anyhow::Ok(conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True"))
        })
        .await?;
        drop(heartbeats);

        let stranger: Api<Node> = Api::all(api.client_for("stranger", None).await?);
        let refused = stranger.get("a").await;
        assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403), "{refused:?}");

        let again = nodes.replace(&NodeSpec::new("a")).await?;
        assert_ne!(created.metadata.uid, again.metadata.uid);

        api.server().restart()?;
        api.until_ready().await?;
        assert_eq!(nodes.get("a").await?.metadata.uid, again.metadata.uid, "etcd keeps objects");
        Ok(())
    })
}

#[test]
fn a_whole_cluster_runs_deployments_and_pulls_per_node() -> Result<()> {
    scenario("whole_cluster", TEST, async |run| {
        let mut cluster = Cluster::start(&run, ClusterSpec::new().nodes(&["a", "b"]).controllers()).await?;
        cluster.add_node(&NodeSpec::new("c")).await?;
        let nodes = cluster.node_objects().api().list(&ListParams::default()).await?;
        assert_eq!(nodes.items.len(), 3);

        let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
        deployments.create(&PostParams::default(), &deployment()?).await?;
        let pods: Api<Pod> = Api::default_namespaced(cluster.client());
        eventually("the Deployment has two Pods", SOON, async || {
            pods.list(&ListParams::default()).await.map(|pods| pods.items.len() == 2)
        })
        .await?;

        let namespaces: Api<Namespace> = Api::all(cluster.client());
        let passing = Namespace {
            metadata: ObjectMeta { name: Some("passing".into()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        namespaces.create(&PostParams::default(), &passing).await?;
        namespaces.delete("passing", &DeleteParams::default()).await?;
        eventually("the namespace is gone", SOON, async || {
            namespaces.get_opt("passing").await.map(|found| found.is_none())
        })
        .await?;

        let image = cluster.registry.push(&Image::new("team/app", "1").layer(2000).layer(3000)).await?;
        let name = image.by_tag(REGISTRY);
        cluster.node("b")?.containerd.crictl().pull(&name).await?;
        let held = cluster.node("b")?.containerd.crictl().image(&name).await?;
        assert_eq!(held.id, image.id);
        assert!(held.is(&image.by_digest(REGISTRY)), "{held:?}");
        assert!(!cluster.node("a")?.containerd.crictl().has(&name).await?);
        assert!(cluster.requests.of_node("a").is_empty());
        assert!(!cluster.requests.of_node("b").is_empty());

        cluster.node_mut("b")?.containerd.restart().await?;
        assert!(cluster.node("b")?.containerd.crictl().has(&name).await?, "images stay over a restart");
        cluster.nats.cli("admin", &["kv", "add", "bucket"]).await?;
        Ok(())
    })
}

fn deployment() -> Result<Deployment> {
    let spec = serde_json::json!({
        "metadata": { "name": "app" },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "app" } },
            "template": {
                "metadata": { "labels": { "app": "app" } },
                "spec": { "containers": [{ "name": "app", "image": "registry.test/team/app:1" }] },
            },
        },
    });
    Ok(serde_json::from_value(spec)?)
}

#[test]
fn nats_keeps_port_and_data_over_a_restart_and_loses_them_when_wiped() -> Result<()> {
    scenario("nats_restart", TEST, async |run| {
        let mut nats = Nats::start(&run, &Parts::ensure(NATS)?, NatsConfig::open()).await?;
        nats.cli("admin", &["kv", "add", "bucket"]).await?;
        nats.cli("admin", &["kv", "put", "bucket", "key", "value"]).await?;
        let url = nats.url();
        nats.restart().await?;
        assert_eq!(nats.url(), url);
        assert_eq!(nats.cli("admin", &["kv", "get", "bucket", "key", "--raw"]).await?.trim(), "value");
        nats.stop().await?;
        nats.wipe_store()?;
        nats.start_again().await?;
        assert!(!nats.cli_output("admin", &["kv", "get", "bucket", "key", "--raw"]).await?.status.success());
        assert!(nats.cli("sys", &["server", "list"]).await?.contains("Server Overview"));
        Ok(())
    })
}

#[test]
fn nats_permissions_hold_and_can_be_changed_while_it_runs() -> Result<()> {
    scenario("nats_permissions", TEST, async |run| {
        let limited = User {
            publish: Permission::only(["mine.>", "$JS.API.INFO"]),
            subscribe: Permission::only(["_INBOX.>", "delta.*"]),
            ..User::new("limited", "secret")
        };
        let config = NatsConfig::single_account(vec![User::new("admin", "admin"), limited]);
        let mut nats = Nats::start(&run, &Parts::ensure(NATS)?, config).await?;
        nats.cli("limited", &["pub", "mine.a", "x"]).await?;
        let refused = nats.cli_output("limited", &["pub", "other.a", "x"]).await?;
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(said.to_lowercase().contains("permissions violation"), "{said}");

        let log = nats.process().log_text();
        assert!(log.contains("Publish Violation"), "{log}");

        let mut config = nats.config().clone();
        let user = config.user_mut("limited").context("the user")?;
        user.publish = Permission::default();
        user.subscribe.deny("delta.>");
        nats.reload(config).await?;
        nats.cli("limited", &["pub", "other.a", "x"]).await?;
        let withheld = nats.cli_output("limited", &["sub", "delta.all", "--count=1", "--wait=1s"]).await?;
        let said = format!("{}{}", withheld.stdout, withheld.stderr);
        assert!(said.to_lowercase().contains("permissions violation"), "{said}");
        Ok(())
    })
}

#[test]
fn a_part_that_does_not_come_up_shows_its_log_at_once() -> Result<()> {
    scenario("broken_part", TEST, async |run| {
        let broken = Invocation::new("broken", "/bin/sh").args(["-c", "echo no such luck; exit 3"]);
        let mut process = Process::start(&run, broken)?;
        let error = process.until_ready(TEST, async || false).await.expect_err("it ended");
        let shown = format!("{error:#}");
        assert!(shown.contains("no such luck") && shown.contains("exit status: 3"), "{shown}");
        Ok(())
    })
}

#[test]
fn a_child_dies_with_its_parent_even_when_that_is_killed() -> Result<()> {
    scenario("orphan", TEST, async |run| {
        // The outer xtask is a harness of its own: its child must not outlive it.
        let xtask = env!("CARGO_BIN_EXE_xtask");
        let script = format!("'{xtask}' __launch $$ shared host sleep 1000 & echo $! > child; wait");
        let mut parent = Process::start(&run, Invocation::new("parent", "/bin/sh").args(["-c", &script]))?;
        let child = eventually("the child runs", SOON, async || {
            let number = std::fs::read_to_string(run.path().join("child")).ok()?;
            let number = number.trim().to_owned();
            let name = std::fs::read_to_string(format!("/proc/{number}/comm")).ok()?;
            (name.trim() == "sleep").then_some(number)
        })
        .await?;
        // To the parent alone, not to its group.
        let id = parent.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(id.context("an id")?, rustix::process::Signal::KILL)?;
        parent.until_ended(SOON).await?;
        eventually("the child is gone", SOON, async || {
            let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        })
        .await
    })
}

#[test]
fn a_failed_run_keeps_its_files_and_a_good_one_does_not() -> Result<()> {
    let mut places = Vec::new();
    for failing in [true, false] {
        let done = scenario("keeping", TEST, async |run| {
            places.push(run.path().to_owned());
            ensure!(!failing, "asked for");
            Ok(())
        });
        assert_eq!(done.is_err(), failing);
    }
    let [failed, good] = places.as_slice() else { anyhow::bail!("two runs") };
    assert!(failed.is_dir());
    assert!(!good.exists() || std::env::var_os("WARM_KEEP_RUN").is_some());
    std::fs::remove_dir_all(failed)?;
    Ok(())
}
