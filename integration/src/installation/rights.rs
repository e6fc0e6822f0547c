//! The controller's rights in Kubernetes: owns that a test's controllers have those of their table of access, and no other.

use anyhow::{Context as _, Result};
use controller::api::access::{self, Access, Names};
use controller::config::KindSettings;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

/// The namespace of the release.
pub const NAMESPACE: &str = "warm-images";

/// The Lease of the election.
pub const LEASE: &str = "warm-images-controller";

/// The `DaemonSet` of the cleanup.
pub const DAEMON_SET: &str = "warm-images-cleanup";

/// Makes the namespace of the release, and gives `user` the rights of a controller there.
pub async fn grant(client: &Client, user: &str) -> Result<()> {
    let params = PostParams::default();
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    Api::all(client.clone()).create(&params, &namespace).await.context("creating the namespace of the release")?;
    grant_rows(client, user, access::ACCESS, &[]).await
}

/// Gives `user` the rights of these rows in the namespace of the release, which is there. `secrets`: names of those that
/// `init-nats` makes.
pub async fn grant_rows(client: &Client, user: &str, rows: &[Access], secrets: &[&str]) -> Result<()> {
    let names = Names { lease: Some(LEASE), secrets, daemon_set: Some(DAEMON_SET) };
    let params = PostParams::default();
    let role: ClusterRole = serde_json::from_value(access::cluster_role(rows, user))?;
    Api::all(client.clone()).create(&params, &role).await.with_context(|| format!("the cluster role of {user}"))?;
    let binding: ClusterRoleBinding = serde_json::from_value(binding_to("ClusterRole", user))?;
    Api::all(client.clone()).create(&params, &binding).await.with_context(|| format!("binding it to {user}"))?;
    let namespaced = |what: &str| format!("{what} of {user} in {NAMESPACE}");
    let role: Role = serde_json::from_value(access::role(rows, user, NAMESPACE, names))?;
    let roles = Api::namespaced(client.clone(), NAMESPACE);
    roles.create(&params, &role).await.with_context(|| namespaced("the role"))?;
    let binding: RoleBinding = serde_json::from_value(binding_to("Role", user))?;
    let bindings = Api::namespaced(client.clone(), NAMESPACE);
    bindings.create(&params, &binding).await.with_context(|| namespaced("the binding"))?;
    Ok(())
}

/// Gives `user` what the chart grants for configured kinds: to list and watch them. The role is called `name`.
pub async fn grant_kinds(
    client: &Client,
    user: &str,
    name: &str,
    kinds: impl IntoIterator<Item = &KindSettings>,
) -> Result<()> {
    let reads = |kind: &KindSettings| json!({ "apiGroups": [kind.group], "resources": [kind.plural()], "verbs": ["list", "watch"] });
    let rules: Vec<Value> = kinds.into_iter().map(reads).collect();
    let params = PostParams::default();
    let role: ClusterRole = serde_json::from_value(json!({ "metadata": { "name": name }, "rules": rules }))?;
    Api::all(client.clone()).create(&params, &role).await.with_context(|| format!("the cluster role {name}"))?;
    let binding: ClusterRoleBinding = serde_json::from_value(binding("ClusterRole", name, user))?;
    Api::all(client.clone()).create(&params, &binding).await.with_context(|| format!("binding it to {user}"))?;
    Ok(())
}

fn binding_to(kind: &str, user: &str) -> Value {
    binding(kind, user, user)
}

fn binding(kind: &str, name: &str, user: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name },
        "subjects": [{ "kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io" }],
    })
}
