//! A real kube-controller-manager beside the API server: owns the process and which controllers run. Namespaces go away,
//! owners take their objects with them, Deployments become Pods, namespaces get a default service account only with it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;

use crate::apiserver::ApiServer;
use crate::parts::{Parts, Tool};
use crate::port::Port;
use crate::process::{Invocation, Process};
use crate::run::RunDir;

/// Enough for Deployments to become Pods and for namespaces to come and go.
pub const USUAL: &[&str] = &[
    "deployment-controller",
    "replicaset-controller",
    "namespace-controller",
    "garbage-collector-controller",
    SERVICE_ACCOUNTS,
];

const SERVICE_ACCOUNTS: &str = "serviceaccount-controller";
const READY: Duration = Duration::from_mins(1);

/// A running kube-controller-manager.
pub struct ControllerManager {
    process: Process,
    _port: Port,
}

impl ControllerManager {
    /// Starts the named controllers and waits until they work.
    pub async fn start(run: &Arc<RunDir>, parts: &Parts, api: &ApiServer, controllers: &[&str]) -> Result<Self> {
        let kubeconfig = api.kubeconfig_for("system:kube-controller-manager", None)?;
        let kubeconfig = kubeconfig.display();
        let port = Port::free()?;
        let invocation = Invocation::new("kube-controller-manager", parts.path(Tool::KubeControllerManager)?)
            .args([
                format!("--kubeconfig={kubeconfig}"),
                format!("--authentication-kubeconfig={kubeconfig}"),
                format!("--authorization-kubeconfig={kubeconfig}"),
                format!("--secure-port={}", port.number()),
                format!("--cert-dir={}", run.folder("pki/controller-manager")?.display()),
                format!("--service-account-private-key-file={}", api.token_key().display()),
                format!("--root-ca-file={}", api.pki().authority().display()),
                format!("--controllers={}", controllers.join(",")),
            ])
            .args([
                "--bind-address=127.0.0.1",
                "--leader-elect=false",
                // Each controller has the rights that a cluster gives it; the manager itself has hardly any.
                "--use-service-account-credentials=true",
                "--kube-api-qps=1000",
                "--kube-api-burst=2000",
                "--profiling=false",
                "--v=1",
            ]);
        let mut process = Process::start(run, invocation)?;
        let accounts: Api<ServiceAccount> = Api::namespaced(api.client(), "default");
        let address = port.address();
        process
            .until_ready(READY, async || {
                tokio::net::TcpStream::connect(address).await.context("its port")?;
                if controllers.contains(&SERVICE_ACCOUNTS) {
                    accounts.get("default").await.context("service account default")?;
                }
                anyhow::Ok(())
            })
            .await?;
        Ok(Self { process, _port: port })
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
