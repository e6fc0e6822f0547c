//! A real Kubernetes API server on a real etcd, RBAC on, loopback only: owns both processes, the cluster's authority and
//! the kubeconfigs. It runs no controllers (see `controller_manager`) and creates no objects.

mod audit;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper::Method;
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use crate::http::Http;
use crate::parts::{Parts, Tool};
use crate::pki::{Identity, Pki, Usage};
use crate::port::Port;
use crate::process::{Invocation, Process};
use crate::run::RunDir;

pub use audit::Request;

/// From nothing to ready: 3 s on a quiet machine, more when tests run side by side.
const READY: Duration = Duration::from_secs(90);

/// The issuer and the default audience of service-account tokens.
pub const TOKEN_ISSUER: &str = "https://kubernetes.default.svc";

/// A control plane without controllers.
pub struct ApiServer {
    run: Arc<RunDir>,
    pki: Pki,
    token_key: PathBuf,
    port: Port,
    _etcd_ports: [Port; 2],
    etcd_url: String,
    etcd: Process,
    server: Process,
    client: Client,
}

impl ApiServer {
    /// Starts etcd and the API server and waits until both are ready and the namespace `default` is there.
    pub async fn start(run: &Arc<RunDir>, parts: &Parts) -> Result<Self> {
        Self::begin(run, parts, None, &[]).await
    }

    /// The same with features that are not on by themselves.
    pub async fn start_with(run: &Arc<RunDir>, parts: &Parts, features: &[&str]) -> Result<Self> {
        Self::begin(run, parts, None, features).await
    }

    /// The same for nodes with kubelets, who reach it at `address` beside loopback.
    pub async fn start_for(run: &Arc<RunDir>, parts: &Parts, address: Ipv4Addr) -> Result<Self> {
        Self::begin(run, parts, Some(address), &[]).await
    }

    async fn begin(run: &Arc<RunDir>, parts: &Parts, address: Option<Ipv4Addr>, features: &[&str]) -> Result<Self> {
        let pki = Pki::new(run)?;
        let etcd_ports = [Port::free()?, Port::free()?];
        let [client_port, peer_port] = &etcd_ports;
        let etcd_url = format!("http://{}", client_port.address());
        let etcd = Process::start(run, etcd(run, parts, client_port, peer_port)?)?;
        let port = Port::free()?;
        let (token_key, token_public) = pki.key_pair("service-accounts")?;
        let policy = run.write("audit-policy.json", audit::policy())?;
        let invocation = server(parts, &pki, &port, &etcd_url, &token_key, &token_public, address)?
            .arg(format!("--audit-policy-file={}", policy.display()))
            .arg(format!("--audit-log-path={}", audit_log(run).display()))
            .args(feature_gates(features));
        // Beside etcd, not after it: the API server waits for etcd by itself.
        let server = Process::start(run, invocation)?;

        let admin = pki.issue("admin", "admin", Some("system:masters"), &[], Usage::Client)?;
        let client = connect(&kubeconfig(run, &pki, port.address(), "admin", &admin)?).await?;
        let mut started = Self {
            run: Arc::clone(run),
            pki,
            token_key,
            port,
            _etcd_ports: etcd_ports,
            etcd_url,
            etcd,
            server,
            client,
        };
        started.until_ready().await?;
        Ok(started)
    }

    /// What our own processes asked so far, in order.
    pub fn requests(&self) -> Result<Vec<Request>> {
        audit::read(&audit_log(&self.run))
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The kubeconfig with all rights.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.run.path().join("admin.kubeconfig")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// `https://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("https://{}", self.port.address())
    }

    /// The authority that signed the server's certificate and signs users'.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The key that signs service-account tokens.
    pub fn token_key(&self) -> &Path {
        &self.token_key
    }

    /// A kubeconfig for `user` in `group`, who has no rights until a binding gives some. A service account's rights are
    /// those of the user `system:serviceaccount:<namespace>:<name>`.
    pub fn kubeconfig_for(&self, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let file = user.replace([':', '/'], "-");
        let identity = self.pki.issue(&file, user, group, &[], Usage::Client)?;
        kubeconfig(&self.run, &self.pki, self.address(), &file, &identity)
    }

    /// A kubeconfig for `user` by way of a proxy at `address` that passes the bytes of TLS on.
    pub fn kubeconfig_by(&self, user: &str, address: SocketAddr) -> Result<PathBuf> {
        let file = format!("{user}-by-proxy");
        let identity = self.pki.issue(&file, user, None, &[], Usage::Client)?;
        kubeconfig(&self.run, &self.pki, address, &file, &identity)
    }

    /// A kubeconfig for a part of a node, by the address that nodes see.
    pub fn kubeconfig_at(&self, user: &str, group: Option<&str>, address: Ipv4Addr) -> Result<PathBuf> {
        let file = format!("{}-of-node", user.replace(':', "-"));
        let identity = self.pki.issue(&file, user, group, &[], Usage::Client)?;
        kubeconfig(&self.run, &self.pki, (address, self.port.number()).into(), &file, &identity)
    }

    /// A kubeconfig with all rights by way of `address`, where somebody passes the bytes of TLS on.
    pub fn admin_kubeconfig_by(&self, address: SocketAddr) -> Result<PathBuf> {
        let file = "admin-by-proxy";
        let identity = self.pki.issue(file, "admin", Some("system:masters"), &[], Usage::Client)?;
        kubeconfig(&self.run, &self.pki, address, file, &identity)
    }

    /// A kubeconfig that leads by plain HTTP to `address`, where somebody speaks TLS as `user`.
    pub fn kubeconfig_without_tls(&self, user: &str, address: SocketAddr) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": { "server": format!("http://{address}") } }],
            "users": [{ "name": user, "user": {} }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": user } }],
            "current-context": "test",
        });
        self.run.write(&format!("{user}-without-tls.kubeconfig"), serde_json::to_vec_pretty(&config)?)
    }

    /// A client for `user` that tries each request once: what a proxy needs to pass on what it gets.
    pub async fn client_once_for(&self, user: &str) -> Result<Client> {
        let mut config = config(&self.kubeconfig_for(user, None)?).await?;
        config.default_retry = false;
        Client::try_from(config).with_context(|| format!("connecting as {user}"))
    }

    /// A client for `user` in `group`, see [`Self::kubeconfig_for`].
    pub async fn client_for(&self, user: &str, group: Option<&str>) -> Result<Client> {
        connect(&self.kubeconfig_for(user, group)?).await
    }

    /// Waits until the API server answers as ready.
    pub async fn until_ready(&mut self) -> Result<()> {
        let http = Http::new();
        let health = format!("{}/health", self.etcd_url);
        self.etcd.until_ready(READY, async || http.answers(&health).await).await?;
        let client = &self.client;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        self.server
            .until_ready(READY, async || {
                let ready = hyper::Request::get("/readyz").body(Vec::new())?;
                client.request_text(ready).await.context("/readyz")?;
                // Made by the server itself a little after it calls itself ready.
                namespaces.get("default").await.context("namespace default")?;
                anyhow::Ok(())
            })
            .await
    }

    /// The API server's process, to kill, pause and restart; etcd keeps the objects.
    pub fn server(&mut self) -> &mut Process {
        &mut self.server
    }

    /// Signs service-account tokens with a new key from now on, and publishes it. Tokens of the last key stay good if it is
    /// `kept`. Restarts the server.
    pub async fn rotate_token_key(&mut self, kept: bool) -> Result<()> {
        let public = self.token_key.with_extension("pub");
        let old = std::fs::read_to_string(&public).context("the public key of tokens")?;
        self.pki.key_pair("service-accounts")?;
        if kept {
            let new = std::fs::read_to_string(&public).context("the public key of tokens")?;
            std::fs::write(&public, format!("{new}{old}")).context("both public keys of tokens")?;
        }
        self.restart().await
    }

    /// SIGKILL and start; returns when it answers. What its cache of watches held is gone.
    pub async fn restart(&mut self) -> Result<()> {
        self.server.restart()?;
        self.until_ready().await
    }

    /// Makes etcd forget every version of every object but the last: nobody can take up a watch from before.
    pub async fn compact(&self) -> Result<()> {
        let now = self.ask_etcd("range", &json!({ "key": "AA==" })).await?;
        let revision = now.pointer("/header/revision").context("etcd tells no revision")?;
        self.ask_etcd("compaction", &json!({ "revision": revision, "physical": true })).await.map(drop)
    }

    /// A call of etcd's JSON gateway (keys in base64).
    async fn ask_etcd(&self, call: &str, body: &Value) -> Result<Value> {
        let url = format!("{}/v3/kv/{call}", self.etcd_url);
        let answer = Http::new().send(Method::POST, &url, &[], serde_json::to_vec(body)?.into()).await?;
        serde_json::from_slice(&answer.success()?).with_context(|| format!("etcd's answer to {call}"))
    }

    /// etcd's process.
    pub fn etcd(&mut self) -> &mut Process {
        &mut self.etcd
    }
}

/// The flag that switches features on.
pub(crate) fn feature_gates(features: &[&str]) -> Option<String> {
    let gates: Vec<String> = features.iter().map(|feature| format!("{feature}=true")).collect();
    (!gates.is_empty()).then(|| format!("--feature-gates={}", gates.join(",")))
}

fn audit_log(run: &RunDir) -> PathBuf {
    run.path().join("audit.log")
}

fn etcd(run: &RunDir, parts: &Parts, client: &Port, peer: &Port) -> Result<Invocation> {
    let (client, peer) = (format!("http://{}", client.address()), format!("http://{}", peer.address()));
    Ok(Invocation::new("etcd", parts.path(Tool::Etcd)?)
        .args(["--name", "test", "--unsafe-no-fsync", "--log-level", "warn"])
        // Enough for the benchmark with 200,000 Pods; it is no reservation.
        .args(["--quota-backend-bytes", "8589934592", "--data-dir"])
        .arg(run.path().join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .arg("--initial-cluster")
        .arg(format!("test={peer}")))
}

fn server(
    parts: &Parts,
    pki: &Pki,
    port: &Port,
    etcd_url: &str,
    token_key: &Path,
    token_public: &Path,
    address: Option<Ipv4Addr>,
) -> Result<Invocation> {
    let names = ["127.0.0.1", "10.96.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let nodes_see = address.map(|address| address.to_string());
    let hosts: Vec<&str> = names.into_iter().chain(nodes_see.as_deref()).collect();
    let serving = pki.issue("apiserver", "kube-apiserver", None, &hosts, Usage::Server)?;
    let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    Ok(Invocation::new("kube-apiserver", parts.path(Tool::KubeApiserver)?)
        .args([
            format!("--etcd-servers={etcd_url}"),
            format!("--secure-port={}", port.number()),
            file("tls-cert-file", &serving.certificate),
            file("tls-private-key-file", &serving.key),
            file("client-ca-file", pki.authority()),
            file("service-account-key-file", token_public),
            file("service-account-signing-key-file", token_key),
            format!("--service-account-issuer={TOKEN_ISSUER}"),
            format!("--api-audiences={TOKEN_ISSUER}"),
        ])
        .args([
            "--anonymous-auth=false",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--allow-privileged=true",
            "--profiling=false",
            "--v=1",
        ])
        .args(seen_by_nodes(pki, nodes_see.as_deref())?))
}

/// Where it is reached, and how it reaches kubelets.
fn seen_by_nodes(pki: &Pki, address: Option<&str>) -> Result<Vec<String>> {
    let Some(address) = address else {
        // There is nothing behind the `kubernetes` Service, and nobody to write its endpoints for.
        let flags = ["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"];
        return Ok(flags.map(str::to_owned).into());
    };
    let group = Some("system:masters");
    let client = pki.issue("apiserver-kubelet", "kube-apiserver-kubelet-client", group, &[], Usage::Client)?;
    Ok(vec![
        // Every address of a network that is the run's own.
        "--bind-address=0.0.0.0".to_owned(),
        format!("--advertise-address={address}"),
        // Webhooks are called at the pods' addresses: there is no kube-proxy where the API server is.
        "--enable-aggregator-routing=true".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--kubelet-client-certificate={}", client.certificate.display()),
        format!("--kubelet-client-key={}", client.key.display()),
        format!("--kubelet-certificate-authority={}", pki.authority().display()),
    ])
}

fn kubeconfig(run: &RunDir, pki: &Pki, address: SocketAddr, name: &str, identity: &Identity) -> Result<PathBuf> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority": pki.authority(),
        }}],
        "users": [{ "name": name, "user": {
            "client-certificate": identity.certificate,
            "client-key": identity.key,
        }}],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": name } }],
        "current-context": "test",
    });
    // JSON is YAML, and nothing in it needs quoting by hand.
    run.write(&format!("{name}.kubeconfig"), serde_json::to_vec_pretty(&config)?)
}

async fn connect(kubeconfig: &Path) -> Result<Client> {
    let shown = || format!("connecting with {}", kubeconfig.display());
    Client::try_from(config(kubeconfig).await?).with_context(shown)
}

async fn config(kubeconfig: &Path) -> Result<Config> {
    let shown = || format!("reading {}", kubeconfig.display());
    let kubeconfig = Kubeconfig::read_from(kubeconfig).with_context(shown)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.with_context(shown)
}
