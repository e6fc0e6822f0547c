//! warm-agent: pulls what its node is to hold through CRI, verifies it, reports it.
//!
//! The agent thinks in `node_plan` and acts here: `bus/` and `cri/` are the only ways to the world, `act/` carries effects
//! out, `app` wires it all once.

pub mod act;
pub mod app;
pub mod begun;
pub mod bus;
pub mod config;
pub mod cri;
pub mod forget;
pub mod state_file;
