//! Agents that log in by service-account token: owns the keys of the auth callout, the agents' service account, their Pods
//! and tokens. Judging a token is the controllers' affair.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt as _};
use nkeys::{KeyPair, XKey};
use serde_json::{Value, json};

use super::rights::NAMESPACE;
use crate::run::RunDir;

/// The service account of the agents.
pub const AGENT_ACCOUNT: &str = "warm-images-agent";
/// The audience of their tokens.
pub const AUDIENCE: &str = "warm-images";

/// What `warm-controller init-nats` makes.
pub struct CalloutKeys {
    /// As which the controller logs in.
    pub controller: KeyPair,
    /// As which it answers.
    pub callout: KeyPair,
    /// With which it signs.
    pub issuer: KeyPair,
    /// To which questions are sealed.
    pub xkey: XKey,
}

impl CalloutKeys {
    /// New keys.
    pub fn new() -> Self {
        let (controller, callout) = (KeyPair::new_user(), KeyPair::new_user());
        Self { controller, callout, issuer: KeyPair::new_account(), xkey: XKey::new() }
    }

    /// What is merged over a controller's configuration; the seeds go into files of the run.
    pub fn controller_config(&self, run: &RunDir) -> Result<Value> {
        let file = |name: &str, seed: String| -> Result<PathBuf> { run.write(&format!("seeds/{name}"), seed) };
        Ok(json!({
            "nats": { "nkeySeedFile": file("controller", self.controller.seed()?)? },
            "identity": {
                "nkeySeedFile": file("callout", self.callout.seed()?)?,
                "issuerSeedFile": file("issuer", self.issuer.seed()?)?,
                "xkeySeedFile": file("xkey", self.xkey.seed()?)?,
            },
        }))
    }
}

impl Default for CalloutKeys {
    fn default() -> Self {
        Self::new()
    }
}

/// The Pods of agents, and tokens for them. There need be no kubelet.
#[derive(Clone)]
pub struct AgentPods {
    accounts: Api<ServiceAccount>,
    pods: Api<Pod>,
}

impl AgentPods {
    /// In the namespace of the release, which is there already.
    pub fn new(client: Client) -> Self {
        Self::in_namespace(client, NAMESPACE)
    }

    /// In another namespace.
    pub fn in_namespace(client: Client, namespace: &str) -> Self {
        Self { accounts: Api::namespaced(client.clone(), namespace), pods: Api::namespaced(client, namespace) }
    }

    /// Creates a service account.
    pub async fn create_account(&self, name: &str) -> Result<()> {
        let account: ServiceAccount = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        self.accounts.create(&PostParams::default(), &account).await.with_context(|| format!("creating {name}"))?;
        Ok(())
    }

    /// Creates the Pod `name` of `account` on `node`, and returns its UID.
    pub async fn create(&self, name: &str, account: &str, node: &str) -> Result<String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "app.kubernetes.io/component": "agent" } },
            "spec": {
                "nodeName": node, "serviceAccountName": account, "automountServiceAccountToken": false,
                "containers": [{ "name": "agent", "image": "agent" }],
            },
        }))?;
        let made = self.pods.create(&PostParams::default(), &pod).await.with_context(|| format!("creating {name}"))?;
        made.uid().context("a Pod without a UID")
    }

    /// Deletes a Pod at once, as if its kubelet had ended it.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let params = DeleteParams::default().grace_period(0);
        self.pods.delete(name, &params).await.with_context(|| format!("deleting {name}"))?;
        Ok(())
    }

    /// A token as a kubelet gets it for a volume of the Pod.
    pub async fn token(&self, pod: &str, uid: &str, account: &str, audience: &str) -> Result<String> {
        let bound = json!({ "kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid });
        self.request(account, json!({ "audiences": [audience], "expirationSeconds": 3600, "boundObjectRef": bound }))
            .await
    }

    /// A token that is bound to no Pod.
    pub async fn unbound_token(&self, account: &str, audience: &str) -> Result<String> {
        self.request(account, json!({ "audiences": [audience], "expirationSeconds": 3600 })).await
    }

    async fn request(&self, account: &str, spec: Value) -> Result<String> {
        let request: TokenRequest = serde_json::from_value(json!({ "metadata": {}, "spec": spec }))?;
        let made = self.accounts.create_token_request(account, &PostParams::default(), &request).await;
        let made = made.with_context(|| format!("a token of {account}"))?;
        let status = made.status.context("a TokenRequest without a status")?;
        status.token.context("a TokenRequest without a token")
    }
}

/// The Pod of a node's agent.
pub fn pod_of(node: &str) -> String {
    format!("{AGENT_ACCOUNT}-{node}")
}
