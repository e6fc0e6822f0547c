//! A real kube-scheduler beside the API server: owns the process. Without it no pod gets a node.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::apiserver::{self, ApiServer};
use crate::parts::{Parts, Tool};
use crate::port::Port;
use crate::process::{Invocation, Process};
use crate::run::RunDir;

const READY: Duration = Duration::from_mins(1);

/// A running kube-scheduler.
pub struct Scheduler {
    _process: Process,
    _port: Port,
}

impl Scheduler {
    /// Starts it and waits until it listens. `features`: those that are to be on and are not by themselves.
    pub async fn start(run: &Arc<RunDir>, parts: &Parts, api: &ApiServer, features: &[&str]) -> Result<Self> {
        let kubeconfig = api.kubeconfig_for("system:kube-scheduler", None)?;
        let port = Port::free()?;
        let invocation = Invocation::new("kube-scheduler", parts.path(Tool::KubeScheduler)?)
            .args(
                ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
                    .map(|flag| format!("--{flag}={}", kubeconfig.display())),
            )
            .args([
                format!("--secure-port={}", port.number()),
                format!("--cert-dir={}", run.folder("pki/scheduler")?.display()),
            ])
            .args(["--bind-address=127.0.0.1", "--leader-elect=false", "--kube-api-qps=1000"])
            .args(["--kube-api-burst=2000", "--profiling=false", "--v=1"])
            .args(apiserver::feature_gates(features));
        let mut process = Process::start(run, invocation)?;
        let address = port.address();
        process
            .until_ready(READY, async || tokio::net::TcpStream::connect(address).await.map(drop).context("its port"))
            .await?;
        Ok(Self { _process: process, _port: port })
    }
}
