//! The simulated universe: both real machines, and everything around them in memory, under one seed, one clock and one
//! queue of events.
//!
//! Owns the world around the machines and the invariants they must keep in it. Never decides anything that a machine
//! decides, never waits, never reads a clock: the same schedule gives the same run, whatever the machine it runs on.

mod agent;
mod api;
mod bus;
mod check;
mod connection;
mod controller;
mod dice;
mod election;
mod faults;
mod generate;
mod node;
mod oracle;
mod process;
mod queue;
mod refuted;
mod sabotage;
mod schedule;
mod sets;
mod settle;
mod shrink;
mod start;
mod universe;

pub use check::{Invariant, Violation};
pub use sabotage::Sabotage;
pub use schedule::Schedule;
pub use shrink::shrink;
pub use universe::{Interruption, Outcome, Telling, run, run_interrupted};
