//! The rights that the code really uses.
//!
//! Owns the tables, one for each account, behind the chart's roles, the docs and the system tests, which give every process
//! exactly these rights: a forgotten row fails there.

use serde_json::{Value, json};

use super::token_keys::{DISCOVERY, KEYS};

/// Where a row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In every namespace, and for what is in none.
    Cluster,
    /// A path of the API server that is of no resource; every service account may usually read those.
    Path,
    /// In the controller's own namespace.
    OwnNamespace,
    /// There, for the Lease of the election alone. `create` cannot be limited so: its request has no name yet.
    OwnLease,
    /// There, for the Secrets that `init-nats` makes alone.
    OwnSecrets,
    /// There, for the `DaemonSet` of the cleanup alone.
    OwnDaemonSet,
}

impl Scope {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "everywhere",
            Self::Path => "a path",
            Self::OwnNamespace => "own namespace",
            Self::OwnLease => "own namespace, `leader.leaseName` only",
            Self::OwnDaemonSet => "own namespace, the DaemonSet of the cleanup only",
            Self::OwnSecrets => "own namespace, the Secrets of `init-nats` only",
        }
    }
}

/// One row: `verbs` on `resource` of `group`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// API group; empty is core.
    pub group: &'static str,
    /// Plural resource name, or a path.
    pub resource: &'static str,
    /// What is done.
    pub verbs: &'static [&'static str],
    /// Where.
    pub scope: Scope,
    /// What for.
    pub purpose: &'static str,
}

const WATCH: &[&str] = &["list", "watch"];

const fn watched(group: &'static str, resource: &'static str, purpose: &'static str) -> Access {
    Access { group, resource, verbs: WATCH, scope: Scope::Cluster, purpose }
}

const fn path(path: &'static str, purpose: &'static str) -> Access {
    Access { group: "", resource: path, verbs: &["get"], scope: Scope::Path, purpose }
}

const fn lease(verbs: &'static [&'static str], scope: Scope) -> Access {
    Access { group: "coordination.k8s.io", resource: "leases", verbs, scope, purpose: "election of the leader" }
}

/// What a controller uses. Nodes are patched without `create`: a server-side apply can never bring a Node into being.
pub const ACCESS: &[Access] = &[
    path(DISCOVERY, "issuer of service-account tokens"),
    path(KEYS, "keys of service-account tokens"),
    watched("", "namespaces", "selection; the UID of kube-system"),
    Access { verbs: &["list", "watch", "patch"], ..watched("", "nodes", "placement; labels") },
    watched("", "pods", "images that no template names; the agents' Pods"),
    watched("", "replicationcontrollers", "images"),
    watched("apps", "daemonsets", "images"),
    watched("apps", "deployments", "images"),
    watched("apps", "replicasets", "images"),
    watched("apps", "statefulsets", "images"),
    watched("batch", "cronjobs", "images"),
    watched("batch", "jobs", "images"),
    lease(&["create"], Scope::OwnNamespace),
    lease(&["get", "list", "watch", "update"], Scope::OwnLease),
    Access {
        verbs: &["create", "patch"],
        ..watched("events.k8s.io", "events", "failures and recoveries of images, told on their workloads")
    },
    watched("node.k8s.io", "runtimeclasses", "placement of workloads that name one"),
    watched("warm-images.dev", "imagesets", "images named by hand"),
    Access { verbs: &["patch"], ..watched("warm-images.dev", "imagesets/status", "how they are doing") },
];

/// What `warm-controller cleanup` uses, with an account of its own, once the controllers have gone.
pub const CLEANUP: &[Access] = &[
    Access { verbs: &["list", "patch"], ..watched("", "nodes", "labels and taints of ours") },
    secret(&["delete"], Scope::OwnSecrets),
    daemon_set(&["create"], Scope::OwnNamespace),
    daemon_set(&["get", "delete"], Scope::OwnDaemonSet),
    lease(&["delete"], Scope::OwnLease),
];

/// What `warm-controller init-nats` uses, with an account of its own, before anything else is there.
pub const INIT_NATS: &[Access] =
    &[secret(&["create"], Scope::OwnNamespace), secret(&["get", "update"], Scope::OwnSecrets)];

const fn secret(verbs: &'static [&'static str], scope: Scope) -> Access {
    Access { group: "", resource: "secrets", verbs, scope, purpose: "keys and passwords for NATS" }
}

const fn daemon_set(verbs: &'static [&'static str], scope: Scope) -> Access {
    Access { group: "apps", resource: "daemonsets", verbs, scope, purpose: "state of agents on the hosts" }
}

/// Names of the objects that rows are limited to. Rows without any are not granted: an empty list would grant all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// `leader.leaseName`.
    pub lease: Option<&'a str>,
    /// Secrets that `init-nats` makes.
    pub secrets: &'a [&'a str],
    /// The `DaemonSet` of the cleanup.
    pub daemon_set: Option<&'a str>,
}

impl Names<'_> {
    /// `None`: not limited.
    fn of(&self, scope: Scope) -> Option<Vec<&str>> {
        match scope {
            Scope::Cluster | Scope::Path | Scope::OwnNamespace => None,
            Scope::OwnLease => Some(self.lease.into_iter().collect()),
            Scope::OwnSecrets => Some(self.secrets.to_vec()),
            Scope::OwnDaemonSet => Some(self.daemon_set.into_iter().collect()),
        }
    }
}

/// The `ClusterRole` that grants those of `rows` that hold everywhere and nothing else.
pub fn cluster_role(rows: &[Access], name: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": { "name": name },
        "rules": rules(rows, |scope| matches!(scope, Scope::Cluster | Scope::Path), Names::default()),
    })
}

/// The `Role` that grants those of `rows` that hold in our own namespace and nothing else.
pub fn role(rows: &[Access], name: &str, namespace: &str, names: Names<'_>) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": { "name": name, "namespace": namespace },
        "rules": rules(rows, |scope| !matches!(scope, Scope::Cluster | Scope::Path), names),
    })
}

fn rules(rows: &[Access], is_granted: impl Fn(Scope) -> bool, names: Names<'_>) -> Vec<Value> {
    let rule = |row: &Access| {
        if row.scope == Scope::Path {
            return Some(json!({ "nonResourceURLs": [row.resource], "verbs": row.verbs }));
        }
        let names = names.of(row.scope);
        let mut rule = json!({ "apiGroups": [row.group], "resources": [row.resource], "verbs": row.verbs });
        if let (Some(names), Some(rule)) = (&names, rule.as_object_mut()) {
            rule.insert("resourceNames".to_owned(), json!(names));
        }
        (!names.is_some_and(|names| names.is_empty())).then_some(rule)
    };
    rows.iter().filter(|row| is_granted(row.scope)).filter_map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roles_grant_the_table_and_nothing_that_deletes_or_reads_secrets() {
        let (everywhere, own) = (
            cluster_role(ACCESS, "c"),
            role(ACCESS, "c", "warm", Names { lease: Some("the-lease"), ..Names::default() }),
        );
        let rules = everywhere["rules"].as_array().unwrap();
        assert_eq!(rules[3], json!({ "apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch", "patch"] }));
        let own = own["rules"].as_array().unwrap();
        assert_eq!(own[0]["verbs"], json!(["create"]));
        assert_eq!(own[1]["resourceNames"], json!(["the-lease"]));
        assert_eq!(rules.len() + own.len(), ACCESS.len());
        for row in ACCESS {
            assert_ne!(row.resource, "secrets");
            let allowed: &[&str] = match row.scope {
                Scope::Cluster if row.resource == "events" => &["create", "patch"],
                Scope::Cluster => &["list", "watch", "patch"],
                Scope::Path => &["get"],
                Scope::OwnNamespace => &["create"],
                Scope::OwnLease => &["get", "list", "watch", "update"],
                Scope::OwnSecrets | Scope::OwnDaemonSet => &[],
            };
            assert!(row.verbs.iter().all(|verb| allowed.contains(verb)), "{row:?}");
        }
    }

    #[test]
    fn the_cleanup_may_delete_what_is_named_and_nothing_else() {
        let lease = Names { lease: Some("the-lease"), ..Names::default() };
        let own = role(CLEANUP, "c", "warm", Names { secrets: &["a", "b"], ..lease });
        let of = |group: &str, resource: &str, names: &[&str]| json!({ "apiGroups": [group], "resources": [resource], "verbs": ["delete"], "resourceNames": names });
        let delete = of("coordination.k8s.io", "leases", &["the-lease"]);
        let create = json!({ "apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["create"] });
        assert_eq!(own["rules"], json!([of("", "secrets", &["a", "b"]), create, delete]));
        // An empty list of names would grant all of them.
        assert_eq!(role(CLEANUP, "c", "warm", lease)["rules"], json!([create, delete]));
    }

    #[test]
    fn rows_are_sorted_and_unique() {
        for rows in [ACCESS, CLEANUP] {
            let names: Vec<_> = rows.iter().map(|row| (row.group, row.resource, row.scope.as_str())).collect();
            let mut sorted = names.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(names, sorted);
        }
    }
}
