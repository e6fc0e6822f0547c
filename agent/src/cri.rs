//! The container runtime, spoken to over CRI.
//!
//! Owns everything that knows CRI: the generated client, the socket, and what the runtime's answers mean in our words.
//! Hands out and takes nothing but types of `node_plan` and `shared`.

pub mod client;
mod containers;
pub mod error;
pub mod list;
pub mod observe;
pub mod pull;
mod remove;
pub mod socket;

pub use client::{Client, Settings};
pub use error::CriError;
pub use pull::Pulled;
pub use socket::Sockets;

/// Generated from `proto/runtime/v1/api.proto`. What runtimes send, before it is in our words.
pub mod proto {
    #![allow(missing_docs, reason = "generated; the proto file has the words")]
    #![allow(clippy::all, clippy::pedantic, reason = "generated; its style is the generator's")]

    tonic::include_proto!("runtime.v1");
}
