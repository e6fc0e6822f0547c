//! The Kubernetes API as this process uses it: how it connects, and which rights it needs.

pub mod access;
pub mod client;
pub mod failure;
pub mod image_set;
pub mod secret;
pub mod token_keys;
