//! The vocabulary both sides of warm-images must agree on.
//!
//! Owns the words: image references, names, subjects, messages, labels, the metric table, states, reasons, backoff
//! and the [`machine::Machine`] trait. Never does I/O, never reads a clock, never spawns, knows no Kubernetes type.

pub mod backoff;
pub mod duration;
pub mod image;
pub mod label;
pub mod machine;
pub mod message;
pub mod metric;
pub mod name;
pub mod pairs;
pub mod permission;
pub mod pool_set;
pub mod reason;
pub mod state;
pub mod subject;
pub mod text;
pub mod wave;
