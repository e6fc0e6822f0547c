//! warm-controller: watches workloads, publishes intents, turns evidence into node labels.
//!
//! Owns the ways in (`watch`, `bus`) and out (`act`) around the pure machine `cluster_plan::World`. Never decides.

pub mod act;
pub mod api;
pub mod app;
pub mod bus;
pub mod cleanup;
pub mod config;
pub mod doctor;
pub mod expression;
pub mod identity;
pub mod init_nats;
pub mod leader;
pub mod nats_keys;
pub mod readiness;
pub mod views;
pub mod watch;
