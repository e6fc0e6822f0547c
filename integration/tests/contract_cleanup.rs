//! `warm-controller cleanup` against a real API server and a real NATS server, with the rights of its table.
//!
//! The contract: afterwards no Node has a label or a taint of ours, over many pages of Nodes, and everything of others is as
//! it was; the Lease, the Secrets that were named and, when asked for, the buckets are gone; doing it again finds nothing;
//! what cannot be removed keeps nothing else, is said with its reason, and never takes longer than the limit.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use controller::api::access;
use futures::StreamExt as _;
use futures::stream;
use integration::apiserver::ApiServer;
use integration::installation::Programs;
use integration::installation::rights::{self, LEASE, NAMESPACE};
use integration::nats::{Nats, NatsConfig, User};
use integration::node::{NodeSpec, Nodes};
use integration::parts::{Parts, Tool};
use integration::process::{Invocation, Output, output};
use integration::proxy::tcp::TcpProxy;
use integration::run::{RunDir, scenario};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

const TEST: Duration = Duration::from_mins(3);
const USER: &str = "warm-images-cleanup";
const OURS: &str = "image.warm-images.dev/aaaaaaaaaaaaaaaaaaaaaaaaaa";
const SET: &str = "shop.set.warm-images.dev/base";

/// A control plane on which the system ran and left what it leaves.
struct Site {
    run: Arc<RunDir>,
    parts: Parts,
    api: ApiServer,
    program: PathBuf,
}

impl Site {
    async fn start(run: &Arc<RunDir>) -> Result<Self> {
        let parts = Parts::ensure(&[Tool::Etcd, Tool::KubeApiserver, Tool::NatsServer, Tool::Nats])?;
        let program = Programs::built()?.controller;
        let api = ApiServer::start(run, &parts).await?;
        rights::grant(&api.client(), "warm-images-controller").await?;
        let site = Self { run: Arc::clone(run), parts, api, program };
        let lease: Lease = serde_json::from_value(json!({ "metadata": { "name": LEASE } }))?;
        site.leases().create(&PostParams::default(), &lease).await?;
        for name in ["made-by-us", "made-by-us-too", "of-somebody-else"] {
            let secret: Secret = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
            site.secrets().create(&PostParams::default(), &secret).await?;
        }
        Ok(site)
    }

    fn nodes(&self) -> Nodes {
        Nodes::new(self.api.client())
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.api.client(), NAMESPACE)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.api.client(), NAMESPACE)
    }

    async fn names_of_secrets(&self) -> Result<Vec<String>> {
        let list = self.secrets().list(&ListParams::default()).await?;
        Ok(list.items.into_iter().filter_map(|secret| secret.metadata.name).collect())
    }

    async fn clean(&self, config: &Value, args: &[&str]) -> Result<Output> {
        let file = self.run.write("cleanup.yaml", serde_json::to_vec(config)?)?;
        let invocation = Invocation::new("cleanup", &self.program)
            .args(["cleanup", "--config"])
            .arg(file)
            .args(args.iter().copied())
            .env("WARM_POD_NAMESPACE", NAMESPACE);
        output(&self.run, &invocation, TEST).await
    }

    fn config(&self) -> Result<Value> {
        Ok(json!({ "kube": { "kubeconfig": self.api.kubeconfig_for(USER, None)? } }))
    }
}

fn taints(node: &Node) -> Vec<&str> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).map(|taint| taint.key.as_str()).collect()
}

#[test]
fn nothing_of_ours_is_left_and_everything_of_others_is() -> Result<()> {
    scenario("cleanup", TEST, async |run| {
        let site = Site::start(&run).await?;
        let all = ["made-by-us", "made-by-us-too", "never-made"];
        rights::grant_rows(&site.api.client(), USER, access::CLEANUP, &all).await?;
        // More than two pages, most of them with something of ours.
        let spec = |number: usize| {
            let spec = NodeSpec::new(format!("node-{number:03}")).label("team", "a").taint("gpu", "a100", "NoSchedule");
            match number % 3 {
                0 => spec,
                1 => spec.label(OURS, "d1").label(SET, "warm"),
                _ => spec.label(OURS, "d2").taint("warm-images.dev/cold", "", "NoSchedule"),
            }
        };
        let nodes = site.nodes();
        let made: Vec<_> = stream::iter(0..600)
            .map(async |number| nodes.create(&spec(number)).await)
            .buffer_unordered(8)
            .collect()
            .await;
        for node in made {
            node?;
        }

        let secrets = ["--secret", "made-by-us", "--secret", "made-by-us-too", "--secret", "never-made"];
        let refused = site.clean(&site.config()?, &["--limit", "2s", "--secret", "of-somebody-else"]).await?;
        ensure!(!refused.status.success(), "it deleted a Secret that its rights do not name");
        ensure!(
            refused.stderr.contains("of-somebody-else") && refused.stderr.contains("secrets: forbidden: "),
            "{}",
            refused.stderr
        );
        // What could not be removed kept nothing else.
        ensure!(
            refused.stderr.contains("600 labels and 200 taints from 400 nodes, state from 0 hosts, 1 leases"),
            "{}",
            refused.stderr
        );

        let said = site.clean(&site.config()?, &secrets).await?.success()?;
        ensure!(
            said.contains(
                "removed 0 labels and 0 taints from 0 nodes, state from 0 hosts, 0 leases, 2 secrets, 0 buckets"
            ),
            "{said}"
        );
        for node in nodes.api().list(&ListParams::default()).await? {
            let name = node.metadata.name.clone().context("a node without a name")?;
            ensure!(taints(&node).contains(&"gpu"), "{name} lost a taint of others");
            ensure!(
                !taints(&node).iter().any(|key| key.starts_with("warm-images.dev/")),
                "{name}: {:?}",
                taints(&node)
            );
            let has = node.metadata.labels.unwrap_or_default();
            ensure!(has.get("team").is_some_and(|team| team == "a"), "{name} lost a label of others");
            ensure!(!has.keys().any(|key| key.contains("warm-images.dev/")), "{name}: {has:?}");
        }
        ensure!(site.names_of_secrets().await? == ["of-somebody-else"], "{:?}", site.names_of_secrets().await?);
        ensure!(site.leases().get_opt(LEASE).await?.is_none(), "the Lease is left");
        Ok(())
    })
}

#[test]
fn buckets_go_when_asked_for_and_stay_otherwise() -> Result<()> {
    scenario("cleanup_buckets", TEST, async |run| {
        let site = Site::start(&run).await?;
        rights::grant_rows(&site.api.client(), USER, access::CLEANUP, &[]).await?;
        let users = ["controller", "admin"].map(|name| User::new(name, format!("{name}-password")));
        let nats = Nats::start(&run, &site.parts, NatsConfig::single_account(users.to_vec())).await?;
        let buckets = ["warm-default-intents", "warm-default-assign", "warm-default-nodes", "of-somebody-else"];
        for bucket in buckets {
            nats.cli("admin", &["kv", "add", bucket]).await?;
        }
        let mut config = site.config()?;
        let user = nats.config().user("controller").context("the controller's user")?;
        let password = run.write("password", &user.password)?;
        let login = json!({ "urls": [nats.url()], "user": user.name, "passwordFile": password });
        config.as_object_mut().context("a map")?.insert("nats".to_owned(), login);
        let left = async || -> Result<Vec<String>> {
            let names = nats.cli("admin", &["kv", "ls", "--names"]).await?;
            Ok(buckets
                .iter()
                .filter(|name| names.lines().any(|line| line.trim() == **name))
                .map(ToString::to_string)
                .collect())
        };
        site.clean(&config, &[]).await?.success()?;
        ensure!(left().await? == buckets, "{:?}", left().await?);
        let said = site.clean(&config, &["--buckets"]).await?.success()?;
        ensure!(said.contains("3 buckets"), "{said}");
        ensure!(left().await? == ["of-somebody-else"], "{:?}", left().await?);
        let said = site.clean(&config, &["--buckets"]).await?.success()?;
        ensure!(said.contains("0 buckets"), "{said}");
        Ok(())
    })
}

#[test]
fn a_silent_api_server_does_not_keep_the_uninstall() -> Result<()> {
    scenario("cleanup_silent", TEST, async |run| {
        let site = Site::start(&run).await?;
        let proxy = TcpProxy::start(site.api.address()).await?;
        proxy.stall();
        let config = json!({ "kube": { "kubeconfig": site.api.kubeconfig_by(USER, proxy.address())? } });
        let start = Instant::now();
        let said = site.clean(&config, &["--limit", "3s"]).await?;
        ensure!(!said.status.success(), "{}", said.stdout);
        ensure!(start.elapsed() >= Duration::from_secs(3), "it gave up after {:?}", start.elapsed());
        for left in ["labels and taints of nodes: there was no answer", "the lease: there was no answer"] {
            ensure!(said.stderr.contains(left), "{}", said.stderr);
        }
        Ok(())
    })
}
