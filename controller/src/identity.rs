//! Who a client of NATS is: the server asks, the agent's service-account token answers, and what is granted is signed here.
//!
//! Owns what makes a token that of an agent (`keys`, `token`), what a node's agent is then granted (`user`), and the loop
//! that answers the server (`callout`). Every replica answers, not the leader alone. Never writes to Kubernetes, and never
//! says, logs or keeps a token.

pub mod callout;
pub mod keys;
pub mod pods;
pub mod request;
pub mod ring;
pub mod settings;
pub mod token;
pub mod user;

pub use callout::Callout;
pub use settings::IdentitySettings;
