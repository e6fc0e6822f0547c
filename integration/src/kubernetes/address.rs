//! The addresses of a full cluster: owns who has which. All networks are the run's own, so every run has the same.

use std::net::Ipv4Addr;

use crate::network::Network;

/// Where the API server and the registry are, seen from nodes and pods.
pub const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// Where all pods are.
pub(super) const PODS: &str = "10.88.0.0/16";

/// The Service of cluster DNS.
pub(super) const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// The node's address; nodes are numbered from 1.
pub(super) fn of_node(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, 10_u8.saturating_add(number))
}

/// The subnet of the node's pods.
pub(super) fn pods_of(number: u8) -> String {
    format!("10.88.{number}.0/24")
}

/// What `ip` does where the control plane is: a bridge that all nodes hang on.
pub(super) fn control_plane(nodes: &[(u8, &Network)]) -> Vec<String> {
    let mut commands = vec![
        "link set lo up".to_owned(),
        "link add nodes type bridge".to_owned(),
        format!("addr add {CONTROL_PLANE}/24 dev nodes"),
        "link set nodes up".to_owned(),
    ];
    for (number, network) in nodes {
        let peer = network.path();
        commands.push(format!("link add to-{number} type veth peer name eth0 netns {}", peer.display()));
        commands.push(format!("link set to-{number} master nodes up"));
        commands.push(format!("route add {} via {}", pods_of(*number), of_node(*number)));
    }
    commands
}

/// What `ip` does on a node, after that.
pub(super) fn node(number: u8, all: u8) -> Vec<String> {
    let mut commands = vec![
        "link set lo up".to_owned(),
        format!("addr add {}/24 dev eth0", of_node(number)),
        "link set eth0 up".to_owned(),
        format!("route add default via {CONTROL_PLANE}"),
    ];
    let others = (1..=all).filter(|other| *other != number);
    commands.extend(others.map(|other| format!("route add {} via {}", pods_of(other), of_node(other))));
    commands
}
