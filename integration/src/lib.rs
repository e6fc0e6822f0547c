//! Everything that needs the world: the pinned real parts, the harness that starts, disturbs and stops them for a test,
//! and the `cargo xtask` commands. Nothing of the product imports it.
#![expect(
    clippy::disallowed_methods,
    reason = "the harness is the world around the product: it owns real clocks, tasks and the environment"
)]

pub mod apiserver;
pub mod chart;
pub mod cluster;
pub mod containerd;
pub mod controller_manager;
pub mod crictl;
pub mod describe;
pub mod eventually;
pub mod generate;
pub mod helm;
pub mod http;
pub mod image;
pub mod installation;
pub mod kubernetes;
pub mod launch;
pub mod listener;
pub mod monitoring;
pub mod nats;
pub mod network;
pub mod node;
pub mod outside;
pub mod package;
pub mod parts;
pub mod pki;
pub mod port;
pub mod process;
pub mod progress;
pub mod prometheus;
pub mod proxy;
pub mod registry;
pub mod replay;
pub mod run;
pub mod simulate;
pub mod system_program;
pub mod witness;
pub mod xtask;
