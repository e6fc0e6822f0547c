//! What stands between processes of ours and their peers where a test asks for it: owns those proxies. Members without one
//! speak to the peer itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{Installation, USER};
use crate::cluster::Cluster;
use crate::proxy::cri::CriProxy;
use crate::proxy::http::HttpProxy;
use crate::proxy::log::RequestLog;
use crate::proxy::tcp::TcpProxy;

/// How the controller reaches the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ApiRoute {
    #[default]
    Straight,
    /// By a proxy that sees requests.
    Http,
    /// By a proxy that sees bytes alone.
    Tcp,
}

/// The proxies of one installation, NATS' aside.
pub(super) enum Api {
    Straight,
    Http(HttpProxy),
    Tcp(TcpProxy),
}

impl Api {
    /// Starts what the route needs, and the kubeconfig that takes it.
    pub(super) async fn start(cluster: &Cluster, route: ApiRoute) -> Result<(Self, PathBuf)> {
        let api = &cluster.api;
        match route {
            ApiRoute::Straight => Ok((Self::Straight, api.kubeconfig_for(USER, None)?)),
            ApiRoute::Http => {
                let log = RequestLog::kept_as(cluster.run(), "api-requests");
                let proxy = HttpProxy::kubernetes("controller", api.client_once_for(USER).await?, &log).await?;
                let kubeconfig = api.kubeconfig_without_tls(USER, proxy.address())?;
                Ok((Self::Http(proxy), kubeconfig))
            }
            ApiRoute::Tcp => {
                let proxy = TcpProxy::start(api.address()).await?;
                let kubeconfig = api.kubeconfig_by(USER, proxy.address())?;
                Ok((Self::Tcp(proxy), kubeconfig))
            }
        }
    }
}

/// Proxies in front of runtimes, by node.
pub(super) type Runtimes = BTreeMap<String, CriProxy>;

/// Starts the proxy in front of the runtime of a node.
pub(super) fn intercept(cluster: &Cluster, node: &str) -> Result<CriProxy> {
    let socket = cluster.run().folder(node)?.join("cri.sock");
    let log = RequestLog::kept_as(cluster.run(), &format!("cri-{node}"));
    CriProxy::start(&socket, cluster.node(node)?.containerd.socket(), &log)
}

impl Installation {
    /// The proxy in front of the runtime of a node, see [`super::InstallationSpec::intercept_runtime`].
    pub fn runtime(&self, node: &str) -> Result<&CriProxy> {
        self.runtimes.get(node).with_context(|| format!("nothing stands before the runtime of {node}"))
    }

    /// The proxy through which the controller's requests to the API server go, see
    /// [`super::InstallationSpec::api_by_requests`].
    pub fn api_requests(&self) -> Result<&HttpProxy> {
        match &self.api {
            Api::Http(proxy) => Ok(proxy),
            Api::Straight | Api::Tcp(_) => anyhow::bail!("no HTTP proxy stands before the API server"),
        }
    }

    /// The proxy through which the controller's connections to the API server go, see
    /// [`super::InstallationSpec::api_by_bytes`].
    pub fn api_connections(&self) -> Result<&TcpProxy> {
        match &self.api {
            Api::Tcp(proxy) => Ok(proxy),
            Api::Straight | Api::Http(_) => anyhow::bail!("no TCP proxy stands before the API server"),
        }
    }
}
