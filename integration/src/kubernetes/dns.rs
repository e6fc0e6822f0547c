//! Cluster DNS (`CoreDNS`): owns its image and its objects. It runs as a pod, as in any cluster.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::address::{CONTROL_PLANE, DNS};
use crate::cluster::REGISTRY;
use crate::image::Image;
use crate::parts::{Parts, Tool};

/// Its image, made of the built program.
pub(super) fn image(parts: &Parts) -> Result<Image> {
    let program = std::fs::read(parts.path(Tool::CoreDns)?).context("reading CoreDNS")?;
    Ok(Image::new("coredns", "1").file("/coredns", program).entrypoint(&["/coredns"]))
}

/// Its objects, to be applied.
pub(super) fn objects() -> Value {
    let meta = json!({ "name": "coredns", "namespace": "kube-system" });
    let role = json!({ "name": "system:coredns" });
    let labels = json!({ "k8s-app": "kube-dns" });
    let items = json!([
        { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": role,
            "rules": [
                {
                    "apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"],
                    "verbs": ["list", "watch"],
                },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": role,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns" },
            "subjects": [{ "kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system" }],
        },
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": { "Corefile": corefile() } },
        {
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": labels },
            "spec": {
                "clusterIP": DNS.to_string(),
                "selector": labels,
                "ports": [
                    { "name": "dns", "port": 53, "protocol": "UDP" },
                    { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
                ],
            },
        },
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": deployment(&labels) },
    ]);
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

fn deployment(labels: &Value) -> Value {
    json!({
        "replicas": 1,
        "selector": { "matchLabels": labels },
        "template": {
            "metadata": { "labels": labels },
            "spec": {
                "serviceAccountName": "coredns",
                // Its own names are for others.
                "dnsPolicy": "Default",
                "priorityClassName": "system-cluster-critical",
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "coredns",
                    "image": format!("{REGISTRY}/coredns:1"),
                    "args": ["-conf", "/etc/coredns/Corefile"],
                    "ports": [{ "containerPort": 53, "protocol": "UDP" }, { "containerPort": 53, "protocol": "TCP" }],
                    "readinessProbe": { "httpGet": { "path": "/ready", "port": 8181 }, "periodSeconds": 1 },
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "capabilities": { "add": ["NET_BIND_SERVICE"], "drop": ["ALL"] },
                        "readOnlyRootFilesystem": true,
                    },
                    "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns", "readOnly": true }],
                }],
                "volumes": [{ "name": "config", "configMap": { "name": "coredns" } }],
            },
        },
    })
}

fn corefile() -> String {
    format!(
        ".:53 {{\n  errors\n  ready :8181\n  cache 5\n  hosts {{\n    {CONTROL_PLANE} {REGISTRY}\n    fallthrough\n  }}\n  \
         kubernetes cluster.local in-addr.arpa ip6.arpa {{\n    pods insecure\n    ttl 5\n  }}\n}}\n"
    )
}
