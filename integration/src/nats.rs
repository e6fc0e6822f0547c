//! A real NATS server with JetStream: owns the process, its port and store over restarts, its users' permissions, and the
//! `nats` CLI in a test's hand. What is published is none of its business.

mod config;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

use crate::eventually::eventually;
use crate::http::Http;
use crate::parts::{Parts, Tool};
use crate::port::Port;
use crate::process::{Invocation, Output, Process, output};
use crate::run::RunDir;

pub use config::{Account, NatsConfig, Permission, User};

const READY: Duration = Duration::from_secs(30);
const CLI: Duration = Duration::from_secs(30);

/// A running server.
pub struct Nats {
    run: Arc<RunDir>,
    cli: PathBuf,
    config: NatsConfig,
    port: Port,
    monitor: Port,
    store: PathBuf,
    process: Process,
    http: Http,
}

impl Nats {
    /// Starts a server and waits until JetStream is ready.
    pub async fn start(run: &Arc<RunDir>, parts: &Parts, config: NatsConfig) -> Result<Self> {
        let (port, monitor) = (Port::free()?, Port::free()?);
        let store = run.folder("nats")?;
        let file = write_config(run, &config, &port, &monitor, &store)?;
        let invocation = Invocation::new("nats-server", parts.path(Tool::NatsServer)?).arg("--config").arg(file);
        let process = Process::start(run, invocation)?;
        let run = Arc::clone(run);
        let cli = parts.path(Tool::Nats)?;
        let mut nats = Self { run, cli, config, port, monitor, store, process, http: Http::new() };
        nats.until_ready().await?;
        Ok(nats)
    }

    /// `nats://127.0.0.1:<port>`; the same after a restart.
    pub fn url(&self) -> String {
        format!("nats://{}", self.port.address())
    }

    /// Where it listens, for a proxy in front of it.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Accounts and users as of the last start or reload.
    pub fn config(&self) -> &NatsConfig {
        &self.config
    }

    /// Waits until it answers and JetStream has recovered.
    pub async fn until_ready(&mut self) -> Result<()> {
        let url = self.monitor_url("healthz");
        let http = &self.http;
        self.process.until_ready(READY, async || http.answers(&url).await).await
    }

    /// SIGTERM, as an orderly shutdown does it.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.terminate(Duration::from_secs(10)).await.map(drop)
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// SIGSTOP: connections stay open, nothing is answered.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// Starts it again after `stop` or `kill`, on the same port and store.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process.start_again()?;
        self.until_ready().await
    }

    /// SIGKILL and start: same port, same store.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.start_again().await
    }

    /// Removes everything JetStream stored. Only while the server is stopped.
    pub fn wipe_store(&mut self) -> Result<()> {
        self.ensure_stopped()?;
        std::fs::remove_dir_all(&self.store).context("wiping the store of NATS")?;
        std::fs::create_dir_all(&self.store).context("creating the store of NATS")
    }

    /// Copies everything JetStream stored, under a name. Only while the server is stopped: as a backup of its volume.
    pub fn keep_store(&self, name: &str) -> Result<()> {
        self.ensure_stopped()?;
        copy(&self.store, &self.run.folder(&format!("nats-{name}"))?)
    }

    /// Puts back what `keep_store` copied under that name, in place of what is there. Only while the server is stopped.
    pub fn put_back_store(&mut self, name: &str) -> Result<()> {
        self.wipe_store()?;
        copy(&self.run.folder(&format!("nats-{name}"))?, &self.store)
    }

    fn ensure_stopped(&self) -> Result<()> {
        ensure!(self.process.id().is_none(), "the store of a running NATS server is not to be touched; stop it first");
        Ok(())
    }

    /// Where JetStream keeps its files, to damage them while the server is stopped.
    pub fn store(&self) -> &std::path::Path {
        &self.store
    }

    /// Changes accounts, users and permissions of the running server; clients whose rights changed are told so.
    pub async fn reload(&mut self, config: NatsConfig) -> Result<()> {
        let before = self.loaded_at().await?;
        write_config(&self.run, &config, &self.port, &self.monitor, &self.store)?;
        self.config = config;
        self.process.hang_up()?;
        let log = self.process.log();
        eventually("NATS has taken in its new configuration", READY, async || {
            let now = self.loaded_at().await?;
            if now == before { Err(anyhow!("as before; its log is {}", log.display())) } else { Ok(()) }
        })
        .await
    }

    async fn loaded_at(&self) -> Result<String> {
        let varz = self.monitor("varz").await?;
        varz.get("config_load_time").and_then(Value::as_str).map(str::to_owned).context("no config_load_time in varz")
    }

    /// A page of the server's monitoring as JSON: `varz`, `connz?subs=1`, `jsz?streams=1` …
    pub async fn monitor(&self, page: &str) -> Result<Value> {
        let body = self.http.get(&self.monitor_url(page)).await?.success()?;
        serde_json::from_slice(&body).with_context(|| format!("the monitoring page {page}"))
    }

    fn monitor_url(&self, page: &str) -> String {
        format!("http://{}/{page}", self.monitor.address())
    }

    /// Runs the `nats` CLI as `user` and returns what it printed; an exit code other than 0 is an error.
    pub async fn cli(&self, user: &str, args: &[&str]) -> Result<String> {
        self.cli_output(user, args).await?.success()
    }

    /// Asks JetStream as `user`, by its API: `STREAM.PURGE.KV_a` with a body. An error that is answered is an error.
    pub async fn jetstream(&self, user: &str, call: &str, body: &Value) -> Result<Value> {
        let subject = format!("$JS.API.{call}");
        let answer = self.cli(user, &["request", "--raw", &subject, &body.to_string()]).await?;
        let answer: Value = serde_json::from_str(&answer).with_context(|| format!("{call} answers {answer}"))?;
        ensure!(answer.get("error").is_none(), "{call}: {answer}");
        Ok(answer)
    }

    /// Runs the `nats` CLI as `user`, whatever comes of it.
    pub async fn cli_output(&self, user: &str, args: &[&str]) -> Result<Output> {
        self.cli_through(self.address(), user, args).await
    }

    /// Runs the `nats` CLI as `user` against another address than the server's own: a proxy.
    pub async fn cli_through(&self, address: SocketAddr, user: &str, args: &[&str]) -> Result<Output> {
        let password = match user {
            "sys" => "sys",
            _ => &self.config.user(user).with_context(|| format!("no NATS user {user}"))?.password,
        };
        let invocation = Invocation::new("nats", &self.cli)
            .args(["--server", &format!("nats://{address}"), "--user", user, "--password", password])
            .args(args.iter().copied());
        output(&self.run, &invocation, CLI).await
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Copies what is in a folder into another.
fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target).with_context(|| format!("copying to {}", target.display()))?;
        }
    }
    Ok(())
}

fn write_config(
    run: &RunDir,
    config: &NatsConfig,
    port: &Port,
    monitor: &Port,
    store: &std::path::Path,
) -> Result<PathBuf> {
    let config = config.render(port.number(), monitor.number(), store);
    run.write("nats.conf", serde_json::to_vec_pretty(&config)?)
}
