//! A node's kubelet and kube-proxy: owns their processes, identities and configuration. The node's machine and runtime
//! are there before them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::json;

use super::address::{self, CONTROL_PLANE};
use super::machine::Machine;
use super::runtime::SOCKET;
use crate::apiserver::ApiServer;
use crate::parts::{Parts, Tool};
use crate::pki::Usage;
use crate::process::{Invocation, Process};
use crate::run::RunDir;
use crate::system_program;

/// From nothing to a ready node: 1 s on a quiet machine.
const READY: Duration = Duration::from_mins(1);

/// Starts the kubelet and waits until the node is ready.
pub(super) async fn start_kubelet(
    run: &Arc<RunDir>,
    parts: &Parts,
    api: &ApiServer,
    machine: &Machine,
    node: &str,
    ip: Ipv4Addr,
) -> Result<Process> {
    let user = format!("system:node:{node}");
    let kubeconfig = api.kubeconfig_at(&user, Some("system:nodes"), CONTROL_PLANE)?;
    let host = ip.to_string();
    let file = format!("kubelet-{node}");
    let serving = api.pki().issue(&file, &user, Some("system:nodes"), &[node, &host], Usage::Server)?;
    // There is nobody to ask for names outside the cluster.
    let resolv = run.write(&format!("{node}/resolv.conf"), "")?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": host,
        "readOnlyPort": 0,
        "tlsCertFile": serving.certificate,
        "tlsPrivateKeyFile": serving.key,
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": api.pki().authority() },
        },
        "authorization": { "mode": "Webhook" },
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": machine.cgroup(),
        "failSwapOn": false,
        // One image that cannot be pulled must not hold up the node's others.
        "serializeImagePulls": false,
        "makeIPTablesUtilChains": false,
        "oomScoreAdj": 0,
        "resolvConf": resolv,
        "clusterDomain": "cluster.local",
        "clusterDNS": [address::DNS.to_string()],
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%",
        },
        "nodeStatusUpdateFrequency": "2s",
        "nodeLeaseDurationSeconds": 10,
        "syncFrequency": "10s",
    });
    let config = run.write(&format!("{node}/kubelet.json"), serde_json::to_vec_pretty(&config)?)?;
    let invocation = machine.invocation(file, parts.path(Tool::Kubelet)?)?.args([
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={node}"),
        format!("--node-ip={ip}"),
        "--v=2".to_owned(),
    ]);
    let mut kubelet = Process::start(run, invocation)?;
    let nodes: Api<Node> = Api::all(api.client());
    kubelet
        .until_ready(READY, async || {
            let status = nodes.get(node).await?.status.unwrap_or_default();
            let ready = status.conditions.unwrap_or_default().into_iter().find(|condition| condition.type_ == "Ready");
            let ready = ready.context("no condition Ready")?;
            if ready.status == "True" { Ok(()) } else { Err(anyhow!("{}", ready.message.unwrap_or_default())) }
        })
        .await?;
    Ok(kubelet)
}

/// Starts kube-proxy; it has nothing to wait for.
pub(super) fn start_proxy(
    run: &Arc<RunDir>,
    parts: &Parts,
    api: &ApiServer,
    machine: &Machine,
    node: &str,
) -> Result<Process> {
    system_program::find("nft")?;
    let kubeconfig = api.kubeconfig_at("system:kube-proxy", None, CONTROL_PLANE)?;
    let invocation: Invocation = machine
        .invocation(format!("kube-proxy-{node}"), parts.path(Tool::KubeProxy)?)?
        .args([
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--hostname-override={node}"),
            format!("--cluster-cidr={}", address::PODS),
        ])
        .args([
            "--proxy-mode=nftables",
            // The table of connections is the whole computer's: its limits are not a test's to set.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
            "--healthz-bind-address=127.0.0.1:10256",
            "--metrics-bind-address=127.0.0.1:10249",
            "--v=2",
        ]);
    Process::start(run, invocation)
}
