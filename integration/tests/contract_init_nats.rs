//! `warm-controller init-nats` against a real API server, with the rights of its table.
//!
//! The contract: everything is made once, with the labels of the release; doing it again changes nothing; what is missing is
//! made beside what is there, and the servers' Secret follows; something that is no seed is said and left; a Secret of
//! somebody else's making keeps its labels and further keys; nothing that is made is ever printed; a right too few fails.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use controller::api::access::{self, Names};
use integration::apiserver::ApiServer;
use integration::installation::{NAMESPACE, Programs};
use integration::parts::{Parts, Tool};
use integration::process::{Invocation, Output, output};
use integration::run::{RunDir, scenario};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

const TEST: Duration = Duration::from_mins(2);
const USER: &str = "warm-images-init-nats";
const NAMES: [&str; 3] = ["w-nats-identity", "w-nats-server", "w-nats-users"];

struct Site {
    run: Arc<RunDir>,
    api: ApiServer,
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Site {
    async fn start(run: &Arc<RunDir>) -> Result<Self> {
        let parts = Parts::ensure(&[Tool::Etcd, Tool::KubeApiserver])?;
        let program = Programs::built()?.controller;
        let api = ApiServer::start(run, &parts).await?;
        let (client, params) = (api.client(), PostParams::default());
        let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
        Api::all(client.clone()).create(&params, &namespace).await?;
        let names = Names { secrets: &NAMES, ..Names::default() };
        let role: Role = serde_json::from_value(access::role(access::INIT_NATS, USER, NAMESPACE, names))?;
        Api::namespaced(client.clone(), NAMESPACE).create(&params, &role).await?;
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": { "name": USER },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": USER },
            "subjects": [{ "kind": "User", "name": USER, "apiGroup": "rbac.authorization.k8s.io" }],
        }))?;
        Api::namespaced(client, NAMESPACE).create(&params, &binding).await?;
        let kubeconfig = api.kubeconfig_for(USER, None)?;
        Ok(Self { run: Arc::clone(run), api, program, kubeconfig })
    }

    async fn init(&self, names: [&str; 3]) -> Result<Output> {
        let [identity, server, users] = names;
        let invocation = Invocation::new("init-nats", &self.program)
            .args(["init-nats", "--namespace", NAMESPACE, "--instance", "w", "--identity", identity])
            .args(["--server", server, "--users", users, "--kubeconfig"])
            .arg(&self.kubeconfig);
        output(&self.run, &invocation, Duration::from_secs(30)).await
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.api.client(), NAMESPACE)
    }

    /// What the three Secrets hold.
    async fn held(&self) -> Result<BTreeMap<String, BTreeMap<String, ByteString>>> {
        let mut held = BTreeMap::new();
        for name in NAMES {
            held.insert(name.to_owned(), self.secrets().get(name).await?.data.unwrap_or_default());
        }
        Ok(held)
    }

    async fn patch(&self, name: &str, change: serde_json::Value) -> Result<()> {
        self.secrets().patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
        Ok(())
    }
}

#[test]
fn keys_are_made_once_kept_and_completed_and_never_shown() -> Result<()> {
    scenario("init_nats", TEST, async |run| {
        let site = Site::start(&run).await?;
        let first = site.init(NAMES).await?.success()?;
        let made = site.held().await?;
        let keys = |name: &str| made.get(name).map(|data| data.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        ensure!(
            keys("w-nats-identity") == ["callout", "controller", "issuer", "xkey"],
            "{:?}",
            keys("w-nats-identity")
        );
        ensure!(keys("w-nats-server") == ["callout", "controller", "issuer", "routes", "xkey"]);
        ensure!(keys("w-nats-users") == ["operator", "reader"]);
        for name in NAMES {
            let labels = site.secrets().get(name).await?.metadata.labels.unwrap_or_default();
            let label = |key: &str| labels.get(&format!("app.kubernetes.io/{key}")).map(String::as_str);
            ensure!(label("managed-by") == Some("warm-images") && label("instance") == Some("w"), "{labels:?}");
        }

        let second = site.init(NAMES).await?.success()?;
        ensure!(site.held().await? == made, "the second time changed something");
        ensure!(
            second.lines().count() == 3 && second.lines().all(|line| line.ends_with("everything is there")),
            "{second}"
        );

        // Half of it is gone; somebody has put more there, and labels of their own.
        site.patch("w-nats-identity", json!({ "data": { "issuer": null, "more": "bW9yZQ==" } })).await?;
        site.patch("w-nats-server", json!({ "metadata": { "labels": { "team": "shop" } } })).await?;
        let third = site.init(NAMES).await?.success()?;
        let now = site.held().await?;
        let get = |of: &BTreeMap<String, BTreeMap<String, ByteString>>, name: &str, key: &str| {
            of.get(name).and_then(|data| data.get(key)).cloned().with_context(|| format!("{name} has no {key}"))
        };
        for key in ["controller", "callout", "xkey"] {
            ensure!(get(&now, "w-nats-identity", key)? == get(&made, "w-nats-identity", key)?, "another {key}");
            ensure!(get(&now, "w-nats-server", key)? == get(&made, "w-nats-server", key)?, "another {key}");
        }
        ensure!(get(&now, "w-nats-server", "routes")? == get(&made, "w-nats-server", "routes")?, "other routes");
        ensure!(
            get(&now, "w-nats-server", "issuer")? != get(&made, "w-nats-server", "issuer")?,
            "the server's issuer stays"
        );
        ensure!(get(&now, "w-nats-identity", "more")?.0 == b"more");
        let labels = site.secrets().get("w-nats-server").await?.metadata.labels.unwrap_or_default();
        ensure!(labels.get("team").map(String::as_str) == Some("shop"), "{labels:?}");

        let seed = get(&now, "w-nats-identity", "issuer")?;
        site.patch("w-nats-identity", json!({ "data": { "xkey": "UzNDUjNU" } })).await?;
        let refused = site.init(NAMES).await?;
        let said = refused.success().err().context("junk is taken for a seed")?.to_string();
        ensure!(said.contains("w-nats-server") && said.contains("`xkey` is no seed of a curve key"), "{said}");
        ensure!(get(&site.held().await?, "w-nats-identity", "issuer")? == seed, "junk beside it cost a key");

        for text in [&first, &second, &third, &said] {
            for value in made.values().chain(now.values()).flat_map(BTreeMap::values).filter(|value| value.0.len() > 4)
            {
                ensure!(!text.contains(std::str::from_utf8(&value.0)?), "a key is shown:\n{text}");
            }
            ensure!(!text.contains("S3CR3T"), "{text}");
        }

        // The role holds for these names alone.
        let foreign = site.init(["foreign", "w-nats-server", "w-nats-users"]).await?;
        let said = foreign.success().err().context("it may read any Secret")?.to_string();
        ensure!(said.contains("foreign") && said.contains("forbidden"), "{said}");
        Ok(())
    })
}
