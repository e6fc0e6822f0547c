//! The agent's thin side of NATS: what is sent, read and listened to.
//!
//! Owns subjects, headers and the form of what arrives; the connection itself is `daemon::bus`. Never decides: what
//! arrives becomes a fact, what is to be sent comes as an effect.

pub mod link;
pub mod pools;
pub mod publish;
pub mod read;
pub mod receive;
pub mod session;

pub use link::{Failure, Link};
