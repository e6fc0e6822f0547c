//! warm-images on a cluster of real parts: owns the start of controller and agents with their configuration, rights and
//! users, and what a test or a person asks of them. The parts themselves are `cluster`'s.

mod between;
mod bucket;
mod content;
pub mod definition;
pub mod identity;
pub mod login_storm;
mod nats_users;
mod programs;
mod question;
pub mod rights;
pub mod sets;
mod spec;
mod timings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Map, Value, json};

use crate::cluster::{Cluster, ClusterSpec};
use crate::http::Http;
use crate::node::NodeSpec;
use crate::port::Port;
use crate::process::{Invocation, Process};
use crate::proxy::cri::CriProxy;
use crate::proxy::tcp::TcpProxy;
use crate::run::RunDir;

use between::{Api, Runtimes};
pub use content::Content;
use identity::{AGENT_ACCOUNT, AUDIENCE, AgentPods, CalloutKeys, pod_of};
pub use nats_users::{accounts, agent_user, callout, reader, users};
pub use programs::Programs;
pub use question::{Row, deployment};
pub use rights::{LEASE, NAMESPACE};
pub use spec::InstallationSpec;
use spec::Logins;
use timings::test_timings;

/// No start of one of our processes takes longer on a busy machine.
const START: Duration = Duration::from_secs(30);

/// The Kubernetes user the controller is.
const USER: &str = "warm-images-controller";

/// A process of ours with its admin address.
pub struct Member {
    /// The process.
    pub process: Process,
    /// Its way to NATS.
    pub nats: TcpProxy,
    /// Its configuration file.
    pub config: PathBuf,
    admin: Port,
}

impl Member {
    /// `http://127.0.0.1:<port>`.
    pub fn admin(&self) -> String {
        format!("http://{}", self.admin.address())
    }
}

/// A running installation. Fields drop in this order: ours before the parts.
pub struct Installation {
    /// The controller: the first of them.
    pub controller: Member,
    /// The other controllers.
    pub others: Vec<Member>,
    /// The agents by node.
    pub agents: BTreeMap<String, Member>,
    runtimes: Runtimes,
    api: Api,
    /// The parts.
    pub cluster: Cluster,
    agent_config: Value,
    /// Agents log in by token.
    by_token: bool,
    programs: Programs,
    http: Http,
}

impl Installation {
    /// Starts parts, controller and agents, and waits until all are ready.
    pub async fn start(run: &Arc<RunDir>, spec: InstallationSpec) -> Result<Self> {
        let mut installation = Self::start_parts(run, spec).await?;
        installation.until_ready().await?;
        Ok(installation)
    }

    /// The same without waiting for readiness.
    pub async fn start_parts(run: &Arc<RunDir>, spec: InstallationSpec) -> Result<Self> {
        Box::pin(Self::launch(run, spec)).await
    }

    async fn launch(run: &Arc<RunDir>, spec: InstallationSpec) -> Result<Self> {
        let release = spec.release;
        let built = move || {
            if release { Programs::release() } else { Programs::built() }
        };
        let programs = tokio::task::spawn_blocking(built).await.context("building the programs")??;
        let names: Vec<&str> =
            spec.nodes.iter().map(NodeSpec::name).chain(spec.late.iter().map(String::as_str)).collect();
        let (nats, keys) = match spec.logins {
            Logins::OneAccount => (users("default", &names), None),
            Logins::TwoAccounts => (accounts("default", &names), None),
            Logins::Tokens => {
                let keys = CalloutKeys::new();
                (callout("default", &keys), Some(keys))
            }
        };
        let mut parts = ClusterSpec::new().nats(nats);
        for node in &spec.nodes {
            parts = parts.node(node.clone());
        }
        if let Some(bytes) = spec.disk {
            parts = parts.disk(bytes);
        }
        if spec.with_controllers {
            parts = parts.controllers();
        }
        let cluster = Cluster::start(run, parts).await?;
        let timings = if spec.with_defaults { (json!({}), json!({})) } else { test_timings() };
        let (api, kubeconfig) = Api::start(&cluster, spec.api).await?;
        definition::install(&cluster.client()).await?;
        rights::grant(&cluster.client(), USER).await?;
        let login = match &keys {
            Some(keys) => {
                AgentPods::new(cluster.client()).create_account(AGENT_ACCOUNT).await?;
                keys.controller_config(run)?
            }
            None => password_of(run, "controller", "controller")?,
        };
        let configs = [login, timings.0, spec.controller];
        let controller = start_controller(&cluster, &programs, &kubeconfig, 0, &configs).await?;
        let mut others = Vec::new();
        for number in 1..spec.controllers {
            others.push(start_controller(&cluster, &programs, &kubeconfig, number, &configs).await?);
        }
        let mut runtimes = Runtimes::new();
        for node in spec.intercepted {
            let proxy = between::intercept(&cluster, &node)?;
            runtimes.insert(node, proxy);
        }
        let mut agent_config = timings.1;
        merge(&mut agent_config, spec.agent);
        let mut installation = Self {
            controller,
            others,
            agents: BTreeMap::new(),
            runtimes,
            api,
            cluster,
            agent_config,
            by_token: keys.is_some(),
            programs,
            http: Http::new(),
        };
        for node in &spec.nodes {
            installation.start_agent(node.name()).await?;
        }
        Ok(installation)
    }

    /// Starts the agent of a node that has a runtime.
    pub async fn start_agent(&mut self, node: &str) -> Result<()> {
        let nats = self.cluster.nats_proxy().await?;
        let admin = Port::free()?;
        let run = Arc::clone(self.cluster.run());
        let login = self.agent_login(&run, node).await?;
        let runtime = self.cluster.node(node)?.containerd.socket();
        let mut config = json!({
            "nats": { "urls": [format!("nats://{}", nats.address())] },
            "runtime": { "socket": self.runtimes.get(node).map_or(runtime, CriProxy::socket) },
            "stateDir": run.folder(&format!("{node}/state"))?,
            "admin": { "listen": admin.address().to_string() },
            "log": { "filter": "info" },
            // How full the disk of the machine is that runs the tests must not decide them.
            "disk": { "mark": 100, "resume": 99 },
            "gc": { "high": 99, "low": 98 },
        });
        merge(&mut config, login);
        merge(&mut config, self.agent_config.clone());
        let config = run.write(&format!("{node}/agent.yaml"), serde_json::to_vec_pretty(&config)?)?;
        let process = self.cluster.spawn(
            Invocation::new(format!("warm-agent-{node}"), &self.programs.agent)
                .args(["run", "--config"])
                .arg(&config)
                .env("WARM_NODE_NAME", node)
                .mounts(self.cluster.node(node)?.containerd.mounts()),
        )?;
        self.agents.insert(node.to_owned(), Member { process, nats, config, admin });
        Ok(())
    }

    /// With a Pod of its own where agents log in by token.
    async fn agent_login(&self, run: &RunDir, node: &str) -> Result<Value> {
        if !self.by_token {
            return password_of(run, node, &agent_user(node));
        }
        let (pods, pod) = (AgentPods::new(self.cluster.client()), pod_of(node));
        let uid = pods.create(&pod, AGENT_ACCOUNT, node).await?;
        let token = run.write(&format!("{node}/token"), pods.token(&pod, &uid, AGENT_ACCOUNT, AUDIENCE).await?)?;
        Ok(json!({ "nats": { "tokenFile": token } }))
    }

    /// SIGKILLs the agent of a node and starts it again, with its state file or without it. Not waited for.
    pub fn restart_agent(&mut self, node: &str, with_state: bool) -> Result<()> {
        let file = self.cluster.run().path().join(node).join("state/state.json");
        let agent = self.agent(node)?;
        agent.process.kill()?;
        if !with_state && file.exists() {
            std::fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
        }
        agent.process.start_again()
    }

    /// The agent of a node.
    pub fn agent(&mut self, node: &str) -> Result<&mut Member> {
        self.agents.get_mut(node).with_context(|| format!("node {node} has no agent"))
    }

    /// Waits until controllers and agents say that they are ready.
    pub async fn until_ready(&mut self) -> Result<()> {
        let http = self.http.clone();
        let controllers = std::iter::once(&mut self.controller).chain(&mut self.others);
        for member in controllers.chain(self.agents.values_mut()) {
            until_ready(&http, member).await?;
        }
        Ok(())
    }

    /// Waits until one process is ready.
    pub async fn until_agent_ready(&mut self, node: &str) -> Result<()> {
        let http = self.http.clone();
        until_ready(&http, self.agent(node)?).await
    }

    /// Waits until the controller is ready.
    pub async fn until_controller_ready(&mut self) -> Result<()> {
        self.until_controller_ready_within(START).await
    }

    /// Waits so long until the controller is ready.
    pub async fn until_controller_ready_within(&mut self, limit: Duration) -> Result<()> {
        let http = self.http.clone();
        until_ready_within(&http, &mut self.controller, limit).await
    }

    /// Merges into the controller's configuration file, which it reads again by itself.
    pub fn reconfigure(&self, change: Value) -> Result<()> {
        let path = &self.controller.config;
        let mut config: Value = serde_json::from_slice(&std::fs::read(path)?)?;
        merge(&mut config, change);
        // As the kubelet does with a ConfigMap: the file is replaced, never half written.
        let next = path.with_extension("next");
        std::fs::write(&next, serde_json::to_vec_pretty(&config)?)?;
        std::fs::rename(&next, path).context("replacing the controller's configuration")
    }

    /// A number of every controller's `/metrics`, added up; controllers that do not answer count nothing.
    pub async fn over_controllers(&self, name: &str, labels: &str) -> f64 {
        let mut sum = 0.0;
        for member in std::iter::once(&self.controller).chain(&self.others) {
            sum += self.metric(&member.admin(), name, labels).await.unwrap_or_default();
        }
        sum
    }

    /// The programs under test.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }
}

async fn until_ready(http: &Http, member: &mut Member) -> Result<()> {
    until_ready_within(http, member, START).await
}

async fn until_ready_within(http: &Http, member: &mut Member, limit: Duration) -> Result<()> {
    let url = format!("{}/readyz", member.admin());
    let name = member.process.name().to_owned();
    member
        .process
        .until_ready(limit, async || {
            let answer = http.get(&url).await?;
            if answer.status.is_success() {
                return Ok(());
            }
            Err(anyhow!("{name} is not ready: {}", String::from_utf8_lossy(&answer.body)))
        })
        .await
}

async fn start_controller(
    cluster: &Cluster,
    programs: &Programs,
    kubeconfig: &Path,
    number: usize,
    configs: &[Value],
) -> Result<Member> {
    let run = cluster.run();
    let name = if number == 0 { "controller".to_owned() } else { format!("controller-{number}") };
    let (nats, admin) = (cluster.nats_proxy().await?, Port::free()?);
    let mut config = json!({
        "nats": { "urls": [format!("nats://{}", nats.address())] },
        "kube": { "kubeconfig": kubeconfig },
        "admin": { "listen": admin.address().to_string() },
        "log": { "filter": "info" },
    });
    for change in configs {
        merge(&mut config, change.clone());
    }
    let config = run.write(&format!("{name}/controller.yaml"), serde_json::to_vec_pretty(&config)?)?;
    let process = cluster.spawn(
        Invocation::new(format!("warm-{name}"), &programs.controller)
            .args(["run", "--config"])
            .arg(&config)
            .env("WARM_POD_NAME", format!("warm-images-controller-{number}"))
            .env("WARM_POD_NAMESPACE", NAMESPACE),
    )?;
    Ok(Member { process, nats, config, admin })
}

/// Logs in as `user`, whose password is the same word.
fn password_of(run: &RunDir, of: &str, user: &str) -> Result<Value> {
    let password = run.write(&format!("{of}/nats-password"), user)?;
    Ok(json!({ "nats": { "user": user, "passwordFile": password } }))
}

/// Merges objects deeply; anything else replaces.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Object(Map::new())), value);
            }
        }
        (into, from) => *into = from,
    }
}
