//! The programs of the pinned set: owns their names, what each is built from, and which of them a light cluster needs.

/// A program of the pinned set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// The message server.
    NatsServer,
    /// Its command-line client.
    Nats,
    /// A registry (`crane registry serve`) and an image tool.
    Crane,
    /// The store of the API server.
    Etcd,
    /// The container runtime.
    Containerd,
    /// A command-line client of any container runtime.
    Crictl,
    /// What installs the chart.
    Helm,
    /// The Kubernetes API server.
    KubeApiserver,
    /// Its command-line client.
    Kubectl,
    /// The Kubernetes controllers.
    KubeControllerManager,
    /// What stands between containerd and runc, once a pod.
    ContainerdShim,
    /// CNI: a bridge for a node's pods.
    Bridge,
    /// CNI: the loopback device of a pod.
    Loopback,
    /// CNI: addresses for a node's pods.
    HostLocal,
    /// What chooses a node for a pod.
    KubeScheduler,
    /// What runs a node's pods.
    Kubelet,
    /// What makes Services' addresses lead to pods.
    KubeProxy,
    /// What answers for Services' names.
    CoreDns,
}

/// A Go module of ours that pins programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Module {
    /// Nearly all: what they share is compiled once.
    Parts,
    /// Cluster DNS, which wants other versions of the same libraries.
    Dns,
}

impl Module {
    pub(super) const ALL: [Self; 2] = [Self::Parts, Self::Dns];

    /// Its files: the text compiled in, not the files of a work tree, so that what is built is what the key was made of.
    pub(super) fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Parts => {
                &[("go.mod", include_str!("../../parts/go.mod")), ("go.sum", include_str!("../../parts/go.sum"))]
            }
            Self::Dns => &[
                ("go.mod", include_str!("../../parts/dns/go.mod")),
                ("go.sum", include_str!("../../parts/dns/go.sum")),
                ("main.go", include_str!("../../parts/dns/main.go")),
            ],
        }
    }
}

impl Tool {
    /// All of them, quick ones first: whoever waits for NATS need not wait for Kubernetes.
    pub const ALL: &'static [Self] = &[
        Self::NatsServer,
        Self::Crane,
        Self::Etcd,
        Self::Containerd,
        Self::Nats,
        Self::Crictl,
        Self::Helm,
        Self::KubeApiserver,
        Self::Kubectl,
        Self::KubeControllerManager,
        Self::ContainerdShim,
        Self::Bridge,
        Self::Loopback,
        Self::HostLocal,
        Self::KubeScheduler,
        Self::Kubelet,
        Self::KubeProxy,
        Self::CoreDns,
    ];

    /// What a cluster without kubelets is made of.
    pub const LIGHT: &'static [Self] = &[
        Self::NatsServer,
        Self::Crane,
        Self::Etcd,
        Self::Containerd,
        Self::Nats,
        Self::Crictl,
        Self::KubeApiserver,
        Self::Kubectl,
        Self::KubeControllerManager,
    ];

    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NatsServer => "nats-server",
            Self::Nats => "nats",
            Self::Crane => "crane",
            Self::Etcd => "etcd",
            Self::Containerd => "containerd",
            Self::Crictl => "crictl",
            Self::Helm => "helm",
            Self::KubeApiserver => "kube-apiserver",
            Self::Kubectl => "kubectl",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::ContainerdShim => "containerd-shim-runc-v2",
            Self::Bridge => "bridge",
            Self::Loopback => "loopback",
            Self::HostLocal => "host-local",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::CoreDns => "coredns",
        }
    }

    /// The Go package it is built from.
    pub(super) fn package(self) -> &'static str {
        match self {
            Self::NatsServer => "github.com/nats-io/nats-server/v2",
            Self::Nats => "github.com/nats-io/natscli/nats",
            Self::Crane => "github.com/google/go-containerregistry/cmd/crane",
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::Containerd => "github.com/containerd/containerd/v2/cmd/containerd",
            Self::Crictl => "sigs.k8s.io/cri-tools/cmd/crictl",
            Self::Helm => "helm.sh/helm/v4/cmd/helm",
            Self::KubeApiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Self::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Self::KubeControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Self::ContainerdShim => "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            Self::Bridge => "github.com/containernetworking/plugins/plugins/main/bridge",
            Self::Loopback => "github.com/containernetworking/plugins/plugins/main/loopback",
            Self::HostLocal => "github.com/containernetworking/plugins/plugins/ipam/host-local",
            Self::KubeScheduler => "k8s.io/kubernetes/cmd/kube-scheduler",
            Self::Kubelet => "k8s.io/kubernetes/cmd/kubelet",
            Self::KubeProxy => "k8s.io/kubernetes/cmd/kube-proxy",
            Self::CoreDns => ".",
        }
    }

    /// The module that pins it.
    pub(super) fn module(self) -> Module {
        match self {
            Self::CoreDns => Module::Dns,
            _ => Module::Parts,
        }
    }

    /// The program of that name.
    pub fn from_name(name: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|tool| tool.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|tool| tool.name()).collect();
            format!("no part `{name}`; there are {}", known.join(", "))
        })
    }
}
