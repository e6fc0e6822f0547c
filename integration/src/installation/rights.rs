//! The controller's rights in Kubernetes: owns that a test's controllers have those of their table of access, and no other.

use anyhow::{Context as _, Result};
use controller::api::access;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

/// The namespace of the release.
pub const NAMESPACE: &str = "warm-images";

/// The Lease of the election.
pub const LEASE: &str = "warm-images-controller";

/// Makes the namespace of the release, and gives `user` the rights of a controller there.
pub async fn grant(client: &Client, user: &str) -> Result<()> {
    let params = PostParams::default();
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    Api::all(client.clone()).create(&params, &namespace).await.context("creating the namespace of the release")?;
    let role: ClusterRole = serde_json::from_value(access::cluster_role(user))?;
    Api::all(client.clone()).create(&params, &role).await.context("creating the controller's cluster role")?;
    let binding: ClusterRoleBinding = serde_json::from_value(binding_to("ClusterRole", user))?;
    Api::all(client.clone()).create(&params, &binding).await.context("binding the controller's cluster role")?;
    let role: Role = serde_json::from_value(access::role(user, NAMESPACE, LEASE))?;
    Api::namespaced(client.clone(), NAMESPACE)
        .create(&params, &role)
        .await
        .context("creating the controller's role")?;
    let binding: RoleBinding = serde_json::from_value(binding_to("Role", user))?;
    Api::namespaced(client.clone(), NAMESPACE)
        .create(&params, &binding)
        .await
        .context("binding the controller's role")?;
    Ok(())
}

fn binding_to(kind: &str, user: &str) -> Value {
    json!({
        "metadata": { "name": user },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": user },
        "subjects": [{ "kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io" }],
    })
}
