//! The rights that the code really uses.
//!
//! Owns the one table behind the chart's `ClusterRole`, the docs and the system tests, which give the controller exactly
//! these rights: a forgotten row fails there.

use serde_json::{Value, json};

/// One row: `verbs` on `resource` of `group`, in every namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// API group; empty is core.
    pub group: &'static str,
    /// Plural resource name.
    pub resource: &'static str,
    /// What is done.
    pub verbs: &'static [&'static str],
    /// What for.
    pub purpose: &'static str,
}

const WATCH: &[&str] = &["list", "watch"];

/// The table. Nodes are patched without `create`: a server-side apply can never bring a Node into being.
pub const ACCESS: &[Access] = &[
    Access { group: "", resource: "namespaces", verbs: WATCH, purpose: "selection; the UID of kube-system" },
    Access { group: "", resource: "nodes", verbs: &["list", "watch", "patch"], purpose: "placement; labels" },
    Access { group: "", resource: "pods", verbs: WATCH, purpose: "images of Pods without a controller" },
    Access { group: "apps", resource: "daemonsets", verbs: WATCH, purpose: "images" },
    Access { group: "apps", resource: "deployments", verbs: WATCH, purpose: "images" },
    Access { group: "apps", resource: "statefulsets", verbs: WATCH, purpose: "images" },
];

/// The `ClusterRole` that grants the table and nothing else.
pub fn cluster_role(name: &str) -> Value {
    let rules: Vec<Value> = ACCESS
        .iter()
        .map(|row| json!({ "apiGroups": [row.group], "resources": [row.resource], "verbs": row.verbs }))
        .collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": { "name": name },
        "rules": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_grants_the_table_and_nothing_that_creates_deletes_or_reads_secrets() {
        let role = cluster_role("warm-images-controller");
        let rules = role["rules"].as_array().unwrap();
        assert_eq!(rules.len(), ACCESS.len());
        assert_eq!(rules[1], json!({ "apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch", "patch"] }));
        for row in ACCESS {
            assert_ne!(row.resource, "secrets");
            assert!(row.verbs.iter().all(|verb| ["list", "watch", "patch"].contains(verb)), "{row:?}");
        }
    }

    #[test]
    fn rows_are_sorted_and_unique() {
        let names: Vec<_> = ACCESS.iter().map(|row| (row.group, row.resource)).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }
}
