//! The agent's machine against a small world: a bucket, a runtime and a clock that only move when told.

mod convergence;
mod presence;
mod properties;
mod pulling;
mod reporting;
mod restart;
mod syncing;
mod world;
