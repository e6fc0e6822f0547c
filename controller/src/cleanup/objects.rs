//! Objects that this process and `init-nats` made in our namespace, of which Helm knows nothing.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// Deletes the Lease of the election; says how many there were.
pub(super) async fn delete_lease(client: &Client, namespace: &str, name: &str) -> kube::Result<usize> {
    delete::<Lease>(client, namespace, &[name.to_owned()]).await
}

/// Deletes Secrets; says how many there were.
pub(super) async fn delete_secrets(client: &Client, namespace: &str, names: &[String]) -> kube::Result<usize> {
    delete::<Secret>(client, namespace, names).await
}

async fn delete<K>(client: &Client, namespace: &str, names: &[String]) -> kube::Result<usize>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let mut deleted = 0;
    let mut failed = None;
    for name in names {
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => deleted += 1,
            // Gone already.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            // The others go all the same.
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(deleted), Err)
}
